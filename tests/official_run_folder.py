"""A published run, and the base VLM it was trained from, as files on disk: from golden tensors, or of full size."""

import json
from pathlib import Path

import torch
from typer.testing import CliRunner

from instructvla import convert_official
from tests.parity import FIXTURES, load_fixture
from tests.tiny_processor import SPECIAL_TOKENS, byte_tokenizer
from tests.tiny_sources import eagle2_config, write_eagle2

MODULES = ("vision_model", "mlp1", "language_model", "action_model")
TOLD_BY_NO_TENSOR = ["action_expert_config.num_attention_heads=4", "action_vision_config.num_heads=2"]
SHARED_WEIGHTS = {
    "predict_action_stage1_state": "predict_action_stage1",
    "predict_action_stage1_wrist": "predict_action_stage1",
    "predict_action_stage2": "predict_action_stage2_generate",
}


def published_tensors(fixture: str) -> dict[str, dict[str, torch.Tensor]]:
    """{module: {official name: tensor}} of a `predict_action_*` fixture."""
    tensors = (
        published_tensors(SHARED_WEIGHTS[fixture]) if fixture in SHARED_WEIGHTS else {name: {} for name in MODULES}
    )
    for key, value in load_fixture(fixture)[0].items():
        if key.startswith("ckpt."):
            module, name = key.removeprefix("ckpt.").split(".", 1)
            tensors[module][name] = value
    return tensors


def write_run(folder: Path, fixture: str = "predict_action_stage1", model: dict | None = None) -> Path:
    """An official run folder; `model` replaces the fixture's tensors."""
    description = load_fixture(fixture)[1]
    sizes = description["config"]
    checkpoint = folder / "checkpoints" / "step-000001.pt"
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"model": model or published_tensors(fixture)}, checkpoint)
    settings = {"stage": description["stage"], "action_dim": 7}
    settings |= {"num_of_meta_query": sizes["num_queries"], "future_action_window_size": sizes["horizon"] - 1}
    (folder / "config.json").write_text(json.dumps(settings))
    (folder / "dataset_statistics.json").write_text(json.dumps(description["norm_stats"]))
    return folder


def write_base_vlm(folder: Path, fixture: str = "predict_action_stage1") -> Path:
    """The base VLM of a fixture: config.json in Eagle2's form, and the tokenizer."""
    sizes = load_fixture(fixture)[1]["config"]
    vision, text = dict(sizes["siglip"]), sizes["qwen2"]
    vision["hidden_act"] = vision.pop("act")
    language = {
        "hidden_size": text["hidden"],
        "intermediate_size": text["intermediate"],
        "num_hidden_layers": text["layers"],
        "num_attention_heads": text["heads"],
        "num_key_value_heads": text["kv_heads"],
        "vocab_size": text["vocab"] - sizes["num_queries"],
        "rope_theta": text["rope_theta"],
        "rms_norm_eps": text["rms_norm_eps"],
        "hidden_act": text["act"],
        "eos_token_id": text["eos_token_id"],
    }
    return write_eagle2(folder, eagle2_config(vision, language))


def published_keys(kind: str) -> dict[str, dict[str, tuple[int, ...]]]:
    """{module: {official name: shape}} of a kind of published checkpoint, at full size."""
    kinds = json.loads((FIXTURES / "published_keys.json").read_text())
    shapes = {}
    for module, names in kinds[kind].items():
        names = kinds[names][module] if isinstance(names, str) else names
        shapes[module] = {
            name.replace("#", str(index)): tuple(shape)
            for name, (shape, *count) in names.items()
            for index in range(count[0] if count else 1)
        }
    return shapes


def full_size_tensors(kind: str) -> dict[str, dict[str, torch.Tensor]]:
    """Tensors of full size that share one number each, so that their checkpoint is a small file."""
    vocabulary = len(byte_tokenizer(SPECIAL_TOKENS, num_queries=64))
    model: dict[str, dict[str, torch.Tensor]] = {}
    for module, names in published_keys(kind).items():
        is_table = {name: name.endswith(("embed_tokens.weight", "lm_head.weight")) for name in names}
        model[module] = {
            name: torch.zeros(()).expand((vocabulary, *shape[1:]) if is_table[name] else shape)
            for name, shape in names.items()
        }
    return model


def write_full_size_base_vlm(folder: Path) -> Path:
    """Eagle2-2B's sizes, with a small vocabulary."""
    vision = {
        "hidden_size": 1152,
        "intermediate_size": 4304,
        "num_hidden_layers": 27,
        "num_attention_heads": 16,
        "image_size": 448,
        "patch_size": 14,
        "hidden_act": "gelu_pytorch_tanh",
        "layer_norm_eps": 1e-6,
    }
    language = {
        "hidden_size": 1536,
        "intermediate_size": 8960,
        "num_hidden_layers": 28,
        "num_attention_heads": 12,
        "num_key_value_heads": 2,
        "vocab_size": 279,
        "rope_theta": 1e6,
        "rms_norm_eps": 1e-6,
        "hidden_act": "silu",
        "eos_token_id": 2,
    }
    return write_eagle2(folder, eagle2_config(vision, language))


def command(*arguments) -> tuple[int, str]:
    """Exit code, and what was written to both streams."""
    result = CliRunner().invoke(convert_official.app, [str(argument) for argument in arguments])
    return result.exit_code, result.output


def arguments(run: Path, base_vlm: Path, output: Path, *more) -> list:
    settings = [part for setting in TOLD_BY_NO_TENSOR for part in ("--set", setting)]
    return [run, "--base-vlm", base_vlm, "--output", output, *settings, *more]
