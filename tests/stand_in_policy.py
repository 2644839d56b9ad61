"""A policy for tests of the server: quick, countable, and as slow or broken as a test wants it."""

import threading
import time

import numpy as np
import torch

from instructvla.evaluation.policy_observations import BACKGROUND, ObservationReader
from instructvla.evaluation.served_policy import PolicyCall, PolicyResult, has_words
from instructvla.generation_instructvla import ActionContext

HORIZON = 4
FRAME = np.full((32, 32, 3), 7, np.uint8)


class StandInPolicy:
    """Its actions hold the request's seed, its words count the thoughts. The instruction "fail" raises ValueError,
    "break" RuntimeError, and each thought `failure`, if there is one. While `gate` is clear, calls that only act wait;
    while `thoughts` is, those that think."""

    name, revision = "stand-in", "abc123"

    def __init__(self, cameras=("primary",), state_dim=None):
        self.reader = ObservationReader(cameras, state_dim, ["made"])
        self.metadata = {"model": self.name, "device": "none", "unnorm_keys": ["made"]}
        self.metadata |= {"cameras": list(cameras), "state_dim": state_dim}
        self.gate = threading.Event()
        self.gate.set()
        self.thoughts = threading.Event()
        self.thoughts.set()
        self.batches: list[list[PolicyCall]] = []
        self.thought, self.failure = 0, None

    def thinks(self, call: PolicyCall) -> bool:
        first = call.request.think == BACKGROUND and not has_words(call.context)
        return call.words_only or first or call.request.think is True

    def key(self, call: PolicyCall):
        return call.request.think, call.words_only

    def act(self, calls):
        self.batches.append(list(calls))
        assert (self.thoughts if self.thinks(calls[0]) else self.gate).wait(20)
        if self.failure is not None and self.thinks(calls[0]):
            raise self.failure
        texts = [call.request.instruction for call in calls]
        if "fail" in texts:
            raise ValueError("this instruction\ncan't be followed")
        if "break" in texts:
            raise RuntimeError("a secret of the server")
        return [self._result(call) for call in calls]

    def _result(self, call: PolicyCall) -> PolicyResult:
        known = call.context.response[0] if has_words(call.context) else None
        if self.thinks(call):
            self.thought += 1
            known = f"thought {self.thought}"
        ids = None if known is None else (self.thought,)
        context = ActionContext((call.request.instruction,), (known,), (ids,), torch.zeros(1, 1, 1))
        return PolicyResult(np.full((HORIZON, 7), call.request.seed or 0, np.float32), known or "words", context)


def wait_until(true, seconds: float = 10) -> None:
    """Fails if it does not come true in time."""
    give_up = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < give_up, "it did not come true in time"
        time.sleep(0.005)
