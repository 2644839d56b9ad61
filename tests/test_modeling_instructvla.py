"""The whole model: the VLM's golden numbers, both losses, full-size accounting, chat, and strict loading."""

import json
from functools import partial

import pytest
import torch
from transformers import DynamicCache, SiglipVisionConfig

from instructvla import InstructVLAConfig, InstructVLAForConditionalGeneration
from instructvla.nano import untrained_nano
from tests.parity import FIXTURES, language_weights, load_fixture, qwen2_config, relative_error, weights
from tests.training_batch import picture, training_batch

TOLERANCE = 1e-4  # float32, as the golden tensors' README asks


@pytest.fixture(scope="module")
def nano():
    return untrained_nano()


# The VLM


@pytest.fixture(params=["eager", "sdpa"])
def golden_vlm(request):
    tensors, meta = load_fixture("eagle_vlm")
    siglip, qwen2 = meta["config"]["siglip"], meta["config"]["qwen2"]
    config = InstructVLAConfig.nano(
        vision_config=SiglipVisionConfig(
            **{key: siglip[key] for key in siglip if key != "act"}, hidden_act=siglip["act"], vision_use_head=False
        ),
        text_config=qwen2_config(qwen2),
        adapter_config={"experts": 1},
        image_token_id=meta["config"]["image_token_id"],
        query_token_id=qwen2["vocab"] - 16,
        attn_implementation=request.param,
    )
    model = InstructVLAForConditionalGeneration(config)
    official = weights(tensors)

    def part(prefix: str) -> dict[str, torch.Tensor]:
        return {key.removeprefix(prefix): value for key, value in official.items() if key.startswith(prefix)}

    projector = {"0": "norm", "1": "linear_1", "3": "linear_2"}
    vision = {key: value for key, value in part("vision_model.").items() if ".head." not in key}
    vision = {key.removeprefix("vision_model."): value for key, value in vision.items()}
    own_vision = model.vision_model.state_dict()
    prefix = "vision_model." if any(key.startswith("vision_model.") for key in own_vision) else ""
    model.vision_model.load_state_dict({prefix + key: value for key, value in vision.items()}, strict=True)
    model.projector.load_state_dict(
        {projector[key[0]] + key[1:]: value for key, value in part("mlp1.").items()}, strict=True
    )
    language = {f"weights.base_model.model.{key}": value for key, value in part("language_model.").items()}
    loading = model.language_model.load_state_dict(language_weights(language), strict=False)
    assert all("lora" in key for key in loading.missing_keys)
    assert not loading.unexpected_keys
    with_image = tensors["in.image_flags"].flatten() == 1
    return model, tensors, tensors["in.pixel_values"][with_image], with_image


@torch.no_grad()
def test_visual_tokens_hidden_states_and_logits_equal_the_authors(golden_vlm):
    model, tensors, pixel_values, with_image = golden_vlm
    patches = model.vision_model(tensors["in.pixel_values"]).last_hidden_state
    assert relative_error(patches, tensors["out.siglip_last_hidden"]) < TOLERANCE
    visual_tokens = model.encode_images(tensors["in.pixel_values"])
    assert relative_error(visual_tokens, tensors["out.visual_tokens"]) < TOLERANCE
    valid = tensors["in.attention_mask"]
    out = model(tensors["in.input_ids"], valid.long(), pixel_values)
    assert relative_error(out.last_hidden_state[valid], tensors["out.hidden_last"][valid]) < TOLERANCE
    assert relative_error(out.logits[valid], tensors["out.logits"][valid]) < TOLERANCE


@torch.no_grad()
def test_language_loss_equals_the_authors_and_needs_logits_of_targets_alone(golden_vlm):
    model, tensors, pixel_values, _ = golden_vlm
    projected = []
    model.language_model.lm_head.register_forward_hook(lambda module, args, out: projected.append(args[0].shape))
    out = model(tensors["in.input_ids"], tensors["in.attention_mask"].long(), pixel_values, tensors["in.labels"])
    assert relative_error(out.loss, tensors["out.loss"]) < TOLERANCE
    assert out.logits is None
    targets = int((tensors["in.labels"][:, 1:] != -100).sum())
    assert projected == [(targets, model.config.text_config.hidden_size)]


