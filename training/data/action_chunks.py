"""Chunks of future actions, the target of flow matching (paper section 3.1)."""

import numpy as np


def action_chunk(actions: np.ndarray, start: int, horizon: int) -> tuple[np.ndarray, np.ndarray]:
    """The actions of `horizon` steps from `start` on; beyond the episode's end the last one is repeated.

    The repeated ones are finite like all others, and the mask takes them out of the loss.

    Args:
        actions: (T, action_dim) of one episode.
        start: step of the observation; its own action is the first of the chunk.
        horizon: H, at least 1.

    Returns:
        (H, action_dim) actions of the same type, not a view, and (H,) bool, True where the action was recorded.

    Raises:
        ValueError: `start` outside the episode, or `horizon` below 1.
    """
    if not 0 <= start < len(actions):
        raise ValueError(f"start is {start}; an episode of {len(actions)} steps has 0 to {len(actions) - 1}")
    if horizon < 1:
        raise ValueError(f"horizon is {horizon}; give 1 or more steps")
    steps = np.arange(start, start + horizon)
    return actions[np.minimum(steps, len(actions) - 1)], steps < len(actions)
