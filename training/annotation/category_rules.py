"""Appendix C.1's categories by rules: what a text's words tell at once, for any number of texts.

The rules read English. They don't know what is in the picture, so that they err where a category hangs on that;
`instructvla analyse` prints how far a language model agrees with them, and
`python -m instructvla.evaluation.tabletop.measure_categories` how far the truth does where it is known.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import yaml

from instructvla.training.annotation.categories import Category
from instructvla.training.annotation.command_words import Command, commands, word_list, words

PATTERNS_FILE = Path(__file__).with_name("category_patterns.yaml")
POINTING = ("colours", "shapes", "materials", "tastes", "places")  # lists of words that tell a thing from others


@cache
def pattern(name: str) -> re.Pattern[str]:
    """The expressions of `category_patterns.yaml` under a name, of which one must fit whole words."""
    listed = yaml.safe_load(PATTERNS_FILE.read_text(encoding="utf-8"))[name]
    return re.compile("|".join(rf"(?<!\w)(?:{expression})(?!\w)" for expression in listed))


def has(name: str, text: str) -> bool:
    """Whether an expression of `category_patterns.yaml` fits somewhere in a text in lower case."""
    return pattern(name).search(text) is not None


@dataclass(frozen=True)
class Instruction:
    """A text that tells a robot what to do, beside the plain words for the same.

    Args:
        text: of the annotation.
        original: the episode's own instruction, or else the answer that restates it; None where neither is known.
    """

    text: str
    original: str | None = None

    @cached_property
    def lower(self) -> str:
        return plain_text(self.text)

    @cached_property
    def words(self) -> frozenset[str]:
        return frozenset(words(self.text))

    @cached_property
    def original_words(self) -> frozenset[str]:
        return frozenset(words(self.original or ""))

    @cached_property
    def commands(self) -> tuple[Command, ...]:
        return tuple(commands(self.text))

    @cached_property
    def original_command(self) -> Command | None:
        return next(commands(without_announcement(self.original or "")), None)

    @property
    def names_the_object(self) -> bool:
        """Whether the original's object is called by its name; so it is where no original is known."""
        noun = self.original_command.noun if self.original_command is not None else None
        return noun is None or bool({noun, f"{noun}s", noun.removesuffix("s")} & self.words)

    def is_subtask(self) -> bool:
        return has("sequence", self.lower)

    def is_negative(self) -> bool:
        return has("negation", pattern("abilities").sub(" ", self.lower))

    def is_tool_use(self) -> bool:
        return has("purpose", self.lower)

    def is_situated(self) -> bool:
        """Whether a want stands for the object, or for all of the command: "I want to look inside the drawer"."""
        if not self.commands and pattern("statement").match(self.lower):
            return True
        return not self.names_the_object and has("wish", self.lower)

    def is_complex(self) -> bool:
        """Whether other words than the original's point at the object."""
        if self.commands and not self.names_the_object:
            return True
        new = {part for word in self.words - self.original_words for part in word.split("-")}  # "copper-hued"
        relations = word_list("relations")
        is_placed_so = bool(relations & new) and not relations & self.original_words
        return any(word_list(name) & new for name in POINTING) or is_placed_so or has("relative", self.lower)

    def is_novel_action(self) -> bool:
        verbs = {command.verb for command in self.commands}
        is_known = self.original_command is not None and self.original_command.verb in verbs
        return bool(verbs and self.original_command) and not is_known and not has("demand", self.lower)


INSTRUCTION_RULES: tuple[tuple[Category, Callable[[Instruction], bool]], ...] = (
    (Category.SUBTASK_IDENTIFICATION, Instruction.is_subtask),
    (Category.NEGATIVE_TASK_SPECIFICATION, Instruction.is_negative),
    (Category.TOOL_USE_UNDERSTANDING, Instruction.is_tool_use),
    (Category.SITUATED_TASK_IDENTIFICATION, Instruction.is_situated),
    (Category.COMPLEX_OBJECT_REFERENCING, Instruction.is_complex),
    (Category.NOVEL_ACTION_REFERENCING, Instruction.is_novel_action),
)
QUESTION_RULES: tuple[tuple[Category, str], ...] = (
    (Category.QUANTITATIVE_IDENTIFICATION, "counting"),
    (Category.VISUAL_IDENTIFICATION, "looks"),
    (Category.COMMONSENSE_ANSWERING, "advice"),
    (Category.STATE_IDENTIFICATION, "state"),
    (Category.COMMONSENSE_ANSWERING, "knowledge"),
    (Category.SPATIAL_IDENTIFICATION, "space"),
)


def instruction_category(text: str, original: str | None = None) -> Category:
    """The category of a rewritten command or a created context: that of the first rule that holds, else direct.

    Args:
        text: what the robot is told.
        original: as `Instruction`.
    """
    instruction = Instruction(text, original)
    return next((category for category, holds in INSTRUCTION_RULES if holds(instruction)), Category.DIRECT_INSTRUCTION)


def question_category(question: str) -> Category:
    """The category of a question: that of the first rule whose words it has, else visual."""
    lower = plain_text(question)
    return next((category for category, name in QUESTION_RULES if has(name, lower)), Category.VISUAL_IDENTIFICATION)


def without_announcement(answer: str) -> str:
    """An answer as a command: "Okay, I'll put the spoon on the tray." → "put the spoon on the tray"."""
    return pattern("announcement").sub("", plain_text(answer)).strip()


def plain_text(text: str) -> str:
    """In lower case, with plain apostrophes, and without what it ends with."""
    return text.lower().replace("’", "'").rstrip(" .!?")
