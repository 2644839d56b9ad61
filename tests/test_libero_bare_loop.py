"""LIBERO's adapter goes through what a bare loop around the real environment does, in another process."""

import json
import os
import subprocess

import numpy as np
import pytest

from instructvla.evaluation.simulators.libero_benchmark import BENCHMARK, libero_trials
from instructvla.evaluation.simulators.proof import HERE
from tests.libero_installation import libero_process, libero_python


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "index"),
    [
        ("pick_up_the_black_bowl_next_to_the_ramekin_and_place_it_on_the_plate", 0),
        ("pick_up_the_milk_and_place_it_in_the_basket", 1),
        ("open_the_top_drawer_and_put_the_bowl_inside", 52),
        ("KITCHEN_SCENE4_put_the_black_bowl_in_the_bottom_drawer_of_the_cabinet_and_close_it", 2),
    ],
)
def test_states_rewards_and_successes_equal_the_bare_loop_s(tmp_path, task, index):
    python, trial = libero_python(), libero_trials([task], index + 1)[-1]
    commands = np.random.default_rng(index).uniform(-1, 1, (12, 7))
    with libero_process() as simulator:
        seen = [simulator.reset(trial), *(simulator.step(command) for command in commands)]
    files = [str(tmp_path / name) for name in ("trial.json", "commands.npy", "outcome.npz")]
    (tmp_path / "trial.json").write_text(json.dumps(trial.record()), encoding="utf-8")
    np.save(files[1], commands)
    environment = os.environ | BENCHMARK.installation.environment
    subprocess.run([python, HERE / "libero_bare_loop.py", *files], check=True, env=environment)
    with np.load(files[2]) as bare:
        np.testing.assert_array_equal([one.state for one in seen], bare["states"])
        np.testing.assert_array_equal([one.reward for one in seen], bare["rewards"])
        np.testing.assert_array_equal([one.success for one in seen], bare["successes"])
