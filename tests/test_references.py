import pytest

from instructvla.evaluation.tabletop.references import references
from tests.tabletop_scenes import in_a_row, sampled, scene_of


def test_attributes_point_at_one_thing():
    found = references(in_a_row("banana", "lemon", "carrot"), "banana", "train")
    assert {"long fruit", "long yellow fruit", "sweet fruit"} <= set(found)
    assert not {"fruit", "yellow fruit", "long thing", "yellow thing"} & set(found)


def test_test_forms_of_the_same_are_others():
    scene = in_a_row("banana", "lemon", "carrot")
    train, test = (set(references(scene, "banana", split)) for split in ("train", "test"))
    assert "yellow long fruit" in test and "fruit that is long and yellow" in test
    assert not train & test


@pytest.mark.parametrize(("target", "side"), [("apple", "left"), ("orange", "right")])
def test_sides_are_those_of_the_front_camera(target, side):
    scene = in_a_row("apple", "lemon", "orange")
    assert f"fruit on the {side}" in references(scene, target, "train")
    assert f"{side}most fruit" in references(scene, target, "test")
    assert not any("fruit on the" in words for words in references(scene, "lemon", "train"))


def test_a_side_needs_a_clear_distance():
    scene = scene_of({"apple": (0.4, 0.0), "lemon": (0.6, 0.05)})
    assert not any("fruit on the" in words for words in references(scene, "apple", "train"))


def test_relations_to_another_thing():
    scene = in_a_row("apple", "hammer", "orange", "lemon")
    assert "fruit left of the hammer" in references(scene, "apple", "train")
    assert not any(words.startswith("fruit right of the hammer") for words in references(scene, "orange", "train"))
    assert "tool next to the apple" not in references(scene, "hammer", "train")  # the only tool needs no neighbour


def test_neighbours_are_nearer_than_any_other_of_the_kind():
    scene = scene_of({"apple": (0.5, 0.0), "lemon": (0.5, 0.3), "fork": (0.5, 0.12)})
    assert "fruit next to the fork" in references(scene, "apple", "train")
    assert "fruit next to the fork" not in references(scene, "lemon", "train")


def test_a_reference_is_never_the_name_nor_names_what_must_not_be_named():
    scene = in_a_row("red block", "blue block", "apple", receptacles=("white bowl",))
    for split in ("train", "test"):
        assert "red block" not in references(scene, "red block", split)
        assert not any("apple" in words for words in references(scene, "red block", split, unnamed="apple"))


def test_no_two_things_of_a_scene_share_a_reference():
    for split in ("train", "test"):
        for scene, _ in sampled(60, split):
            found = [words for thing in scene.things for words in references(scene, scene.title(thing), split)]
            assert len(set(found)) == len(found)
