"""Conversations about pictures: what is written, that it can be read, and that it is the same each time."""

import json

import numpy as np
import pytest

from instructvla.evaluation.tabletop.picture_chats import PictureChats, is_free, regions, write_chats
from instructvla.training.data.chat_json import ChatRecords

SMALL = {"count": 3, "image_size": 32}


def test_a_record_has_the_places_and_other_questions():
    record, picture = PictureChats(turns=5, **SMALL)[0]
    said = [turn["value"] for turn in record["conversations"]]
    assert len(said) == 10 and said[0].startswith("<image>\n") and picture[:2] == b"\xff\xd8"
    assert any(answer.count(",") >= 2 and any(c.isdigit() for c in answer) for answer in said[1::2])
    assert len({text.removeprefix("<image>\n") for text in said[::2]}) == 5


def test_patches_are_named_by_what_stands_there():
    points = {"white bowl": (0.2, 0.3), "apple": (0.8, 0.5)}
    shown = regions(points, np.random.default_rng(0))
    assert shown[-2:] == [{"point": [0.8, 0.5], "word": "apple"}, {"point": [0.2, 0.3], "word": "bowl"}]
    assert len(shown) <= 4
    for seed in range(20):
        for region in regions(points, np.random.default_rng(seed))[:-2]:
            assert region["word"] == "nothing" and is_free(region["point"], points)
    assert not is_free((0.25, 0.4), points)


def test_written_conversations_are_read_as_multimodal_chat(tmp_path):
    path = write_chats(PictureChats(**SMALL), tmp_path / "chats")
    records = ChatRecords(path)
    assert len(records) == 3 and not list(records.bad_records())
    assert records[0].images[0].size == (32, 32)
    assert {word for _, _, word in records[0].regions} > {"nothing"}


def test_processes_make_the_same_files(tmp_path):
    one, two = (write_chats(PictureChats(**SMALL), tmp_path / str(n), workers=n).parent for n in (0, 2))
    names = sorted(path.relative_to(one) for path in one.rglob("*.*"))
    assert len(names) == 5
    assert all((one / name).read_bytes() == (two / name).read_bytes() for name in names)


def test_finished_conversations_are_left_alone_and_others_refused(tmp_path):
    path = write_chats(PictureChats(**SMALL), tmp_path)
    before = path.stat().st_mtime_ns
    assert write_chats(PictureChats(**SMALL), tmp_path).stat().st_mtime_ns == before
    with pytest.raises(ValueError, match="other settings"):
        write_chats(PictureChats(**SMALL, seed=1), tmp_path)


def test_an_interrupted_writer_leaves_no_chat_file(tmp_path):
    class Stops(PictureChats):
        def __getitem__(self, index):
            if index == 2:
                raise KeyboardInterrupt
            return super().__getitem__(index)

    with pytest.raises(KeyboardInterrupt):
        write_chats(Stops(**SMALL), tmp_path)
    assert not (tmp_path / "chat.json").exists()
    assert len(json.loads(write_chats(PictureChats(**SMALL), tmp_path).read_text().splitlines()[2])) == 4


@pytest.mark.parametrize(
    ("fields", "message"), [({"count": 0}, "count is 0"), ({"turns": 0}, "turns 0"), ({"split": "x"}, "'x'")]
)
def test_wrong_settings_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        PictureChats(**({"count": 1} | fields))
