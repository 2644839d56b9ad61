"""Retention: with adapters off the model is the base VLM, bit for bit as plain transformers computes it."""

from functools import cache, partial

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import InternVLConfig, InternVLForConditionalGeneration

from instructvla.nano import nano_processor, untrained_nano
from instructvla.peft_adapters import plain_language_model

TEXTS = ["pick it up", "What is in the drawer, and which of the tools would you take?"]


def disturbed(model, seed: int = 3):
    """Every weight moved, so that no bias, norm, expert or gate is trivial."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    return model


def plain_vlm(model) -> InternVLForConditionalGeneration:
    """transformers' own SigLIP → pixel shuffle → projector → Qwen2, with a copy of our base weights."""
    config = model.config
    plain_config = InternVLConfig(
        vision_config=config.vision_config,
        text_config=config.text_config,
        image_token_id=config.image_token_id,
        downsample_ratio=config.projector.downsample_ratio,
        vision_feature_select_strategy="full",  # SigLIP has no class token to drop
        tie_word_embeddings=False,
        attn_implementation=config._attn_implementation,
    )
    plain = InternVLForConditionalGeneration._from_config(plain_config, dtype=model.dtype).eval()
    plain.model.vision_tower.load_state_dict(model.vision_model.state_dict())
    projector = {name.replace("norm.", "layer_norm."): value for name, value in model.projector.state_dict().items()}
    plain.model.multi_modal_projector.load_state_dict(projector)
    language = plain_language_model(model)
    plain.model.language_model.load_state_dict(language.model.state_dict())
    plain.lm_head.load_state_dict(language.lm_head.state_dict())
    return plain


@cache
def image_batch() -> dict[str, torch.Tensor]:
    """Two left-padded prompts with one image each, in float32."""
    pixels = np.random.default_rng(0).integers(0, 256, (2, 60, 80, 3), dtype=np.uint8)
    images = [Image.fromarray(image) for image in pixels]
    inputs = nano_processor().prompt_inputs(images, TEXTS, padding_side="left")
    assert inputs["attention_mask"][0, 0] == 0
    return dict(inputs)


@cache
def text_batch() -> dict[str, torch.Tensor]:
    return dict(nano_processor().tokenizer(TEXTS, padding=True, padding_side="left", return_tensors="pt"))


BATCHES = {"image": image_batch, "text": text_batch}


def case(model, kind: str) -> dict[str, torch.Tensor]:
    batch = BATCHES[kind]()
    return {name: value.to(model.dtype) if name == "pixel_values" else value for name, value in batch.items()}


