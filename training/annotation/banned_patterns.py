"""What VLA-IT's texts must not hold (paper section 4.1 and appendix C.2): found by pattern, each with its evidence."""

import re

from instructvla.training.annotation.command_grounding import (
    NEGATION,
    clauses,
    count_actions,
    joined,
    meaning,
    only_takes,
    promised,
)
from instructvla.training.annotation.near_duplicates import normalised

ROBOT = re.compile(r"\b(?:robot\w*|gripper\w*|manipulator\w*|end[ -]?effector\w*|actuator\w*)\b", re.IGNORECASE)
ARM = re.compile(r"\b(?:(?:mechanical|articulated|metal|black|grey|gray|white) )?(?:arm|claw)s?\b", re.IGNORECASE)
HAS_ARMS = re.compile(
    r"\b(?:chairs?|sofas?|couch(?:es)?|bench(?:es)?|dolls?|teddy|figures?|persons?|people|m[ae]n|wom[ae]n|child(?:ren)?|"
    r"hands?|humans?|shirts?|crabs?|lobsters?|claw hammers?)\b",
    re.IGNORECASE,
)
REFUSAL = re.compile(
    r"\b(?:as an ai|language model|i(?:'m| am) (?:sorry|unable|not able)|i (?:can(?:'t|not)|could not|couldn't) "
    r"(?:see|tell|determine|help|assist|identify|answer)|unable to (?:see|tell|determine|assist|identify)|"
    r"(?:cannot|can't) be (?:determined|identified))\b",
    re.IGNORECASE,
)
# Of what only the annotating model was shown.
SOURCE = re.compile(
    r"\b(?:ground[ -]truth|(?:first|second|third|middle|last|final|initial) (?:image|frame|picture|photo)s?|"
    r"(?:three|all|these|the) (?:images|frames|photos)|(?:given|original|provided|above) (?:instruction|command)|"
    r"the instruction)\b",
    re.IGNORECASE,
)
MARKUP = re.compile(
    r"```|</?\w+>|\\[nt\"]|[{}\[\]]|\*\*|^#+ |https?://|�|\b(?:n/?a|todo|tbd|lorem ipsum)\b", re.IGNORECASE
)
SEQUENCE = re.compile(r"\b(?:after (?:you|that)|before you|first|second|then|later|step|steps)\b")  # of actions
WHY = re.compile(r"\b(?:because|since|so that)\b[^.!?]*")  # a reason, which leaves no choice
SHORTEST_ANSWER = 2  # words without which an answer can't be said to be inside its context


def found(pattern: re.Pattern[str], text: str) -> str | None:
    match = pattern.search(text)
    return match[0].strip() if match else None


def robot_mention(text: str) -> str | None:
    """The word for the robot or a part of it; an arm is none where something else may have it, such as a chair."""
    return found(ROBOT, text) or (None if HAS_ARMS.search(text) else found(ARM, text))


def chained_actions(answer: str, instruction: str | None) -> str | None:
    """What the robot says that it will do, if that is more than one action, and more than the instruction has."""
    promise = promised(answer)
    is_placing = not only_takes(meaning(instruction or ""))
    if promise is None or count_actions(promise, is_placing) <= count_actions(instruction or "", is_placing):
        return None
    return promise


def answer_inside(context: str, answer: str) -> str | None:
    """The words of the answer that its context has already, or None.

    A context that names several actions, or what not to do, leaves a choice, and may name the right one too.
    """
    core = " ".join(normalised(promised(answer) or ""))
    if len(core.split()) < SHORTEST_ANSWER or f" {core} " not in f" {' '.join(normalised(context))} ":
        return None
    plain = WHY.sub(" ", joined(context))
    leaves_a_choice = NEGATION.search(plain) or SEQUENCE.search(plain) or len(list(clauses(plain))) > 1
    return None if leaves_a_choice else core


def repeats(text: str, instruction: str) -> bool:
    """Whether a text is the instruction word for word, but for articles and what is polite."""
    return normalised(text) == normalised(instruction)
