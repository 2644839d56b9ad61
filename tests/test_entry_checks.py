"""Claims about which entries are rejected, and how often the rules are right."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from instructvla.training.annotation.annotation_prompt import prompt_words
from instructvla.training.annotation.answer_format import annotation_of
from instructvla.training.annotation.entry_checks import (
    FIELDS,
    CheckSettings,
    Kind,
    Reason,
    Rejection,
    checked,
    without,
)
from instructvla.training.annotation.near_duplicates import TextCounts
from instructvla.training.data.episodes import Annotation, Turn

ENTRIES = yaml.safe_load((Path(__file__).parent / "fixtures" / "annotation_entries.yaml").read_text(encoding="utf-8"))
INSTRUCTION = "put the spoon on the plate"
GOOD = Annotation(
    "A table with a spoon and a blue plate.",
    (Turn("What colour is the plate?", "Blue."),),
    (Turn("Lay the cutlery on the dish.", "I will put the spoon on the plate."),),
    (Turn("Dinner is about to begin.", "I will put the spoon on the plate."),),
)


def rejections(entry: list[str]) -> list[Rejection]:
    instruction, kind, *texts = entry
    if kind == Kind.CAPTION:
        return checked(Annotation(caption=texts[0]), instruction).rejections
    return checked(Annotation(**{FIELDS[Kind(kind)]: (Turn(*texts),)}), instruction).rejections


def planted(prefix: str = "") -> Iterator[tuple[str, list[str]]]:
    for reason, entries in ENTRIES[f"{prefix}wrong"].items():
        yield from ((reason, entry) for entry in entries)


def of_contexts(*turns: tuple[str, str], **options: Any) -> list[Rejection]:
    return checked(Annotation(contexts=tuple(Turn(*turn) for turn in turns)), INSTRUCTION, **options).rejections


def test_a_good_annotation_is_kept_whole():
    assert checked(GOOD, INSTRUCTION) == (GOOD, [])


def test_each_planted_error_is_found_for_its_reason():
    missed = [(reason, entry) for reason, entry in planted() if [str(r.reason) for r in rejections(entry)] != [reason]]
    assert not missed


def test_right_entries_are_kept():
    assert not [found for entry in ENTRIES["right"] for found in rejections(entry)]


def test_precision_and_recall_on_entries_that_the_rules_were_not_written_for():
    """At least 28 of 30 errors found, and at most two of 30 right entries rejected."""
    found = sum(bool(rejections(entry)) for _, entry in planted("second_"))
    wrongly = sum(bool(rejections(entry)) for entry in ENTRIES["second_right"])
    assert found >= 28 and wrongly <= 2


def test_a_rejection_tells_where_and_why():
    caption = "A robot arm over a plate."
    (found,) = checked(Annotation(caption), INSTRUCTION).rejections
    assert found.record() == {
        "kind": "caption", "number": 0, "text": caption, "reason": "mentions the robot", "evidence": "robot",
    }  # fmt: skip


def test_what_is_kept_keeps_its_order_and_a_rejection_its_number():
    turns = [("Who is hungry?", f"I will put the {thing} on the plate.") for thing in ("spoon", "fork", "spoon")]
    kept, found = checked(Annotation(rewritten=(Turn("Set it down there.", turns[0][1]), Turn(*turns[1]))), INSTRUCTION)
    assert [turn.answer for turn in kept.rewritten] == [turns[0][1]]
    assert [(one.kind, one.number) for one in found] == [("cr", 1)]


def test_without_an_instruction_nothing_is_compared_with_it():
    turn = Turn("Set the cutlery on the dish.", "I will put the fork on the plate.")
    assert not checked(Annotation(rewritten=(turn,)), None).rejections


def test_a_near_duplicate_of_an_entry_that_was_kept_is_rejected():
    answer = "I will put the spoon on the plate."
    found = of_contexts(("The soup is hot.", answer), ("the soup is hot", answer))
    assert [(one.number, one.reason) for one in found] == [(1, Reason.DUPLICATE)]


def test_only_so_many_of_a_kind_are_kept():
    answer = "I will put the spoon on the plate."
    turns = [(text, answer) for text in ("Soup is ready.", "I am hungry.", "Guests are here.", "Dinner begins.")]
    assert [one.reason for one in of_contexts(*turns)] == [Reason.TOO_MANY]
    assert not of_contexts(*turns, settings=CheckSettings(most_entries=None))


def test_commands_may_be_in_other_languages_where_the_run_allows_it():
    turn = Turn("mets la cuillère dans l'assiette", "I will put the spoon on the plate.")
    settings = CheckSettings(languages=("en", "fr"))
    assert checked(Annotation(rewritten=(turn,)), INSTRUCTION).rejections
    assert not checked(Annotation(rewritten=(turn,)), INSTRUCTION, settings).rejections
    question = Turn("de quelle couleur est l'assiette?", "Blue.")
    assert checked(Annotation(questions=(question,)), INSTRUCTION, settings).rejections


def test_copies_in_a_dataset_are_rejected_beyond_their_number():
    copies, settings = TextCounts(), CheckSettings(most_copies=2)
    found = [checked(GOOD, INSTRUCTION, settings, copies).rejections for _ in range(3)]
    assert [len(one) for one in found] == [0, 0, 4]
    assert {one.reason for one in found[2]} == {Reason.REPEATED}


def test_entries_are_taken_out_by_their_places():
    assert without(GOOD, {("caption", 0), ("qa", 0)}) == Annotation(None, (), GOOD.rewritten, GOOD.contexts)


def test_settings_that_can_not_be_are_refused():
    with pytest.raises(ValueError, match="most_entries is 0; give 1 or more"):
        CheckSettings(most_entries=0)
    with pytest.raises(ValueError, match="'klingon' is no language"):
        CheckSettings(languages=("klingon",))


def test_true_annotations_of_the_tabletop_are_hardly_ever_rejected():
    """But for plain repetitions, which its test of novel objects has on purpose, and for duplicates."""
    from instructvla.evaluation.tabletop.annotations import annotate
    from tests.tabletop_scenes import resting_state, sampled

    settings = CheckSettings(languages=("en", "fr", "es"), most_entries=None)
    entries, false = 0, []
    for scene, task in sampled(15, "train"):
        given = annotate(scene, task, [resting_state(scene)], np.random.default_rng(0), "train")
        entries += 1 + sum(len(getattr(given, field)) for field in FIELDS.values())
        false += checked(given, task.instruction(), settings).rejections
    false = [one for one in false if one.reason not in (Reason.REPEATS, Reason.DUPLICATE)]
    assert entries > 300 and len(false) <= 0.01 * entries, false


def test_the_examples_in_the_prompt_pass():
    examples = prompt_words()["examples"]
    assert len(examples) >= 3
    assert not [
        found for one in examples for found in checked(annotation_of(one["answer"]), one["instruction"]).rejections
    ]


def test_the_robot_is_in_no_question_and_no_answer_unless_the_instruction_is_about_one():
    asked = Turn("What does the robot hold?", "A carrot.")
    promised = Turn("Robot, dinner needs one more thing.", "I will use my gripper to put the carrot on the plate.")
    called = Turn("Robot, we still lack the orange vegetable.", "I will put the carrot on the plate.")
    annotation = Annotation(questions=(asked,), contexts=(promised, called))
    kept = checked(annotation, "put the carrot on the plate").annotation
    assert kept.questions == () and kept.contexts == (called,)
    toy = Annotation(questions=(Turn("What colour is the toy robot?", "It is red."),))
    assert checked(toy, "put the toy robot on the shelf").annotation == toy


@pytest.mark.parametrize("answer", ["OK.", "I will ?.", "Sure!"])
def test_an_answer_to_a_command_that_tells_no_action_is_too_short(answer):
    assert [r.reason for r in of_contexts(("Dinner is about to begin.", answer))] == [Reason.LENGTH]
    assert checked(Annotation(questions=(Turn("What colour is the plate?", "Blue."),)), INSTRUCTION).rejections == []
