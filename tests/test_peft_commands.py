"""`instructvla export-peft`, `import-peft` and `merge` as a user calls them."""

import re
import shutil

import pytest
import torch
from transformers import SiglipConfig
from typer.testing import CliRunner

from instructvla import InstructVLAForConditionalGeneration
from instructvla.cli import app
from instructvla.nano import nano_processor, untrained_nano


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """Folders of a stage-1 and of a stage-2 model, and of a stage-1 model without statistics, as `init` writes it."""
    folder = tmp_path_factory.mktemp("checkpoints")
    for name, experts in (("stage-1", 1), ("stage-2", 2)):
        model = untrained_nano(adapter_config={"experts": experts, "rank": 32, "alpha": 64})
        for tensor, parameter in model.named_parameters():
            if "lora_B" in tensor:
                torch.nn.init.normal_(parameter, std=0.1)
        model.save_pretrained(folder / name)
        if experts == 1:
            model.processor = nano_processor(statistics=None, control_rate_hz=None)
            model.save_pretrained(folder / "fresh", allow_no_statistics=True)
    SiglipConfig().save_pretrained(folder / "other")
    return folder


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def last_line(text: str) -> str:
    return text.strip().splitlines()[-1]


def experts_of(folder) -> dict[str, torch.Tensor]:
    state = InstructVLAForConditionalGeneration.from_pretrained(folder).state_dict()
    return {name: value for name, value in state.items() if "lora_" in name}


def test_stage_ones_expert_travels_into_stage_two(tmp_path, checkpoints):
    out = run("export-peft", checkpoints / "stage-1", "--expert", "action", "--output", tmp_path / "adapter")
    assert out.exit_code == 0, out.output
    assert last_line(out.stdout) == f"{tmp_path / 'adapter'}: action expert, 18 linear layers, rank 32, alpha 64"
    arguments = (checkpoints / "stage-2", tmp_path / "adapter", "--expert", "action", "--output", tmp_path / "model")
    out = run("import-peft", *arguments)
    assert out.exit_code == 0, out.output
    assert "action expert from" in last_line(out.stdout)
    source, target = experts_of(checkpoints / "stage-1"), experts_of(tmp_path / "model")
    untouched = experts_of(checkpoints / "stage-2")
    for name, value in target.items():
        axis = 0 if name.endswith("lora_A") else 1
        assert torch.equal(value.select(axis, 1), source[name].select(axis, 0))
        assert torch.equal(value.select(axis, 0), untouched[name].select(axis, 0))


def test_base_model_is_written_when_asked(tmp_path, checkpoints):
    adapter, base = tmp_path / "adapter", tmp_path / "base"
    arguments = ("--expert", "language", "--output", adapter, "--base-output", base)
    out = run("export-peft", checkpoints / "stage-2", *arguments)
    assert out.exit_code == 0, out.output
    assert last_line(out.stdout).endswith(f"its base model in {base}")
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {path.name for path in base.iterdir()}


def test_merge_writes_a_smaller_model(tmp_path, checkpoints):
    out = run("merge", checkpoints / "stage-1", "--output", tmp_path / "merged")
    assert out.exit_code == 0, out.output
    merged, before = re.search(r"([\d.]+) M parameters instead of ([\d.]+) M", last_line(out.stdout)).groups()
    lora = sum(value.numel() for value in experts_of(checkpoints / "stage-1").values())
    assert float(before) - float(merged) == pytest.approx(lora / 1e6, abs=0.1)
    assert experts_of(tmp_path / "merged") == {}
    sizes = [(folder / "model.safetensors").stat().st_size for folder in (tmp_path / "merged", checkpoints / "stage-1")]
    assert sizes[0] < sizes[1] - 4 * 0.99 * lora


def test_a_model_without_statistics_stays_without(tmp_path, checkpoints):
    adapter, imported, merged = (tmp_path / name for name in ("adapter", "imported", "merged"))
    for command in (
        ("export-peft", checkpoints / "fresh", "--expert", "action", "--output", adapter),
        ("import-peft", checkpoints / "fresh", adapter, "--expert", "action", "--output", imported),
        ("merge", imported, "--output", merged),
    ):
        out = run(*command)
        assert out.exit_code == 0, out.output
    for folder in (imported, merged):
        assert not InstructVLAForConditionalGeneration.from_pretrained(folder).processor.statistics
    shutil.rmtree(merged)
    assert run("merge", checkpoints / "stage-1", "--output", merged).exit_code == 0
    assert InstructVLAForConditionalGeneration.from_pretrained(merged).processor.statistics


REFUSALS = {
    "no 'language' expert: it has action": "export-peft {stage_1} --expert language --output {new}",
    "no 'speech' expert: it has language, action": "export-peft {stage_2} --expert speech --output {new}",
    "can't both go to": "export-peft {stage_1} --expert action --output {new} --base-output {new}",
    "holds a model; give the adapter a folder": "export-peft {stage_1} --expert action --output {stage_2}",
    "give the base model a folder": "export-peft {stage_1} --expert action --output {new} --base-output {stage_2}",
    "no PEFT adapter: it has no adapter_config.json": "import-peft {stage_2} {stage_1} --expert action --output {new}",
    "the scale head gates its experts": "merge {stage_2} --output {new}",
    "is no checkpoint: it has no config.json": "merge {folder} --output {new}",
    "holds the model that is read; give another folder": "merge {stage_1} --output {stage_1}",
    "config.json is a file; give a folder": "merge {stage_1} --output {stage_1}/config.json",
    "is no folder here, and no Hub repository": "merge {folder}/nowhere --output {new}",
    "holds a model of type 'siglip'": "merge {folder}/other --output {new}",
}


@pytest.mark.parametrize("message", REFUSALS)
def test_wrong_input_is_one_line_and_writes_nothing(tmp_path, checkpoints, message):
    places = {"folder": checkpoints, "stage_1": checkpoints / "stage-1", "stage_2": checkpoints / "stage-2"}
    before = sorted(checkpoints.rglob("*"))
    out = run(*REFUSALS[message].format(**places, new=tmp_path / "new").split())
    assert out.exit_code == 2
    assert "error: " in last_line(out.stderr)
    assert message in last_line(out.stderr)
    assert not (tmp_path / "new").exists()
    assert sorted(checkpoints.rglob("*")) == before
