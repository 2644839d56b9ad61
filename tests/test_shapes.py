"""The shapes of the catalogue's items."""

import pytest

from instructvla.evaluation.tabletop.arm import FINGER_TRAVEL
from instructvla.evaluation.tabletop.catalogue import COLOURS, ITEMS, RECEPTACLES
from instructvla.evaluation.tabletop.shapes import LOWEST_GRASP, colour_of, receptacle_of, shape_of

HALF_PAD = 0.021  # m, along the fingers' faces


@pytest.mark.parametrize("item", ITEMS)
def test_every_item_has_a_shape_that_the_gripper_can_take(item):
    shape = shape_of(item)
    solids = [part for part in shape.parts if part.solid]
    assert solids and sum(part.mass for part in solids) < 0.15
    assert LOWEST_GRASP <= shape.grasp <= max(shape.height, LOWEST_GRASP)
    between = [part for part in solids if abs(part.at[0]) - part.size[0] < HALF_PAD]
    across = [part.size[0] if part.form in ("sphere", "cylinder") else part.size[1] for part in between]
    assert max(across) + 0.01 < FINGER_TRAVEL


@pytest.mark.parametrize("item", ITEMS)
def test_solid_parts_stand_on_the_table(item):
    lowest = [
        part.at[2] - (part.size[1] if part.form == "cylinder" else part.size[-1])
        for part in shape_of(item).parts
        if part.solid
    ]
    assert min(lowest) == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("item", RECEPTACLES)
def test_every_receptacle_holds_its_middle_and_not_what_is_beside_it(item):
    receptacle = receptacle_of(item)
    assert receptacle.holds(0.0, 0.0)
    assert not receptacle.holds(receptacle.reach + 0.01, 0.0)
    assert not receptacle.holds(0.0, receptacle.reach + 0.01)
    assert 0 < receptacle.floor < receptacle.rim


def test_things_of_one_colour_differ_by_a_shade():
    assert colour_of("apple", "red") != colour_of("tomato", "red")


def test_things_that_come_in_colours_have_the_catalogue_s():
    assert colour_of("block", "green") == COLOURS["green"]
    assert colour_of("plate", "blue") == COLOURS["blue"]


def test_unknown_names_list_what_there_is():
    with pytest.raises(ValueError, match="no 'pear' to pick up; there are apple, banana"):
        shape_of("pear")
    with pytest.raises(ValueError, match="no receptacle 'vase'; there are plate, bowl, basket, tray and drawer"):
        receptacle_of("vase")
