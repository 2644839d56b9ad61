"""Episodes to annotate, and answers of a model about them."""

import json
import re
from collections.abc import Mapping
from typing import Any

from instructvla.training.annotation.annotation_journal import AnnotationJournal
from instructvla.training.annotation.annotation_run import AskingSettings
from instructvla.training.data.field_mapping import MappedEpisodes, read_mapping
from tests.chat_server import MODEL, Behaviour
from tests.memory_episodes import BridgeRecordings, bridge_recording

COLOURS = ("red", "blue", "green", "yellow", "white", "black", "orange", "purple", "brown", "grey")
NO_INSTRUCTION = {"language_instruction": [""] * 6}
BROKEN_PICTURES = {"observation__image_0": [b"\xff\xd8\xff this is no picture"] * 6}
SETTINGS = {"model": MODEL, "prompt_version": "1", "parameters": {}, "camera": "primary"}
QUICK = AskingSettings(concurrency=4)


class ChangedRecordings(BridgeRecordings):
    """Recordings of which some are changed: number → the fields that are others."""

    def __init__(self, count: int, changes: Mapping[int, Mapping[str, Any]]):
        super().__init__(count)
        self.changes = changes

    def __getitem__(self, index: int):
        super().__getitem__(index)
        return bridge_recording(index, **self.changes.get(index, {}))


def changed_episodes(count: int, changes: Mapping[int, Mapping[str, Any]]) -> MappedEpisodes:
    return MappedEpisodes(ChangedRecordings(count, changes), read_mapping("bridge"))


def episode_of(body: Mapping[str, Any]) -> int:
    """Number of the episode that a request is about: `memory_episodes` has it in the instruction."""
    return int(re.search(r'^Instruction: "put object (\d+) ', user_text(body))[1])


def user_text(body: Mapping[str, Any]) -> str:
    """All words of the first message about the episode."""
    return "\n".join(part["text"] for part in body["messages"][1]["content"] if part["type"] == "text")


def annotation_answer(episode: int, **changes: Any) -> dict[str, Any]:
    """An answer that passes all checks, another one for each episode."""
    colour = COLOURS[episode % len(COLOURS)]
    promise = f"I will put object {episode} on the plate."
    answer = {
        "caption": f"A {colour} table on which a plate and object {episode} lie.",
        "question_answering": [{"question": "What colour does the table have?", "answer": f"It is {colour}."}],
        "command_rewriting": [{"question": f"Lay object {episode} onto the plate, please.", "answer": promise}],
        "context_creation": [
            {"question": f"We are setting the table, and thing number {episode} is still missing.", "answer": promise}
        ],
    }
    return {**answer, **changes}


def good(body: Mapping[str, Any], number: int = 0) -> str:
    """What a good model says, as `ChatServer` wants it."""
    return json.dumps(annotation_answer(episode_of(body)))


def first_asked(behaviour: Behaviour | str, episode: int):
    """A server that misbehaves when it is first asked about an episode, and else is good."""
    seen: list[int] = []

    def behave(body: Mapping[str, Any], number: int) -> Behaviour | str:
        asked = episode_of(body)
        seen.append(asked)
        return behaviour if asked == episode and seen.count(asked) == 1 else good(body)

    return behave


def open_journal(folder) -> AnnotationJournal:
    return AnnotationJournal.open(folder, SETTINGS)
