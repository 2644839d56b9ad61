"""How successive action chunks become one action per control step.

A schedule is asked at each step whether it needs a chunk (`needs_chunk`), and if so what the policy must know of the
actions under way (`ask`); it is given the chunk (`add`), and gives the action to execute now (`action`), if it has one
(`has_action`). One object serves one robot; `reset` starts the next episode.
"""

from collections import deque
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike

from instructvla.evaluation.action_ensembling import AdaptiveEnsemble


class Schedule(Protocol):
    """What an `Executor` steps through."""

    def reset(self) -> None: ...

    def needs_chunk(self) -> bool: ...

    def ask(self) -> Mapping[str, Any]: ...

    def has_action(self) -> bool: ...

    def add(self, chunk: ArrayLike) -> None: ...

    def action(self) -> np.ndarray: ...


class OpenLoop:
    """The first `steps` actions of each chunk, one after the other (LIBERO's released evaluation: all 8).

    Args:
        steps: executed of a chunk before the next one is asked for, at least 1; of a shorter chunk, all.
    """

    def __init__(self, steps: int):
        if steps < 1:
            raise ValueError(f"Open loop executes at least 1 action of a chunk, got {steps}.")
        self.steps = steps
        self._waiting: deque[np.ndarray] = deque()

    def reset(self) -> None:
        self._waiting.clear()

    def needs_chunk(self) -> bool:
        return not self._waiting

    def ask(self) -> Mapping[str, Any]:
        return {}

    def has_action(self) -> bool:
        return bool(self._waiting)

    def add(self, chunk: ArrayLike) -> None:
        """(length, action_dim); replaces what is left of the last one."""
        self._waiting = deque(checked_chunk(chunk)[: self.steps])

    def action(self) -> np.ndarray:
        if not self._waiting:
            raise ValueError("There is no action left; add a chunk when needs_chunk() says so.")
        return self._waiting.popleft()


class EveryStep:
    """A chunk at every step, whose overlapping predictions for now are averaged.

    Args:
        ensemble: (chunk) → action, with `reset`: `AdaptiveEnsemble` or `TemporalEnsemble`.
    """

    def __init__(self, ensemble: "AdaptiveEnsemble | TemporalEnsemble"):
        self.ensemble = ensemble
        self._action: np.ndarray | None = None

    def reset(self) -> None:
        self.ensemble.reset()
        self._action = None

    def needs_chunk(self) -> bool:
        return self._action is None

    def ask(self) -> Mapping[str, Any]:
        return {}

    def has_action(self) -> bool:
        return self._action is not None

    def add(self, chunk: ArrayLike) -> None:
        """(length, action_dim)."""
        self._action = self.ensemble(checked_chunk(chunk))

    def action(self) -> np.ndarray:
        if self._action is None:
            raise ValueError("There is no action for this step; add its chunk first.")
        action, self._action = self._action, None
        return action


class TemporalEnsemble:
    """Mean of all chunks' predictions for now, weighted exp(-decay · i) with i = 0 for the oldest chunk (ACT, Zhao et
    al. 2023, algorithm 2).

    Args:
        decay: 0 gives the plain mean; the larger, the slower new observations are taken up (ACT: 0.01).
    """

    def __init__(self, decay: float = 0.01):
        if not np.isfinite(decay):
            raise ValueError(f"Temporal ensembling needs a finite decay, got {decay}; ACT uses 0.01.")
        self.decay = decay
        self._chunks: list[np.ndarray] = []

    def reset(self) -> None:
        """Forget all chunks."""
        self._chunks.clear()

    def __call__(self, chunk: ArrayLike) -> np.ndarray:
        """Add this step's chunk, (length, action_dim), and return the action (action_dim,)."""
        self._chunks.append(checked_chunk(chunk))
        ages = range(len(self._chunks) - 1, -1, -1)  # oldest chunk first
        alive = [(age, one) for age, one in zip(ages, self._chunks, strict=True) if age < len(one)]
        self._chunks = [one for _, one in alive]
        predictions = np.stack([one[age] for age, one in alive])
        weights = np.exp(-self.decay * np.arange(len(predictions)))
        return weights / weights.sum() @ predictions


def checked_chunk(chunk: ArrayLike) -> np.ndarray:
    """A copy in float64, (length, action_dim).

    Raises:
        ValueError: another shape, or values that are not finite.
    """
    chunk = np.array(chunk, dtype=np.float64)
    if chunk.ndim != 2 or chunk.size == 0:
        raise ValueError(f"An action chunk has shape (chunk length, action_dim), got {chunk.shape}.")
    if not np.isfinite(chunk).all():
        raise ValueError(
            f"An action chunk must be finite, got {np.count_nonzero(~np.isfinite(chunk))} NaN or infinity."
        )
    return chunk
