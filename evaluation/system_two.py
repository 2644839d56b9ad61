"""System 2: an external VLM says a free-form instruction as a plain one before the policy acts (paper B.3 and A.2).

It is asked once for each instruction, at the step at which the policy first hears of it, when the arm is not in the
way. The plain instruction is of its own words: it chooses from no list.

system_two = SystemTwo(ChatEndpoint("https://api.openai.com/v1", "gpt-4o"), "gpt-4o")
executor = Executor(policy, robot, system_two=system_two)
"""

import asyncio
import base64
import io
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from PIL import Image

if TYPE_CHECKING:  # openai is an extra
    from instructvla.training.annotation.chat_endpoint import Asking, Reply

PROMPT_VERSION = "1"  # of `TASK`
ANSWERS = 2  # that are asked for before one is given up
DEADLINE_S = 60.0
MAX_WORDS = 30  # of a plain instruction
ENDING_S = 5.0

TASK = """In the picture you see what a robot arm has in front of it. The arm understands one plain English command at
a time: a single action on things that it can see, such as "pick up the spoon", "put the carrot on the plate", "open the
top drawer" or "move the can near the apple". A person now tells it something in their own words. These may be long or
in any language, paraphrase a thing, rule something out, tell several steps, or only tell what the person needs.

Find out from the words and the picture which single action is wanted first, and say it as one plain command: a verb,
the thing by its usual name, and where it goes if it goes anywhere. Add colour or place only where the picture has
several such things. Name nothing that the picture does not show.

Answer with JSON alone: {"instruction": "…"}"""
SCHEMA = {
    "type": "object",
    "properties": {"instruction": {"type": "string"}},
    "required": ["instruction"],
    "additionalProperties": False,
}


class SystemTwoError(Exception):
    """No plain instruction came: the trial that waited for it has no verdict."""


@dataclass(frozen=True)
class Rewriting:
    """What System 2 made of an instruction.

    Args:
        instruction: of the person.
        atomic: the plain one, which the policy is told.
        model: that said it.
        prompt_tokens, completion_tokens: that it took; 0 where the endpoint doesn't tell.
        seconds: until it was there.
    """

    instruction: str
    atomic: str
    model: str
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0

    def record(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


class SystemTwo:
    """Asks a VLM; several threads may do so at once.

    Args:
        endpoint: that is asked.
        model: its name, for results.
        deadline_s: longest time for a plain instruction, repetitions included.

    Attributes:
        model: likewise.
    """

    def __init__(self, endpoint: "Asking", model: str, deadline_s: float = DEADLINE_S):
        self.model, self.deadline_s = model, deadline_s
        self._endpoint = endpoint
        self._loop = asyncio.new_event_loop()  # one for all threads: the endpoint's connections belong to it
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def rewriting(self, images: Mapping[str, np.ndarray] | np.ndarray, instruction: str) -> Rewriting:
        """The plain instruction for a free-form one.

        Args:
            images: (height, width, 3) uint8; of several cameras the first is shown.
            instruction: what the person says.

        Raises:
            SystemTwoError: no usable answer, or none in time.
            EndpointError: the endpoint can't be used at all, such as with a wrong key.
        """
        from instructvla.training.annotation.chat_endpoint import FailedRequestError

        picture = next(iter(images.values())) if isinstance(images, Mapping) else images
        asked = asyncio.wait_for(self._rewriting(messages(picture, instruction), instruction), self.deadline_s)
        try:
            return asyncio.run_coroutine_threadsafe(asked, self._loop).result()
        except TimeoutError as error:
            raise SystemTwoError(f"System 2 ({self.model}) gave no answer within {self.deadline_s:g} s") from error
        except FailedRequestError as error:
            raise SystemTwoError(f"System 2 ({self.model}) failed: {error}") from error

    def settings(self) -> dict[str, Any]:
        """What results follow from, as JSON."""
        return {"model": self.model, "prompt": PROMPT_VERSION}

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(ENDING_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def _rewriting(self, question: list[dict[str, Any]], instruction: str) -> Rewriting:
        began, replies = time.monotonic(), []
        while len(replies) < ANSWERS:
            replies.append(await self._endpoint.ask(question, SCHEMA))
            if (atomic := atomic_instruction(replies[-1])) is not None:
                return Rewriting(
                    instruction,
                    atomic,
                    self.model,
                    sum(reply.prompt_tokens for reply in replies),
                    sum(reply.completion_tokens for reply in replies),
                    round(time.monotonic() - began, 2),
                )
        said = replies[-1].problem or " ".join(replies[-1].text.split())[:120]
        raise SystemTwoError(f"System 2 ({self.model}) gave no plain instruction in {ANSWERS} answers: {said}")


def messages(picture: np.ndarray, instruction: str) -> list[dict[str, Any]]:
    """The question: the task, the picture, and what the person says."""
    return [
        {"role": "system", "content": TASK},
        {
            "role": "user",
            "content": [
                {"type": "image_url", "image_url": {"url": png_url(picture)}},
                {"type": "text", "text": instruction},
            ],
        },
    ]


def png_url(picture: np.ndarray) -> str:
    """A picture, (height, width, 3) uint8, without loss as a data URL."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def atomic_instruction(reply: "Reply") -> str | None:
    """The plain instruction in an answer; None where there is none, or something too long to be one."""
    from instructvla.training.annotation.answer_format import json_objects

    given = next(json_objects(reply.text), {}).get("instruction")
    if reply.problem or not isinstance(given, str):
        return None
    text = " ".join(given.split())
    return text if 0 < len(text.split()) <= MAX_WORDS else None


def with_system_two(name: str, model: str | None) -> str:
    """A policy's name in results: "InstructVLA + System 2 (gpt-4o)"."""
    return name if model is None else f"{name} + System 2 ({model})"
