"""Bunny and LLaVA JSON: records by offset, pictures of every mode, and faults named by file and record."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from instructvla.training.data import json_records
from instructvla.training.data.chat_json import BadRecordError, ChatRecords
from instructvla.training.data.episodes import BadEpisodeError

SHARED = Path(__file__).parents[2] / "shared" / "data"


def turns(*texts: str) -> list[dict]:
    return [{"from": ("human", "gpt")[index % 2], "value": text} for index, text in enumerate(texts)]


RECORDS = [
    {"id": "a", "image": "rgb.png", "conversations": turns("<image>\nWhat?", "This.", "And?", "That.")},
    {"id": "b", "conversations": turns('Say "}]" or \\ or é 🤖', "{[\n")},
    {"id": "c", "image": "grey.png", "conversations": turns("Where?\n<image>", "Here.")},
    {"id": "d", "image": ["alpha.png", "rgb.png"], "conversations": turns("<image><image>\nSame?", "No.")},
]


SHOWN = {"image": "rgb.png", "conversations": turns("<image>\nq", "a")}
APPLE = {"point": [0.25, 0.5], "word": "apple"}


@pytest.fixture
def folder(tmp_path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 4), np.uint8)
    (tmp_path / "images").mkdir()
    for name, array in (("rgb", pixels[..., :3]), ("grey", pixels[..., 0]), ("alpha", pixels)):
        Image.fromarray(array).save(tmp_path / "images" / f"{name}.png")
    return tmp_path


def write(folder: Path, records, **options) -> Path:
    path = folder / "chat.json"
    path.write_text(json.dumps(records, **options), encoding="utf-8")
    return path


def contents(sample) -> list:
    return [message["content"] for message in sample.messages]


# Reading


@pytest.mark.parametrize("options", [{}, {"indent": 1}, {"separators": (",", ":"), "ensure_ascii": False}])
@pytest.mark.parametrize("chunk", [1, 7, 1 << 20])
def test_records_are_found_however_the_array_is_written(folder, monkeypatch, options, chunk):
    monkeypatch.setattr(json_records, "CHUNK", chunk)
    reader = ChatRecords(write(folder, RECORDS, **options))
    assert len(reader) == 4
    assert contents(reader[1]) == [[{"type": "text", "text": 'Say "}]" or \\ or é 🤖'}], "{[\n"]


def test_json_lines_give_the_same_samples(folder):
    array = ChatRecords(write(folder, RECORDS))
    lines = folder / "chat.jsonl"
    lines.write_text("\ufeff" + "\n".join(map(json.dumps, RECORDS)) + "\n", encoding="utf-8")
    other = ChatRecords(lines)
    assert [contents(other[index]) for index in range(4)] == [contents(array[index]) for index in range(4)]


def test_turns_become_messages_with_the_picture_where_its_placeholder_was(folder):
    reader = ChatRecords(write(folder, RECORDS))
    image, text = {"type": "image"}, lambda words: {"type": "text", "text": words}
    assert contents(reader[0]) == [[image, text("What?")], "This.", [text("And?")], "That."]
    assert [message["role"] for message in reader[0].messages] == ["user", "assistant"] * 2
    assert contents(reader[2]) == [[image, text("Where?")], "Here."]
    assert contents(reader[3]) == [[image, image, text("Same?")], "No."]
    assert reader[0].source == f"{reader.path}, record 0 (id 'a')"
    assert reader[0].frame is None


def test_text_only_records_have_no_picture_and_others_rgb_ones(folder):
    reader = ChatRecords(write(folder, RECORDS))
    assert [[(image.mode, image.size) for image in reader[index].images] for index in range(4)] == [
        [("RGB", (8, 6))] * number for number in (1, 0, 1, 2)
    ]
    grey = np.asarray(Image.open(folder / "images" / "grey.png"))
    np.testing.assert_array_equal(np.asarray(reader[2].images[0]), np.repeat(grey[..., None], 3, axis=2))


def test_a_reader_goes_to_another_process(folder):
    reader = ChatRecords(write(folder, RECORDS))
    assert contents(pickle.loads(pickle.dumps(reader))[3]) == contents(reader[3])


def test_opening_keeps_no_text(folder):
    record = {"id": "x", "conversations": turns("Why?", "Because. " * 500)}
    path = write(folder, [record] * 2000)
    assert path.stat().st_size > 9_000_000
    assert len(pickle.dumps(ChatRecords(path))) < 60_000


def test_fingerprint_is_of_the_content_and_of_what_is_left_out(folder):
    first = ChatRecords(write(folder, RECORDS)).fingerprint
    assert ChatRecords(folder / "chat.json").fingerprint == first
    assert ChatRecords(folder / "chat.json", skip=[1]).fingerprint != first
    assert ChatRecords(write(folder, RECORDS[::-1])).fingerprint != first


@pytest.mark.skipif(not (SHARED / "vqa").is_dir(), reason=f"the real records are not at {SHARED / 'vqa'}")
def test_real_records_read_and_their_pictures_are_rgb():
    reader = ChatRecords(SHARED / "vqa" / "bunny_style_smoke.json")
    samples = [reader[index] for index in range(len(reader))]
    assert len(samples) == 14
    assert sum(len(sample.messages) for sample in samples) == 62
    assert {image.mode for sample in samples for image in sample.images} == {"RGB"}
    assert sum(not sample.images for sample in samples) == 1
    assert list(reader.bad_records()) == []


# Faults


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"image": "none.png", "conversations": turns("<image>\nq", "a")}, "there is no image .*none.png"),
        (
            {"image": "bad.png", "conversations": turns("<image>\nq", "a")},
            "the image .*bad.png can't be decoded: its 10 bytes are of no known format",
        ),
        ({"image": "rgb.png", "conversations": turns("q", "a")}, "hold 0 <image>, but there are 1 images"),
        ({"conversations": turns("<image>\nq", "a")}, "hold 1 <image>, but there are 0 images"),
        ({"image": 3, "conversations": turns("<image>\nq", "a")}, "'image' must be a path"),
        ({"conversations": turns("q")}, "each with its answer"),
        ({"conversations": []}, "each with its answer"),
        ({}, "each with its answer"),
        ({"conversations": turns("q", "a")[::-1]}, "turn 0 must be {'from': 'human'"),
        ({"conversations": turns("q", None)}, "turn 1 must be {'from': 'gpt'"),
        ({"conversations": turns("q", " ")}, "turn 1 is an empty answer"),
        ({"conversations": turns("q", "a<|im_end|>")}, r"turn 1 holds control tokens: \['<|im_end|>'\]"),
        ({"conversations": turns("<new_token_3>", "a")}, "turn 0 holds control tokens"),
        ({"conversations": turns("\ud83d", "a")}, "surrogates not allowed"),
        ({"conversations": turns("q", "a"), "regions": [APPLE]}, "'regions' belong to one picture, but there are 0"),
        (SHOWN | {"regions": [APPLE | {"point": [0.5, 1.5]}]}, "'regions' must be a list of"),
        (SHOWN | {"regions": [APPLE | {"word": " "}]}, "'regions' must be a list of"),
        (SHOWN | {"regions": [{"point": [0.5, 0.5]}]}, "'regions' must be a list of"),
        (SHOWN | {"regions": 5}, "'regions' must be a list of"),
    ],
)
def test_a_bad_record_is_named_with_its_file_and_remedy(folder, record, message):
    (folder / "images" / "bad.png").write_bytes(b"no picture")
    reader = ChatRecords(write(folder, [RECORDS[0], {"id": "bad"} | record]))
    with pytest.raises(BadRecordError, match=message) as caught:
        reader[1]
    assert f"{reader.path}, record 1 (id 'bad')" in str(caught.value)
    assert "skip bad ones" in str(caught.value)
    assert isinstance(caught.value, BadEpisodeError)


def test_regions_of_a_picture_are_read(folder):
    reader = ChatRecords(write(folder, [SHOWN | {"regions": [APPLE]}, SHOWN]))
    assert (reader[0].regions, reader[1].regions) == (((0.25, 0.5, "apple"),), ())


def test_html_tags_in_a_text_are_no_control_tokens(folder):
    reader = ChatRecords(write(folder, [{"conversations": turns("What is <img>?", "A tag; </img> does not exist.")}]))
    assert contents(reader[0])[1] == "A tag; </img> does not exist."


def test_bad_records_are_listed_and_can_be_left_out(folder):
    path = write(folder, [*RECORDS[:2], {"id": "bad", "conversations": []}, *RECORDS[2:]])
    bad = dict(ChatRecords(path).bad_records())
    assert list(bad) == [2]
    reader = ChatRecords(path, skip=bad)
    assert [reader[index].source[-8:-1] for index in range(len(reader))] == ["(id 'a'", "(id 'b'", "(id 'c'", "(id 'd'"]
    assert list(reader.bad_records()) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[{"id": 1}, {"id": 2', "record 1 of .*byte 20: Expecting ',' delimiter"),
        ('[{"id": 1}, ', "record 1 of .*byte 12: expected { but found the end of the file"),
        ('[{"id": 1}', "record 1 of .*byte 10: expected ] but found the end of the file"),
        ('[{"id": 1} {"id": 2}]', "record 1 of .*byte 11: expected , but found {"),
        ('[{"id": 1}, 5]', "record 1 of .*byte 12: expected { but found 5"),
        ('[{"id": 1}] more', "byte 12: something follows the last record"),
        ("hello", "record 0 of .*byte 0: expected { but found h"),
        ("[]", "no record to read"),
        ("", "no record to read"),
    ],
)
def test_a_broken_file_is_refused_when_it_is_opened(tmp_path, text, message):
    path = tmp_path / "chat.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        ChatRecords(path)
    assert str(path) in str(caught.value)


def test_a_missing_file_and_a_wrong_number_to_skip_are_refused(folder):
    with pytest.raises(ValueError, match="there is no chat file .*none.json"):
        ChatRecords(folder / "none.json")
    with pytest.raises(ValueError, match="skip holds 9; .* has the records 0 to 3"):
        ChatRecords(write(folder, RECORDS), skip=[9])
    with pytest.raises(ValueError, match="no record to read; 4 are left out"):
        ChatRecords(folder / "chat.json", skip=range(4))


def test_a_file_that_changed_under_the_reader_is_noticed(folder):
    reader = ChatRecords(write(folder, RECORDS))
    write(folder, RECORDS[::-1])
    with pytest.raises(BadRecordError, match="record 0: the file changed"):
        reader[0]


def test_where_a_records_pictures_should_be_is_told_without_opening_them(tmp_path):
    turns = [{"from": "human", "value": "Hello."}, {"from": "gpt", "value": "Hello."}]
    records = [
        {"id": str(number), "image": image, "conversations": turns} for number, image in enumerate(["a", ["b"], 3])
    ]
    (tmp_path / "chat.json").write_text(json.dumps([*records, {"id": "3", "conversations": turns}]))
    chat = ChatRecords(tmp_path / "chat.json", tmp_path / "pictures", skip=[0])
    assert [chat.picture_files(index) for index in range(3)] == [[tmp_path / "pictures" / "b"], [], []]
