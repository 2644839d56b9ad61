"""Claims about the scripted expert for the Google robot, on a hand without mass."""

import numpy as np

from instructvla.evaluation.robots import find_robot
from instructvla.evaluation.simulators.google_robot_expert import LIFT_M, STEP_M, Expert, Grip

HAND, CAN = np.array([0.44, -0.22, 0.96, 0, 1.0, 0, 0]), np.array([0.64, 0.0, 0.87])  # fingers point down
BOTTOM = CAN[2]
REACH = 0.04  # m


def lifted() -> tuple[list[np.ndarray], np.ndarray]:
    """Actions of an episode, and where the can is in the end; the hand goes half of each way."""
    hand, can, holds = HAND.copy(), CAN.copy(), False
    expert, command, actions = Expert(Grip(hand, can)), find_robot("google_robot").make_command(), []
    closing = 0.0
    while not expert.done:
        actions.append(expert.act(Grip(hand, can)))
        done = command(actions[-1])
        closing += done[6]
        hand[:3] += done[:3] / 2
        holds = closing >= 5 and (holds or np.linalg.norm(hand[:3] - can) < REACH)
        if holds:
            can[:] = hand[:3]
    return actions, can


def test_it_lifts_the_can_through_the_latched_gripper_and_stays_in_the_end():
    actions, can = lifted()
    assert can[2] > BOTTOM + LIFT_M - 0.02 and np.linalg.norm(can[:2] - CAN[:2]) < 0.01
    np.testing.assert_array_equal(actions[-1], np.zeros(7))
    assert len(actions) < 80


def test_its_actions_are_small_and_it_never_opens_again():
    actions = np.array(lifted()[0])
    assert np.linalg.norm(actions[:, :3], axis=1).max() <= STEP_M + 1e-9 and not actions[:, 3:6].any()
    assert (np.diff(actions[:, 6]) <= 0).all() and set(actions[:, 6]) == {0.0, 1.0}


def test_it_comes_from_where_the_fingers_point_away_from():
    tilted = np.array([0.44, -0.22, 0.96, 0, np.cos(0.1), 0, np.sin(0.1)])
    hand, way = tilted.copy(), []
    expert = Expert(Grip(hand, CAN))
    for _ in range(30):
        action = expert.act(Grip(hand, CAN))
        if action[6] == 0:
            break
        hand[:3] += action[:3]
        way.append(hand[:3].copy())
    last = way[-1] - way[-2]
    fingers = np.array([np.sin(0.2), 0.0, -np.cos(0.2)])
    assert last @ fingers / np.linalg.norm(last) > 0.99
