"""Adaptive ensembling against the released evaluation's numbers."""

import numpy as np
import pytest

from instructvla.evaluation.action_ensembling import AdaptiveEnsemble
from tests.parity import load_fixture

TOLERANCE = 1e-12  # both sides compute in float64


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    return {name: tensor.numpy() for name, tensor in load_fixture("postprocess")[0].items()}


@pytest.mark.parametrize("horizon, alpha", [(7, 0.1), (2, 0.1), (4, 0.0), (5, 2.0)])
def test_ensembled_actions_equal_the_released_ones(golden, horizon, alpha):
    ensemble = AdaptiveEnsemble(horizon, alpha)
    actions = [ensemble(chunk) for chunk in golden["ensemble.in.chunks"]]
    np.testing.assert_allclose(actions, golden[f"ensemble.out.h{horizon}_a{alpha}"], rtol=0, atol=TOLERANCE)


def test_single_actions_are_averaged_over_the_last_steps(golden):
    ensemble = AdaptiveEnsemble(horizon=3, alpha=0.1)
    actions = [ensemble(chunk[0]) for chunk in golden["ensemble.in.chunks"]]
    np.testing.assert_allclose(actions, golden["ensemble.out.1d_h3_a0.1"], rtol=0, atol=TOLERANCE)


def test_horizon_one_executes_each_chunks_first_action(golden):
    ensemble = AdaptiveEnsemble(horizon=1, alpha=0.1)
    for chunk in golden["ensemble.in.chunks"]:
        np.testing.assert_array_equal(ensemble(chunk), chunk[0])


def test_reset_makes_an_episode_independent_of_the_one_before(golden):
    chunks = golden["ensemble.in.chunks"]
    used, fresh = AdaptiveEnsemble(7, 0.1), AdaptiveEnsemble(7, 0.1)
    for chunk in chunks[:5]:
        used(chunk)
    used.reset()
    for chunk in chunks[5:]:
        np.testing.assert_array_equal(used(chunk), fresh(chunk))


def test_a_reused_chunk_buffer_does_not_change_earlier_predictions(golden):
    chunks = golden["ensemble.in.chunks"]
    buffered, plain, buffer = AdaptiveEnsemble(4, 0.1), AdaptiveEnsemble(4, 0.1), np.empty_like(chunks[0])
    for chunk in chunks:
        buffer[:] = chunk
        np.testing.assert_array_equal(buffered(buffer), plain(chunk))


def test_all_zero_actions_stay_zero():
    np.testing.assert_array_equal(AdaptiveEnsemble(2, 0.1)(np.zeros((4, 7))), np.zeros(7))


@pytest.mark.parametrize(
    "chunk, message",
    [
        (np.zeros((1, 16, 7)), "one row of the batch"),
        (np.zeros((0, 7)), "shape"),
        (np.zeros((3, 7)), "at least 4 actions, got 3"),
        (np.full((16, 7), np.nan), "finite"),
    ],
)
def test_a_refused_chunk_leaves_the_ensemble_as_it_was(chunk, message):
    ensemble = AdaptiveEnsemble(4, 0.1)
    with pytest.raises(ValueError, match=message):
        ensemble(chunk)
    np.testing.assert_array_equal(ensemble(np.ones((16, 7))), np.ones(7))


def test_a_chunk_of_another_shape_needs_a_reset():
    ensemble = AdaptiveEnsemble(2, 0.1)
    ensemble(np.ones((16, 7)))
    with pytest.raises(ValueError, match="reset"):
        ensemble(np.ones((8, 7)))


@pytest.mark.parametrize("horizon, alpha", [(0, 0.1), (2, float("nan"))])
def test_impossible_settings_are_refused(horizon, alpha):
    with pytest.raises(ValueError, match="got"):
        AdaptiveEnsemble(horizon, alpha)
