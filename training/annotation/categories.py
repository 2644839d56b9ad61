"""Categories of annotated texts, as the paper's appendix C.1 names them: seven of instructions, five of questions."""

from collections.abc import Mapping
from enum import StrEnum


class Category(StrEnum):
    """Categories of annotated texts, as appendix C.1 names them."""

    COMPLEX_OBJECT_REFERENCING = "Complex Object Referencing"
    NOVEL_ACTION_REFERENCING = "Novel Action Referencing"
    NEGATIVE_TASK_SPECIFICATION = "Negative Task Specification"
    SUBTASK_IDENTIFICATION = "Subtask Identification"
    SITUATED_TASK_IDENTIFICATION = "Situated Task Identification"
    DIRECT_INSTRUCTION = "Direct Instruction"
    TOOL_USE_UNDERSTANDING = "Tool-Use Understanding"
    QUANTITATIVE_IDENTIFICATION = "Quantitative Identification"
    SPATIAL_IDENTIFICATION = "Spatial Identification"
    VISUAL_IDENTIFICATION = "Visual Identification"
    COMMONSENSE_ANSWERING = "Commonsense Answering"
    STATE_IDENTIFICATION = "State Identification"


INSTRUCTION_CATEGORIES, QUESTION_CATEGORIES = tuple(Category)[:7], tuple(Category)[7:]
MEANINGS: Mapping[Category, str] = {
    Category.COMPLEX_OBJECT_REFERENCING: "the object is pointed at by what it looks like, by where it stands, by "
    "another word or by a pronoun, not by the plain name that the original instruction has",
    Category.NOVEL_ACTION_REFERENCING: "the object keeps its name, but another verb or motion says what to do with it",
    Category.NEGATIVE_TASK_SPECIFICATION: "it says what is not wanted, and so leaves one thing to do",
    Category.SUBTASK_IDENTIFICATION: "several steps in a clear order are told, and one of them is to be done",
    Category.SITUATED_TASK_IDENTIFICATION: "a need, a wish or a situation is told, from which the task follows",
    Category.DIRECT_INSTRUCTION: "the task is told openly: plain action, plain object, however polite or long",
    Category.TOOL_USE_UNDERSTANDING: "the object is called by what it is good for, not by its name",
    Category.QUANTITATIVE_IDENTIFICATION: "how many or how much there is",
    Category.SPATIAL_IDENTIFICATION: "where something is, or how things stand to each other",
    Category.VISUAL_IDENTIFICATION: "what something looks like, or which thing looks so: colour, shape, presence",
    Category.COMMONSENSE_ANSWERING: "what everyday knowledge tells: what a thing is for, what helps whom",
    Category.STATE_IDENTIFICATION: "the condition that a thing is in now: open, empty, switched on, lying in another",
}
"""Category → what it holds, in our words."""
