"""A policy for tests of the server: quick, countable, and as slow or broken as a test wants it."""

import threading
import time

import numpy as np
import torch

from instructvla.evaluation.policy_observations import ObservationReader
from instructvla.evaluation.served_policy import PolicyCall, PolicyResult
from instructvla.generation_instructvla import ActionContext

HORIZON = 4
FRAME = np.full((32, 32, 3), 7, np.uint8)


class StandInPolicy:
    """Its actions hold the request's seed. The instruction "fail" raises ValueError, "break" RuntimeError; while
    `gate` is clear, calls wait."""

    name, revision = "stand-in", "abc123"

    def __init__(self, cameras=("primary",), state_dim=None):
        self.reader = ObservationReader(cameras, state_dim, ["made"])
        self.metadata = {"model": self.name, "cameras": list(cameras), "unnorm_keys": ["made"], "state_dim": state_dim}
        self.gate = threading.Event()
        self.gate.set()
        self.batches: list[list[PolicyCall]] = []

    def key(self, call: PolicyCall):
        return call.request.think

    def act(self, calls):
        self.batches.append(list(calls))
        assert self.gate.wait(20)
        texts = [call.request.instruction for call in calls]
        if "fail" in texts:
            raise ValueError("this instruction\ncan't be followed")
        if "break" in texts:
            raise RuntimeError("a secret of the server")
        return [self._result(call) for call in calls]

    def _result(self, call: PolicyCall) -> PolicyResult:
        context = ActionContext((call.request.instruction,), (None,), (None,), torch.zeros(1, 1, 1))
        return PolicyResult(np.full((HORIZON, 7), call.request.seed or 0, np.float32), "words", context)


def wait_until(true, seconds: float = 10) -> None:
    """Fails if it does not come true in time."""
    give_up = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < give_up, "it did not come true in time"
        time.sleep(0.005)
