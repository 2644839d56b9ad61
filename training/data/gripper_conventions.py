"""How recordings write down the gripper, each turned into 1 = open, 0 = closed by a function of its own.

Every function takes the recorded column (T,) of one whole episode and returns (T,) float32 in [0, 1].
"""

from collections.abc import Callable

import numpy as np

TOLERANCE = 1e-3  # rounding of files; more than that is another convention


def require_range(recorded: np.ndarray, low: float, high: float) -> None:
    """Raise `ValueError` where a value is outside [low, high], which means that the convention is another one."""
    if recorded.min() < low - TOLERANCE or recorded.max() > high + TOLERANCE:
        raise ValueError(
            f"its values span {recorded.min():g} to {recorded.max():g}, which is not within {low:g} to {high:g}; "
            f"the gripper's convention may be another one: {', '.join(GRIPPER_CONVENTIONS)}"
        )


def open_is_one(recorded: np.ndarray) -> np.ndarray:
    """0 closed to 1 open, as an `Episode` has it."""
    require_range(recorded, 0, 1)
    return np.clip(recorded, 0, 1)


def closed_is_one(recorded: np.ndarray) -> np.ndarray:
    """0 open to 1 closed."""
    require_range(recorded, 0, 1)
    return 1 - np.clip(recorded, 0, 1)


def open_is_one_signed(recorded: np.ndarray) -> np.ndarray:
    """−1 closed to +1 open; a value of 0 or less counts as closed."""
    require_range(recorded, -1, 1)
    return np.clip(recorded, 0, 1)


def closed_is_one_signed(recorded: np.ndarray) -> np.ndarray:
    """−1 open to +1 closed (LIBERO and robosuite); a value of 0 or less counts as open."""
    require_range(recorded, -1, 1)
    return 1 - np.clip(recorded, 0, 1)


def settled_open_is_one(recorded: np.ndarray) -> np.ndarray:
    """About 0 closed, about 1 open, and between them on the way (Bridge): each step gets the state it is on its way to.

    A value above 0.95 is open, one below 0.05 closed. Steps between take the next settled value; where none follows
    they keep the last recorded value, as in Open X-Embodiment.
    """
    is_settled = (recorded > 0.95) | (recorded < 0.05)
    steps = np.arange(len(recorded))
    next_settled = np.minimum.accumulate(np.where(is_settled, steps, len(recorded))[::-1])[::-1]
    values = np.append(np.where(is_settled, recorded > 0.95, recorded), np.clip(recorded[-1], 0, 1))
    return values[next_settled]


def closing_is_positive(recorded: np.ndarray) -> np.ndarray:
    """Commands to change: above 0.1 closes, below −0.1 opens, between keeps (Fractal, RT-1).

    Before the first command the gripper is taken to be in the opposite state, as that command changes it; an episode
    without a command is open throughout.
    """
    commands = np.select([recorded > 0.1, recorded < -0.1], [0.0, 1.0], np.nan)  # the state commanded
    given = np.flatnonzero(~np.isnan(commands))
    if len(given) == 0:
        return np.ones(len(recorded))
    last_command = np.searchsorted(given, np.arange(len(recorded)), side="right") - 1
    return np.where(last_command < 0, 1 - commands[given[0]], commands[given[np.maximum(last_command, 0)]])


GRIPPER_CONVENTIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    function.__name__: function
    for function in (
        open_is_one,
        closed_is_one,
        open_is_one_signed,
        closed_is_one_signed,
        settled_open_is_one,
        closing_is_positive,
    )
}
