"""Answers of a model about the episodes of `memory_episodes`, as they should be."""

import json
import re
from typing import Any

from tests.chat_server import Behaviour
from tests.memory_episodes import bridge_recording

COLOURS = ("red", "blue", "green", "yellow", "white", "black", "orange", "purple", "brown", "grey")


def episode_of(body: dict[str, Any]) -> int:
    """Number of the episode that a request is about: `memory_episodes` has it in the instruction."""
    return int(re.search(r'^Instruction: "put object (\d+) ', user_text(body))[1])


def user_text(body: dict[str, Any]) -> str:
    """All words of the first message about the episode."""
    return "\n".join(part["text"] for part in body["messages"][1]["content"] if part["type"] == "text")


def annotation_answer(episode: int, **changes: Any) -> dict[str, Any]:
    """That passes all checks, and is another one for each episode."""
    colour = COLOURS[episode % len(COLOURS)]
    answer = {
        "caption": f"A {colour} table on which a plate and object {episode} lie.",
        "question_answering": [{"question": "What colour does the table have?", "answer": f"It is {colour}."}],
        "command_rewriting": [
            {
                "question": f"Lay object {episode} onto the plate, please.",
                "answer": f"I will put object {episode} on the plate.",
            }
        ],
        "context_creation": [
            {
                "question": f"We are setting the table, and thing number {episode} is still missing.",
                "answer": f"I will put object {episode} on the plate.",
            }
        ],
    }
    return {**answer, **changes}


def good(body: dict[str, Any], number: int = 0) -> str:
    """What a good model says, as `ChatServer` wants it."""
    return json.dumps(annotation_answer(episode_of(body)))


def first_asked(behaviour: Behaviour | str, episode: int):
    """A server that misbehaves when it is first asked about an episode, and else is good."""
    seen: list[int] = []

    def behave(body: dict[str, Any], number: int) -> Behaviour | str:
        asked = episode_of(body)
        seen.append(asked)
        return behaviour if asked == episode and seen.count(asked) == 1 else good(body)

    return behave


def without_instruction(number: int):
    return bridge_recording(number, language_instruction=[""] * 6)
