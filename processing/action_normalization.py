"""Quantile statistics of actions and states: checking them, normalising states, un-normalising actions."""

import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

REQUIRED_FIELDS = ("q01", "q99")
PER_DIMENSION_FIELDS = ("q01", "q99", "mask", "mean", "std", "min", "max")


def nearest(name: str, choices: Iterable[str]) -> str:
    """The choice that is spelled most like `name`."""
    return difflib.get_close_matches(str(name), list(choices), n=1, cutoff=0.0)[0]


def check_statistics(statistics: Mapping[str, Any], action_dim: int, state_dim: int | None) -> dict[str, Any]:
    """A plain copy (lists and numbers, ready for JSON) of the statistics of every dataset, once they are found valid.

    Args:
        statistics: `{unnorm_key: {"action": {"q01", "q99", optionally "mask"}, "state": {"q01", "q99"}}}`, each field a
            sequence with one entry per dimension, in physical units. "state" is required only if `state_dim` is set.
        action_dim: number of action dimensions.
        state_dim: number of state dimensions, None for a model without state.

    Raises:
        ValueError: a missing part or field, a wrong length, a value that is not finite, or q01 > q99.
    """
    if not isinstance(statistics, Mapping):
        raise ValueError(f"statistics must be a dict {{unnorm_key: {{'action': …}}}}, got {type(statistics).__name__}")
    plain = {}
    for key, parts in statistics.items():
        if not isinstance(parts, Mapping):
            raise ValueError(f"statistics[{key!r}] must be a dict with the key 'action', got {type(parts).__name__}")
        plain[str(key)] = _plain(parts)
        sizes = {"action": action_dim} if state_dim is None else {"action": action_dim, "state": state_dim}
        for part, size in sizes.items():
            _check_part(plain[str(key)].get(part), size, f"statistics[{key!r}][{part!r}]", list(parts))
    return plain


def _plain(value: Any) -> Any:
    """`value` with mappings as dicts, and arrays, tensors and tuples as lists."""
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    value = value.tolist() if hasattr(value, "tolist") else value
    return [_plain(entry) for entry in value] if isinstance(value, list | tuple) else value


def _check_part(part: Any, size: int, name: str, given: list[str]) -> None:
    if not isinstance(part, Mapping):
        raise ValueError(f"{name} is missing or no dict of 'q01' and 'q99'; the keys given are {given}")
    missing = [field for field in REQUIRED_FIELDS if field not in part]
    if missing:
        raise ValueError(f"{name} lacks {missing}; the keys given are {list(part)}")
    for field in PER_DIMENSION_FIELDS:
        if field not in part:
            continue
        values = part[field]
        if not isinstance(values, list) or len(values) != size:
            got = f"{len(values)} values" if isinstance(values, list) else repr(values)
            raise ValueError(f"{name}[{field!r}] must have {size} values, one per dimension, got {got}")
        if field == "mask":
            if not all(isinstance(value, bool) for value in values):
                raise ValueError(f"{name}['mask'] must hold only true and false, got {values}")
        elif not all(isinstance(value, int | float) and math.isfinite(value) for value in values):
            raise ValueError(f"{name}[{field!r}] must hold only finite numbers, got {values}")
    for dim, (low, high) in enumerate(zip(part["q01"], part["q99"], strict=True)):
        if low > high:
            raise ValueError(f"{name}: q01 {low} is above q99 {high} in dimension {dim}")


def resolve_unnorm_key(keys: Sequence[str], unnorm_key: str | None) -> str:
    """`unnorm_key` if it is one of `keys`; the only key if it is None.

    Raises:
        ValueError: an unknown key, or None with several to choose from.
    """
    if unnorm_key is None and len(keys) == 1:
        return keys[0]
    if unnorm_key is None:
        raise ValueError(f"unnorm_key is needed, this checkpoint has statistics of {len(keys)} datasets: {list(keys)}")
    if unnorm_key not in keys:
        raise ValueError(
            f"unknown unnorm_key {unnorm_key!r}; the checkpoint has {list(keys)}, the nearest is "
            f"{nearest(unnorm_key, keys)!r}"
        )
    return unnorm_key


