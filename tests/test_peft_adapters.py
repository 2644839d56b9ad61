"""Adaptation experts against PEFT itself: out, in and merged, with the same numbers; everything else is refused."""

import json
from functools import partial

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from instructvla import InstructVLAForConditionalGeneration
from instructvla.nano import nano_processor, untrained_nano
from instructvla.peft_adapters import (
    expert_adapter,
    export_peft,
    load_expert,
    merge_expert,
    plain_language_model,
    read_peft_adapter,
    write_peft_adapter,
)
from tests.parity import relative_error

TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "down_proj"]


def lively(experts: int, seed: int = 0) -> InstructVLAForConditionalGeneration:
    """A nano model whose experts matter."""
    adapters = {"experts": experts, "rank": 4, "alpha": 8}
    model = untrained_nano(seed, adapter_config=adapters)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model


class FixedGates(torch.nn.Module):
    """A scale head that gives all weight to one expert."""

    def __init__(self, expert: int):
        super().__init__()
        self.expert = expert

    def forward(self, hidden):
        gates = hidden.new_zeros(*hidden.shape[:-1], 2)
        gates[..., self.expert] = 1
        return gates


def prompt() -> dict[str, torch.Tensor]:
    return dict(nano_processor().tokenizer(["Take the sponge and clean the table."], return_tensors="pt"))


@torch.no_grad()
def logits(model) -> torch.Tensor:
    return model(**prompt()).logits


@pytest.fixture(scope="module")
def mixture():
    return lively(2)


@pytest.fixture(scope="module")
def single():
    return lively(1)


def peft_folder(folder, model, **settings) -> None:
    """An adapter of the plain language model, made, filled at random and saved by PEFT alone."""
    config = LoraConfig(**({"r": 4, "lora_alpha": 8, "target_modules": TARGETS, "task_type": "CAUSAL_LM"} | settings))
    torch.manual_seed(7)
    adapted = get_peft_model(plain_language_model(model), config)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    adapted.save_pretrained(folder)


def edit_config(folder, **values) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def edit_tensors(folder, change) -> None:
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


# Out


@pytest.mark.parametrize("expert", ["language", "action"])
def test_peft_on_the_plain_model_equals_the_expert_alone_at_gate_one(tmp_path, expert):
    model = lively(2)
    export_peft(model, expert, tmp_path / "adapter")
    adapted = PeftModel.from_pretrained(plain_language_model(model), tmp_path / "adapter").eval()
    theirs = logits(adapted)
    model.language_model.scale_head = FixedGates(["language", "action"].index(expert))
    assert relative_error(logits(model), theirs) < 1e-6  # the other expert adds zeros, in another order
    assert relative_error(logits(plain_language_model(model)), theirs) > 0.05


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_peft_with_the_single_expert_of_stage_one_is_bit_equal(tmp_path, dtype):
    model = lively(1).to(dtype)
    export_peft(model, "action", tmp_path)
    plain = plain_language_model(model)
    adapted = PeftModel.from_pretrained(plain, tmp_path, autocast_adapter_dtype=False).eval()
    assert torch.equal(logits(adapted), logits(model))


def test_exported_base_model_carries_the_adapter_after_loading_from_its_folder(tmp_path, single):
    export_peft(single, "action", tmp_path / "adapter", tmp_path / "base")
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    assert type(base).__name__ == "Qwen2ForCausalLM"
    assert base.config.vocab_size == single.config.text_config.vocab_size
    adapted = PeftModel.from_pretrained(base, tmp_path / "adapter").eval()
    assert relative_error(logits(adapted), logits(single)) < 1e-6  # mapped weights are not aligned
    assert adapted.peft_config["default"].base_model_name_or_path == str(tmp_path / "base")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "base")
    assert tokenizer("pick it up").input_ids == single.processor.tokenizer("pick it up").input_ids


def test_plain_language_model_shares_the_weights(mixture):
    plain = plain_language_model(mixture)
    own = mixture.language_model
    assert plain.model.embed_tokens.weight.data_ptr() == own.embed_tokens.weight.data_ptr()
    assert plain.lm_head.weight.data_ptr() == own.lm_head.weight.data_ptr()
    down = plain.model.layers[1].mlp.down_proj.weight
    assert down.data_ptr() == own.layers[1].mlp.down_proj.weight.data_ptr()


