"""The tabletop's adapter goes through what a bare loop around the environment does."""

import json

import numpy as np

from instructvla.evaluation.simulators.tabletop_bare_loop import main
from instructvla.evaluation.simulators.tabletop_benchmark import tabletop_trial
from instructvla.evaluation.simulators.tabletop_simulator import make_simulator
from tests.tabletop_policies import APPLE


def test_states_rewards_and_successes_equal_the_bare_loop_s(tmp_path):
    trial, commands = tabletop_trial(APPLE, 1), np.random.default_rng(0).uniform(-0.05, 0.05, (5, 7))
    simulator = make_simulator()
    seen = [simulator.reset(trial), *(simulator.step(command) for command in commands)]
    simulator.close()
    files = [str(tmp_path / name) for name in ("trial.json", "commands.npy", "outcome.npz")]
    (tmp_path / "trial.json").write_text(json.dumps(trial.record()), encoding="utf-8")
    np.save(files[1], commands)
    main(*files)
    with np.load(files[2]) as bare:
        np.testing.assert_array_equal([one.state for one in seen], bare["states"])
        np.testing.assert_array_equal([one.reward for one in seen], bare["rewards"])
        np.testing.assert_array_equal([one.success for one in seen], bare["successes"])
        np.testing.assert_array_equal(commands, bare["commands"])
