"""Claims about ManiSkill3 behind the contract; they run wherever it is installed.

A process takes some 15 s of a CPU to start drawing, and 3 s per episode with pictures.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from instructvla.evaluation.chunk_schedules import OpenLoop
from instructvla.evaluation.episode import run_episode
from instructvla.evaluation.executor import Executor
from instructvla.evaluation.policy_needs import PolicyNeeds
from instructvla.evaluation.robot_conventions import widowx_state
from instructvla.evaluation.robots import find_robot
from instructvla.evaluation.simulators.installation import simulator_python
from instructvla.evaluation.simulators.maniskill3_benchmark import BENCHMARK, maniskill3_trials
from instructvla.evaluation.simulators.maniskill3_demonstrations import start_process
from instructvla.evaluation.simulators.maniskill3_expert import demonstrate
from instructvla.evaluation.simulators.maniskill3_state import BridgeState
from instructvla.evaluation.simulators.maniskill3_tasks import TASKS, random_placement
from instructvla.evaluation.simulators.simulator import Trial
from instructvla.evaluation.simulators.simulator_process import SimulatorProcess
from tests.test_widowx_expert import Repeats

CARROT = maniskill3_trials(["carrot"], 1)[0]


def installed_python() -> Path:
    """Its interpreter; the test is skipped where there is none."""
    try:
        return simulator_python(BENCHMARK)
    except ValueError as error:
        pytest.skip(str(error))


def unseen(trial: Trial) -> Trial:
    return replace(trial, options={**trial.options, "pictures": False})


@pytest.fixture(scope="module")
def simulator() -> Iterator[SimulatorProcess]:
    installed_python()
    with start_process() as process:
        yield process


def test_it_says_what_it_sees(simulator):
    seen = simulator.reset(CARROT)
    assert seen.instruction == "put carrot on plate" and not seen.success and not seen.done
    assert seen.images["primary"].shape == (480, 640, 3) and seen.images["primary"].std() > 20
    state = widowx_state(seen.proprioception)
    np.testing.assert_allclose(state[3:6], 0, atol=0.15)  # Bridge's orientations are near that of the gripper down
    assert state[7] == pytest.approx(1, abs=0.05)  # open
    layout = BridgeState.of_vector(seen.state)
    np.testing.assert_allclose(layout.target[:3], seen.proprioception[:3], atol=1e-5)
    assert simulator.versions["mani-skill"] == "3.0.1"


def test_a_command_moves_and_turns_the_gripper_in_the_base_s_frame(simulator):
    start = BridgeState.of_vector(simulator.reset(unseen(CARROT)).state).target
    end = BridgeState.of_vector(simulator.step([0.02, -0.01, 0.03, 0, 0, 0.2, 1]).state).target
    np.testing.assert_allclose(end[:3] - start[:3], [0.02, -0.01, 0.03], atol=1e-6)
    assert 2 * np.arccos(abs(end[3:] @ start[3:])) == pytest.approx(0.2, abs=1e-3)


def test_the_expert_succeeds_and_its_actions_replayed_by_the_runner_do_so_bit_by_bit(simulator):
    """The replay draws pictures, comes after an episode of another task, and goes on to the last control step."""
    recording, _ = demonstrate(simulator, unseen(CARROT))
    assert recording.successes[-1]
    simulator.reset(maniskill3_trials(["eggplant"], 1)[0])
    trial, steps = replace(CARROT, max_steps=len(recording.actions) + 3), len(recording.actions)
    actions = [*recording.actions, *[recording.actions[-1]] * 3]
    executor = Executor(Repeats(actions), find_robot("widowx"), OpenLoop(1))
    outcome, replayed = run_episode(simulator, executor, trial, PolicyNeeds(("primary",), False, ()))
    assert outcome.success
    for name in ("states", "rewards", "successes"):
        np.testing.assert_array_equal(getattr(replayed, name)[: steps + 1], getattr(recording, name))


def test_objects_lie_where_a_placement_says(simulator):
    placement = random_placement(TASKS["stack"], np.random.default_rng(0))
    trial = Trial("stack", 0, 0, "widowx", 60, options={**placement, "pictures": False})
    state = BridgeState.of_vector(simulator.reset(trial).state)
    for pose, position in zip((state.source, state.destination), placement["positions"], strict=True):
        np.testing.assert_allclose(pose[:2], position[:2], atol=0.005)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": "fold"}, "no task 'fold'; there are spoon"),
        ({"options": {"episode": 24}}, "episode is 24; the grid has 0 to 23"),
        ({"options": {"colour": "red"}}, "options of carrot are colour; give either episode"),
    ],
)
def test_what_it_does_not_have_is_refused(simulator, changes, message):
    with pytest.raises(ValueError, match=message):
        simulator.reset(replace(CARROT, **changes))


def test_missing_assets_are_named(tmp_path):
    with pytest.raises(ValueError, match="bridge_v2_real2sim are not in .*MS_ASSET_DIR"):
        SimulatorProcess(BENCHMARK.adapter, installed_python(), {"MS_ASSET_DIR": str(tmp_path)})


def test_without_a_vulkan_driver_it_says_which_packages_bring_one():
    with (
        SimulatorProcess(BENCHMARK.adapter, installed_python(), {"VK_ICD_FILENAMES": "/dev/null"}) as blind,
        pytest.raises(ValueError, match="Vulkan driver for the CPU: Debian's libvulkan1"),
    ):
        blind.reset(CARROT)


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_two_processes_do_the_same_bit_by_bit(simulator, task):
    trial = maniskill3_trials([task], 3)[2]
    one, pictures = demonstrate(simulator, trial)
    with start_process() as other:
        two, same_pictures = demonstrate(other, trial)
    assert one.differences(two) == [] and one.successes[-1]
    for seen, again in zip(pictures, same_pictures, strict=True):
        np.testing.assert_array_equal(seen.images["primary"], again.images["primary"])
