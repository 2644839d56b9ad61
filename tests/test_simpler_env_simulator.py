"""The adapter in the simulator's own process, against a bare loop around the same environments."""

import dataclasses
import json
import os
import shutil
import subprocess
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

from instructvla.evaluation.simulators.installation import simulators_folder
from instructvla.evaluation.simulators.simpler_env_benchmark import BENCHMARK, simpler_env_trials
from instructvla.evaluation.simulators.simpler_env_stand_ins import stand_ins
from instructvla.evaluation.simulators.simpler_instruct_benchmark import instruct_trials
from instructvla.evaluation.simulators.simulator_process import SimulatorProcess

PYTHON = (simulators_folder() / "simpler_env" / "bin" / "python").absolute()
ASSETS = os.environ.get("MS2_REAL2SIM_ASSET_DIR")
PATIENCE_S = 3600.0  # a busy CPU renders slowly
WAITING = {"start_s": PATIENCE_S, "step_s": PATIENCE_S}
BARE_LOOP = Path(__file__).parent / "simpler_env_bare_loop.py"
COMPARED = (
    ("simpler_env", "put_carrot/visual_matching", 3),
    ("simpler_instruct", "FreeGraspSingleBananaInScene-v0", 5),
    ("simpler_env", "pick_coke_can/variant_aggregation/horizontal/base", 7),
    ("simpler_instruct", "AltGraspSpongeDistractorInSceneEnv-v0/less", 2),
    ("simpler_env", "move_near/visual_matching/cabinet_arm", 1),
    ("simpler_instruct", "FreePlaceLNearVEnv-v0", 4),
)

pytestmark = [
    pytest.mark.skipif(not PYTHON.exists(), reason="needs `instructvla install-simulator simpler_env`"),
    pytest.mark.skipif(not ASSETS, reason=f"needs MS2_REAL2SIM_ASSET_DIR: {BENCHMARK.needs['MS2_REAL2SIM_ASSET_DIR']}"),
]


def find(benchmark, task, index):
    trials = {"simpler_env": simpler_env_trials, "simpler_instruct": instruct_trials}[benchmark]([task])
    return next(trial for trial in trials if trial.index == index)


def changed(trial, **options):
    return dataclasses.replace(trial, options={**trial.options, **options})


def commands(steps):
    """Small moves of arm and gripper."""
    rng = np.random.default_rng(7)
    return np.concatenate([rng.uniform(-0.02, 0.02, (steps, 6)), rng.choice([-1.0, 1.0], (steps, 1))], axis=1)


@pytest.fixture(scope="module")
def simulator(tmp_path_factory):
    log = tmp_path_factory.mktemp("simulator") / "log.txt"
    with SimulatorProcess(BENCHMARK.adapter, PYTHON, log=log, **WAITING) as process:
        yield process


def test_a_folder_without_assets_is_refused(tmp_path):
    with pytest.raises(ValueError, match="has no assets of SimplerEnv: MS2_REAL2SIM_ASSET_DIR must name"):
        SimulatorProcess(BENCHMARK.adapter, PYTHON, {"MS2_REAL2SIM_ASSET_DIR": str(tmp_path)}, **WAITING)


def test_a_machine_without_vulkan_is_told_what_it_lacks(tmp_path):
    nothing = {"VK_ICD_FILENAMES": str(tmp_path / "none.json")}
    with pytest.raises(ValueError, match="SAPIEN can't render here .* needs a Vulkan device"):
        SimulatorProcess(BENCHMARK.adapter, PYTHON, nothing, **WAITING)


def test_an_unknown_shader_is_refused():
    with pytest.raises(ValueError, match="SIMPLER_ENV_SHADER must be one of rt, ibl, got 'raster'"):
        SimulatorProcess(BENCHMARK.adapter, PYTHON, {"SIMPLER_ENV_SHADER": "raster"}, **WAITING)


def test_what_the_environment_would_go_on_without_is_refused(simulator):
    trial = find(*COMPARED[0])
    with pytest.raises(ValueError, match=r"put_carrot/visual_matching: .*stages/nowhere\.glb is missing"):
        simulator.reset(changed(trial, scene="nowhere"))
    with pytest.raises(ValueError, match=r"real_inpainting/none\.png is missing"):
        simulator.reset(changed(trial, overlay="none.png"))
    with pytest.raises(ValueError, match="has no environment PutCarrotAway-v0; install the fork"):
        simulator.reset(changed(trial, env="PutCarrotAway-v0"))


def test_stand_in_assets_are_noted(simulator):
    assert any(note.startswith("stand-in assets: ") for note in simulator.notes) == bool(stand_ins(Path(ASSETS)))
    assert simulator.versions["sapien"] == "2.2.2"


@pytest.mark.slow
def test_a_mesh_that_would_not_be_drawn_is_refused(tmp_path):
    data = tmp_path / "data"
    shutil.copytree(ASSETS, data, copy_function=os.symlink)
    (data / "custom" / "models" / "bridge_carrot_generated_modified" / "textured.dae").unlink()
    process = SimulatorProcess(BENCHMARK.adapter, PYTHON, {"MS2_REAL2SIM_ASSET_DIR": str(data)}, **WAITING)
    with process, pytest.raises(ValueError, match=r"carrot_generated_modified/textured\.glb is missing; get it from"):
        process.reset(find(*COMPARED[0]))


@pytest.mark.slow
@pytest.mark.parametrize("which", COMPARED, ids=lambda which: which[1])
def test_an_episode_is_the_bare_loops_bit_for_bit(which, simulator, tmp_path):
    trial, moves = find(*which), commands(3)
    (tmp_path / "trials.json").write_text(json.dumps([trial.record()]), encoding="utf-8")
    np.save(tmp_path / "commands.npy", moves)
    files = [str(tmp_path / name) for name in ("trials.json", "commands.npy", "results.json")]
    subprocess.run([str(PYTHON), str(BARE_LOOP), *files], check=True, capture_output=True, timeout=PATIENCE_S)
    (bare,) = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    ours = [simulator.reset(trial), *(simulator.step(move) for move in moves)]
    for step, (observation, expected) in enumerate(zip(ours, bare, strict=True)):
        state = np.array(expected["state"])  # ours adds the controller's target
        assert np.array_equal(observation.state[: len(state)], state), step
        assert observation.proprioception.tolist() == expected["proprioception"]
        assert sha256(observation.images["primary"].tobytes()).hexdigest() == expected["image"]
        for name in ("instruction", "reward", "success"):
            assert getattr(observation, name) == expected[name]
