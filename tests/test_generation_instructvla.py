"""Acting: what each call computes (counts), and that no reuse, batch or thread changes what comes out."""

import copy
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image

from instructvla import ActionContext
from instructvla.nano import NANO_STATISTICS, nano_processor, untrained_nano
from tests.parity import relative_error

TOLERANCE = 1e-4  # float32 on other matrix shapes; experts this lively amplify rounding
NOISE = torch.randn(1, 16, 7, generator=torch.Generator().manual_seed(0))
TEXT = "put the spoon on the towel"


def picture(seed: int = 0, height: int = 60, width: int = 80) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def lively(model):
    """Give a fresh model experts that matter, so that the two passes differ."""
    torch.manual_seed(3)
    for name, parameter in model.named_parameters():
        if "lora_B" in name or "film" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    return model


@pytest.fixture
def model():
    return lively(untrained_nano())


class ScriptedHead(torch.nn.Module):
    """A vocabulary projection that says what the script says, one token a step and row."""

    def __init__(self, *rows: list[int]):
        super().__init__()
        self.rows, self.step = rows, 0

    def forward(self, hidden):
        logits = torch.zeros(len(hidden), 2048)
        for row, tokens in enumerate(self.rows):
            logits[row, tokens[min(self.step, len(tokens) - 1)]] = 1.0
        self.step += 1
        return logits


def script(model, *responses: str, end: int | None = None) -> None:
    """Make the model say these responses, each followed by `end` (default: the first action query)."""
    end = model.config.query_token_id if end is None else end
    rows = [model.processor.tokenizer.encode(text, add_special_tokens=False) + [end] for text in responses]
    model.language_model.lm_head = ScriptedHead(*rows)


def calls(module: torch.nn.Module) -> list:
    """The shapes of the first tensor of each call of a module, filled in as it is called."""
    shapes = []

    def note(module, args, kwargs):
        first = args[0] if args else next(value for value in kwargs.values() if isinstance(value, torch.Tensor))
        shapes.append(tuple(first.shape))

    module.register_forward_pre_hook(note, with_kwargs=True)
    return shapes


# What a call computes


def test_acting_without_thinking_is_one_pass_of_each_part_and_no_vocabulary_projection(model):
    siglip, language, head = calls(model.vision_model), calls(model.language_model), calls(model.language_model.lm_head)
    layer, film = calls(model.language_model.layers[0]), calls(model.action_expert.vision)
    transformer = calls(model.action_expert.transformer)
    out = model.generate_action(picture(), TEXT, think=False)
    assert out.response == [None]
    assert out.actions.shape == (1, 16, 7)
    assert len(siglip) == len(language) == len(film) == 1
    assert len(layer) == 2  # base pass and adapted pass
    assert head == []
    prefix, *steps = transformer
    assert prefix == (1, 64 + 16, 128)  # 64 patches and 16 queries
    assert steps == 10 * [(1, 16, 128)]


def test_thinking_adds_one_short_pass_per_token_and_projects_only_the_last_position(model):
    script(model, "I will take it.")
    tokens = len(model.language_model.lm_head.rows[0]) - 1
    siglip, language, head = calls(model.vision_model), calls(model.language_model), calls(model.language_model.lm_head)
    out = model.generate_action(picture(), TEXT)
    assert out.response == ["I will take it."]
    assert len(siglip) == 1
    prompt, *spoken, queries = language
    assert prompt[1] > 40
    assert spoken == tokens * [(1, 1, 192)]
    assert queries == (1, 1 + 16, 192)  # one space and the queries
    assert head == (tokens + 1) * [(1, 192)]


def test_cached_response_needs_one_pass_and_cached_latent_none(model):
    script(model, "I will take it.")
    first = model.generate_action(picture(), TEXT)
    siglip, language, head = calls(model.vision_model), calls(model.language_model), calls(model.language_model.lm_head)
    expert = calls(model.action_expert.transformer)
    again = model.generate_action(picture(1), TEXT, context=first.context)
    assert (len(siglip), len(language), len(head), len(expert)) == (1, 1, 0, 11)
    assert again.response == first.response
    assert not torch.equal(again.latent_actions, first.latent_actions)
    reused = model.generate_action(picture(2), TEXT, context=again.context, reuse_latent=True)
    assert (len(siglip), len(language), len(head), len(expert)) == (1, 1, 0, 22)
    assert reused.response == first.response
    assert torch.equal(reused.latent_actions, again.latent_actions)


