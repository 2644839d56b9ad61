"""Chunks to actions: open loop, and the ensembles step by step."""

import numpy as np
import pytest

from instructvla.evaluation.action_ensembling import AdaptiveEnsemble
from instructvla.evaluation.chunk_schedules import EveryStep, OpenLoop, TemporalEnsemble
from tests.parity import load_fixture

CHUNKS = load_fixture("postprocess")[0]["ensemble.in.chunks"].numpy()


def run(schedule, chunks) -> np.ndarray:
    """The actions of as many steps as there are chunks; one is taken wherever the schedule needs it."""
    waiting, actions = iter(chunks), []
    for _ in range(len(chunks)):
        if schedule.needs_chunk():
            schedule.add(next(waiting))
        actions.append(schedule.action())
    return np.stack(actions)


def test_open_loop_executes_the_start_of_each_chunk():
    actions = run(OpenLoop(3), CHUNKS[:6])
    np.testing.assert_array_equal(actions, np.concatenate([CHUNKS[0][:3], CHUNKS[1][:3]]))
    np.testing.assert_array_equal(run(OpenLoop(99), CHUNKS[:1]), CHUNKS[0][:1])


def test_a_reset_drops_what_is_left():
    schedule = OpenLoop(3)
    schedule.add(CHUNKS[0])
    schedule.reset()
    assert schedule.needs_chunk()


def test_adaptive_ensembling_gives_the_released_actions():
    golden = load_fixture("postprocess")[0]["ensemble.out.h7_a0.1"].numpy()
    np.testing.assert_allclose(run(EveryStep(AdaptiveEnsemble(7, 0.1)), CHUNKS), golden, rtol=1e-12)


def test_temporal_ensembling_weighs_the_oldest_most():
    """Algorithm 2 of ACT, written out."""
    actions = run(EveryStep(TemporalEnsemble(0.3)), CHUNKS)
    for now in (0, 1, 5, 13):
        predictions = [CHUNKS[made][now - made] for made in range(now + 1)]
        weights = np.exp(-0.3 * np.arange(len(predictions)))
        np.testing.assert_allclose(actions[now], np.average(predictions, axis=0, weights=weights), rtol=1e-12)


def test_chunks_that_ended_are_forgotten():
    short = [chunk[:2] for chunk in CHUNKS]
    actions = run(EveryStep(TemporalEnsemble(0.0)), short)
    np.testing.assert_allclose(actions[5], (short[4][1] + short[5][0]) / 2)


def test_ensembles_start_anew_after_a_reset():
    schedule = EveryStep(TemporalEnsemble())
    run(schedule, CHUNKS[:4])
    schedule.reset()
    np.testing.assert_array_equal(run(schedule, CHUNKS[4:5])[0], CHUNKS[4][0])


@pytest.mark.parametrize("schedule", [OpenLoop(2), EveryStep(TemporalEnsemble())])
def test_what_is_no_chunk_is_refused(schedule):
    with pytest.raises(ValueError, match="shape"):
        schedule.add(CHUNKS[0][0])
    with pytest.raises(ValueError, match="finite, got 1 NaN"):
        schedule.add(np.where(np.arange(112).reshape(16, 7) == 5, np.nan, CHUNKS[0]))
    with pytest.raises(ValueError, match="chunk"):
        schedule.action()


def test_numbers_out_of_range_are_refused():
    with pytest.raises(ValueError, match="at least 1 action of a chunk, got 0"):
        OpenLoop(0)
    with pytest.raises(ValueError, match="finite decay, got nan"):
        TemporalEnsemble(float("nan"))
