"""What is made for a copy of the assets that lacks meshes; trimesh comes with the simulator."""

import subprocess

import pytest

from instructvla.evaluation.simulators.installation import simulators_folder
from instructvla.evaluation.simulators.simpler_env_benchmark import TASKS
from instructvla.evaluation.simulators.simpler_env_stand_ins import (
    ROOMS,
    TABLES,
    make_stand_ins,
    stage_file,
    stand_ins,
)
from instructvla.evaluation.simulators.simpler_instruct_benchmark import instruct_tasks

PYTHON = (simulators_folder() / "simpler_env" / "bin" / "python").absolute()
MODULE = "instructvla.evaluation.simulators.simpler_env_stand_ins"
needs_simulator = pytest.mark.skipif(not PYTHON.exists(), reason="needs `instructvla install-simulator simpler_env`")
CUBE = "".join(f"v {x} {y} {z}\n" for x in (0, 1) for y in (0, 1) for z in (0, 1)) + "f 1 2 4\nf 1 4 3\nf 5 8 6\n"
HEIGHT = "import sys, trimesh; print(trimesh.load(sys.argv[1]).bounds[1][1])"  # y points up in stages


@pytest.fixture
def data(tmp_path):
    for name in ("eggplant", "sponge"):
        model = tmp_path / "custom" / "models" / name
        model.mkdir(parents=True)
        (model / "collision.obj").write_text(CUBE, encoding="utf-8")
    (model / "textured.dae").write_text("whole", encoding="utf-8")
    room = stage_file(tmp_path, "modern_office_no_roof")
    room.parent.mkdir(parents=True)
    room.write_bytes(b"whole")
    return tmp_path


def make(folder):
    return subprocess.run([str(PYTHON), "-m", MODULE, str(folder)], capture_output=True, text=True, check=True)


def test_every_scene_of_the_benchmarks_has_a_stand_in_or_comes_with_the_repository():
    scenes = {task.scene for task in (*TASKS, *instruct_tasks().values())}
    assert scenes - {*TABLES, *ROOMS} == {"dummy_drawer", "frl_apartment_stage_simple"}


def test_a_folder_without_models_is_refused(tmp_path):
    with pytest.raises(ValueError, match="has no custom/models; give the folder `data`"):
        make_stand_ins(tmp_path)


@needs_simulator
def test_only_what_is_missing_is_made_and_stays_listed(data):
    make(data)
    listed = stand_ins(data)
    assert "custom/models/eggplant/textured.glb" in listed and len(listed) == len(TABLES) + 1 + 1
    assert (data / "custom/models/sponge/textured.dae").read_text(encoding="utf-8") == "whole"
    assert stage_file(data, "modern_office_no_roof").read_bytes() == b"whole"
    stage_file(data, "bridge_table_1_v1").unlink()
    make(data)
    assert stand_ins(data) == listed


@needs_simulator
def test_a_real_file_in_the_place_of_a_stand_in_is_none(data):
    make(data)
    stage_file(data, "bridge_table_1_v1").write_bytes(b"whole")
    assert "hab2_bench_assets/stages/bridge_table_1_v1.glb" not in stand_ins(data)
    assert "hab2_bench_assets/stages/bridge_table_1_v2.glb" in stand_ins(data)


@needs_simulator
def test_a_table_is_as_high_as_the_robots_stand_on_it(data):
    make(data)
    mesh = stage_file(data, "bridge_table_1_v1")
    out = subprocess.run([str(PYTHON), "-c", HEIGHT, str(mesh)], capture_output=True, text=True, check=True).stdout
    assert float(out) == pytest.approx(0.870)