# Training


def test_loss_is_the_sum_of_language_and_flow_loss(nano):
    out = nano(**training_batch(nano))
    assert out.lm_loss > 0
    assert out.flow_loss > 0
    torch.testing.assert_close(out.loss, out.lm_loss + out.flow_loss)
    assert out.latent_actions.shape == (2, 16, 192)


def test_each_loss_stands_alone_when_the_batch_has_only_its_targets(nano):
    batch = training_batch(nano)
    both = nano(**batch)
    text_only = {key: batch[key] for key in ("input_ids", "attention_mask", "pixel_values", "labels")}
    language = nano(**text_only)
    assert language.flow_loss is None
    torch.testing.assert_close(language.loss, both.lm_loss)
    actions = nano(**{key: value for key, value in batch.items() if key != "labels"})
    assert actions.lm_loss is None
    assert actions.logits is None
    torch.testing.assert_close(actions.loss, both.flow_loss)


def test_a_batch_without_targets_has_loss_zero_and_not_nan(nano):
    batch = training_batch(nano)
    batch["labels"] = torch.full_like(batch["labels"], -100)
    assert nano(**batch).lm_loss == 0


@pytest.mark.parametrize("experts", [1, 2])
def test_gradient_checkpointing_changes_no_gradient(experts):
    def gradients(checkpointing: bool) -> dict[str, torch.Tensor]:
        model = untrained_nano(
            adapter_config={
                "rank": 4,
                "experts": experts,
                "dropout": 0.0,
                "scale_head_dropout": 0.0,
                "scale_head_size": 8,
            },
            action_expert_config={
                "hidden_size": 32,
                "intermediate_size": 64,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "attention_dropout": 0.0,
            },
        )
        torch.manual_seed(1)
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.1)
        model.train()
        if checkpointing:
            model.gradient_checkpointing_enable()
        passes = []
        for layer in (model.language_model.layers[0].mlp, model.action_expert.transformer.layers[0].mlp):
            layer.register_forward_pre_hook(lambda module, args: passes.append(type(module)))
        batch = training_batch(model)
        model(**batch).loss.backward()
        assert len(passes) == (experts + 1) + (2 if checkpointing else 0)  # pass 1 has no gradient to recompute for
        return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}

    plain, checkpointed = gradients(False), gradients(True)
    assert plain.keys() == checkpointed.keys()
    assert sum("lora_A" in name for name in plain) == 3 * 6
    assert experts == 1 or any("scale_head" in name for name in plain)
    for name in plain:
        torch.testing.assert_close(checkpointed[name], plain[name], msg=name)


def test_rows_without_all_queries_are_refused(nano):
    batch = training_batch(nano)
    batch["input_ids"][0, batch["input_ids"][0] == nano.config.query_token_id] = 7
    with pytest.raises(ValueError, match=r"Rows have \[15, 16\] action queries.*needs 16"):
        nano(**batch)


def test_images_that_do_not_match_the_text_are_refused(nano):
    batch = training_batch(nano)
    with pytest.raises(ValueError, match="32 image tokens, but 1 images make 16"):
        nano(**(batch | {"pixel_values": batch["pixel_values"][:1]}))


BAD_BATCHES = {
    "input_ids or inputs_embeds": {},
    "takes no pixel_values": {"inputs_embeds": torch.zeros(1, 2, 192), "pixel_values": torch.zeros(1, 3, 112, 112)},
    "action_pixel_values go together": {"input_ids": torch.ones(1, 2).long(), "actions": torch.zeros(1, 16, 7)},
    "has a state, but of this model it takes none": {"input_ids": torch.ones(1, 2).long(), "state": torch.zeros(1, 3)},
}


