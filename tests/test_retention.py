"""The retention probe: losses and answers with and without adapters; and the gate: what stops a run."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from instructvla.nano import untrained_nano
from instructvla.training.collator import ActionCollator
from instructvla.training.data.chat_json import BadRecordError, ChatRecords
from instructvla.training.retention import RetentionGate, RetentionProbe, RetentionSums
from tests.lively_experts import lively
from tests.reaching_episodes import write_chat

VQA = Path(__file__).parents[2] / "shared" / "data" / "vqa" / "bunny_style_smoke.json"
SIZES = {"count": 5, "vqa_count": 3, "max_new_tokens": 4}


class Answering(RetentionProbe):
    """Gives the reference as the adapted model's answer, and one word of it as the base model's."""

    def answers(self, model, questions, **options):
        references = [question.reference for question in questions]
        return references if options.get("adapters", True) else [text.split()[-1] for text in references]


@pytest.fixture(scope="module")
def model():
    return lively(2)


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    return ChatRecords(write_chat(tmp_path_factory.mktemp("chat") / "chat.json"))


@pytest.fixture(scope="module")
def measured(model, records):
    return RetentionProbe(records, model.processor, **SIZES).measure(model, batch_size=2)


def write_records(folder: Path, *conversations: list[str], picture: bool = True) -> ChatRecords:
    """Records of questions and answers in turn; the first question has a picture."""
    (folder / "images").mkdir(exist_ok=True)
    Image.fromarray(np.full((8, 8, 3), 90, np.uint8)).save(folder / "images" / "a.png")
    turns = [
        [{"from": ("human", "gpt")[place % 2], "value": text} for place, text in enumerate(texts)]
        for texts in conversations
    ]
    if picture:
        for record in turns:
            record[0]["value"] = f"<image>\n{record[0]['value']}"
    image = {"image": "a.png"} if picture else {}
    (folder / "chat.json").write_text(json.dumps([{"conversations": record} | image for record in turns]))
    return ChatRecords(folder / "chat.json")


# What is measured


def test_text_losses_are_the_mean_over_labelled_tokens_with_and_without_adapters(model, records, measured):
    probe = RetentionProbe(records, model.processor, **SIZES)
    for key, options in (("text_loss", {}), ("base_text_loss", {"adapters": False})):
        total = tokens = 0
        for number in probe.numbers:
            batch = ActionCollator(model.processor)([records[number]])
            labels = batch["labels"][:, 1:]
            batch = {name: value for name, value in batch.items() if name in ("input_ids", "pixel_values")}
            with torch.no_grad():
                logits = model(**batch, **options).logits[:, :-1]
            total += torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum")
            tokens += (labels != -100).sum()
        assert measured[f"eval_retention/{key}"] == pytest.approx(float(total / tokens), rel=1e-5)  # other batches
    assert measured["eval_retention/text_loss"] != measured["eval_retention/base_text_loss"]


def test_answers_are_the_models_greedy_ones(model, records):
    probe = RetentionProbe(records, model.processor, **SIZES)
    question = probe.questions[0]
    sample = records[question.number]
    text = model.processor.apply_chat_template(sample.messages[: question.messages], add_generation_prompt=True)
    inputs = model.processor.prompt_inputs(list(sample.images), text)
    for options in ({}, {"adapters": False}):
        ids = model.generate(**inputs, max_new_tokens=4, do_sample=False, **options)[0, inputs["input_ids"].shape[1] :]
        expected = model.processor.tokenizer.decode(ids, skip_special_tokens=True)
        assert probe.answers(model, probe.questions, **options)[0] == expected


def test_answers_are_scored_against_the_references(model, tmp_path):
    records = write_records(tmp_path, ["Which is it?", "deep red"], ["Which?", "blue"])
    metrics = Answering(records, model.processor).measure(model)
    assert metrics["eval_retention/vqa_score"] == metrics["eval_retention/vqa_exact_match"] == 1.0
    assert metrics["eval_retention/base_vqa_score"] == pytest.approx((2 / 3 + 1) / 2)
    assert metrics["eval_retention/base_vqa_exact_match"] == 0.5


def test_the_turn_with_the_shortest_answer_is_asked_with_what_was_said_before(model, tmp_path):
    records = write_records(tmp_path, ["What is it?", "A grey square.", "Its colour?", "Grey.", "Sure?", "Yes, I am."])
    (question,) = RetentionProbe(records, model.processor).questions
    assert (question.messages, question.reference) == (3, "Grey.")


def test_only_pictures_are_asked_about(model, records):
    probe = RetentionProbe(records, model.processor, count=99, vqa_count=99)
    assert sorted(probe.numbers) == list(range(12))
    assert sorted(question.number for question in probe.questions) == list(range(0, 12, 2))


def test_the_choice_depends_on_the_seed_alone(model, records):
    first, again, other = (RetentionProbe(records, model.processor, seed=seed, **SIZES) for seed in (0, 0, 1))
    assert (first.numbers, first.questions) == (again.numbers, again.questions)
    assert first.numbers != other.numbers


def test_without_questions_there_is_no_score(model, tmp_path):
    records = write_records(tmp_path, ["Name a colour.", "Red."], picture=False)
    metrics = RetentionProbe(records, model.processor, vqa_count=0).measure(model)
    assert set(metrics) == {"eval_retention/text_loss", "eval_retention/base_text_loss"}


# How it is measured


def test_the_base_is_measured_once_and_the_model_left_as_it_was(model, records, measured):
    probe, seen = RetentionProbe(records, model.processor, **SIZES), []
    scores = probe.scores
    probe.scores = lambda model, **options: seen.append(options.get("adapters", True)) or scores(model, **options)
    state = torch.get_rng_state()
    model.train()
    try:
        first, again = probe.measure(model, batch_size=2), probe.measure(model, batch_size=2)
        assert model.training and torch.equal(torch.get_rng_state(), state)
    finally:
        model.eval()
    assert first == again == measured
    assert seen == [False, True, True]


def test_the_result_of_two_ranks_is_that_of_one(model, records, measured):
    def sums_of(rank: int, adapters: bool) -> torch.Tensor:
        given = []
        RetentionProbe(records, model.processor, **SIZES).scores(
            model,
            adapters=adapters,
            batch_size=2,
            rank=rank,
            world_size=2,
            reduce=lambda sums: given.append(sums) or sums + torch.ones(5),  # a rank alone may have no answers
        )
        return given[0]

    for prefix, adapters in (("", True), ("base_", False)):
        together = RetentionSums.from_tensor(sums_of(0, adapters) + sums_of(1, adapters)).metrics()
        for name, value in together.items():
            assert value == pytest.approx(measured[f"eval_retention/{prefix}{name}"], rel=1e-12)  # order of a sum


def test_a_model_without_adapters_needs_to_be_told_what_it_was(records):
    model = untrained_nano(adapter_config={"experts": 0})
    probe = RetentionProbe(records, model.processor, **SIZES)
    with pytest.raises(ValueError, match=r"no adapters to leave off.*set probe.base = probe.scores\(model\)"):
        probe.measure(model)
    probe.base = probe.scores(model)
    metrics = probe.measure(model)
    assert metrics["eval_retention/text_loss"] == metrics["eval_retention/base_text_loss"]


@pytest.mark.skipif(not VQA.is_file(), reason=f"the real conversations are not at {VQA}")
def test_real_conversations_are_measured(model):
    probe = RetentionProbe(ChatRecords(VQA), model.processor, count=4, vqa_count=2, max_new_tokens=4, max_length=4000)
    metrics = probe.measure(model)
    assert 6 < metrics["eval_retention/text_loss"] < 9  # untrained: ln 2048 = 7.6
    assert 0 <= metrics["eval_retention/vqa_score"] <= 1


# Refusals


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"count": 0}, "count is 0; give an integer of at least 1"),
        ({"vqa_count": -1}, "vqa_count is -1; give an integer of at least 0"),
        ({"max_new_tokens": 0}, "max_new_tokens is 0"),
    ],
)
def test_counts_out_of_range_are_refused(model, records, fields, message):
    with pytest.raises(ValueError, match=message):
        RetentionProbe(records, model.processor, **fields)


def test_records_that_cannot_be_asked_or_read_are_refused_before_training(model, tmp_path):
    records = write_records(tmp_path, ["Name a colour.", "Red."], picture=False)
    with pytest.raises(ValueError, match="no question about a picture that fits .*; give vqa_count=0"):
        RetentionProbe(records, model.processor)
    records = write_records(tmp_path, ["Which is it?", "Red."])
    (tmp_path / "images" / "a.png").unlink()
    with pytest.raises(BadRecordError, match="record 0 .* there is no image"):
        RetentionProbe(records, model.processor)


def test_ranks_without_a_reduce_are_refused(model, records):
    with pytest.raises(ValueError, match="with 2 processes give reduce"):
        RetentionProbe(records, model.processor, **SIZES).measure(model, world_size=2)


# The gate


def scored(loss=2.0, base_loss=2.0, score=0.5, base_score=0.5):
    names = {"text_loss": loss, "base_text_loss": base_loss, "vqa_score": score, "base_vqa_score": base_score}
    return {f"eval_retention/{name}": value for name, value in names.items()}


@pytest.mark.parametrize(
    "metrics, message",
    [
        (scored(loss=2.2), None),
        (scored(loss=1.0, score=0.9), None),
        (scored(loss=2.5), r"the text loss is 2.5, \+25.00% from the base model's 2; max_loss_increase is 20.00%"),
        (scored(loss=float("nan")), "the text loss is nan"),
        (scored(score=0.4375), None),
        (scored(score=0.25), "score is 0.250, 0.250 below the base model's 0.500; max_score_drop is 0.1"),
    ],
)
def test_the_gate_holds_within_its_limits_alone(metrics, message):
    violation = RetentionGate(max_loss_increase=0.2, max_score_drop=0.1).violation(metrics)
    if message is None:
        assert violation is None
    else:
        assert violation is not None
        with pytest.raises(ValueError, match=message):
            raise ValueError(violation)


def test_a_gate_without_limits_lets_everything_through():
    assert RetentionGate().violation(scored(loss=99.0, score=0.0)) is None


def test_a_missing_metric_or_a_wrong_limit_is_refused():
    with pytest.raises(ValueError, match="gave no eval_retention/vqa_score"):
        RetentionGate(max_score_drop=0.1).violation({"eval_retention/text_loss": 1.0})
    with pytest.raises(ValueError, match="max_loss_increase is -0.1; give a finite number"):
        RetentionGate(max_loss_increase=-0.1)