def test_vlm_runs_once_for_n_expert_runs(model):
    language, film = calls(model.language_model), calls(model.action_expert.vision)
    context = None
    for step in range(6):
        fresh = step % 3 == 0
        out = model.generate_action(picture(step), TEXT, think=False, context=context, reuse_latent=not fresh)
        context = out.context
    assert (len(language), len(film)) == (2, 6)


# Nothing that is reused changes the result


@pytest.mark.parametrize("response", ["I will take it.", "Yes. ", "Yes.\n\n", ""])
@pytest.mark.parametrize("experts", [1, 2])
def test_queries_decoded_on_the_thinking_cache_equal_recomputation(response, experts):
    model = lively(untrained_nano(adapter_config={"experts": experts, "rank": 8}))
    script(model, response)
    thought = model.encode(picture(), TEXT, think=True)
    recomputed = model.encode(picture(), TEXT, context=thought)
    assert thought.response == (response.strip(),)
    assert relative_error(thought.latent_actions, recomputed.latent_actions) < TOLERANCE


def test_exactly_one_space_stands_between_response_and_queries(model):
    expected = model.processor.tokenizer.encode("Yes. ", add_special_tokens=False)
    for response in ("Yes.", "Yes. ", "Yes.   ", "Yes.\n"):
        script(model, response)
        context = model.encode(picture(), TEXT, think=True)
        assert model.assistant_turn(context.response_ids[0]) == expected + model.processor.query_token_ids


@pytest.mark.parametrize("ending", ["query", "end of turn", "limit"])
def test_response_ends_at_the_first_query_at_the_end_of_turn_or_at_the_limit(model, ending):
    end = {
        "query": model.processor.query_token_ids[5],
        "end of turn": model.config.text_config.eos_token_id,
        "limit": 300,
    }
    script(model, "I will take it.", end=end[ending])
    spoken = model.language_model.lm_head.rows[0][:-1]
    thought = model.encode(picture(), TEXT, think=True, max_new_tokens=len(spoken) if ending == "limit" else 50)
    assert thought.response_ids == (tuple(spoken),)
    recomputed = model.encode(picture(), TEXT, context=thought)
    assert relative_error(thought.latent_actions, recomputed.latent_actions) < TOLERANCE


def test_a_response_holds_no_image_token(model):
    class Insistent(torch.nn.Module):
        def forward(self, hidden):
            logits = torch.zeros(len(hidden), 2048)
            logits[:, [model.config.image_token_id, 500]] = torch.tensor([2.0, 1.0])
            return logits

    model.language_model.lm_head = Insistent()
    assert model.encode(picture(), TEXT, think=True, max_new_tokens=3).response_ids == ((500, 500, 500),)


BATCH_TEXTS = ["push", "put the big spoon on the blue towel next to the sink", "open the drawer"]
BATCH_RESPONSES = ["Yes.", "I will put the spoon on the towel. ", ""]


@pytest.mark.parametrize("think", [True, False])
def test_each_row_of_a_batch_equals_the_row_alone(model, think):
    noise = torch.randn(3, 16, 7, generator=torch.Generator().manual_seed(1))
    images = [picture(0), picture(1, 40, 100), picture(2, 90, 30)]
    script(model, *BATCH_RESPONSES)
    together = model.generate_action(images, BATCH_TEXTS, think=think, noise=noise)
    reused = model.generate_action(images, BATCH_TEXTS, context=together.context, noise=noise)
    for row in range(3):
        script(model, BATCH_RESPONSES[row])
        alone = model.generate_action(images[row], BATCH_TEXTS[row], think=think, noise=noise[row : row + 1])
        assert together.response[row] == alone.response[0]
        assert together.context.response_ids[row] == alone.context.response_ids[0]
        for batch in (together, reused):
            assert relative_error(batch.latent_actions[row], alone.latent_actions[0]) < TOLERANCE
            torch.testing.assert_close(batch.normalized_actions[row], alone.normalized_actions[0], rtol=1e-3, atol=1e-4)


