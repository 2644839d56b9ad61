"""Claims about what a model is asked: rules, examples and pictures."""

import hashlib
import json

import pytest

from instructvla.training.annotation.annotation_prompt import (
    WORDS,
    corrected,
    episode_messages,
    prompt_version,
    prompt_words,
    system_text,
)
from instructvla.training.annotation.answer_format import parse_answer
from instructvla.training.annotation.entry_checks import checked

KNOWN = {"1": "0d7cca0969cee0e3"}  # version → digest of the words
EXAMPLES = prompt_words()["examples"]


def test_other_words_have_another_version():
    """Journals and cards name the version only: change it with the words, then add the line here."""
    assert hashlib.sha256(WORDS.read_bytes()).hexdigest()[:16] == KNOWN[prompt_version()]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example["instruction"])
def test_each_example_keeps_all_rules_that_can_be_checked(example):
    annotation = parse_answer(json.dumps(example["answer"]))
    assert checked(annotation, example["instruction"]).rejections == []


def test_an_episode_is_its_instruction_and_three_pictures_in_order():
    system, user = episode_messages("open the drawer", ["data:1", "data:2", "data:3"])
    assert system == {"role": "system", "content": system_text()} and user["role"] == "user"
    content = [part.get("text") or part["image_url"]["url"] for part in user["content"]]
    assert content == [
        'Instruction: "open the drawer"',
        "First picture:",
        "data:1",
        "Middle picture:",
        "data:2",
        "Last picture:",
        "data:3",
    ]


def test_what_all_episodes_share_comes_first():
    """Providers charge less for a beginning that they know."""
    one, other = (episode_messages(text, ["1", "2", "3"])[0] for text in ("open the drawer", "fold the towel"))
    assert one == other
    assert all(json.dumps(example["answer"]["caption"]) in system_text() for example in EXAMPLES)


def test_an_answer_that_was_no_use_is_shown_with_the_reason():
    messages = episode_messages("open the drawer", ["1", "2", "3"])
    *before, answer, again = corrected(messages, "I can't.", "it holds no JSON object")
    assert before == messages and answer == {"role": "assistant", "content": "I can't."}
    assert "it holds no JSON object" in again["content"] and again["role"] == "user"
    assert [message["role"] for message in corrected(messages, " ", "it is empty")] == ["system", "user", "user"]
