"""What is new in a fresh model starts as in an ordinary one, and only what may be new is."""

import pytest
import torch

from instructvla import InstructVLAConfig
from instructvla.fresh_weights import EMBEDDING, HEAD, initialize_new, new_tensors, weights_dtype
from instructvla.nano import untrained_nano
from instructvla.official_names import WeightAccount
from instructvla.streamed_checkpoint import meta_model

CONFIG = InstructVLAConfig.nano(state_dim=3)


def is_new(name: str) -> bool:
    part_of_expert = name.startswith("action_expert.") and not name.startswith("action_expert.vision.")
    return part_of_expert or "lora_" in name or "scale_head" in name or "film_" in name


def account_of_the_rest() -> tuple[WeightAccount, dict[str, tuple[int, ...]]]:
    """Sources that give everything but what is new, under the same names."""
    shapes = {name: tuple(tensor.shape) for name, tensor in meta_model(CONFIG, torch.float32).state_dict().items()}
    for name in (EMBEDDING, HEAD):
        shapes[name] = (CONFIG.query_token_id, shapes[name][1])
    return WeightAccount(used={name: [name] for name in shapes if not is_new(name)}), shapes


def test_new_tensors_are_the_adapters_film_and_the_action_expert():
    account, shapes = account_of_the_rest()
    new = new_tensors(meta_model(CONFIG, torch.float32), account, shapes)
    assert {name for names in new.values() for name in names} == {name for name in shapes if is_new(name)}
    assert new.keys() == {"LoRA of the adaptation experts", "scale head", "FiLM, as identity", "action expert"}


def test_anything_else_left_random_is_an_error_that_names_it():
    model = meta_model(CONFIG, torch.float32)
    account, shapes = account_of_the_rest()
    for name in account.used:
        others = WeightAccount(used={other: names for other, names in account.used.items() if other != name})
        with pytest.raises(ValueError, match=f"left random, as no source has them: {name}"):
            new_tensors(model, others, shapes)


def test_new_tensors_start_as_in_an_ordinary_model_and_the_rest_takes_no_memory():
    ordinary = untrained_nano(state_dim=3).state_dict()
    model = meta_model(CONFIG, torch.float32)
    initialize_new(model, [name for name in ordinary if is_new(name)], seed=0)
    for name, tensor in model.state_dict().items():
        assert tensor.is_meta is not is_new(name), name
        if not is_new(name):
            continue
        if ordinary[name].unique().numel() == 1:
            assert torch.equal(tensor, ordinary[name]), name
        else:
            assert tensor.std().item() == pytest.approx(ordinary[name].std().item(), rel=0.2), name
            assert tensor.mean().abs() < 0.2 * tensor.std(), name


def test_query_rows_have_the_language_models_range():
    rows = initialize_new(meta_model(CONFIG, torch.float32), [], seed=0)
    assert {name: tuple(tensor.shape) for name, tensor in rows.items()} == {EMBEDDING: (16, 192), HEAD: (16, 192)}
    for tensor in rows.values():
        assert tensor.std().item() == pytest.approx(CONFIG.text_config.initializer_range, rel=0.05)


def test_model_keeps_the_dtype_it_is_given():
    model = meta_model(CONFIG, torch.bfloat16)
    initialize_new(model, ["language_model.layers.0.self_attn.q_proj.lora_A"], seed=0)
    assert {tensor.dtype for tensor in model.state_dict().values()} == {torch.bfloat16}


def test_dtype_is_the_embeddings_or_the_one_asked_for():
    account = WeightAccount(used={EMBEDDING: ["e"], "action_expert.vision.cls_token": ["v"]})
    dtypes = {"e": torch.bfloat16, "v": torch.float32}
    assert weights_dtype(account, dtypes, None) == torch.bfloat16
    assert weights_dtype(account, dtypes, "float32") == torch.float32
    with pytest.raises(ValueError, match="--dtype is 'half', but it must be one of float32, bfloat16, float16"):
        weights_dtype(account, dtypes, "half")
    with pytest.raises(ValueError, match="v is torch.float8_e4m3fn"):
        weights_dtype(account, dtypes | {"v": torch.float8_e4m3fn}, None)