@pytest.mark.parametrize("message", BAD_BATCHES)
def test_inputs_of_which_a_part_would_be_ignored_are_refused(nano, message):
    with pytest.raises(ValueError, match=message):
        nano(**BAD_BATCHES[message])


def test_a_model_with_state_needs_it_for_the_flow_loss():
    model = untrained_nano(state_dim=3)
    batch = training_batch(model, state=[[0.0] * 3] * 2)
    assert model(**batch).flow_loss > 0
    del batch["state"]
    with pytest.raises(ValueError, match="lacks a state, but of this model with actions it needs one of 3 values"):
        model(**batch)


def test_prompt_longer_than_the_context_is_refused(nano):
    with pytest.raises(ValueError, match="takes 4097 tokens, but the model reads at most 4096"):
        nano(input_ids=torch.ones(1, 4097, dtype=torch.long))


# Sizes

RELEASED = {
    "stage1_expert": {"adapter_config": {"experts": 1}},
    "stage1_expert_state": {"adapter_config": {"experts": 1}, "state_dim": 8},
    "stage1_libero_wrist": {"adapter_config": {"experts": 1}, "horizon": 8, "cameras": ["primary", "wrist"]},
    "stage2_generalist": {},
    "stage2_generalist_state": {"state_dim": 8},
}


@pytest.mark.parametrize("name", RELEASED)
def test_full_size_modules_have_the_released_number_of_weights(name):
    with torch.device("meta"):
        config = InstructVLAConfig.instructvla_2b(action_vision_config={"feature_layer": 2}, **RELEASED[name])
        model = InstructVLAForConditionalGeneration(config)
    expected = json.loads((FIXTURES / "released_module_sizes.json").read_text())[name]
    modules = {
        "vision_model": model.vision_model,
        "mlp1": model.projector,
        "language_model": model.language_model,
        "action_model": model.action_expert,
    }
    for official, module in modules.items():
        assert sum(parameter.numel() for parameter in module.parameters()) == expected[official], official


def test_nano_has_about_five_million_weights(nano):
    assert 4.5e6 < sum(parameter.numel() for parameter in nano.parameters()) < 6e6


# Chat


def chat(*images, text: str = "What is here?") -> list[dict]:
    content = [{"type": "image", "image": image} for image in images] + [{"type": "text", "text": text}]
    return [{"role": "user", "content": content}]


CONVERSATIONS = {
    "one image": chat(picture()),
    "two images": chat(picture(0), picture(1)),
    "text only": [{"role": "user", "content": "Say hi."}],
    "several turns": [
        *chat(picture()),
        {"role": "assistant", "content": "A table."},
        {"role": "user", "content": "And on it?"},
    ],
}


@pytest.mark.parametrize("name", CONVERSATIONS)
@pytest.mark.parametrize("experts", [1, 2])
def test_cached_chat_equals_the_uncached_dual_pass_token_for_token(name, experts):
    model = untrained_nano(adapter_config={"experts": experts, "rank": 8})
    torch.manual_seed(2)
    for key, parameter in model.named_parameters():
        if "lora_B" in key:
            torch.nn.init.normal_(parameter, std=0.3)
    inputs = model.processor.apply_chat_template(
        CONVERSATIONS[name], add_generation_prompt=True, tokenize=True, return_dict=True
    )
    generate = partial(model.generate, **inputs, max_new_tokens=12, do_sample=False)
    assert generate().tolist() == generate(use_cache=False).tolist()


def test_chat_batch_rows_equal_the_rows_alone(nano):
    conversations = [CONVERSATIONS["text only"], CONVERSATIONS["two images"], CONVERSATIONS["several turns"]]
    encode = partial(nano.processor.apply_chat_template, add_generation_prompt=True, tokenize=True, return_dict=True)
    inputs = encode(conversations)
    together = nano.generate(**inputs, max_new_tokens=8, do_sample=False)[:, inputs["input_ids"].shape[1] :]
    for row, conversation in zip(together, conversations, strict=True):
        inputs = encode([conversation])
        alone = nano.generate(**inputs, max_new_tokens=8, do_sample=False)[0, inputs["input_ids"].shape[1] :]
        assert row[: len(alone)].tolist() == alone.tolist()


