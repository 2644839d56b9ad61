"""Claims about episodes with annotations: what passed the checks, with the episode that it is about."""

import json
from dataclasses import replace

import pytest

from instructvla.training.annotation.annotated_episodes import AnnotatedEpisodes, CheckedAnswers
from instructvla.training.annotation.annotation_journal import PaidReply
from instructvla.training.annotation.answer_format import parse_answer
from instructvla.training.annotation.entry_checks import CheckSettings
from tests.annotation_answers import annotation_answer, open_journal
from tests.memory_episodes import bridge_episodes

ROBOT = {"caption": "A robot arm over a table with a plate."}


@pytest.fixture
def journal(tmp_path):
    """Answers about 0 to 3, in another order; the caption of 1 mentions the robot, and 3 has nothing good."""
    nothing = {"question": "", "answer": ""}
    empty = {kind: [nothing] for kind in ("question_answering", "command_rewriting", "context_creation")}
    changes = {1: ROBOT, 3: ROBOT | empty}
    with open_journal(tmp_path) as journal:
        for episode in (2, 0, 3, 1):
            text = json.dumps(annotation_answer(episode, **changes.get(episode, {})))
            journal.add(PaidReply(episode, f"put object {episode} on the plate", text, 1, 1))
        yield journal


def checked_answers(journal):
    rejected = []
    return CheckedAnswers.of(journal, CheckSettings(), rejected), rejected


def test_entries_that_fail_the_checks_are_left_out_with_their_reason(journal):
    answers, rejected = checked_answers(journal)
    assert answers.annotated == 3
    assert answers.entries == {"captions": 2, "questions": 3, "rewritten commands": 3, "created contexts": 3}
    first, *others = rejected
    assert (first["episode"], first["kind"], first["number"]) == (1, "caption", 0)
    assert (first["reason"], first["text"]) == ("mentions the robot", ROBOT["caption"])
    assert {rejection["episode"] for rejection in others} == {3} and len(others) == 4
    assert answers.reasons["caption", "mentions the robot"] == 2


def test_each_episode_has_its_own_annotation(journal):
    episodes = AnnotatedEpisodes(bridge_episodes(5), checked_answers(journal)[0], {"model": "strong-vlm"})
    assert len(episodes) == 5
    assert episodes[0].annotation == parse_answer(json.dumps(annotation_answer(0)))
    assert episodes[1].annotation.caption is None and episodes[1].annotation.questions
    assert episodes[3].annotation is episodes[4].annotation is None
    assert [episode.file_path for episode in episodes.annotated()] == [f"/robot/{n}/out.npy" for n in range(3)]
    assert list(episodes[0].images) == ["primary"] and not episodes.without_pictures()[0].images
    assert episodes.without_pictures()[0].annotation == episodes[0].annotation


def test_other_annotations_are_another_source(journal):
    def provenance():
        return AnnotatedEpisodes(bridge_episodes(5), checked_answers(journal)[0], {"model": "m"}).provenance

    before = provenance()
    assert before["mapping"] == bridge_episodes(5).provenance["mapping"] and before["annotation"]["model"] == "m"
    assert provenance() == before
    journal.add(PaidReply(4, "put object 4 on the plate", json.dumps(annotation_answer(4)), 1, 1))
    assert provenance()["annotation"]["kept"] != before["annotation"]["kept"]


def test_an_episode_without_a_file_path_gets_a_name_for_one(journal):
    class Nameless:
        def __getitem__(self, index):
            return replace(bridge_episodes(1)[index], file_path=None)

    episode = AnnotatedEpisodes(Nameless(), checked_answers(journal)[0], {})[0]
    assert episode.file_path == f"{episode.dataset}/{episode.episode_id}"
