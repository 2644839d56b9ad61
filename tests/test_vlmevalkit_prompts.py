"""VLMEvalKit's messages: the paper's questions and limits, several pictures, none, and what is refused."""

import math

import pytest

from instructvla.evaluation.multimodal.benchmarks import paper_benchmark
from instructvla.evaluation.multimodal.image_tiles import Tiling
from instructvla.evaluation.multimodal.vlmevalkit_prompts import prompt_of, question_text

CHOICES = {"question": "Which?", "hint": math.nan, "A": "one", "B": "two", "C": math.nan}


def text(value: str) -> dict[str, str]:
    return {"type": "text", "value": value}


def image(value: str) -> dict[str, str]:
    return {"type": "image", "value": value}


@pytest.mark.parametrize(
    ("dataset", "line", "expected"),
    [
        (
            "MMStar",
            CHOICES,
            "Which?\nA. one\nB. two\nAnswer with the option's letter from the given choices directly.",
        ),
        (
            "MMBench_DEV_EN_V11",
            CHOICES | {"hint": "Look up."},
            "Look up.\nWhich?\nA. one\nB. two\nAnswer with the option's letter from the given choices directly.",
        ),
        ("MMMU_DEV_VAL", {"question": "How many?"}, "How many?\nAnswer the question directly."),
        ("MME", {"question": "Is it?"}, "Is it? Answer the question using a single word or phrase."),
        (
            "HallusionBench",
            {"question": "Is it?"},
            "Is it? Please answer yes or no. Answer the question using a single word or phrase.",
        ),
        ("DocVQA_VAL", {"question": "Who?"}, "Who?\nAnswer the question using a single word or phrase."),
        ("MMVet", {"question": "Why?"}, "Why?"),
    ],
)
def test_a_question_is_asked_as_in_the_papers_evaluation(dataset, line, expected):
    assert question_text(line, paper_benchmark(dataset)) == expected


def test_pictures_keep_their_order_and_leave_the_text():
    prompt = prompt_of([image("a.png"), text("first <image 1> "), image("b.png"), text("second")], "MMMU_DEV_VAL")
    assert prompt.images == ("a.png", "b.png") and prompt.text == "first <image 1> second"
    assert prompt.tiling == Tiling(max_tiles=12, enlarge=2)


def test_texts_about_one_picture_are_lines():
    assert prompt_of([image("a.png"), text("one"), text("two")], "MMStar").text == "one\ntwo"


def test_a_message_may_have_no_picture():
    prompt = prompt_of([text("hello")], None)
    assert prompt.images == () and prompt.text == "hello"


def test_short_answers_are_limited_to_128_tokens_and_others_to_512():
    short = question_text(CHOICES, paper_benchmark("MMStar"))
    assert prompt_of([text(short)], "MMStar").max_new_tokens == 128
    assert prompt_of([text("Why?")], "MMVet").max_new_tokens == 512


@pytest.mark.parametrize("kind", ["video", "audio"])
def test_video_and_audio_are_refused_by_name(kind):
    with pytest.raises(ValueError, match=f"Clips asks about {kind} .*leave this data set out"):
        prompt_of([{"type": kind, "value": "a.mp4"}, text("what?")], "Clips")
