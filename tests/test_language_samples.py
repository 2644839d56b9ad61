"""Samples of VLA-IT's released validation layout and of chat files: what is asked, of which picture, in which words."""

import json

import pytest
from PIL import Image

from instructvla.evaluation.metrics.language_samples import (
    CAPTION_PROMPT,
    PICTURES,
    RELEASED,
    Task,
    language_data,
)
from tests.vla_it_validation import ANNOTATION, released, turn


@pytest.mark.parametrize("pictures", PICTURES)
def test_each_picture_is_asked_for_caption_first_question_and_first_context(tmp_path, pictures):
    data = language_data(released(tmp_path, [ANNOTATION, ANNOTATION], pictures))
    assert data.is_vla_it and data.is_whole and data.file == tmp_path / RELEASED
    asked = [(one.task, one.key, one.question, one.reference) for one in data.samples[3:]]
    assert asked == [
        (Task.CAPTION, "key1", CAPTION_PROMPT, "A cup on a table."),
        (Task.QUESTION, "key1", "what?", "what."),
        (Task.INSTRUCTION, "key1", "context?", "context."),
    ]
    assert [part["type"] for part in data.samples[3].messages[0]["content"]] == ["image", "text"]
    assert data.samples[3].images()[0].size == (8, 6)


def test_what_an_annotation_lacks_is_not_asked(tmp_path):
    partial = {"Caption": "None", "QA": [turn("what")], "CC": None}
    data = language_data(released(tmp_path, [ANNOTATION, partial, ANNOTATION]))
    assert [one.task for one in data.samples if one.key == "key1"] == [Task.QUESTION]


def test_a_limit_takes_the_first_pictures_and_says_so(tmp_path):
    data = language_data(released(tmp_path, [ANNOTATION] * 3), limit=2)
    assert {one.key for one in data.samples} == {"key0", "key1"} and not data.is_whole


def test_turns_of_a_chat_are_asked_after_the_earlier_ones(tmp_path):
    turns = [("human", "<image>\nwhat?"), ("gpt", "a cup."), ("human", "where?"), ("gpt", "left.")]
    record = {"id": "0", "image": "a.png", "conversations": [{"from": who, "value": text} for who, text in turns]}
    alone = {
        "id": "1",
        "conversations": [{"from": who, "value": text.removeprefix("<image>\n")} for who, text in turns],
    }
    (tmp_path / "chat.json").write_text(f"{json.dumps(record)}\n{json.dumps(alone)}\n", encoding="utf-8")
    (tmp_path / "images").mkdir()
    Image.new("RGB", (8, 6)).save(tmp_path / "images" / "a.png")
    data = language_data(tmp_path)
    assert not data.is_vla_it and {one.task for one in data.samples} == {Task.QUESTION}
    assert [(one.question, one.reference) for one in data.samples] == [("what?", "a cup."), ("where?", "left.")] * 2
    assert [len(one.messages) for one in data.samples] == [1, 3, 1, 3]
    assert data.samples[1].messages[1] == {"role": "assistant", "content": "a cup."}
    assert [len(one.images()) for one in data.samples] == [1, 1, 0, 0]
    assert language_data(tmp_path / "chat.json", limit=1).samples == data.samples[:2]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "no record to read|nothing to ask"),
        ('[{"hashkey": "a"}]', "is no list of"),
        ('[{"hashkey": 1, "annotation": {}}]', "must be a text"),
        ('[{"hashkey": "a", "annotation": {}}]', "has no annotation"),
        ('[{"hashkey": "a", "annotation": {"Caption": 1}}]', "Caption is 1, but must be a text"),
        ('[{"hashkey": "a", "annotation": {"Caption": "b"}}]', "unpack language_evaluation.zip"),
        ('[{"hashkey": "a", "annotation"', "is no list of"),
    ],
)
def test_malformed_files_are_told(tmp_path, content, message):
    (tmp_path / RELEASED).write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        language_data(tmp_path)


def test_a_key_twice_and_a_single_sample_are_refused(tmp_path):
    released(tmp_path, [ANNOTATION, ANNOTATION])
    with pytest.raises(ValueError, match="a single sample of captioning"):
        language_data(tmp_path, limit=1)
    file = tmp_path / RELEASED
    file.write_text(file.read_text().replace("key1", "key0"), encoding="utf-8")
    with pytest.raises(ValueError, match="key0 comes twice"):
        language_data(tmp_path)


def test_no_data_are_refused_with_where_they_are(tmp_path):
    with pytest.raises(ValueError, match="instructvla download vla-it --repo"):
        language_data(tmp_path)


def test_a_picture_that_is_none_is_told(tmp_path):
    data = language_data(released(tmp_path, [ANNOTATION, ANNOTATION]))
    data.samples[0].pictures[0].write_bytes(b"no picture")
    with pytest.raises(ValueError, match="key0_first_frame.jpg can't be decoded"):
        data.samples[0].images()
