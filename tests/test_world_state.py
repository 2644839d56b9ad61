"""The world's state as plain data."""

from dataclasses import replace

from instructvla.evaluation.tabletop.world_state import STATE_NAMES, ObjectState, WorldState

APPLE = ObjectState(0.5, 0.1, 0.03)
STATE = WorldState({"apple": APPLE, "plum": replace(APPLE, x=0.6)}, (0.4, 0.0, 0.2, 0.0, 0.0, 0.0), 1.0)


def test_position_is_x_y_and_z():
    assert APPLE.position == (0.5, 0.1, 0.03)


def test_held_names_the_thing_in_the_gripper():
    holding = replace(STATE, objects={**STATE.objects, "plum": replace(APPLE, held=True)})
    assert STATE.held() is None
    assert holding.held() == "plum"


def test_the_policy_sees_eight_numbers():
    assert len(STATE_NAMES) == len(STATE.tcp) + 2 == 8
