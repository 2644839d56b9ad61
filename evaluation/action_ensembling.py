"""Adaptive action ensembling: average the actions that successive, overlapping chunks predict for the same step."""

from collections import deque

import numpy as np
from numpy.typing import ArrayLike


class AdaptiveEnsemble:
    """Similarity-weighted mean of the last predictions for the current step (released evaluation, after CogACT).

    With p_k the action that the chunk from k steps ago predicts for now, the executed action is Σ_k w_k·p_k,
    w_k ∝ exp(α·cos(p_k, p_0)), over all dimensions of the un-normalised action. The released SimplerEnv evaluation uses
    α = 0.1 and horizon 7 (WidowX) or 2 (Google robot). One object serves one robot; `reset` starts the next episode.

    Args:
        horizon: largest number of chunks averaged, the current one included; at least 1.
        alpha: how strongly similar predictions are preferred; 0 gives the plain mean.
    """

    def __init__(self, horizon: int, alpha: float):
        if horizon < 1:
            raise ValueError(f"Ensemble horizon must be at least 1 chunk, got {horizon}; 1 means no ensembling.")
        if not np.isfinite(alpha):
            raise ValueError(f"Ensemble alpha must be finite, got {alpha}; the released evaluation uses 0.1.")
        self.horizon = horizon
        self.alpha = alpha
        self._chunks: deque[np.ndarray] = deque(maxlen=horizon)

    def reset(self) -> None:
        """Forget all chunks: call it when an episode or an instruction starts."""
        self._chunks.clear()

    def __call__(self, chunk: ArrayLike) -> np.ndarray:
        """Add the chunk predicted at this step and return the action to execute now.

        Args:
            chunk: `(chunk length, action_dim)` with at least `horizon` rows, or one action `(action_dim,)`; finite.

        Returns:
            `(action_dim,)` float64, in the chunk's units.

        Raises:
            ValueError: for another shape than at the last call, too short a chunk, or values that are not finite.
        """
        self._chunks.append(self._checked(chunk))
        newest_first = enumerate(reversed(self._chunks))
        predictions = np.stack([chunk[age] if chunk.ndim == 2 else chunk for age, chunk in newest_first])
        norms = np.linalg.norm(predictions, axis=1)  # (chunks,)
        similarity = predictions @ predictions[0] / (norms * norms[0] + 1e-7)
        weights = np.exp(self.alpha * similarity)
        return weights / weights.sum() @ predictions

    def _checked(self, chunk: ArrayLike) -> np.ndarray:
        chunk = np.array(chunk, dtype=np.float64)  # a copy: the caller may reuse its buffer
        if chunk.ndim not in (1, 2) or chunk.size == 0:
            raise ValueError(
                f"An action chunk has shape (chunk length, action_dim) or (action_dim,), got {chunk.shape}; "
                "pass one row of the batch."
            )
        if chunk.ndim == 2 and len(chunk) < self.horizon:
            raise ValueError(
                f"An ensemble of horizon {self.horizon} needs chunks of at least {self.horizon} actions, "
                f"got {len(chunk)}; use a horizon of {len(chunk)} or less."
            )
        if self._chunks and chunk.shape != self._chunks[-1].shape:
            raise ValueError(
                f"Got a chunk of shape {chunk.shape} after chunks of shape {self._chunks[-1].shape}; "
                "call reset() between episodes of different policies."
            )
        if not np.isfinite(chunk).all():
            raise ValueError(
                f"An action chunk must be finite, got {np.count_nonzero(~np.isfinite(chunk))} NaN or infinity."
            )
        return chunk
