"""Claims about grippers: whatever the recording's convention, 1 is open and 0 is closed."""

import numpy as np
import pytest

from instructvla.training.data.gripper_conventions import (
    GRIPPER_CONVENTIONS,
    closed_is_one,
    closed_is_one_signed,
    closing_is_positive,
    open_is_one,
    open_is_one_signed,
    settled_open_is_one,
)


@pytest.mark.parametrize(
    ("convention", "recorded"),
    [(open_is_one, [1, 0]), (closed_is_one, [0, 1]), (open_is_one_signed, [1, -1]), (closed_is_one_signed, [-1, 1])],
)
def test_an_open_and_then_closed_gripper_is_1_and_then_0(convention, recorded):
    assert convention(np.array(recorded, np.float32)).tolist() == [1, 0]


@pytest.mark.parametrize(
    ("convention", "recorded"),
    [
        (open_is_one, [-1, 1]),
        (closed_is_one, [0, 1.01]),
        (open_is_one_signed, [0, 255]),
        (closed_is_one_signed, [-2, 0]),
    ],
)
def test_values_of_another_convention_are_refused_with_those_that_exist(convention, recorded):
    with pytest.raises(ValueError, match=r"values span .* may be another one: open_is_one, closed_is_one"):
        convention(np.array(recorded, np.float32))


def test_rounding_beyond_the_range_is_clipped():
    assert open_is_one(np.array([1.0005, -0.0005])).tolist() == [1, 0]


def test_a_gripper_on_its_way_has_the_state_that_it_reaches():
    recorded = np.array([1.0, 0.7, 0.2, 0.0, 0.04, 0.5, 0.96, 1.0])
    assert settled_open_is_one(recorded).tolist() == [1, 0, 0, 0, 0, 1, 1, 1]


def test_a_gripper_that_settles_no_more_keeps_its_last_value():
    assert settled_open_is_one(np.array([1.0, 0.5, 0.4])).tolist() == [1, 0.4, 0.4]


def test_commands_last_until_the_next_and_the_first_one_changes_the_state():
    recorded = np.array([0, 0.05, 1, 0, -0.05, -1, 0])
    assert closing_is_positive(recorded).tolist() == [1, 1, 0, 0, 0, 1, 1]
    assert closing_is_positive(-recorded).tolist() == [0, 0, 1, 1, 1, 0, 0]


def test_a_gripper_without_commands_is_open():
    assert closing_is_positive(np.zeros(3)).tolist() == [1, 1, 1]


def step_by_step_settled(recorded):
    """Open X-Embodiment's rule as a loop from the last step to the first."""
    state, states = recorded[-1], []
    for value in recorded[::-1]:
        state = 1.0 if value > 0.95 else 0.0 if value < 0.05 else state
        states.append(state)
    return states[::-1]


def step_by_step_commands(recorded):
    """Open X-Embodiment's rule as a loop from the first step to the last."""
    commands = [1.0 if value < -0.1 else 0.0 if value > 0.1 else None for value in recorded]
    first = next((command for command in commands if command is not None), 0.0)
    state, states = 1 - first, []
    for command in commands:
        state = state if command is None else command
        states.append(state)
    return states


@pytest.mark.parametrize(
    ("convention", "loop"), [(settled_open_is_one, step_by_step_settled), (closing_is_positive, step_by_step_commands)]
)
def test_whole_columns_at_once_equal_the_rule_step_by_step(convention, loop):
    random = np.random.default_rng(0)
    for _ in range(200):
        steps = random.integers(1, 12)
        kept = random.choice([0, 0, 1], steps)
        recorded = np.where(kept, random.choice([-1.0, 0.0, 1.0], steps), random.uniform(0, 1, steps))
        recorded = recorded if loop is step_by_step_commands else np.abs(recorded)
        assert convention(recorded).tolist() == loop(recorded)


def test_every_convention_stays_within_0_and_1():
    column = np.array([0.0, 0.3, 1.0])
    for convention in GRIPPER_CONVENTIONS.values():
        values = convention(column)
        assert values.shape == column.shape and values.min() >= 0 and values.max() <= 1
