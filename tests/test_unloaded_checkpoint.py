"""Claims about checkpoints that the authors' unload_lora.py treated: the LoRA lies in a PEFT folder of its own."""

import json
from pathlib import Path

import pytest
import torch
from peft import LoraConfig
from safetensors.torch import save_file
from transformers import AutoModel

from instructvla.convert_official import plan_conversion
from instructvla.official_names import UNREACHABLE_BLOCKS
from tests.official_run_folder import (
    arguments,
    command,
    full_size_tensors,
    published_tensors,
    write_base_vlm,
    write_full_size_base_vlm,
    write_run,
)

STAGE_1 = "predict_action_stage1"


@pytest.fixture(scope="module")
def base_vlm(tmp_path_factory) -> Path:
    return write_base_vlm(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory, base_vlm) -> Path:
    """The stage-1 run, converted before anything was taken out of it."""
    folder = tmp_path_factory.mktemp("whole")
    code, output = command(*arguments(write_run(folder / "run"), base_vlm, folder / "out"))
    assert code == 0, output
    return folder / "out"


def state_of(folder: Path) -> dict[str, torch.Tensor]:
    return AutoModel.from_pretrained(folder).state_dict()


def test_an_unloaded_checkpoint_passes_at_full_size_with_its_adapter(tmp_path):
    model = full_size_tensors("stage1_expert")
    unloaded = full_size_tensors("stage1_expert_unloaded_by_unload_lora")
    run = write_run(tmp_path / "run", model=unloaded)
    (run / "config.json").unlink()
    adapter = write_adapter(tmp_path / "adapter", model["language_model"], rank=128)
    plan = plan_conversion(run, write_full_size_base_vlm(tmp_path / "base"), adapter=adapter)
    assert plan.model.config.adapter_config.rank == 128
    assert UNREACHABLE_BLOCKS in plan.account.dropped


def write_adapter(folder: Path, language_model: dict[str, torch.Tensor], rank: int, repeat: bool = False) -> Path:
    """What `unload_lora.py` writes: the LoRA of a stage-1 language model as a PEFT folder."""
    targets = ["q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "down_proj"]
    LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=targets, lora_dropout=0.05).save_pretrained(folder)
    matrices = {
        name.replace(".default.weight", ".weight"): tensor.clone()
        for name, tensor in language_model.items()
        if ".lora_" in name or (repeat and ("embed_tokens" in name or "lm_head" in name))
    }
    save_file(matrices, folder / "adapter_model.safetensors")
    return folder


def unloaded_run(folder: Path) -> Path:
    """The stage-1 run after the authors' unload_lora.py: plain Qwen2 names, no LoRA."""
    model = published_tensors(STAGE_1)
    model["language_model"] = {
        name.removeprefix("base_model.model.").replace(".base_layer.", "."): tensor
        for name, tensor in model["language_model"].items()
        if ".lora_" not in name
    }
    return write_run(folder, model=model)


@pytest.mark.parametrize("repeat", [False, True])
def test_an_unloaded_checkpoint_and_its_adapter_make_the_same_model(tmp_path, base_vlm, whole, repeat):
    run = unloaded_run(tmp_path / "run")
    adapter = write_adapter(tmp_path / "adapter", published_tensors(STAGE_1)["language_model"], rank=4, repeat=repeat)
    code, output = command(*arguments(run, base_vlm, tmp_path / "out", "--adapter", adapter))
    assert code == 0, output
    state, expected = state_of(tmp_path / "out"), state_of(whole)
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[name], expected[name]) for name in state)
    report = json.loads((tmp_path / "out" / "conversion_report.json").read_text())
    assert report["used_tensors"] + report["dropped_tensors"] == report["source_tensors"] == 225 + 2 * repeat
    used = [name for names in report["used"].values() for name in names]
    assert "adapter: base_model.model.model.layers.0.mlp.up_proj.lora_A.weight" in used


def test_an_unloaded_checkpoint_without_its_adapter_is_refused(tmp_path, base_vlm):
    code, output = command(*arguments(unloaded_run(tmp_path / "run"), base_vlm, tmp_path / "out"))
    assert code == 2 and "--adapter FOLDER" in output
    assert not (tmp_path / "out").exists()


def test_an_adapter_of_another_run_is_refused(tmp_path, base_vlm):
    language = published_tensors(STAGE_1)["language_model"]
    language = {name: tensor + ("embed_tokens" in name) for name, tensor in language.items()}
    adapter = write_adapter(tmp_path / "adapter", language, rank=4, repeat=True)
    code, output = command(*arguments(unloaded_run(tmp_path / "run"), base_vlm, tmp_path / "out", "--adapter", adapter))
    assert code == 2 and "not of one run" in output


def test_an_adapter_beside_a_checkpoint_that_has_its_own_is_refused(tmp_path, base_vlm):
    run = write_run(tmp_path / "run")
    adapter = write_adapter(tmp_path / "adapter", published_tensors(STAGE_1)["language_model"], rank=4)
    code, output = command(*arguments(run, base_vlm, tmp_path / "out", "--adapter", adapter))
    assert code == 2 and "leave --adapter out" in output


def test_an_alpha_that_contradicts_the_adapter_folder_is_refused(tmp_path, base_vlm):
    adapter = write_adapter(tmp_path / "adapter", published_tensors(STAGE_1)["language_model"], rank=4)
    more = ["--adapter", adapter, "--set", "adapter_config.alpha=16"]
    code, output = command(*arguments(unloaded_run(tmp_path / "run"), base_vlm, tmp_path / "out", *more))
    assert code == 2 and "adapter_config.alpha is 16, but it must be 8" in output