def clip_actions(normalized: np.ndarray, action_dim: int, gripper_dims: Sequence[int]) -> np.ndarray:
    """Clip to [−1, 1]; a gripper dimension becomes 0 below 0.5, else 1.

    Args:
        normalized: `(..., action_dim)`.
        gripper_dims: indices of the dimensions that open and close a gripper.

    Returns:
        `(..., action_dim)` float64, a copy.

    Raises:
        ValueError: a wrong number of dimensions, or a value that is not finite.
    """
    actions = _checked(normalized, action_dim, "normalized actions").clip(-1.0, 1.0)
    for dim in gripper_dims:
        actions[..., dim] = actions[..., dim] >= 0.5
    return actions


def unnormalize_actions(
    normalized: np.ndarray, statistics: Mapping[str, Any], gripper_dims: Sequence[int]
) -> np.ndarray:
    """Physical actions from the model's, as the released evaluation computes them.

    After `clip_actions` the masked dimensions (all, if the statistics have no mask) become
    0.5·(a + 1)·(q99 − q01) + q01.

    Args:
        normalized: `(..., action_dim)`.
        statistics: "q01", "q99" and optionally "mask" of the action, `(action_dim,)` each.
        gripper_dims: indices of the dimensions that open and close a gripper.

    Returns:
        `(..., action_dim)` float64, in the units of the statistics.

    Raises:
        ValueError: a wrong number of dimensions, or a value that is not finite.
    """
    low, high = (np.asarray(statistics[field], np.float64) for field in REQUIRED_FIELDS)
    actions = clip_actions(normalized, len(low), gripper_dims)
    mask = np.asarray(statistics.get("mask", True), bool)
    return np.where(mask, 0.5 * (actions + 1.0) * (high - low) + low, actions)


def normalize_actions(actions: np.ndarray, statistics: Mapping[str, Any]) -> np.ndarray:
    """The model's actions from physical ones: the inverse of `unnormalize_actions` between q01 and q99.

    The masked dimensions (all, if the statistics have no mask) become 2·(a − q01) / (q99 − q01) − 1, clipped to
    [−1, 1], and 0 where q01 = q99. The others, the gripper, stay as they are. The authors add 1e-8 to the divisor, and
    set whatever never changes in a dataset to 0, a gripper too; here one that was always open stays open.

    Args:
        actions: `(..., action_dim)` in the units of the statistics.
        statistics: "q01", "q99" and optionally "mask" of the action, `(action_dim,)` each.

    Returns:
        `(..., action_dim)` float64.

    Raises:
        ValueError: a wrong number of dimensions, or a value that is not finite.
    """
    low, high = (np.asarray(statistics[field], np.float64) for field in REQUIRED_FIELDS)
    actions = _checked(actions, len(low), "actions")
    span = np.where(low == high, 1.0, high - low)
    scaled = np.where(low == high, 0.0, (2.0 * (actions - low) / span - 1.0).clip(-1.0, 1.0))
    return np.where(np.asarray(statistics.get("mask", True), bool), scaled, actions)


def normalize_state(state: np.ndarray, statistics: Mapping[str, Any]) -> np.ndarray:
    """2·(s − q01) / (q99 − q01 + 1e-8) − 1, clipped to [−1, 1]; a dimension that was constant in training gives 0.

    Args:
        state: `(..., state_dim)` in physical units.
        statistics: "q01" and "q99" of the state, `(state_dim,)` each.

    Returns:
        `(..., state_dim)` float64.

    Raises:
        ValueError: a wrong number of dimensions, or a value that is not finite.
    """
    low, high = (np.asarray(statistics[field], np.float64) for field in REQUIRED_FIELDS)
    state = _checked(state, len(low), "state")
    return np.where(low == high, 0.0, (2.0 * (state - low) / (high - low + 1e-8) - 1.0).clip(-1.0, 1.0))


def _checked(values: np.ndarray, size: int, name: str) -> np.ndarray:
    """`values` in float64."""
    if values.ndim == 0 or values.shape[-1] != size:
        raise ValueError(f"{name} must have {size} values in the last dimension, got shape {values.shape}")
    if values.dtype.kind not in "fiu":
        raise ValueError(f"{name} must be numbers, got dtype {values.dtype}")
    values = values.astype(np.float64)
    if not np.isfinite(values).all():
        raise ValueError(f"{name} must be finite, got {values[~np.isfinite(values)][0]}")
    return values
