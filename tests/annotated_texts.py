"""Annotated episodes and a model's answers, for tests of the analysis."""

import json
from collections.abc import Mapping

from instructvla.training.annotation.annotation_texts import EpisodeTexts
from instructvla.training.annotation.chat_endpoint import FailedRequestError, Reply
from instructvla.training.data.episodes import Annotation, Turn

ANNOTATION = Annotation(
    caption="A mug and a red bowl.",
    questions=(Turn("How many mugs are there?", "One."), Turn("Where is the mug?", "Left of the bowl.")),
    rewritten=(Turn("Fetch the mug.", "I will pick up the mug."),),
    contexts=(Turn("I'm thirsty. What would help?", "I will pick up the mug."),),
)
TEXTS = EpisodeTexts("pick up the mug", ANNOTATION)


class Answering:
    """Answers as it is told, in turn; the last answer stays. An exception is raised.

    Attributes:
        asked: messages and schema of each question.
    """

    def __init__(self, *answers: str | Exception):
        self._answers = list(answers)
        self.asked: list[tuple[list[dict], Mapping | None]] = []

    async def ask(self, messages: list[dict], schema: Mapping | None = None) -> Reply:
        self.asked.append((messages, schema))
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, Exception):
            raise answer
        return Reply(answer, prompt_tokens=100, completion_tokens=10)


def labelled(*categories: str) -> str:
    """The JSON that the judge of categories is asked for."""
    return json.dumps({"labels": [{"number": n, "category": str(one)} for n, one in enumerate(categories, start=1)]})


FAILURE = FailedRequestError("http://localhost:1/v1 can't be reached")
