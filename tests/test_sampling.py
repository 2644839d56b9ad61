"""Sampled scenes and tasks."""

from colorsys import rgb_to_hsv
from itertools import combinations
from math import dist

import numpy as np
import pytest

from instructvla.evaluation.tabletop.catalogue import DRAWER, ITEMS, RECEPTACLES
from instructvla.evaluation.tabletop.sampling import (
    FAR,
    SPLITS,
    TEST_HUES,
    CrowdedTableError,
    allowed_pairs,
    arrange,
    combination_split,
    distance_between,
    near_spot,
    sample_look,
    sample_scene,
)
from instructvla.evaluation.tabletop.scene import Skill

SEEDS = range(25)
DRAWER_SKILLS = (Skill.OPEN, Skill.CLOSE)


def scenes(split, skill):
    return [sample_scene(np.random.default_rng(seed), split, skill) for seed in SEEDS]


def items_of(scene, task):
    titles = {title: placed.item for title, placed in scene.titles().items()}
    return [titles.get(name, name) for name in (task.target, task.destination)]


@pytest.mark.parametrize("skill", Skill)
@pytest.mark.parametrize("split", SPLITS)
def test_tasks_belong_to_their_split(split, skill):
    for scene, task in scenes(split, skill):
        assert task.skill is skill
        if task.destination is not None:
            assert combination_split(skill, *items_of(scene, task)) == split


def test_training_never_handles_an_unseen_item():
    for skill in Skill:
        for scene, task in scenes("train", skill):
            for item in filter(None, items_of(scene, task)):
                assert item == DRAWER or {**ITEMS, **RECEPTACLES}[item].seen


@pytest.mark.parametrize("skill", [Skill.PUT_IN, Skill.PUT_ON, Skill.MOVE_NEAR])
def test_pairs_of_the_splits_are_disjoint_and_both_are_many(skill):
    train, test = (set(allowed_pairs(skill, split)) for split in SPLITS)
    assert not train & test
    seen = {pair for pair in test if all(name == DRAWER or {**ITEMS, **RECEPTACLES}[name].seen for name in pair)}
    assert 0.05 < len(seen) / len(seen | train) < 0.35


def test_every_seen_item_is_handled_and_every_seen_destination_used_in_training():
    pairs = [pair for skill in Skill for pair in allowed_pairs(skill, "train")]
    assert {name for name, item in ITEMS.items() if item.seen} <= {target for target, _ in pairs}
    assert {name for name, item in RECEPTACLES.items() if item.seen} | {DRAWER} <= {end for _, end in pairs}


@pytest.mark.parametrize("skill", Skill)
def test_the_gripper_fits_between_the_things(skill):
    for scene, _ in scenes("train", skill):
        for one, other in combinations([*scene.things, *scene.receptacles], 2):
            assert dist(one.position, other.position) >= distance_between(one.item, other.item)


def test_scenes_have_the_announced_numbers_of_things():
    for skill in Skill:
        for scene, _ in scenes("test", skill):
            assert 3 <= len(scene.things) <= 5 and 1 <= len(scene.receptacles) <= 2
            assert len(scene.titles()) == len(scene.things) + len(scene.receptacles)


def test_the_drawer_is_there_where_a_task_needs_it_and_starts_as_it_needs():
    for skill, low, high in ((Skill.OPEN, 0.0, 0.1), (Skill.CLOSE, 0.9, 1.0)):
        assert all(low <= scene.drawer <= high for scene, _ in scenes("train", skill))
    into = [scene.drawer for scene, task in scenes("train", Skill.PUT_IN) if task.destination == DRAWER]
    assert into and min(into) > 0.9


def test_without_need_some_scenes_have_a_drawer():
    there = [scene.drawer is not None for scene, _ in scenes("train", Skill.PICK_UP)]
    assert any(there) and not all(there)


def test_a_thing_to_move_near_starts_away_from_its_destination():
    for scene, task in scenes("train", Skill.MOVE_NEAR):
        titles = scene.titles()
        assert dist(titles[task.target].position, titles[task.destination].position) >= FAR


def test_near_spot_is_towards_the_middle_and_longer_for_long_things():
    assert near_spot("apple", (0.40, 0.1)) == pytest.approx((0.50, 0.1))
    assert near_spot("apple", (0.60, 0.1)) == pytest.approx((0.50, 0.1))
    assert near_spot("spoon", (0.40, 0.1))[0] > near_spot("apple", (0.40, 0.1))[0]


def test_looks_of_test_scenes_are_not_those_of_training():
    looks = {split: [sample_look(np.random.default_rng(i), split) for i in SEEDS] for split in SPLITS}
    hues = {
        split: [rgb_to_hsv(*rgb)[0] for look in some for rgb in (look.table, look.background)]
        for split, some in looks.items()
    }
    assert all(any(low <= hue <= high for low, high in TEST_HUES) for hue in hues["test"])
    assert min(abs(one - other) for one in hues["train"] for other in hues["test"]) > 0.02
    assert min(hues["train"]) < 0.1 and max(hues["train"]) > 0.9


def test_same_seed_gives_the_same_scene():
    one, two = (sample_scene(np.random.default_rng(3), "train") for _ in range(2))
    assert one == two


def test_arrange_places_what_it_is_given():
    scene = arrange(np.random.default_rng(0), "test", [("apple", "red"), ("block", "blue")], [("bowl", "green")], 0.5)
    assert list(scene.titles()) == ["apple", "blue block", "green bowl"]
    assert scene.drawer == 0.5


def test_too_many_things_are_refused():
    crowd = [(name, item.colours[0]) for name, item in ITEMS.items()]
    with pytest.raises(CrowdedTableError, match="take fewer things"):
        arrange(np.random.default_rng(0), "train", crowd)


def test_repeated_titles_are_refused():
    with pytest.raises(ValueError, match="one title"):
        arrange(np.random.default_rng(0), "train", [("apple", "red")] * 2)


def test_unknown_names_list_what_there_is():
    with pytest.raises(ValueError, match="no split 'validation'; there are train, test"):
        sample_scene(np.random.default_rng(0), "validation")
    with pytest.raises(ValueError, match="no 'pear'; there are apple"):
        combination_split(Skill.PICK_UP, "pear")
