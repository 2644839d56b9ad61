"""Claims about the checks of a whole dataset."""

from instructvla.training.annotation.annotation_check import AnnotationCheck
from instructvla.training.annotation.annotation_texts import EpisodeTexts
from instructvla.training.annotation.entry_checks import CheckSettings, Kind, Reason, Rejection
from instructvla.training.data.episodes import BadEpisodeError
from tests.annotated_episodes import ANNOTATIONS, INSTRUCTIONS, REASONS

TEXTS = [EpisodeTexts(*texts) for texts in zip(INSTRUCTIONS, ANNOTATIONS, strict=True)]


def checked_texts(*more: EpisodeTexts | BadEpisodeError) -> tuple[AnnotationCheck, list[tuple[int, Rejection]]]:
    check = AnnotationCheck()
    return check, list(check.run([*TEXTS, *more], CheckSettings()))


def test_each_rejection_comes_with_its_episode():
    _, found = checked_texts()
    assert {(number, one.kind, one.number): one.reason for number, one in found} == REASONS


def test_entries_and_episodes_are_counted():
    check, _ = checked_texts(BadEpisodeError("file: cut off"), EpisodeTexts(None, ANNOTATIONS[0]))
    assert check.episodes == 6 and check.annotated == [0, 1, 3, 5] and check.instructed == 3
    assert check.unreadable == {4: "file: cut off"}
    assert check.entries == {Kind.CAPTION: 4, Kind.QUESTION: 2, Kind.REWRITTEN: 5, Kind.CONTEXT: 3}
    assert check.rejected == 3
    assert check.lacking == {Kind.CAPTION: 1, Kind.QUESTION: 2, Kind.REWRITTEN: 1, Kind.CONTEXT: 2}
    assert check.usable == [0, 3, 5]


def test_what_is_left_out_is_known_by_place():
    check, _ = checked_texts()
    check.reject(0, [Rejection(Kind.QUESTION, 0, "", Reason.JUDGED)])
    assert check.left_out == {0: {("cr", 1), ("qa", 0)}, 1: {("caption", 0)}, 3: {("cc", 0)}}
    assert check.rejected == 4


def test_the_summary_tells_reasons_by_kind_and_what_could_not_be_checked():
    check, _ = checked_texts(BadEpisodeError("file: cut off"), EpisodeTexts(None, ANNOTATIONS[0]))
    told = check.summary()
    assert "4 of 6 episodes are annotated" in told
    assert "1 can't be read, such as 4: file: cut off" in told
    assert "1 have no instruction" in told
    assert "| mentions the robot | 1 | 0 | 0 | 0 | 1 |" in told
    assert "| rejected | 1 (25.0 %) | 0 (0.0 %) | 1 (20.0 %) | 1 (33.3 %) | 3 (21.4 %) |" in told


def test_the_record_is_json_of_the_same_numbers():
    record = checked_texts()[0].record()
    assert record["rejected"][0] == {"kind": "caption", "reason": "mentions the robot", "entries": 1}
    assert record["entries"] == {"caption": 3, "qa": 1, "cr": 3, "cc": 2}
