"""Two queues in front of one model: requests that put something into words, and those that only act.

Words take many times as long as an action. Each queue has a thread of its own, so that a robot that acts never waits
for the words of another; the threads share the model.
"""

from collections.abc import Callable
from concurrent.futures import Future

from instructvla.evaluation.request_batching import Answered, RequestBatcher
from instructvla.evaluation.served_policy import PolicyCall, ServedPolicy


class PolicyLanes:
    """The queues of one policy.

    Args:
        policy: the model.
        max_batch, max_wait_s, max_queue: as of `RequestBatcher`, of each queue.
        clients: how many are connected; each waits for one answer at most.
    """

    def __init__(
        self, policy: ServedPolicy, max_batch: int, max_wait_s: float, max_queue: int, clients: Callable[[], int]
    ):
        self._policy = policy
        limits = (max_batch, max_wait_s, max_queue)
        self._acting = RequestBatcher(policy.act, *limits, lambda: clients() - self._thinking.under_way)
        self._thinking = RequestBatcher(policy.act, *limits, lambda: clients() - self._acting.under_way)
        self._lanes = (self._acting, self._thinking)

    @property
    def waiting(self) -> int:
        """How many requests wait, those being answered not counted."""
        return sum(lane.waiting for lane in self._lanes)

    @property
    def alive(self) -> bool:
        return all(lane.alive for lane in self._lanes)

    def running_s(self) -> float:
        """For how many seconds the longer of the current calls has been running; 0 between calls."""
        return max(lane.running_s() for lane in self._lanes)

    def submit(self, call: PolicyCall, deadline_s: float) -> "Future[Answered]":
        """As `RequestBatcher.submit`, in the call's queue."""
        lane = self._thinking if self._policy.thinks(call) else self._acting
        return lane.submit(call, self._policy.key(call), deadline_s)

    def close(self, wait_s: float) -> None:
        """As `RequestBatcher.close`, of both."""
        for lane in self._lanes:
            lane.close(wait_s)
