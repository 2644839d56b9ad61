"""Adaptation experts against PEFT itself: out and in, with the same numbers; what does not fit is refused."""

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen2Config

from instructvla.nano import untrained_nano
from instructvla.peft_adapters import export_peft, load_expert, plain_language_model
from instructvla.peft_files import read_peft_adapter
from tests.lively_experts import TARGETS, lively, logits, peft_folder
from tests.parity import relative_error


class FixedGates(torch.nn.Module):
    """A scale head that gives all weight to one expert."""

    def __init__(self, expert: int):
        super().__init__()
        self.expert = expert

    def forward(self, hidden):
        gates = hidden.new_zeros(*hidden.shape[:-1], 2)
        gates[..., self.expert] = 1
        return gates


@pytest.fixture(scope="module")
def mixture():
    return lively(2)


@pytest.fixture(scope="module")
def single():
    return lively(1)


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


def test_the_base_model_replaces_only_another_qwen2(tmp_path, single):
    single.save_pretrained(tmp_path / "robot")
    before = {path.name: path.read_bytes() for path in (tmp_path / "robot").iterdir() if path.is_file()}
    with pytest.raises(ValueError, match="robot holds a model; give the base model a folder of its own"):
        export_peft(single, "action", tmp_path / "adapter", tmp_path / "robot")
    assert {path.name: path.read_bytes() for path in (tmp_path / "robot").iterdir() if path.is_file()} == before
    assert not (tmp_path / "adapter").exists()
    for _ in range(2):
        export_peft(single, "action", tmp_path / "adapter", tmp_path / "base")
    assert Qwen2Config.from_pretrained(tmp_path / "base").hidden_size == single.config.text_config.hidden_size


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