def test_beams_carry_both_caches(nano):
    inputs = nano.processor.apply_chat_template(
        chat(picture()), add_generation_prompt=True, tokenize=True, return_dict=True
    )
    generate = partial(nano.generate, **inputs, max_new_tokens=6, do_sample=False, num_beams=3)
    assert generate().tolist() == generate(use_cache=False).tolist()


def test_beams_with_several_images_in_a_prompt_are_refused(nano):
    inputs = nano.processor.apply_chat_template(
        CONVERSATIONS["two images"], add_generation_prompt=True, tokenize=True, return_dict=True
    )
    with pytest.raises(ValueError, match=r"one image in each prompt; they have \[2.0\]"):
        nano.generate(**inputs, max_new_tokens=2, num_beams=2)


def test_several_sequences_need_one_image_in_each_prompt_and_not_just_as_many_images(nano):
    encode = nano.processor.apply_chat_template
    conversations = [CONVERSATIONS["two images"], CONVERSATIONS["text only"]]
    inputs = encode(conversations, add_generation_prompt=True, tokenize=True, return_dict=True)
    with pytest.raises(ValueError, match=r"they have \[2.0, 0.0\]"):
        nano.generate(**inputs, max_new_tokens=2, do_sample=True, num_return_sequences=2)


def test_an_answer_holds_no_image_token_whatever_else_is_suppressed():
    model = untrained_nano()
    model.language_model.lm_head = torch.nn.Linear(192, 2048)
    torch.nn.init.zeros_(model.language_model.lm_head.weight)
    with torch.no_grad():
        model.language_model.lm_head.bias.zero_()
        model.language_model.lm_head.bias[[5, 6, model.config.image_token_id]] = torch.tensor([2.0, 1.0, 3.0])
    tokens = model.generate(input_ids=torch.tensor([[7]]), max_new_tokens=3, do_sample=False, suppress_tokens=[5])
    assert tokens.tolist() == [[7, 6, 6, 6]]


def test_generate_takes_what_the_processor_gives_and_stops_at_a_string(nano):
    inputs = nano.processor(images=picture(), text="pick it up")
    tokens = nano.generate(
        **inputs, max_new_tokens=3, do_sample=False, stop_strings=["zzzz"], tokenizer=nano.processor.tokenizer
    )
    assert tokens.shape[1] > inputs["input_ids"].shape[1]


def test_other_cache_implementations_are_refused(nano):
    with pytest.raises(ValueError, match="cache_implementation is 'static'"):
        nano.generate(input_ids=torch.tensor([[5, 6]]), max_new_tokens=2, cache_implementation="static")


def test_a_cache_without_the_base_pass_is_refused_in_stage_two(nano):
    with pytest.raises(ValueError, match="must be a cache from model.language_model.new_cache"):
        nano(input_ids=torch.tensor([[5, 6]]), past_key_values=DynamicCache(), use_cache=True)


SHAPES = {
    r"actions has shape \(2, 8, 7\), but it must be \(2, 16, 7\)": {"actions": torch.zeros(2, 8, 7)},
    r"action_mask has shape \(1, 8\), but it must be \(2, 16\)": {"action_mask": torch.ones(1, 8).bool()},
    r"labels has shape \(2, 3\)": {"labels": torch.zeros(2, 3).long()},
    r"flow_time has shape \(1,\), but it must be \(2,\)": {"flow_time": torch.zeros(1)},
}


@pytest.mark.parametrize("message", SHAPES)
def test_targets_of_another_shape_are_refused(nano, message):
    with pytest.raises(ValueError, match=message):
        nano(**(training_batch(nano) | SHAPES[message]))
