"""Scenes as MuJoCo models."""

from dataclasses import replace

import mujoco
import numpy as np
import pytest

from instructvla.evaluation.tabletop.catalogue import ITEMS, RECEPTACLES
from instructvla.evaluation.tabletop.scene import Look, Placed, Scene
from instructvla.evaluation.tabletop.scene_xml import FRONT_CAMERA, scene_xml
from instructvla.evaluation.tabletop.shapes import shape_of
from tests.breakfast_scene import breakfast


def model_of(scene: Scene) -> tuple[mujoco.MjModel, mujoco.MjData]:
    model = mujoco.MjModel.from_xml_string(scene_xml(scene))
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    return model, data


def test_things_stand_at_their_places_with_their_turns():
    scene = breakfast()
    _, data = model_of(scene)
    for i, placed in enumerate(scene.things):
        body = data.body(f"thing{i}")
        np.testing.assert_allclose(body.xpos, (*placed.position, shape_of(placed.item).height / 2), atol=1e-6)
        assert np.arctan2(body.xmat[3], body.xmat[0]) == pytest.approx(placed.yaw, abs=1e-6)


@pytest.mark.parametrize("item", [name for name in ITEMS])
def test_every_item_stays_as_it_was_set_down(item):
    scene = Scene((Placed(item, ITEMS[item].colours[0], (0.5, 0.1), 0.3),))
    model, data = model_of(scene)
    mujoco.mj_step(model, data, 250)
    body = data.body("thing0")
    assert body.xmat[8] > 0.995  # upright within 0.1 rad
    np.testing.assert_allclose(body.xpos[:2], (0.5, 0.1), atol=2e-3)


@pytest.mark.parametrize("item", [name for name in RECEPTACLES])
def test_receptacles_stand_still(item):
    scene = Scene((), (Placed(item, RECEPTACLES[item].colours[0], (0.5, 0.1)),))
    model, data = model_of(scene)
    assert model.body("receptacle0").dofnum[0] == 0
    np.testing.assert_allclose(data.body("receptacle0").xpos, (0.5, 0.1, 0.0))


def test_cabinet_is_there_only_with_a_drawer():
    assert model_of(breakfast())[0].nbody < model_of(breakfast(drawer=0.0))[0].nbody
    with pytest.raises(KeyError):
        model_of(breakfast())[0].body("cabinet")


def test_look_changes_the_picture_and_not_the_physics():
    plain = breakfast()
    other = replace(plain, look=Look(table=(0.1, 0.5, 0.2), light=(0.2, 0.3), camera_shift=(0.01, 0, 0)))
    (one, one_data), (two, two_data) = model_of(plain), model_of(other)
    for model, data in ((one, one_data), (two, two_data)):
        mujoco.mj_step(model, data, 50)
    np.testing.assert_array_equal(one_data.qpos, two_data.qpos)
    assert not np.allclose(one.geom_rgba, two.geom_rgba)


def test_camera_turns_about_its_own_axes():
    _, plain = model_of(Scene(()))
    _, turned = model_of(Scene((), look=Look(camera_turn=(0.1, 0.0, 0.0))))
    before, after = (data.camera(FRONT_CAMERA).xmat.reshape(3, 3) for data in (plain, turned))
    np.testing.assert_allclose(before[:, 0], after[:, 0], atol=1e-4)  # about its x, which stays
    assert before[:, 2] @ after[:, 2] == pytest.approx(np.cos(0.1), abs=1e-4)
