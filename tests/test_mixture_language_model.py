"""The adapted language model against the authors' numbers, and its two caches against no cache."""

import pytest
import torch
from transformers import Qwen2Config

from instructvla.configuration_sections import AdapterConfig
from instructvla.mixture_language_model import MixtureCache, MixtureLanguageModel
from tests.parity import language_weights, load_fixture, qwen2_config, relative_error

TOLERANCE = 1e-4  # float32, as the golden tensors' README asks
STAGES = {"lora_llm": 1, "xlora_llm": 2}


def golden_model(name: str, attention: str) -> tuple[MixtureLanguageModel, dict[str, torch.Tensor]]:
    tensors, meta = load_fixture(name)
    config = qwen2_config(meta["config"]["qwen2"], attn_implementation=attention)
    lora = meta["config"]["lora"]
    adapters = AdapterConfig(rank=lora["r"], alpha=lora["alpha"], experts=STAGES[name], scale_head_size=24)
    model = MixtureLanguageModel(config, adapters).eval()
    model.load_state_dict(language_weights(tensors), strict=True)
    return model, tensors


@pytest.fixture(params=["eager", "sdpa"])
def attention(request):
    return request.param


@pytest.mark.parametrize("name", STAGES)
@torch.no_grad()
def test_hidden_states_logits_and_gates_equal_the_authors(name, attention):
    model, tensors = golden_model(name, attention)
    embeds, valid = tensors["in.inputs_embeds"], tensors["in.attention_mask"]
    assert torch.equal(model.embed_tokens(tensors["in.input_ids"]), embeds)
    hidden = model(embeds, valid.long())
    assert relative_error(hidden[valid], tensors["out.hidden_last"][valid]) < TOLERANCE
    assert relative_error(model.lm_head(hidden)[valid], tensors["out.logits"][valid]) < TOLERANCE


@torch.no_grad()
def test_scale_head_reads_the_base_models_hidden_states(attention):
    model, tensors = golden_model("xlora_llm", attention)
    captured = []
    model.scale_head.register_forward_hook(lambda module, args, gates: captured.append((args[0], gates)))
    valid = tensors["in.attention_mask"]
    model(tensors["in.inputs_embeds"], valid.long())
    base_hidden, gates = captured[0]
    assert relative_error(base_hidden[valid], tensors["out.base_hidden_last"][valid]) < TOLERANCE
    assert relative_error(gates[valid], tensors["out.scalings"][valid]) < TOLERANCE


@pytest.mark.parametrize("name", STAGES)
@torch.no_grad()
def test_greedy_decoding_with_caches_gives_the_tokens_of_recomputation(name, attention):
    model, tensors = golden_model(name, attention)
    embeds, cache = tensors["gen.in.prompt_embeds"], model.new_cache()
    mask = torch.ones(1, embeds.shape[1], dtype=torch.long)
    tokens, logits = [], []
    for _ in range(8):
        hidden = model(embeds, mask, cache)
        logits.append(model.lm_head(hidden[:, -1]))
        tokens.append(logits[-1].argmax(dim=-1))
        embeds = model.embed_tokens(tokens[-1].unsqueeze(1))
        mask = torch.cat([mask, mask[:, :1]], dim=1)
    assert torch.cat(tokens).tolist() == tensors["gen.clean.tokens"].tolist()
    assert relative_error(torch.cat(logits), tensors["gen.clean.logits"]) < TOLERANCE


@torch.no_grad()
def test_left_padding_does_not_change_a_row(attention):
    model, tensors = golden_model("xlora_llm", attention)
    embeds = tensors["in.inputs_embeds"][:1, :9]
    alone = model(embeds, torch.ones(1, 9, dtype=torch.long))
    padded = torch.cat([torch.randn(1, 4, embeds.shape[-1]), embeds], dim=1)
    mask = torch.tensor([[0] * 4 + [1] * 9])
    assert relative_error(model(padded, mask)[:, 4:], alone) < 1e-5


@torch.no_grad()
def test_positions_are_counted_by_the_mask(attention):
    model, tensors = golden_model("xlora_llm", attention)
    mask = torch.tensor([[0, 0, 1, 1, 0, 1]])
    embeds = tensors["in.inputs_embeds"][:1, :6]
    given = model(embeds, mask, position_ids=torch.tensor([[0, 0, 0, 1, 1, 2]]))
    assert torch.equal(model(embeds, mask)[:, mask[0] == 1], given[:, mask[0] == 1])


def test_pass_one_has_no_gradient_and_pass_two_reaches_every_expert():
    model, tensors = golden_model("xlora_llm", "sdpa")
    base_hidden = []
    model.scale_head.register_forward_hook(lambda module, args, gates: base_hidden.append(args[0]))
    model(tensors["in.inputs_embeds"], tensors["in.attention_mask"].long()).sum().backward()
    assert not base_hidden[0].requires_grad
    for name, parameter in model.named_parameters():
        if "lora" in name or "scale_head" in name:
            assert parameter.grad.abs().sum() > 0, name
    for projection in ("q_proj", "up_proj"):
        module = model.layers[0].self_attn if projection == "q_proj" else model.layers[0].mlp
        assert (getattr(module, projection).lora_A.grad.flatten(1).abs().sum(dim=1) > 0).all()


def test_cache_operations_reach_both_passes():
    config = Qwen2Config(num_hidden_layers=1, hidden_size=8, num_attention_heads=2, num_key_value_heads=2)
    cache = MixtureCache(config)
    for half in (cache, cache.base):
        fill_with_row_numbers(half)
    cache.batch_repeat_interleave(2)
    assert cache.layers[0].keys.shape[0] == cache.base.layers[0].keys.shape[0] == 4
    cache.batch_select_indices(torch.tensor([0, 2]))
    cache.reorder_cache(torch.tensor([1, 0]))
    assert torch.equal(cache.layers[0].keys, cache.base.layers[0].keys)
    assert cache.layers[0].keys[0].unique().item() == 1
    cache.crop(-1)
    assert cache.get_seq_length() == cache.base.get_seq_length() == 2
    cache.reset()  # drops the tokens, or blanks them before transformers 5.20
    for half in (cache, cache.base):
        assert half.get_seq_length() == 0 or half.layers[0].keys.abs().sum() == 0


def fill_with_row_numbers(cache) -> None:
    rows = torch.tensor([0.0, 1.0]).view(2, 1, 1, 1).expand(2, 2, 3, 4)
    cache.update(rows, rows, 0)
