"""Inference on fixed shapes: the same words and actions, few shapes, no waiting for the device, and said when not."""

import threading

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from instructvla.compiled_inference import InferenceReport, round_up
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
