import pytest

from instructvla.evaluation.tabletop.view import View, drawer_word
from instructvla.evaluation.tabletop.world_state import ObjectState
from tests.tabletop_scenes import in_a_row, resting_state

SCENE = in_a_row("apple", "fork", receptacles=("white bowl",), drawer=0.0)


def test_a_scene_as_built_rests_on_the_table():
    view = View.of_scene(SCENE)
    assert view.resting == view.visible == {"apple", "fork", "white bowl"}
    assert view.supports == {"apple": "table", "fork": "table"}
    assert view.empty == {"white bowl"} and view.drawer == "closed"


def test_what_moves_is_not_resting_and_its_place_not_known():
    moved = ObjectState(0.5, 0.1, 0.05, support="white bowl")
    states = [resting_state(SCENE), resting_state(SCENE, apple=moved)]
    points = {"apple": (0.1, 0.5), "fork": (0.3, 0.5)}
    view = View.of_states(SCENE, states, points)
    assert view.resting == {"fork", "white bowl"}
    assert view.supports == {"fork": "table"} and not view.empty
    assert view.points == {"fork": (0.3, 0.5)}
    assert view.in_order(["apple", "white bowl", "fork"]) == ["fork", "white bowl", "apple"]


def test_what_is_held_at_any_time_is_not_resting():
    held = ObjectState(0.5, -0.3, 0.02, support=None, held=True)
    view = View.of_states(SCENE, [resting_state(SCENE), resting_state(SCENE, apple=held), resting_state(SCENE)])
    assert "apple" not in view.resting


def test_what_lies_in_the_drawer_may_be_hidden():
    inside = ObjectState(0.4, 0.3, 0.03, support="drawer")
    view = View.of_states(SCENE, [resting_state(SCENE), resting_state(SCENE, apple=inside)])
    assert view.visible == {"fork", "white bowl"}


def test_a_drawer_that_moves_is_neither_open_nor_closed():
    assert View.of_states(SCENE, [resting_state(SCENE, 0.0), resting_state(SCENE, 1.0)]).drawer is None
    assert drawer_word([0.9, 1.0]) == "open" and drawer_word([0.0, 0.05]) == "closed"
    assert drawer_word([0.4]) is None and drawer_word([None]) is None


def test_points_outside_the_picture_are_not_used():
    assert View.of_scene(SCENE, {"apple": (1.2, 0.5), "fork": (0.3, 0.5)}).points == {"fork": (0.3, 0.5)}


def test_states_and_points_of_another_scene_are_refused():
    with pytest.raises(ValueError, match="states must be one or more of the scene's apple, fork, white bowl"):
        View.of_states(SCENE, [])
    with pytest.raises(ValueError, match="states must be"):
        View.of_states(SCENE, [resting_state(in_a_row("lemon"))])
    with pytest.raises(ValueError, match="points of lemon"):
        View.of_scene(SCENE, {"lemon": (0.5, 0.5)})
