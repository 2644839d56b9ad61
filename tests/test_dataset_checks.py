"""Claims about what is found wrong with a dataset as a whole, and with an episode beside the others."""

from dataclasses import replace

import numpy as np
import pytest

from instructvla.training.data.dataset_checks import (
    ConstantDims,
    DuplicateIds,
    Jumps,
    OpposedActions,
    OpposedGripper,
    Problem,
    dataset_checks,
    state_changes,
)
from instructvla.training.data.dataset_description import DatasetDescription
from instructvla.training.data.episodes import Episode

ROBOT = DatasetDescription(
    dataset="made",
    cameras=(),
    action_names=("x", "yaw", "gripper"),
    action_units=("m", "rad", "open fraction"),
    gripper_dims=(2,),
    state_names=("x", "yaw", "padding", "gripper"),
    state_units=("m", "rad", "none", "open fraction"),
)


def walk(number, steps=30, **changes):
    """An episode whose actions are the changes of its state."""
    random = np.random.default_rng(number)
    moves = random.normal(0, [0.01, 0.1], (steps, 2))
    pose = np.cumsum(moves, axis=0) - moves
    gripper = random.random(steps) > 0.5
    values = {
        "dataset": "made",
        "episode_id": str(number),
        "images": {},
        "actions": np.column_stack([moves, gripper]).astype(np.float32),
        "states": np.column_stack([pose, np.zeros(steps), gripper]).astype(np.float32),
        "instructions": ["go"] * steps,
        "control_rate_hz": 5.0,
    }
    return Episode(**(values | changes))


def problems(collector, episodes):
    for number, episode in enumerate(episodes):
        collector.add(number, episode)
    return list(collector.problems())


@pytest.mark.parametrize(
    "collect", [ConstantDims, Jumps, OpposedActions, OpposedGripper, lambda description: DuplicateIds()]
)
def test_nothing_is_found_with_good_episodes(collect):
    assert problems(collect(ROBOT), map(walk, range(200))) == []


def test_an_id_that_comes_twice_is_found_unless_the_files_differ():
    again = [walk(0), walk(1), walk(2, episode_id="0")]
    assert problems(DuplicateIds(), again) == [Problem("duplicate id", "episode 0 has the same id", "0", 2)]
    apart = [replace(episode, file_path=f"/{place}") for place, episode in enumerate(again)]
    assert problems(DuplicateIds(), apart) == []


def test_a_dimension_that_never_changes_is_found_but_not_padding():
    episodes = [walk(number) for number in range(5)]
    for episode in episodes:
        episode.actions[:, 0] = 0.5
    ((found),) = problems(ConstantDims(ROBOT), episodes)
    assert str(found) == "dataset: constant: action dimension 0 (x) is 0.5 at every step of every episode"


def test_a_dimension_that_changes_between_episodes_is_not_constant():
    episodes = [walk(number) for number in range(2)]
    for number, episode in enumerate(episodes):
        episode.actions[:, 0] = number
    assert problems(ConstantDims(ROBOT), episodes) == []


def test_a_jump_is_found_with_its_step():
    episodes = [walk(number) for number in range(10)]
    episodes[4].states[17:, 0] += 1
    (found,) = problems(Jumps(ROBOT), episodes)
    assert (found.check, found.episode, found.number) == ("jump", "4", 4)
    assert found.message.startswith("state dimension 0 (x) changes by ") and "from step 16 to 17" in found.message


def test_a_jump_is_found_beside_a_robot_that_mostly_rests():
    episodes = [walk(number) for number in range(10)]
    for episode in episodes:
        episode.states[5:, 0] = episode.states[5, 0]
    episodes[2].states[20:, 0] += 2
    assert [found.number for found in problems(Jumps(ROBOT), episodes)] == [2]


def test_an_angle_that_wraps_around_is_no_jump():
    episode = walk(0)
    episode.states[:, 1] = (np.arange(30) * 0.3 + np.pi) % (2 * np.pi) - np.pi
    assert problems(Jumps(ROBOT), [episode, *map(walk, range(1, 5))]) == []


