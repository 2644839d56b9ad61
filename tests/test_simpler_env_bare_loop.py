"""SimplerEnv's adapter goes through what a bare loop around the same environments does."""

import json
import os
import subprocess
from hashlib import sha256

import numpy as np
import pytest

from instructvla.evaluation.simulators.benchmark_definition import Benchmark
from instructvla.evaluation.simulators.installation import simulator_python
from instructvla.evaluation.simulators.proof import HERE
from instructvla.evaluation.simulators.simpler_env_benchmark import BENCHMARK as SIMPLER_ENV
from instructvla.evaluation.simulators.simpler_instruct_benchmark import BENCHMARK as SIMPLER_INSTRUCT
from instructvla.evaluation.simulators.simulator_process import SimulatorProcess

PATIENCE_S = 3600.0  # a busy CPU renders slowly
COMPARED = (
    (SIMPLER_ENV, "put_carrot/visual_matching", 3),
    (SIMPLER_INSTRUCT, "FreeGraspSingleBananaInScene-v0", 5),
    (SIMPLER_ENV, "pick_coke_can/variant_aggregation/horizontal/base", 7),
    (SIMPLER_INSTRUCT, "AltGraspSpongeDistractorInSceneEnv-v0/less", 2),
    (SIMPLER_ENV, "move_near/visual_matching/cabinet_arm", 1),
    (SIMPLER_INSTRUCT, "FreePlaceLNearVEnv-v0", 4),
)


def small_moves(steps: int) -> np.ndarray:
    """Of arm and gripper."""
    rng = np.random.default_rng(7)
    return np.concatenate([rng.uniform(-0.02, 0.02, (steps, 6)), rng.choice([-1.0, 1.0], (steps, 1))], axis=1)


@pytest.mark.slow
@pytest.mark.parametrize(("benchmark", "task", "index"), COMPARED, ids=[task for _, task, _ in COMPARED])
def test_an_episode_is_the_bare_loops_bit_for_bit(benchmark: Benchmark, task, index, tmp_path):
    try:
        python = simulator_python(benchmark)
    except ValueError as error:
        pytest.skip(str(error))
    trial, commands = benchmark.trials([task], index + 1)[-1], small_moves(3)
    files = [str(tmp_path / name) for name in ("trial.json", "commands.npy", "outcome.npz")]
    (tmp_path / "trial.json").write_text(json.dumps(trial.record()), encoding="utf-8")
    np.save(files[1], commands)
    loop = [python, HERE / "simpler_env_bare_loop.py", *files]
    subprocess.run(loop, check=True, capture_output=True, timeout=PATIENCE_S, env=os.environ)
    limits = {"start_s": PATIENCE_S, "step_s": PATIENCE_S}
    with SimulatorProcess(benchmark.adapter, python, log=tmp_path / "log.txt", **limits) as simulator:
        ours = [simulator.reset(trial), *(simulator.step(command) for command in commands)]
    with np.load(files[2]) as bare:
        np.testing.assert_array_equal([one.state for one in ours], bare["states"])
        np.testing.assert_array_equal([one.proprioception for one in ours], bare["proprioception"])
        np.testing.assert_array_equal([one.reward for one in ours], bare["rewards"])
        np.testing.assert_array_equal([one.success for one in ours], bare["successes"])
        pictures = [sha256(one.images["primary"].tobytes()).hexdigest() for one in ours]
        assert (pictures, [one.instruction for one in ours]) == (list(bare["pictures"]), list(bare["instructions"]))