def test_exported_files_are_the_same_each_time(tmp_path, mixture):
    for name in ("first", "second"):
        export_peft(mixture, "language", tmp_path / name)
    for file in ("adapter_config.json", "adapter_model.safetensors"):
        assert (tmp_path / "first" / file).read_bytes() == (tmp_path / "second" / file).read_bytes()


def test_a_stage_one_model_has_no_language_expert(tmp_path, single):
    with pytest.raises(ValueError, match="no 'language' expert: it has action; the language expert comes with stage 2"):
        export_peft(single, "language", tmp_path / "adapter")
    assert not (tmp_path / "adapter").exists()


def test_the_adapter_does_not_go_over_a_model_or_its_base(tmp_path, single):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ValueError, match="holds a model; give the adapter a folder of its own"):
        export_peft(single, "action", tmp_path)
    with pytest.raises(ValueError, match="can't both go to"):
        export_peft(single, "action", tmp_path / "new", tmp_path / "new")


# In


@pytest.mark.parametrize("expert", ["language", "action"])
def test_round_trip_is_bit_exact_and_leaves_the_other_expert_alone(tmp_path, mixture, expert):
    export_peft(mixture, expert, tmp_path)
    other = lively(2, seed=1)
    before = {name: value.clone() for name, value in other.state_dict().items()}
    load_expert(other, expert, read_peft_adapter(tmp_path))
    index = ["language", "action"].index(expert)
    for name, value in other.state_dict().items():
        source = mixture.state_dict()[name]
        if name.endswith("lora_A"):
            assert torch.equal(value[index], source[index])
            assert torch.equal(value[1 - index], before[name][1 - index])
        elif name.endswith("lora_B"):
            assert torch.equal(value[:, index], source[:, index])
            assert torch.equal(value[:, 1 - index], before[name][:, 1 - index])
        else:
            assert torch.equal(value, before[name]), name


SCALINGS = {
    "the same scaling": {},
    "alpha of a power of two more": {"lora_alpha": 32},
    "any other alpha": {"lora_alpha": 3},
    "rank-stabilised": {"use_rslora": True},
    "rank-stabilised, any rank": {"use_rslora": True, "r": 3},
    "a smaller rank": {"r": 2},
    "all layers listed": {"layers_to_transform": [0, 1, 2]},
    "a regular expression": {"target_modules": r".*\.(q|k|v|o|up|down)_proj"},
}


@pytest.mark.parametrize("case", SCALINGS)
def test_an_adapter_made_by_peft_computes_the_same_here(tmp_path, case):
    model = lively(1)
    peft_folder(tmp_path, model, **SCALINGS[case])
    theirs = logits(PeftModel.from_pretrained(plain_language_model(model), tmp_path).eval())
    load_expert(model, "action", read_peft_adapter(tmp_path))
    assert relative_error(logits(model), theirs) < 1e-5


def test_a_scaling_apart_by_a_power_of_two_is_folded_exactly(tmp_path):
    model = lively(1)
    peft_folder(tmp_path, model, lora_alpha=64)  # 16 = 8 · ours
    load_expert(model, "action", read_peft_adapter(tmp_path))
    saved = load_file(tmp_path / "adapter_model.safetensors")
    matrix = saved["base_model.model.model.layers.0.mlp.up_proj.lora_B.weight"]
    assert torch.equal(model.language_model.layers[0].mlp.up_proj.lora_B[:, 0], 8 * matrix)


def test_old_pickled_adapters_are_read_without_running_code(tmp_path, single):
    export_peft(single, "action", tmp_path)
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_model.safetensors").unlink()
    torch.save(tensors, tmp_path / "adapter_model.bin")
    name = "layers.0.self_attn.q_proj.lora_A"
    expected = tensors[f"base_model.model.model.{name}.weight"]
    assert torch.equal(read_peft_adapter(tmp_path).matrices[name], expected)
    torch.save(tensors | {"code": partial(print)}, tmp_path / "adapter_model.bin")
    with pytest.raises(ValueError, match="adapter_model.bin is truncated, corrupt or no tensor file"):
        read_peft_adapter(tmp_path)