@pytest.mark.parametrize("form", ["quaternion_xyzw", "quaternion_wxyz"])
def test_a_quaternion_and_its_negative_are_the_same_orientation(form):
    names = ("a", "b", "c", "d")
    description = replace(
        ROBOT,
        state_names=names,
        state_units=("none",) * 4,
        motion={"rotation": [0, 1, 2, 3], "rotation_form": form},
    )
    half = np.arange(30) * 0.05
    turning = np.column_stack([np.zeros((30, 2)), np.sin(half), np.cos(half)])
    turning = turning if form == "quaternion_xyzw" else turning[:, [3, 0, 1, 2]]
    turning[10:] *= -1
    (change,) = state_changes(turning.astype(np.float32), description).values()
    np.testing.assert_allclose(change, 0.1, atol=1e-5)


def test_a_gripper_may_open_within_a_step():
    assert not [name for name in state_changes(walk(0).states, ROBOT) if "gripper" in name]


def test_an_action_of_the_wrong_sign_is_found():
    episodes = [walk(number) for number in range(5)]
    for episode in episodes:
        episode.actions[:, 1] *= -1000  # whatever its units
    (found,) = problems(OpposedActions(ROBOT), episodes)
    assert "action dimension 1 (yaw) moves against the state's yaw in 145 of 145 steps" in str(found)


def grasp(number, hold, latency=1, speed=0.5, noise=0.02, rate=5.0, inverted=False):
    """A gripper that closes for `hold` steps, whose opening follows the command late, slowly and with noise."""
    random = np.random.default_rng(number)
    steps = hold + 20
    start = random.integers(5, 12)
    command = np.ones(steps)
    command[start : start + hold] = 0
    opening, now = np.ones(steps), 1.0
    for step in range(steps):
        now += np.clip(command[max(step - latency, 0)] - now, -speed, speed)
        opening[step] = now + random.normal(0, noise)
    episode = walk(number, steps, control_rate_hz=rate)
    episode.actions[:, 2] = 1 - command if inverted else command
    episode.states[:, 3] = opening
    return episode


@pytest.mark.parametrize("hold", [2, 5, 8])
@pytest.mark.parametrize("latency", [0, 1, 2])
@pytest.mark.parametrize("speed", [1.0, 0.3])
def test_an_inverted_gripper_is_found_however_short_its_grasps_and_a_right_one_is_not(hold, latency, speed):
    right, wrong = (
        problems(
            OpposedGripper(ROBOT), [grasp(number, hold, latency, speed, inverted=inverted) for number in range(30)]
        )
        for inverted in (False, True)
    )
    assert right == []
    (found,) = wrong
    assert str(found).startswith("dataset: gripper: the gripper closes when the action opens it, by 60 commands in 30 ")


def test_of_a_few_commands_or_of_noise_nothing_is_concluded():
    few = [grasp(number, 5, inverted=True) for number in range(4)]
    assert problems(OpposedGripper(ROBOT), few) == []
    random = np.random.default_rng(0)
    noise = [walk(number) for number in range(30)]
    for episode in noise:
        episode.states[:, 3] = random.random(len(episode))
    assert problems(OpposedGripper(ROBOT), noise) == []


def test_a_state_that_tells_how_closed_a_gripper_is_counts_the_other_way():
    closed = replace(ROBOT, state_units=("m", "rad", "none", "closed fraction"))
    assert len(problems(OpposedGripper(closed), [grasp(number, 5) for number in range(30)])) == 1


def test_all_checks_together_find_what_each_finds():
    checks = dataset_checks(ROBOT)
    episodes = [grasp(number, 5, inverted=True) for number in range(30)]
    episodes[4].states[17:, 0] += 1
    found = [problem.check for check in checks for problem in problems(check, [*episodes, episodes[0]])]
    assert sorted(found) == ["duplicate id", "gripper", "jump"]


def test_episodes_that_other_checks_report_do_no_harm():
    short, wide = walk(0, steps=1), walk(1)
    broken = walk(2)
    broken.states[3, 0] = np.nan
    episodes = [short, replace(wide, states=None), replace(wide, actions=wide.actions[:, :1]), broken]
    for collect in (ConstantDims, Jumps, OpposedActions, OpposedGripper):
        assert problems(collect(ROBOT), [*episodes, *map(walk, range(3, 9))]) == []
