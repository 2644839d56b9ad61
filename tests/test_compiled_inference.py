"""Inference on fixed shapes: the same words and actions, few shapes, no waiting for the device, and said when not."""

import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch._dynamo.utils import counters
from torch._inductor import config as inductor
from torch._inductor.exc import TritonMissing
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import SiglipVisionConfig

from instructvla.compiled_inference import CompiledInference, InferenceReport, round_up, warm_up
from instructvla.configuration_instructvla import nano_text_config
from instructvla.linear_group import LinearGroup
from instructvla.nano import untrained_nano
from tests.training_batch import picture

TEXTS = ["go", "put the spoon on the towel", "open the drawer", "pick up the red block next to the green cup, please"]


@pytest.fixture(scope="module")
def eager():
    return untrained_nano()


@pytest.fixture(scope="module")
def compiled():
    model = untrained_nano()
    model.compile_for_inference(rows=(1, 2), modes=("act", "think", "latent"), max_new_tokens=6, progress=False)
    return model


def act(model, texts, **options):
    images = [picture(seed) for seed in range(len(texts))]
    noise = torch.randn(len(texts), 16, 7, generator=torch.Generator().manual_seed(3))
    return model.generate_action(images, texts, noise=noise, max_new_tokens=6, **options)


@pytest.mark.parametrize("think", [False, True])
@pytest.mark.parametrize("texts", [TEXTS[:1], TEXTS[1:3]])
def test_words_and_actions_are_those_of_the_plain_model(eager, compiled, texts, think):
    plain, fixed = (act(model, texts, think=think) for model in (eager, compiled))
    assert fixed.response == plain.response
    torch.testing.assert_close(fixed.latent_actions, plain.latent_actions, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(fixed.normalized_actions, plain.normalized_actions, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_images_and_flow_steps_are_bit_equal(eager, compiled):
    """On one backend, eager, float32; the language model's passes attend to longer keys, which are masked."""
    size, action = (getattr(eager.config, name).image_size for name in ("vision_config", "action_vision_config"))
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randn(1, 3, size, size, generator=generator)
    assert torch.equal(compiled.compiled.encode_images(pixels), eager.encode_images(pixels))
    latent = torch.randn(1, 16, 192, generator=generator)
    seen, noise = torch.randn(1, 1, 3, action, action, generator=generator), torch.randn(1, 16, 7, generator=generator)
    expected = eager.action_expert.sample(latent, seen, noise)
    assert torch.equal(compiled.compiled.sample(latent, seen, noise, None, None), expected)


def test_in_bfloat16_a_prepared_model_is_as_near_to_float32_as_the_plain_one(eager):
    """The rounding of bfloat16 hides which sums were made first: neither is better."""
    plain, prepared = (untrained_nano().to(torch.bfloat16) for _ in range(2))
    prepared.compile_for_inference(modes=("act",), instruction_tokens=8, progress=False)
    exact, *rounded = (act(model, TEXTS[1:2], think=False) for model in (eager, plain, prepared))
    for name in ("latent_actions", "normalized_actions"):
        errors = [(getattr(one, name).float() - getattr(exact, name)).abs().mean().item() for one in rounded]
        assert 0 < errors[1] < 1.5 * errors[0], name


def test_a_session_remembers_nothing_of_the_last_prompt(compiled):
    first = act(compiled, TEXTS[:1], think=True)
    act(compiled, TEXTS[3:], think=True)
    again = act(compiled, TEXTS[:1], think=True)
    assert torch.equal(first.actions, again.actions)


def test_a_known_response_and_a_reused_latent_action_work(eager, compiled):
    for options in ({"think": False}, {"reuse_latent": True}):
        results = []
        for model in (eager, compiled):
            context = act(model, TEXTS[:1], think=True).context
            results.append(act(model, TEXTS[:1], context=context, **options).normalized_actions)
        torch.testing.assert_close(*results, rtol=1e-4, atol=1e-4)


def test_guided_chunks_run_as_before(eager, compiled):
    last = np.zeros((1, 4, 7))
    results = [act(model, TEXTS[:1], previous_actions=last, delay=2, think=False) for model in (eager, compiled)]
    torch.testing.assert_close(results[0].normalized_actions, results[1].normalized_actions, rtol=1e-4, atol=1e-4)


def test_twenty_varied_calls_meet_no_new_shape_and_another_batch_says_so_once(compiled, caplog):
    prepared = compiled.compiled.shapes
    for number in range(20):
        rows = 1 + number % 2
        texts = [f"{TEXTS[number % 4]} {'now ' * (number % 3)}".strip()] * rows
        act(compiled, texts, think=number % 3 == 0)
    assert compiled.compiled.shapes == prepared
    for expected in (True, False):
        caplog.clear()
        with caplog.at_level("WARNING", logger="instructvla"), caplog.at_level("WARNING", logger="transformers"):
            act(compiled, TEXTS[:3], think=False)
        assert (
            bool([record for record in caplog.records if "is new to the compiled model" in record.message]) is expected
        )


def test_acting_on_earlier_words_and_saying_them_again_meets_no_new_shape(compiled):
    prepared = compiled.compiled.shapes
    for text in TEXTS:
        context = act(compiled, [text], think=True).context
        for spoken in range(1, 7):
            act(compiled, [text], context=replace(context, response_ids=((40,) * spoken,)))
        for known in (context, replace(context, response_ids=((40,) * 3,))):
            act(compiled, [text], context=known, think=True)
    assert compiled.compiled.shapes == prepared


def test_threads_share_the_model(compiled):
    expected = [act(compiled, [text], think=True).actions for text in TEXTS[:3]]
    found = {}
    threads = [
        threading.Thread(target=lambda n=n, text=text: found.update({n: act(compiled, [text], think=True).actions}))
        for n, text in enumerate(TEXTS[:3])
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, actions in enumerate(expected):
        assert torch.equal(found[number], actions)


class HostReads(TorchDispatchMode):
    """Counts operations whose result the host must wait for."""

    READS = ("_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "equal")

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func._schema.name.removeprefix("aten::")
        if name in self.READS:
            self.found.append(name)
        return func(*args, **(kwargs or {}))


def test_no_stage_reads_from_the_device(compiled):
    """What a CUDA graph can hold: neither a pass of the language model nor the flow looks at data."""
    model, inference = compiled, compiled.compiled
    embeds = torch.randn(1, 16, model.config.text_config.hidden_size)
    latent = torch.randn(1, model.config.num_action_queries, model.config.text_config.hidden_size)
    size = model.config.action_vision_config.image_size
    with torch.no_grad(), inference.session(1, 64) as session, HostReads() as reads:
        session.append(embeds, torch.ones(1, 16, dtype=torch.long), last=1)
        session.append(embeds[:, :1], torch.ones(1, 1, dtype=torch.long), last=1)
        inference.sample(latent, torch.randn(1, 1, 3, size, size), torch.randn(1, 16, 7), None, None)
        inference.encode_images(torch.randn(1, 3, *[model.config.vision_config.image_size] * 2))
    assert reads.found == []


def shallow():
    """Of one layer each, since dynamo traces every layer."""
    sizes = {"hidden_size": 32, "num_attention_heads": 2, "num_hidden_layers": 1}
    return untrained_nano(
        text_config=nano_text_config(**sizes, num_key_value_heads=1, intermediate_size=48),
        adapter_config={"rank": 4, "scale_head_size": 8},
        vision_config=SiglipVisionConfig(
            **sizes, intermediate_size=48, image_size=112, patch_size=14, vision_use_head=False
        ),
        action_vision_config={"embed_dim": 32, "depth": 2, "num_heads": 2, "image_size": 56, "feature_layer": 0},
        action_expert_config=sizes,
    )


@pytest.fixture
def counted():
    """Dynamo's counters, at zero."""
    torch._dynamo.reset()
    counters.clear()
    yield counters
    torch._dynamo.reset()


def test_every_stage_is_one_graph_and_twenty_varied_calls_compile_nothing(counted):
    """With dynamo's own backend, which runs its graphs as they are; `fullgraph` would refuse a break."""
    plain, model = shallow(), shallow()
    model.language_model.fuse_linears()
    model.compiled = CompiledInference(model, captured=False, backend="eager")
    with torch.no_grad():
        warm_up(model, (1,), ("act", "think", "latent"), 32, 6, False)
    graphs = counted["stats"]["unique_graphs"]
    assert graphs == 6  # images, the queries' pass, the prompt's, a word's, the expert's prefix, a flow step
    for number in range(20):
        text = f"{TEXTS[number % 4]} {'now ' * (number % 3)}".strip()
        options = {"think": number % 2 == 0, "num_inference_steps": 1 + number % 3}
        found = act(model, [text], **options)
        act(model, [text], context=found.context, reuse_latent=True, num_inference_steps=1)
        if number < 4:
            expected = act(plain, [text], **options)
            assert found.response == expected.response
            torch.testing.assert_close(found.normalized_actions, expected.normalized_actions, rtol=1e-4, atol=1e-4)
    assert counted["stats"]["unique_graphs"] == graphs
    assert not counted["graph_break"]
    with torch.no_grad():
        model.compiled.encode_images(torch.zeros(2, 3, 112, 112))
    assert counted["stats"]["unique_graphs"] == graphs + 1  # two pictures at once are new


def test_where_inductor_can_not_compile_the_model_runs_eagerly_and_says_why(counted):
    model = shallow()
    with inductor.patch({"cpp.cxx": ("no-such-compiler",)}), inductor.patch(fx_graph_cache=False):
        report = model.compile_for_inference(modes=("act",), instruction_tokens=8, kernels="inductor", progress=False)
    assert report.kernels == "eager"
    assert "inductor can't compile here" in str(report)
    assert act(model, TEXTS[:1], think=False).actions.shape == (1, 16, 7)


def test_without_triton_the_model_runs_eagerly_and_says_why(monkeypatch):
    kernels = []

    def fail_once(model, *_):
        kernels.append(model.compiled.backend)
        if len(kernels) == 1:
            raise TritonMissing(None)

    monkeypatch.setattr("instructvla.compiled_inference.warm_up", fail_once)
    report = untrained_nano().compile_for_inference(kernels="inductor", progress=False)
    assert kernels == ["inductor", None]
    assert report.kernels == "eager" and "Cannot find a working triton installation" in str(report)


def test_a_preparation_that_breaks_off_leaves_the_model_as_it_was(monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("instructvla.compiled_inference.warm_up", interrupted)
    model = untrained_nano()
    with pytest.raises(KeyboardInterrupt):
        model.compile_for_inference(progress=False)
    assert model.compiled is None


@pytest.mark.slow
def test_inductor_says_the_same_words_and_gives_the_same_actions(counted):
    plain, model = shallow(), shallow()
    report = model.compile_for_inference(max_new_tokens=6, kernels="inductor", progress=False)
    assert report.kernels == "inductor"
    for think in (False, True):
        results = [act(one, TEXTS[1:2], think=think) for one in (plain, model)]
        assert results[0].response == results[1].response
        torch.testing.assert_close(*(one.normalized_actions for one in results), rtol=1e-4, atol=1e-4)
    assert not counted["graph_break"]


def test_a_prepared_model_is_saved_as_it_was(tmp_path, compiled):
    groups = [group for layer in compiled.language_model.layers for group in layer.mlp.groups]
    assert all(isinstance(group, LinearGroup) and group.is_fused() for group in groups)
    compiled.save_pretrained(tmp_path)
    loaded = type(compiled).from_pretrained(tmp_path)
    expected, found = untrained_nano().state_dict(), loaded.state_dict()
    assert list(found) == list(expected)
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_the_report_names_what_was_left_out():
    report = untrained_nano().compile_for_inference(modes=("act",), instruction_tokens=8, progress=False)
    assert isinstance(report, InferenceReport)
    assert (report.kernels, report.captured) == ("eager", False)
    assert "CUDA graphs need a CUDA device" in str(report)
    assert report.shapes >= 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kernels": "triton"}, "kernels is 'triton', but it must be one of eager, inductor"),
        ({"rows": (0,)}, "rows is 0, but it must be an integer of at least 1"),
        ({"rows": ()}, r"rows is \(\), but it must not be empty"),
        ({"modes": ("speak",)}, "modes holds 'speak', but it may hold only act, think, latent"),
        ({"modes": ()}, "must not be empty"),
        ({"max_new_tokens": 0}, "max_new_tokens is 0"),
        ({"instruction_tokens": True}, "instruction_tokens is True"),
    ],
)
def test_wrong_choices_are_refused_before_anything_is_prepared(arguments, message, eager):
    with pytest.raises(ValueError, match=message):
        eager.compile_for_inference(**arguments, progress=False)
    assert eager.compiled is None


def test_numbers_are_rounded_up():
    assert [round_up(number, 8) for number in (0, 1, 8, 9)] == [0, 8, 8, 16]