def test_embeddings_that_peft_saved_are_read_apart_and_must_be_the_models_own(tmp_path):
    model = lively(1)
    peft_folder(tmp_path, model, modules_to_save=["embed_tokens", "lm_head"])
    adapter = read_peft_adapter(tmp_path)
    assert sorted(adapter.embeddings) == ["embed_tokens", "lm_head"]
    assert len(adapter.matrices) == 2 * 6 * 3
    load_expert(model, "action", adapter)
    with torch.no_grad():
        model.language_model.embed_tokens.weight[0, 0] += 1
    with pytest.raises(ValueError, match=r"brings embed_tokens \(2048, 192\), which differs from this model's"):
        load_expert(model, "action", adapter)


def test_embeddings_survive_writing(tmp_path, single):
    rows = {name: getattr(single.language_model, name).weight.detach().clone() for name in ("embed_tokens", "lm_head")}
    write_peft_adapter(expert_adapter(single, "action")._replace(embeddings=rows), tmp_path)
    again = read_peft_adapter(tmp_path).embeddings
    assert all(torch.equal(again[name], rows[name]) for name in rows)


NOT_PLAIN_LORA = {
    "use_dora to True": {"use_dora": True},
    "bias to 'all'": {"bias": "all"},
    "rank_pattern to": {"rank_pattern": {"q_proj": 2}},
    "alpha_pattern to": {"alpha_pattern": {"q_proj": 2}},
    "trainable_token_indices to": {"trainable_token_indices": [0]},
    "a_later_variant to 3": {"a_later_variant": 3},
    "init_lora_weights of the adapter is 'pissa'": {"init_lora_weights": "pissa"},
    "peft_type is 'IA3'": {"peft_type": "IA3"},
    "r of the adapter is 0": {"r": 0},
    "lora_alpha of the adapter is '8'": {"lora_alpha": "8"},
    "which does not have its rank, 2": {"r": 2},
}


@pytest.mark.parametrize("message", NOT_PLAIN_LORA)
def test_settings_beyond_plain_lora_are_refused(tmp_path, single, message):
    export_peft(single, "action", tmp_path)
    edit_config(tmp_path, **NOT_PLAIN_LORA[message])
    with pytest.raises(ValueError, match=message):
        read_peft_adapter(tmp_path)


def test_settings_of_a_later_peft_that_are_not_used_do_not_matter(tmp_path, single):
    export_peft(single, "action", tmp_path)
    edit_config(tmp_path, a_later_variant=None, another=False)
    assert read_peft_adapter(tmp_path).config.r == 4


NAME = "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight"
BAD_TENSORS = {
    "holds extra.weight; only LoRA": lambda tensors: tensors.update({"extra.weight": torch.zeros(1)}),
    "lora_A but no layers.0.self_attn.q_proj.lora_B": lambda tensors: tensors.pop(NAME),
    "lora_B holds NaN": lambda tensors: tensors[NAME].fill_(torch.nan),
    "holds no LoRA matrix": lambda tensors: tensors.clear(),
}


@pytest.mark.parametrize("message", BAD_TENSORS)
def test_tensors_beyond_plain_lora_are_refused(tmp_path, single, message):
    export_peft(single, "action", tmp_path)
    edit_tensors(tmp_path, BAD_TENSORS[message])
    with pytest.raises(ValueError, match=message):
        read_peft_adapter(tmp_path)


MISFITS = {
    "does not adapt layers.0.self_attn.q_proj, layers.1": ({}, {"target_modules": TARGETS[1:]}),
    "adapts layers.0.mlp.gate_proj, layers.1": ({}, {"target_modules": [*TARGETS, "gate_proj"]}),
    "does not adapt layers.2.mlp.down_proj": ({}, {"layers_to_transform": [0, 1]}),
    "rank is 8, but this model's experts hold 4": ({}, {"r": 8}),
    "was made for another language model": ({"intermediate_size": 256}, {}),
    "does not adapt layers.2": ({"num_hidden_layers": 2}, {}),
}