def positions(inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """Counted by the mask, as transformers' `generate` does."""
    return (inputs["attention_mask"].cumsum(dim=1) - 1).clamp(min=0)


@pytest.fixture(
    scope="module",
    params=[
        (1, "eager", torch.float32),
        (2, "eager", torch.float32),
        (1, "sdpa", torch.float32),
        (2, "sdpa", torch.float32),
        (2, "sdpa", torch.bfloat16),
    ],
    ids=lambda param: f"{param[0]}-experts-{param[1]}-{str(param[2]).removeprefix('torch.')}",
)
def pair(request):
    """Our model with lively experts, and the plain VLM on its base weights."""
    experts, attention, dtype = request.param
    adapters = {"experts": experts, "rank": 8, "alpha": 16}
    model = disturbed(untrained_nano(adapter_config=adapters, attn_implementation=attention)).to(dtype)
    return model, plain_vlm(model)


@pytest.mark.parametrize("kind", BATCHES)
@torch.no_grad()
def test_logits_without_adapters_are_bit_equal_to_the_plain_vlm(pair, kind):
    model, plain = pair
    inputs = case(model, kind)
    valid = inputs["attention_mask"] == 1
    expected = plain(**inputs, position_ids=positions(inputs)).logits[valid]
    assert torch.equal(model(**inputs, adapters=False).logits[valid], expected)
    assert not torch.allclose(model(**inputs).logits[valid], expected, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("kind", BATCHES)
@torch.no_grad()
def test_chat_without_adapters_gives_the_plain_vlms_tokens(pair, kind):
    model, plain = pair
    arguments = {"max_new_tokens": 10, "min_new_tokens": 10, "do_sample": False}
    arguments["suppress_tokens"] = [model.config.image_token_id]
    ours = partial(model.generate, **case(model, kind), **arguments)
    expected = plain.generate(**case(model, kind), **arguments).tolist()
    assert ours(adapters=False).tolist() == expected
    assert ours(adapters=False, use_cache=False).tolist() == expected
    assert ours().tolist() != expected


@torch.no_grad()
def test_logits_without_adapters_are_bit_equal_to_the_plain_language_model(pair):
    model, _ = pair
    inputs = text_batch()
    valid = inputs["attention_mask"] == 1
    expected = plain_language_model(model)(**inputs, position_ids=positions(inputs)).logits[valid]
    assert torch.equal(model(**inputs, adapters=False).logits[valid], expected)


def test_text_loss_without_adapters_is_the_plain_vlms(pair):
    model, plain = pair
    inputs = case(model, "image")
    labels = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, -100)
    with torch.no_grad():
        ours = model(**inputs, labels=labels, adapters=False).lm_loss
        theirs = plain(**inputs, labels=labels, position_ids=positions(inputs)).loss
    torch.testing.assert_close(ours.float(), theirs.float(), rtol=1e-5, atol=0)  # another order of the sum


def test_training_mode_drops_nothing_without_adapters():
    model = disturbed(untrained_nano(adapter_config={"rank": 8, "dropout": 0.5}))
    inputs = text_batch()
    with torch.no_grad():
        expected = model(**inputs, adapters=False).logits
        model.train()
        assert torch.equal(model(**inputs, adapters=False).logits, expected)


def test_no_adapter_gets_a_gradient_without_adapters():
    model = disturbed(untrained_nano(adapter_config={"rank": 8}))
    inputs = text_batch()
    model(**inputs, labels=inputs["input_ids"], adapters=False).loss.backward()
    adapted = [name for name, parameter in model.named_parameters() if parameter.grad is not None and "lora" in name]
    assert not adapted
    assert model.language_model.layers[0].mlp.up_proj.weight.grad.abs().sum() > 0


@torch.no_grad()
def test_leaving_adapters_out_leaves_nothing_behind_in_the_model():
    model = disturbed(untrained_nano(adapter_config={"rank": 8}))
    inputs = image_batch()
    before = model(**inputs).logits
    model(**inputs, adapters=False)
    assert torch.equal(model(**inputs).logits, before)


@torch.no_grad()
def test_a_cache_filled_one_way_is_refused_the_other_way():
    model = untrained_nano(adapter_config={"rank": 8})
    for first, message in ((True, "filled with adapters, so"), (False, "filled without adapters, so")):
        cache = model(input_ids=torch.tensor([[5, 6, 7]]), use_cache=True, adapters=first).past_key_values
        more = partial(model, input_ids=torch.tensor([[8]]), past_key_values=cache)
        more(adapters=first)
        with pytest.raises(ValueError, match=message):
            more(adapters=not first)


def test_acting_without_adapters_is_refused():
    model = untrained_nano(adapter_config={"rank": 8})
    batch = {"actions": torch.zeros(1, 16, 7), "action_pixel_values": torch.zeros(1, 1, 3, 112, 112)}
    with pytest.raises(ValueError, match="adapters=False runs the base VLM, which never learnt to act"):
        model(input_ids=torch.tensor([[5, 6]]), **batch, adapters=False)


def test_adapters_is_true_or_false():
    model = untrained_nano(adapter_config={"rank": 8})
    with pytest.raises(ValueError, match="adapters is 'off', but it must be True, or False"):
        model(input_ids=torch.tensor([[5, 6]]), adapters="off")


def test_a_model_without_experts_is_the_base_and_has_no_adapters_to_leave_out():
    model = disturbed(untrained_nano(adapter_config={"experts": 0}))
    assert not [name for name, _ in model.named_parameters() if "lora" in name or "scale_head" in name]
    inputs = text_batch()
    valid = inputs["attention_mask"] == 1
    with torch.no_grad():
        expected = plain_language_model(model)(**inputs, position_ids=positions(inputs)).logits[valid]
        assert torch.equal(model(**inputs).logits[valid], expected)
    with pytest.raises(ValueError, match="adapter_config.experts is 0"):
        model(**inputs, adapters=False)
