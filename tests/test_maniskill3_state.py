"""Claims about the state that the adapter writes and the expert reads."""

import numpy as np
import pytest

from instructvla.evaluation.simulators.maniskill3_state import BridgeState


def test_a_state_comes_back_from_its_vector():
    vector = np.arange(56.0)
    state = BridgeState.of_vector(vector)
    assert state.base[0] == 0 and state.target[0] == 7 and state.source[0] == 14 and state.destination[0] == 21
    np.testing.assert_array_equal(state.vector(), vector)


def test_another_size_is_refused():
    with pytest.raises(ValueError, match=r"\(56,\), got \(3,\)"):
        BridgeState.of_vector(np.zeros(3))
