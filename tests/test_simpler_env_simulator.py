"""The adapter in the simulator's own process; `test_simpler_env_bare_loop` compares it with a bare loop."""

import dataclasses
import os
import shutil
from pathlib import Path

import pytest

from instructvla.evaluation.simulators.installation import simulators_folder
from instructvla.evaluation.simulators.simpler_env_benchmark import BENCHMARK, simpler_env_trials
from instructvla.evaluation.simulators.simpler_env_stand_ins import stand_ins
from instructvla.evaluation.simulators.simulator_process import SimulatorProcess

PYTHON = (simulators_folder() / "simpler_env" / "bin" / "python").absolute()
ASSETS = os.environ.get("MS2_REAL2SIM_ASSET_DIR")
PATIENCE_S = 3600.0  # a busy CPU renders slowly
WAITING = {"start_s": PATIENCE_S, "step_s": PATIENCE_S}
(CARROT,) = simpler_env_trials(["put_carrot/visual_matching"], 1)

pytestmark = [
    pytest.mark.skipif(not PYTHON.exists(), reason="needs `instructvla install-simulator simpler_env`"),
    pytest.mark.skipif(not ASSETS, reason=f"needs MS2_REAL2SIM_ASSET_DIR: {BENCHMARK.needs['MS2_REAL2SIM_ASSET_DIR']}"),
]


def changed(**options):
    return dataclasses.replace(CARROT, options={**CARROT.options, **options})


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
    with pytest.raises(ValueError, match=r"put_carrot/visual_matching: .*stages/nowhere\.glb is missing"):
        simulator.reset(changed(scene="nowhere"))
    with pytest.raises(ValueError, match=r"real_inpainting/none\.png is missing"):
        simulator.reset(changed(overlay="none.png"))
    with pytest.raises(ValueError, match="has no environment PutCarrotAway-v0; install the fork"):
        simulator.reset(changed(env="PutCarrotAway-v0"))


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
        process.reset(CARROT)