@pytest.mark.parametrize("message", MISFITS)
def test_adapters_of_other_layers_or_sizes_are_refused_and_change_nothing(tmp_path, message):
    sizes, settings = MISFITS[message]
    model = lively(1)
    config = model.config.text_config.to_dict() | sizes
    config.pop("layer_types", None)
    other = untrained_nano(adapter_config={"experts": 0}, text_config=config)
    peft_folder(tmp_path, other, **settings)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ValueError, match=message):
        load_expert(model, "action", read_peft_adapter(tmp_path))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_folders_that_hold_no_adapter_are_refused(tmp_path, single):
    with pytest.raises(ValueError, match="is no PEFT adapter: it has no adapter_config.json"):
        read_peft_adapter(tmp_path)
    export_peft(single, "action", tmp_path)
    weights = tmp_path / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    with pytest.raises(ValueError, match="adapter_model.safetensors is truncated, corrupt"):
        read_peft_adapter(tmp_path)
    weights.unlink()
    with pytest.raises(ValueError, match="but no adapter_model.safetensors"):
        read_peft_adapter(tmp_path)
    (tmp_path / "adapter_config.json").write_text("{")
    with pytest.raises(ValueError, match="adapter_config.json is not JSON"):
        read_peft_adapter(tmp_path)


# Merging


def act(model, **arguments) -> torch.Tensor:
    pixels = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    noise = torch.randn(1, 16, 7, generator=torch.Generator().manual_seed(5))
    return model.generate_action(Image.fromarray(pixels), "pick it up", noise=noise, **arguments)


def test_merged_model_acts_the_same_with_fewer_parameters(single):
    merged = merge_expert(single)
    ours, theirs = act(merged), act(single)
    assert relative_error(ours.latent_actions, theirs.latent_actions) < 1e-5  # W + (α/r) B A is rounded once
    assert relative_error(ours.actions, theirs.actions) < 1e-5
    assert relative_error(logits(plain_language_model(single)), logits(single)) > 0.05
    lora = sum(value.numel() for name, value in single.state_dict().items() if "lora" in name)
    assert lora > 0
    assert merged.num_parameters() == single.num_parameters() - lora


def test_merging_leaves_the_model_as_it_was_and_shares_what_is_not_adapted():
    model = lively(1)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    merged = merge_expert(model)
    assert model.config.adapter_config.experts == 1
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert merged.language_model.lm_head.weight.data_ptr() == model.language_model.lm_head.weight.data_ptr()


def test_merged_model_loads_strictly_and_thinks_as_stage_one_does(tmp_path, single):
    merge_expert(single).save_pretrained(tmp_path)
    loaded = InstructVLAForConditionalGeneration.from_pretrained(tmp_path)
    assert loaded.config.adapter_config.experts == 0
    assert act(loaded).response == [None]
    assert torch.equal(act(loaded).actions, act(merge_expert(single)).actions)


def test_merging_rounds_once_from_float32(single):
    model = lively(1).to(torch.bfloat16)
    layer = model.language_model.layers[0].mlp.up_proj
    exact = layer.weight.double() + 2 * layer.lora_B[:, 0].double() @ layer.lora_A[0].double()
    merged = merge_expert(model).language_model.layers[0].mlp.up_proj.weight
    assert merged.dtype == torch.bfloat16
    assert ((merged.double() - exact).abs() <= exact.abs() * 2**-8 + 1e-6).all()  # half a unit in the last place


def test_a_mixture_and_a_merged_model_are_not_merged(mixture, single):
    with pytest.raises(ValueError, match="the scale head gates its experts anew for each token"):
        merge_expert(mixture)
    merged = merge_expert(single)
    with pytest.raises(ValueError, match="can't be merged: it has no experts"):
        merge_expert(merged)
    with pytest.raises(ValueError, match="no 'action' expert: it has none, as after a merge"):
        expert_adapter(merged, "action")
