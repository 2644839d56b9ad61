"""Real-time chunking as a schedule: the robot goes on with the last chunk while the next one is computed.

Black, Galliker and Levine 2025 (arXiv 2506.07339), Algorithm 1: after `every` actions the next chunk is asked for,
guided to go on where the actions lead that will be executed meanwhile; their number is the largest of the last delays.
"""

from collections import deque
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from instructvla.evaluation.chunk_schedules import checked_chunk

REMEMBERED_DELAYS = 10  # b there


class RealTimeChunks:
    """A new chunk after `every` actions, ready some steps after it was asked for.

    Args:
        every: s there; actions that are executed of a chunk before the next one is asked for, at least 1.
        delay: d there; steps that the first answer is expected to take. Afterwards the delays are measured.

    Raises:
        ValueError: a number out of range.
    """

    def __init__(self, every: int, delay: int = 0):
        if every < 1 or delay < 0:
            raise ValueError(f"Real-time chunking needs every ≥ 1 and delay ≥ 0, got {every} and {delay}.")
        if delay > every:
            raise ValueError(f"With a delay of {delay} steps a chunk can't be asked for every {every}; give {delay}.")
        self.every, self.delay = every, delay
        self.reset()

    def reset(self) -> None:
        self._chunk = np.zeros((0, 0))
        self._next = 0  # action of the chunk
        self._since_asked: int | None = None  # steps; None: no chunk is awaited
        self._delays = deque([self.delay], maxlen=REMEMBERED_DELAYS)

    def needs_chunk(self) -> bool:
        return self._since_asked is None and (not self.has_action() or self._next >= self.every)

    def ask(self) -> Mapping[str, Any]:
        """For `generate_action`: what the last chunk still has to give, and how much of it will be executed."""
        self._since_asked = 0
        left = self._chunk[self._next :]
        if not len(left):
            return {}
        return {"previous_actions": left, "delay": min(max(self._delays), len(left))}

    def add(self, chunk: ArrayLike) -> None:
        """(length, action_dim), from the observation at which it was asked for: what is past by now is left out."""
        chunk = checked_chunk(chunk)
        if self._since_asked is None:
            raise ValueError("No chunk was asked for; call ask() first.")
        if self._since_asked >= len(chunk):
            raise ValueError(f"The chunk of {len(chunk)} actions came {self._since_asked} steps late; it is past.")
        if self.has_action() or self._since_asked:  # the first one is waited for
            self._delays.append(self._since_asked)
        self._chunk, self._next, self._since_asked = chunk, self._since_asked, None

    def has_action(self) -> bool:
        return self._next < len(self._chunk)

    def action(self) -> np.ndarray:
        if not self.has_action():
            raise ValueError("There is no action left; add a chunk when needs_chunk() says so.")
        action = self._chunk[self._next]
        self._next += 1
        if self._since_asked is not None:
            self._since_asked += 1
        return action
