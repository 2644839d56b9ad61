"""The cabinet and its drawer."""

import numpy as np
import pytest

from instructvla.evaluation.tabletop import cabinet
from tests.breakfast_scene import CLOSED, OPEN, simulated

FRONT = (0.36, -0.28)


def test_drawer_stands_out_by_its_travel():
    shut, pulled = (simulated(opening).data.body(cabinet.BODY).xpos for opening in (CLOSED, OPEN))
    np.testing.assert_allclose(pulled - shut, (cabinet.TRAVEL, 0, 0), atol=1e-3)


def test_handle_moves_with_the_drawer():
    shut, pulled = (np.array(cabinet.handle_position(FRONT, opening)) for opening in (CLOSED, OPEN))
    np.testing.assert_allclose(pulled - shut, (cabinet.TRAVEL, 0, 0))


def test_drawer_stays_where_it_is_left():
    simulation = simulated(0.5)
    for _ in range(5):
        simulation.step(np.array([0, 0, 0, 0, 0, 0, 1.0]))
    assert simulation.state().drawer == pytest.approx(0.5, abs=0.01)


def test_open_drawer_holds_its_middle_and_not_the_table_before_it():
    x, y, z = cabinet.drawer_middle(FRONT, OPEN)
    assert cabinet.holds(FRONT, OPEN, x, y, z + 0.03)
    assert not cabinet.holds(FRONT, CLOSED, x, y, z + 0.03)
    assert not cabinet.holds(FRONT, OPEN, x + 0.12, y, z)
    assert not cabinet.holds(FRONT, OPEN, x, y + 0.12, z)
