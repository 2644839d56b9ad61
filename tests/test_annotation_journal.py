"""Claims about the journal: what is paid for is kept, whatever happens, and nothing else is believed."""

import errno
import json
import os

import pytest

from instructvla.training.annotation import annotation_journal
from instructvla.training.annotation.annotation_journal import AnnotationJournal, Batch, PaidReply, reply_at
from tests.annotation_answers import SETTINGS, annotation_answer, open_journal


def reply(episode, text=None, **changes):
    text = json.dumps(annotation_answer(episode)) if text is None else text
    return PaidReply(episode, f"put object {episode} on the plate", text, 1000, 100, 0.01, "strong-vlm", **changes)


def state(journal):
    counts = dict(journal.asked), dict(journal.unusable), dict(journal.excluded), dict(journal.models)
    tokens = journal.prompt_tokens, journal.completion_tokens, round(journal.cost, 6), journal.unpriced
    return sorted(journal.answers), counts, tokens, journal.batches


def fill(folder):
    with open_journal(folder) as journal:
        assert journal.add(reply(0)) is None
        assert journal.add(reply(1, "I can't.")) == "it holds no JSON object"
        assert journal.add(reply(2, "", problem="the model refused: no")) == "the model refused: no"
        assert journal.add(reply(1)) is None
        journal.exclude(3, "no instruction")
        journal.add_batch(Batch("b", {4: "open it", 5: "close it"}))
        journal.update_batch("b", batch_id="remote")
        return state(journal)


def test_another_run_finds_everything_again(tmp_path):
    before = fill(tmp_path)
    with open_journal(tmp_path) as journal:
        assert state(journal) == before
        assert sorted(journal.answers) == [0, 1] and journal.asked == {0: 1, 1: 2, 2: 1}
        assert journal.cost == pytest.approx(0.04) and journal.prompt_tokens == 4000
        assert reply_at(journal.answers[1]).text == json.dumps(annotation_answer(1))
        assert {episode: problem for episode, (_, problem) in journal.rejected.items()} == {2: "the model refused: no"}
        assert journal.open_batches() == [Batch("b", {4: "open it", 5: "close it"}, "remote")]
    assert state(AnnotationJournal.read(tmp_path, SETTINGS)) == before


def test_killed_in_the_middle_of_a_line_it_keeps_all_others(tmp_path):
    fill(tmp_path)
    content = (tmp_path / "journal.jsonl").read_bytes()
    lines = content.splitlines(keepends=True)
    half = b"".join(lines[:3]) + lines[3][:20]
    (tmp_path / "journal.jsonl").write_bytes(half)
    assert sorted(AnnotationJournal.read(tmp_path, SETTINGS).asked) == [0, 1]  # reading changes nothing
    assert (tmp_path / "journal.jsonl").read_bytes() == half
    with open_journal(tmp_path) as journal:
        assert sorted(journal.asked) == [0, 1]
        journal.add(reply(7))
    assert (tmp_path / "journal.jsonl").read_bytes().startswith(b"".join(lines[:3]) + b'{"reply": {"episode": 7,')


@pytest.mark.parametrize("written", [0, 10])
def test_a_full_disk_leaves_a_whole_journal(tmp_path, monkeypatch, written):
    fill(tmp_path)
    before = (tmp_path / "journal.jsonl").read_bytes()
    real, left = os.write, [written]

    def write(file, content):
        if not left[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        done = real(file, content[: left[0]])
        left[0] = 0
        return done

    with open_journal(tmp_path) as journal:
        with monkeypatch.context() as patched:
            patched.setattr(annotation_journal.os, "write", write)
            with pytest.raises(ValueError, match=r"can't be written: .*No space left on device.*free some space"):
                journal.add(reply(7))
        assert (tmp_path / "journal.jsonl").read_bytes() == before
        assert journal.add(reply(7)) is None
    with open_journal(tmp_path) as journal:
        assert 7 in journal.answers


def test_without_room_on_the_disk_nothing_is_asked(tmp_path, monkeypatch):
    with open_journal(tmp_path) as journal:
        journal.require_room()
        monkeypatch.setattr(annotation_journal, "ROOM", 2**70)
        with pytest.raises(ValueError, match=r"has \d+ MB left, and answers that are paid for might be lost"):
            journal.require_room()


def test_a_line_on_the_disk_is_flushed_before_it_is_judged(tmp_path, monkeypatch):
    """The answer is safe even if looking at it fails."""

    def fails(text):
        raise KeyboardInterrupt

    with open_journal(tmp_path) as journal:
        monkeypatch.setattr(annotation_journal, "parse_answer", fails)
        with pytest.raises(KeyboardInterrupt):
            journal.add(reply(0))
    monkeypatch.undo()
    assert 0 in AnnotationJournal.read(tmp_path, SETTINGS).answers


def test_an_answer_given_twice_is_no_answer_about_another_task(tmp_path):
    with open_journal(tmp_path) as journal:
        text = json.dumps(annotation_answer(0))
        assert journal.add(reply(0, text)) is None
        assert "word for word the answer about another episode" in journal.add(reply(1, text))
        assert journal.add(PaidReply(5, "put object 0 on the plate", text, 1, 1)) is None  # the same task again
        assert journal.unpriced == 1


def test_other_settings_other_lines_and_other_folders_are_refused(tmp_path):
    fill(tmp_path / "run")
    with pytest.raises(ValueError, match=r'model was "strong-vlm", is "other"\. Give the same ones, or another --outp'):
        AnnotationJournal.open(tmp_path / "run", SETTINGS | {"model": "other"})
    with (tmp_path / "run" / "journal.jsonl").open("a") as file:
        file.write('{"answer": 1}\n')
    with pytest.raises(ValueError, match=r"journal.jsonl, line 9 is no line of a journal \(answer is unknown\)"):
        open_journal(tmp_path / "run")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "episodes").mkdir()
    with pytest.raises(ValueError, match="mine holds something else; give a new folder"):
        open_journal(tmp_path / "mine")
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="--output .*file can't be written"):
        open_journal(tmp_path / "file")


def test_one_run_at_a_time_but_shards_at_once(tmp_path):
    with AnnotationJournal.open(tmp_path, SETTINGS, (1, 2)) as first:
        with pytest.raises(ValueError, match="another `instructvla annotate` adds to .*share the work: --shard 1/2"):
            AnnotationJournal.open(tmp_path, SETTINGS, (1, 2))
        with AnnotationJournal.open(tmp_path, SETTINGS, (2, 2)) as second:
            first.add(reply(0))
            second.add(reply(1))
    with open_journal(tmp_path) as journal:
        assert sorted(journal.answers) == [0, 1]
        journal.add(reply(2))
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["journal-00001-of-00002.jsonl", "journal-00002-of-00002.jsonl", "journal.jsonl"]


def test_words_that_are_no_unicode_are_kept(tmp_path):
    with open_journal(tmp_path) as journal:
        journal.add(reply(0, "half a \ud83d smile"))
        place, _ = journal.rejected[0]
        assert reply_at(place).text == "half a \ud83d smile"