def test_greedy_batch_without_a_script_equals_the_rows_alone(model):
    images = [picture(i) for i in range(3)]
    together = model.encode(images, BATCH_TEXTS, think=True, max_new_tokens=8)
    for row in range(3):
        alone = model.encode(images[row], BATCH_TEXTS[row], think=True, max_new_tokens=8)
        assert together.response_ids[row] == alone.response_ids[0]


@torch.no_grad()
def test_eager_and_sdpa_attention_give_the_same_actions(model):
    outputs = []
    for attention in ("sdpa", "eager"):
        other = untrained_nano(attn_implementation=attention)
        other.load_state_dict(model.state_dict())
        assert other.language_model.config._attn_implementation == attention
        assert other.action_expert.transformer.config._attn_implementation == attention
        outputs.append(other.generate_action(picture(), TEXT, noise=NOISE, max_new_tokens=8))
    assert outputs[0].context.response_ids == outputs[1].context.response_ids
    torch.testing.assert_close(outputs[0].latent_actions, outputs[1].latent_actions, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(outputs[0].normalized_actions, outputs[1].normalized_actions, rtol=1e-3, atol=1e-3)


def test_two_threads_with_two_contexts_do_not_disturb_each_other(model):
    def drive(seed: int) -> list[torch.Tensor]:
        texts, context, actions = [BATCH_TEXTS[seed], BATCH_TEXTS[2]], None, []
        for step in range(6):
            noise = torch.randn(2, 16, 7, generator=torch.Generator().manual_seed(10 * seed + step))
            images = [picture(seed + step), picture(step)]
            reuse = {"context": context, "reuse_latent": step % 3 == 2} if step % 3 else {}
            out = model.generate_action(images, texts, noise=noise, max_new_tokens=6, **reuse)
            context = out.context
            actions.append(out.actions)
        return actions

    one_after_the_other = [drive(seed) for seed in (0, 1)]
    with ThreadPoolExecutor(2) as pool:
        at_once = list(pool.map(drive, (0, 1)))
    for alone, together in zip(one_after_the_other, at_once, strict=True):
        for a, b in zip(alone, together, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_measuring_a_response_leaves_the_shared_tokenizer_padding(model):
    tokenizer = model.processor.tokenizer
    model.processor.prompt_inputs([picture(), picture()], BATCH_TEXTS[:2])
    padding = tokenizer.backend_tokenizer.padding
    model.without_trailing_space(tokenizer.encode("Yes.\n", add_special_tokens=False, padding=True))
    assert padding is not None
    assert tokenizer.backend_tokenizer.padding == padding


def test_contexts_can_not_be_changed_and_hold_no_more_than_they_need(model):
    out = model.generate_action(picture(), TEXT, think=True, max_new_tokens=2)
    with pytest.raises(AttributeError):
        out.context.response = ("other",)
    out.response[0] = "other"
    assert out.context.response[0] != "other"
    assert isinstance(out.context.response_ids[0], tuple)
    assert out.latent_actions.untyped_storage().nbytes() == out.latent_actions.numel() * 4


# Halves, defaults, randomness


def test_encode_then_decode_is_generate_action(model):
    whole = model.generate_action(picture(), TEXT, noise=NOISE, max_new_tokens=5)
    context = model.encode(picture(), TEXT, max_new_tokens=5)
    halves = model.decode_action(context, picture(), noise=NOISE)
    assert torch.equal(whole.actions, halves.actions)
    assert halves.context is context


def test_thinking_is_the_default_of_stage_two_only():
    assert untrained_nano().generate_action(picture(), TEXT, max_new_tokens=2).response != [None]
    stage_1 = untrained_nano(adapter_config={"experts": 1, "rank": 4})
    assert stage_1.generate_action(picture(), TEXT).response == [None]
    assert stage_1.generate_action(picture(), TEXT, think=True, max_new_tokens=2).response != [None]


def test_seed_fixes_the_actions_and_rows_may_have_their_own(model):
    def act(generator, rows=1):
        images, texts = [picture()] * rows, [TEXT] * rows
        return model.generate_action(images, texts, think=False, generator=generator).actions

    def seed(value):
        return torch.Generator().manual_seed(value)

    assert torch.equal(act(seed(1)), act(seed(1)))
    assert not torch.equal(act(seed(1)), act(seed(2)))
    together = act([seed(1), seed(2)], rows=2)
    torch.testing.assert_close(together[0], act(seed(1))[0], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(together[1], act(seed(2))[0], rtol=1e-3, atol=1e-4)


def test_number_of_flow_steps_can_be_chosen(model):
    expert = calls(model.action_expert.transformer)
    model.generate_action(picture(), TEXT, think=False, num_inference_steps=3)
    assert len(expert) == 1 + 3


def test_actions_are_in_physical_units_within_the_statistics(model):
    out = model.generate_action(picture(), TEXT, think=False, noise=100 * NOISE)
    low, high = (torch.tensor(NANO_STATISTICS["untrained"]["action"][q]) for q in ("q01", "q99"))
    assert (out.actions >= low - 1e-6).all()
    assert (out.actions <= high + 1e-6).all()
    assert set(out.actions[..., 6].unique().tolist()) <= {0.0, 1.0}
    assert out.normalized_actions.abs().max() <= 1
    assert out.actions.dtype == torch.float32


def test_several_cameras_and_state_reach_the_expert():
    model = lively(untrained_nano(cameras=["primary", "wrist"], state_dim=3))

    def act(wrist=1, state=(0.1, 0.2, 0.3)):
        images = {"primary": picture(0), "wrist": picture(wrist)}
        return model.generate_action(images, TEXT, state=state, think=False, noise=NOISE).normalized_actions

    expert = calls(model.action_expert.transformer)
    reference = act()
    assert expert[0] == (1, 2 * 64 + 16 + 1, 128)
    assert not torch.equal(act(wrist=2), reference)
    assert not torch.equal(act(state=(0.9, 0.2, 0.3)), reference)
    with pytest.raises(ValueError, match="wrist"):
        model.generate_action(picture(), TEXT, state=(0, 0, 0))
    with pytest.raises(ValueError, match="state"):
        model.generate_action({"primary": picture(), "wrist": picture()}, TEXT)


def test_bfloat16_model_acts(model):
    out = model.to(torch.bfloat16).generate_action(picture(), TEXT, max_new_tokens=3)
    assert out.latent_actions.dtype == torch.bfloat16
    assert out.actions.dtype == torch.float32
    assert out.actions.isfinite().all()


# Bad input


def test_a_context_of_another_instruction_is_refused(model):
    context = model.encode(picture(), TEXT, think=False)
    for arguments in ({}, {"reuse_latent": True}):
        with pytest.raises(ValueError, match="made for .*spoon.* but the instruction is .*drawer"):
            model.generate_action(picture(), "open the drawer", context=context, **arguments)


BAD_CALLS = {
    "reuse_latent=True needs the context": {"reuse_latent": True},
    r"noise has shape \(1, 8, 7\), but it must be \(1, 16, 7\)": {"noise": torch.zeros(1, 8, 7)},
    "num_inference_steps is 0": {"num_inference_steps": 0},
    "num_inference_steps is 2.5": {"num_inference_steps": 2.5},
    "max_new_tokens is 0": {"max_new_tokens": 0},
    "max_new_tokens is 2.5": {"max_new_tokens": 2.5},
    "max_new_tokens is None": {"max_new_tokens": None},
    "Got 2 generators for 1 rows": {"generator": [torch.Generator(), torch.Generator()]},
    "noise must be finite": {"noise": torch.full((1, 16, 7), torch.nan)},
    "generator is 3, but it must be a torch.Generator": {"generator": 3},
    "think is 'no', but it must be True, False or None": {"think": "no"},
    "lone surrogate": {"text": "a\ud800"},
    "non-empty": {"text": "  "},
    "control tokens": {"text": "open <new_token_3>"},
    "what follows up to 4077, but the model reads at most 4096": {"max_new_tokens": 4060},
    "'brigde'": {"unnorm_key": "brigde"},
    "takes no state": {"state": [1.0]},
}


@pytest.mark.parametrize("message", BAD_CALLS)
def test_bad_call_is_refused_before_the_model_runs(model, message):
    language = calls(model.language_model)
    with pytest.raises(ValueError, match=message):
        model.generate_action(**({"images": picture(), "text": TEXT} | BAD_CALLS[message]))
    assert language == []


@pytest.mark.parametrize("token", [2048, -1, 1.5, 2031, 2040, 2028])
def test_a_context_with_tokens_that_no_response_has_is_refused(model, token):
    by_hand = ActionContext([TEXT], ["Yes."], [[500, token]], torch.zeros(1, 16, 192))
    with pytest.raises(ValueError, match=f"hold {token}, which no response of this model can hold"):
        model.generate_action(picture(), TEXT, context=by_hand)


def test_a_context_is_a_value_that_copies(model):
    context = ActionContext("go", [None], [None], torch.zeros(1, 16, 192))
    assert context.instruction == ("go",)
    assert copy.deepcopy(context).instruction == context.instruction
    with pytest.raises(ValueError, match="latent_actions is a NoneType"):
        ActionContext("go", [None], [None], None)


@pytest.mark.parametrize("call", ["generate_action", "decode_action"])
def test_a_context_of_another_model_or_kind_is_refused(model, call):
    def use(context):
        arguments = {"text": TEXT} if call == "generate_action" else {}
        return getattr(model, call)(images=picture(), context=context, **arguments)

    narrow = ActionContext([TEXT], [None], [None], torch.zeros(1, 8, 192))
    with pytest.raises(ValueError, match=r"latent actions are \(1, 8, 192\), but they must be \(batch, 16, 192\)"):
        use(narrow)
    with pytest.raises(ValueError, match="context is a dict; give the `context` of an earlier output"):
        use({"response": "Yes."})


def test_contexts_made_by_hand_are_checked(model):
    by_hand = ActionContext([TEXT], ["Yes."], [[500]], torch.zeros(1, 16, 192))
    assert model.generate_action(picture(), TEXT, context=by_hand).context.response_ids == ((500,),)
    with pytest.raises(ValueError, match="one entry per row"):
        ActionContext([TEXT, TEXT], [None], [None], torch.zeros(1, 16, 192))


def test_a_tokenizer_that_pads_on_the_right_changes_nothing(model):
    images, texts, noise = [picture(0), picture(1)], BATCH_TEXTS[:2], torch.cat([NOISE, NOISE])
    expected = model.generate_action(images, texts, noise=noise, max_new_tokens=4)
    model.processor.tokenizer.padding_side = "right"
    actual = model.generate_action(images, texts, noise=noise, max_new_tokens=4)
    assert torch.equal(actual.latent_actions, expected.latent_actions)


def test_thinking_on_a_reused_latent_is_refused(model):
    context = model.encode(picture(), TEXT, think=False)
    with pytest.raises(ValueError, match="can't think"):
        model.generate_action(picture(), TEXT, think=True, context=context, reuse_latent=True)


def test_training_mode_is_refused(model):
    with pytest.raises(ValueError, match="training mode"):
        model.train().generate_action(picture(), TEXT)


def test_checkpoint_without_statistics_chats_but_does_not_act(model):
    model.processor = nano_processor(statistics=None, control_rate_hz=None)
    conversation = [{"role": "user", "content": "Say hi."}]
    inputs = model.processor.apply_chat_template(
        conversation, add_generation_prompt=True, tokenize=True, return_dict=True
    )
    assert model.generate(**inputs, max_new_tokens=2).shape[1] > inputs["input_ids"].shape[1]
    with pytest.raises(ValueError, match="can chat, but not act"):
        model.generate_action(picture(), TEXT)
