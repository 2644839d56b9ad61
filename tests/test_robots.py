"""The evaluated robots by name."""

import pytest

from instructvla.evaluation.robots import ROBOTS, find_robot


@pytest.mark.parametrize("name", ROBOTS)
def test_a_robot_has_commands_and_a_schedule_of_its_own_per_episode(name):
    robot = find_robot(name)
    assert robot.make_schedule() is not robot.make_schedule()
    assert robot.make_command()([0.0] * 6 + [1.0]).shape == (7,)


def test_unknown_robots_are_refused():
    with pytest.raises(ValueError, match="no robot 'franka'; there are widowx, google_robot, libero, tabletop"):
        find_robot("franka")
