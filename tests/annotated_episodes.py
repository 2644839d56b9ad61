"""A prepared dataset with annotations, some of them wrong, for tests of what checks, judges and shows them."""

from dataclasses import replace
from pathlib import Path

from instructvla.training.data.episodes import Annotation, Episode, Turn
from instructvla.training.data.field_mapping import MappedEpisodes
from instructvla.training.data.prepare import prepare
from tests.memory_episodes import bridge_episodes

INSTRUCTIONS = ("put the spoon on the plate", "close the top drawer", "pick up the sponge", "open the fridge")
ANNOTATIONS = (
    Annotation(
        "A table with a spoon and a blue plate.",
        (Turn("What colour is the plate?", "Blue."),),
        (
            Turn("Lay the cutlery on the dish.", "I will put the spoon on the plate."),
            Turn("Set the cutlery down on the dish.", "I will put the fork on the plate."),
        ),
        (Turn("Dinner is about to begin.", "I will put the spoon on the plate."),),
    ),
    Annotation("A robot arm before a cabinet.", (), (), ()),
    None,
    Annotation(
        "A white fridge in a small kitchen.",
        (),
        (Turn("Pull the refrigerator's door.", "I will open the fridge."),),
        (Turn("It's hot, so open the fridge.", "I will open the fridge."),),
    ),
)
REASONS = {(0, "cr", 1): "another object", (1, "caption", 0): "mentions the robot", (3, "cc", 0): "answer in context"}


class AnnotatedRecordings(MappedEpisodes):
    """Four episodes: two with one wrong entry, one of whose annotation nothing is right, and one without any."""

    def __init__(self):
        plain = bridge_episodes(len(ANNOTATIONS))
        super().__init__(plain.raw, plain.mapping)

    def __getitem__(self, index: int) -> Episode:
        episode = super().__getitem__(index)
        texts = [INSTRUCTIONS[index]] * len(episode)
        return replace(episode, instructions=texts, annotation=ANNOTATIONS[index])


def annotated_dataset(folder: Path) -> Path:
    """The four as a prepared dataset."""
    prepare(AnnotatedRecordings(), folder)
    return folder
