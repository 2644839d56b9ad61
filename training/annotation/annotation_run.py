"""Asks a model about many episodes at once, and keeps every answer as soon as it is there."""

import asyncio
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from instructvla.training.annotation.annotation_journal import AnnotationJournal, PaidReply, reply_at
from instructvla.training.annotation.annotation_prompt import corrected
from instructvla.training.annotation.answer_format import ANSWER_SCHEMA
from instructvla.training.annotation.chat_endpoint import ChatEndpoint, EndpointError, FailedRequestError, Reply
from instructvla.training.annotation.episode_requests import EpisodeRequest, RequestFeed, episode_requests
from instructvla.training.data.episodes import EpisodeReader

SIGNALS = (signal.SIGINT, signal.SIGTERM)
FEWEST_FAILURES = 10  # in a row, without one answer, after which the run stops


@dataclass(frozen=True)
class Prices:
    """Dollars per million tokens; None where they are unknown."""

    prompt: float | None = None
    completion: float | None = None

    def cost(self, prompt_tokens: float, completion_tokens: float) -> float | None:
        if self.prompt is None or self.completion is None:
            return None
        return (prompt_tokens * self.prompt + completion_tokens * self.completion) / 1e6

    def cost_of(self, reply: Reply) -> float | None:
        """None where the endpoint doesn't tell its tokens, either."""
        told = reply.prompt_tokens or reply.completion_tokens
        return self.cost(reply.prompt_tokens, reply.completion_tokens) if told else None


@dataclass(frozen=True)
class AskingSettings:
    """
    Args:
        asks: most answers that are paid for per episode.
        concurrency: most questions under way at once.
        prices: of the model.
        answers_as: name under which the model may answer beside its own.
        camera: whose pictures are shown; None is the first.
        workers: processes that read episodes; 0 reads in a thread.
    """

    asks: int = 3
    concurrency: int = 16
    prices: Prices = Prices()
    answers_as: str | None = None
    camera: str | None = None
    workers: int = 0


@dataclass
class RunOutcome:
    """What became of a run.

    Attributes:
        failed: number of the episode → why there is no answer; another run asks again.
        stopped: whether a signal ended it before all were asked.
    """

    failed: dict[int, str] = field(default_factory=dict)
    stopped: bool = False


def pending_episodes(journal: AnnotationJournal, numbers: Sequence[int], asks: int) -> list[int]:
    """Those that have no usable answer yet, are not excluded, and may be asked about again."""
    return [
        number
        for number in numbers
        if number not in journal.answers and number not in journal.excluded and journal.asked[number] < asks
    ]


def next_messages(request: EpisodeRequest, journal: AnnotationJournal) -> list[dict[str, Any]]:
    """The question about an episode, with what was wrong with its last answer."""
    if request.episode not in journal.rejected:
        return request.messages
    place, problem = journal.rejected[request.episode]
    return corrected(request.messages, reply_at(place).text, problem)


def paid_reply(episode: int, instruction: str, reply: Reply, prices: Prices, **known: Any) -> PaidReply:
    """A reply as the journal keeps it."""
    return PaidReply(
        episode=episode,
        instruction=instruction,
        text=reply.text,
        prompt_tokens=reply.prompt_tokens,
        completion_tokens=reply.completion_tokens,
        cost=prices.cost_of(reply),
        model=reply.model,
        problem=reply.problem,
        **known,
    )


def check_model(answered: str, asked: str, answers_as: str | None) -> None:
    """Refuse answers of another model; a version ("…-2024-11-20") or a provider's prefix ("openai/…") is none.

    Raises:
        EndpointError: with the option that accepts it.
    """
    names = (asked, answers_as or asked)
    same = any(
        answered == name or answered.startswith(f"{name}-") or answered.rpartition("/")[2] == name.rpartition("/")[2]
        for name in names
    )
    if answered and not same:
        raise EndpointError(
            f"the endpoint answered as {answered}, but --model is {asked}. Ask for the one you want, or accept this: "
            f"--answers-as {answered}"
        )


class AnnotationRun:
    """Asks about episodes until all have a usable answer, were asked about often enough, or a signal comes.

    Args:
        endpoint: asked for each episode, through `ask`.
        journal: keeps every answer before it is looked at.
        settings: of the asking.
        progress: called after each episode.
    """

    def __init__(
        self,
        endpoint: ChatEndpoint,
        journal: AnnotationJournal,
        settings: AskingSettings,
        progress: Callable[[], Any] = lambda: None,
    ):
        self.endpoint, self.journal, self.settings, self.progress = endpoint, journal, settings, progress
        self.outcome = RunOutcome()
        self._failures = 0  # in a row
        self._error: Exception | None = None
        self._over = asyncio.Event()

    async def ask_all(self, reader: EpisodeReader, numbers: Sequence[int]) -> RunOutcome:
        """Ask about these episodes. What is under way when the run has to end is still waited for, as it is paid for.

        Raises:
            ValueError: the endpoint can't be used, or the journal can't be written.
        """
        requests = episode_requests(reader, numbers, self.settings.camera, self.settings.workers)
        feed = RequestFeed(requests)
        with self._signals():
            await asyncio.gather(*(self._work(feed) for _ in range(min(self.settings.concurrency, len(numbers)))))
        requests.close()
        if self._error is not None:
            raise self._error
        return self.outcome

    async def _work(self, feed: RequestFeed) -> None:
        try:
            while not self._over.is_set() and (request := await feed.next()) is not None:
                await self._settle(request)
                self.progress()
        except Exception as error:  # raised once the other tasks have what they paid for
            self._error = self._error or error
            self._over.set()

    async def _settle(self, request: EpisodeRequest) -> None:
        """Ask about an episode, unless nothing can be asked."""
        if request.excluded is not None:
            self.journal.exclude(request.episode, request.excluded)
            return
        try:
            await self._ask(request)
        except FailedRequestError as error:
            self._note_failure(request.episode, error)

    async def _ask(self, request: EpisodeRequest) -> None:
        """Ask until an answer can be used, or enough are paid for."""
        while self.journal.asked[request.episode] < self.settings.asks and not self._over.is_set():
            self.journal.require_room()
            reply = await self.endpoint.ask(next_messages(request, self.journal), ANSWER_SCHEMA)
            problem = self.journal.add(paid_reply(request.episode, request.instruction, reply, self.settings.prices))
            self._failures = 0
            check_model(reply.model, self.endpoint.model, self.settings.answers_as)
            if problem is None:
                return

    def _note_failure(self, episode: int, error: FailedRequestError) -> None:
        self.outcome.failed[episode] = str(error)
        self._failures += 1
        if self._failures >= max(FEWEST_FAILURES, 2 * self.settings.concurrency) and self._error is None:
            self._error = EndpointError(
                f"{self._failures} questions in a row failed, so the run stops: {error}. All answers so far are kept: "
                "run again to go on."
            )
            self._over.set()

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Ctrl-C and SIGTERM end the run after the questions under way; a second one ends it at once."""
        loop = asyncio.get_running_loop()

        def stop(number: int) -> None:
            self.outcome.stopped = True
            self._over.set()
            loop.remove_signal_handler(number)

        installed = []
        for number in SIGNALS:
            with suppress(NotImplementedError, ValueError, RuntimeError):  # not in the main thread
                loop.add_signal_handler(number, stop, number)
                installed.append(number)
        try:
            yield
        finally:
            for number in installed:
                loop.remove_signal_handler(number)
