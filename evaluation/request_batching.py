"""One thread that answers requests of several clients together, where they agree in their options."""

import logging
import threading
import time
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from instructvla.evaluation.policy_messages import PolicyError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Answered:
    """A result, and how it came about: seconds in the queue, seconds of work, requests answered together."""

    result: Any
    queue_s: float
    run_s: float
    batch: int


@dataclass(eq=False)
class _Job:
    request: Any
    key: Hashable
    deadline: float
    queued: float
    future: Future = field(default_factory=Future)


class RequestBatcher:
    """A queue, and the thread that works it off.

    The oldest request goes first, and with it, up to `max_batch`, all that wait and have the same key. A request that
    makes its batch fail is found by answering each one alone, so that the others get their answers.

    Args:
        run: from a list of requests with the same key to a list of results; called in one thread only.
        max_batch: most requests in one call.
        max_wait_s: how long the first of a batch may wait for others to come, in seconds.
        max_queue: most requests that wait; more are refused.
        expected: how many requests may come at most, e.g. the open connections: none is waited for beyond those.
    """

    def __init__(
        self,
        run: Callable[[list[Any]], list[Any]],
        max_batch: int,
        max_wait_s: float,
        max_queue: int,
        expected: Callable[[], int],
    ):
        self._run, self._expected = run, expected
        self._max_batch, self._max_wait_s, self._max_queue = max_batch, max_wait_s, max_queue
        self._jobs: list[_Job] = []
        self._changed = threading.Condition()
        self._closed = False
        self._running = 0
        self._run_began: float | None = None
        self._thread = threading.Thread(target=self._work, name="policy model", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """How many requests wait, those being answered not counted."""
        return len(self._jobs)

    @property
    def under_way(self) -> int:
        """How many requests wait or are being answered."""
        return len(self._jobs) + self._running

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def running_s(self) -> float:
        """For how many seconds the current call has been running; 0 between calls."""
        began = self._run_began
        return 0.0 if began is None else time.monotonic() - began

    def submit(self, request: Any, key: Hashable, deadline_s: float) -> "Future[Answered]":
        """Queue a request; it is dropped if its turn does not come within `deadline_s`, or if the future is cancelled.

        Raises:
            PolicyError: "busy" if too many wait, "shutting down" after `close`.
        """
        now = time.monotonic()
        job = _Job(request, key, now + deadline_s, now)
        with self._changed:
            if self._closed:
                raise PolicyError("shutting down", "the server takes no more requests; connect to another one")
            self._jobs = [waiting for waiting in self._jobs if not waiting.future.cancelled()]
            if len(self._jobs) >= self._max_queue:
                raise PolicyError("busy", f"{len(self._jobs)} requests are waiting already; try again in a moment")
            self._jobs.append(job)
            self._changed.notify()
        return job.future

    def close(self, wait_s: float) -> None:
        """Refuse what waits and what may come, and wait for the running call."""
        with self._changed:
            self._closed = True
            waiting, self._jobs = self._jobs, []
            self._changed.notify()
        for job in waiting:
            if job.future.set_running_or_notify_cancel():
                job.future.set_exception(PolicyError("shutting down", "the server stops; connect to another one"))
        self._thread.join(wait_s)

    def _work(self) -> None:
        while (batch := self._next_batch()) is not None:
            ready = [job for job in batch if job.future.set_running_or_notify_cancel()]
            late = [job for job in ready if job.deadline < time.monotonic()]
            for job in late:
                job.future.set_exception(PolicyError("deadline", "the request's turn did not come in time"))
            self._answer([job for job in ready if job not in late])

    def _next_batch(self) -> list[_Job] | None:
        """The next requests to answer together; waits for them, and gives None after `close`."""
        with self._changed:
            self._running = 0
            while not self._jobs and not self._closed:
                self._changed.wait()
            give_up = time.monotonic() + self._max_wait_s
            while not self._closed and len(self._jobs) < min(self._max_batch, self._expected()):
                if not self._changed.wait(give_up - time.monotonic()) and time.monotonic() >= give_up:
                    break
            if self._closed:
                return None
            same = [job for job in self._jobs if job.key == self._jobs[0].key][: self._max_batch]
            self._jobs = [job for job in self._jobs if job not in same]
            self._running = len(same)
            return same

    def _answer(self, jobs: list[_Job]) -> None:
        if not jobs:
            return
        self._run_began = began = time.monotonic()
        try:
            results = self._run([job.request for job in jobs])
        except Exception as error:  # whatever the model raises belongs to a request, and must not end the thread
            self._blame(jobs, error)
            return
        finally:
            self._run_began = None
        seconds = time.monotonic() - began
        for job, result in zip(jobs, results, strict=True):
            job.future.set_result(Answered(result, began - job.queued, seconds, len(jobs)))

    def _blame(self, jobs: list[_Job], error: Exception) -> None:
        if len(jobs) > 1:
            logger.warning("a batch of %d requests failed (%s); answering each alone", len(jobs), error)
            for job in jobs:
                self._answer([job])
        else:
            jobs[0].future.set_exception(error)
