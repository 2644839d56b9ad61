"""`instructvla doctor`: exit code, one line per finding, and no fault that hides another."""

import pytest
import torch
from typer.testing import CliRunner

from instructvla.evaluation import doctor
from instructvla.nano import untrained_nano
from tests.broken_checkpoints import broken_copy, config, processor, weights, without, written, zero


@pytest.fixture(scope="module")
def nano(tmp_path_factory):
    folder = tmp_path_factory.mktemp("nano")
    untrained_nano(state_dim=3, cameras=["primary", "wrist"]).save_pretrained(folder, max_shard_size="50MB")
    return folder


def examine(*arguments):
    result = CliRunner().invoke(doctor.app, [*map(str, arguments), "--device", "cpu"])
    found = [line.removeprefix("FINDING  ") for line in result.stdout.splitlines() if line.startswith("FINDING")]
    return result, found


def test_a_sound_checkpoint_is_well(nano):
    result, found = examine(nano)
    assert result.exit_code == 0 and found == []
    assert result.stdout.splitlines()[-1].startswith(f"{nano}: all is well, ")
    for check in ("files", "code", "weights", "values", "statistics", "fit", "versions", "semantics", "senses"):
        assert f" {check}: " in result.stdout


def poison(tensors):
    tensors["projector.norm.bias"][0] = float("nan")


FAULTS = {
    "NaN": (weights(poison), ["values: NaN"]),
    "no weights": (without("model.safetensors"), ["weights: neither"]),
    "blind VLM": (zero("projector.linear_2.weight"), ["zeros:", "senses: the picture", "senses: the picture"]),
    "swapped cameras": (processor(cameras=["wrist", "primary"]), ["fit: the processor's cameras"]),
    "query ids": (config(query_token_id=2000), ["fit: the processor's query_token_ids"]),
    "bad configuration": (config(horizon=0), ["config: can't be loaded: ValueError: horizon is 0"]),
    "no statistics": (processor(statistics=None, control_rate_hz={}), ["statistics: there are none"]),
    "bad statistics": (processor(statistics={"a": {}}, control_rate_hz={}), ["statistics: statistics['a']['action']"]),
    "stray control rate": (processor(control_rate_hz={"chair": 5.0}), ["statistics: control_rate_hz"]),
    "versions": (config(library_versions={"torch": "1.2.3"}), ["versions: torch 1.2.3 at saving"]),
    "released crop": (processor(action_crop_pct=0.875), ["semantics: crop_pct 0.875"]),
    "no processor": (without("processor_config.json"), ["files: processor_config.json"]),
    "no processor JSON": (written("processor_config.json", b"{"), ["processor: can't be loaded: ValueError"]),
    "processor field": (processor(action_crop_pc=1.0), ["processor: can't be loaded: ValueError"]),
    "tokenizer": (written("tokenizer.json", b'{"x": 1}'), ["processor: can't be loaded"]),
    "no index JSON": (written("model.safetensors.index.json", b"{"), ["weights: '"]),
    "index of nonsense": (
        written("model.safetensors.index.json", b'{"weight_map": {"a": 3}}'),
        ["weights: '"],
    ),
    "no code": (without("film_vision.py"), ["code: film_vision.py missing"]),
}


@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_gives_its_lines_and_exit_code_1(nano, tmp_path, name):
    change, expected = FAULTS[name]
    result, found = examine(broken_copy(nano, tmp_path, change))
    assert result.exit_code == 1, result.output
    assert len(found) == len(expected), found
    assert all(line.startswith(start) and " -> " in line for line, start in zip(found, expected, strict=True)), found
    assert f": {len(found)} finding" in result.stdout.splitlines()[-1]


def test_no_fault_hides_another(nano, tmp_path):
    def several(folder):
        for change in (
            weights(poison),
            without("film_vision.py"),
            without("tokenizer.json"),
            config(library_versions={"torch": "1.2.3"}),
            processor(statistics=None),
        ):
            change(folder)

    result, found = examine(broken_copy(nano, tmp_path, several))
    assert result.exit_code == 1
    assert sorted(line.split(":")[0] for line in found) == ["code", "files", "statistics", "values", "versions"]
    lines = result.stdout.splitlines()[:-1]
    assert [line.startswith("FINDING") for line in lines] == sorted(line.startswith("FINDING") for line in lines)


def test_what_is_no_checkpoint_is_an_error(nano, tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text('{"model_type": "qwen2"}')
    for arguments, message in [
        ([tmp_path / "none"], "is no folder here"),
        ([tmp_path], "has no config.json"),
        ([tmp_path / "other"], "a model of type 'qwen2'"),
        ([nano / "model.safetensors"], "is a file"),
        ([nano, "--unnorm-key", "untrain"], "the nearest is 'untrained'"),
    ]:
        result, _ = examine(*arguments)
        assert result.exit_code == 2 and result.stdout == ""
        assert result.stderr.startswith("error: ") and message in result.stderr
        assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("device", ["teapot", "meta", "cuda:99"])
def test_a_device_that_is_not_there_is_an_error(nano, device):
    result = CliRunner().invoke(doctor.app, [str(nano), "--device", device])
    assert result.exit_code == 2 and f"--device {device} can't be used" in result.stderr


def test_the_checkpoints_own_code_is_never_run(nano, tmp_path):
    def mine(folder):
        for name in ("configuration_instructvla.py", "modeling_instructvla.py", "processing_instructvla.py"):
            (folder / name).write_text("raise SystemExit('executed')\n")

    result, found = examine(broken_copy(nano, tmp_path, mine))
    assert result.exit_code == 0 and found == [], result.output
    assert "differs from the installed package" in result.stdout


def test_a_bfloat16_checkpoint_is_examined_in_float32_on_a_cpu(tmp_path):
    untrained_nano().to(torch.bfloat16).save_pretrained(tmp_path)
    model = doctor.load_model(tmp_path, torch.device("cpu"))
    assert model.dtype == torch.float32
