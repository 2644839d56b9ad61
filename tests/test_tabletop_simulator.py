"""Claims about the tabletop behind the runner's wire."""

import numpy as np

from instructvla.evaluation.simulators.tabletop_benchmark import tabletop_trial
from instructvla.evaluation.simulators.tabletop_simulator import make_simulator
from instructvla.evaluation.tabletop.expert import Expert
from tests.tabletop_policies import CLOSE


def test_the_expert_succeeds_and_a_second_simulator_goes_through_the_same_states():
    one, other = make_simulator(), make_simulator()
    given = tabletop_trial(CLOSE, 0)
    seen, again = one.reset(given), other.reset(given)
    expert = Expert(one.world.scene, one.world.task)
    assert list(seen.images) == ["front", "wrist"] and seen.images["front"].dtype == np.uint8
    for _ in range(given.max_steps):
        np.testing.assert_array_equal(seen.state, again.state)
        assert (seen.reward, seen.success) == (again.reward, again.success)
        if seen.done:
            break
        command = expert.act(one.world.state())
        seen, again = one.step(command), other.step(command)
    assert seen.success and seen.reward == 1
    one.close()
    other.close()


def test_the_state_is_what_the_simulation_goes_on_from():
    simulator = make_simulator()
    first = simulator.reset(tabletop_trial(CLOSE, 0))
    moved = simulator.step(np.array([0.02, 0, 0, 0, 0, 0, 1.0]))
    assert first.state.shape == moved.state.shape and not np.array_equal(first.state, moved.state)
    assert moved.proprioception.shape == (8,) and moved.instruction == first.instruction == "close the drawer"
    simulator.close()
