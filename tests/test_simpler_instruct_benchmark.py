"""The 80 tasks against facts about the published ones, where those are at hand."""

import json
from collections import Counter
from pathlib import Path

import pytest

from instructvla.evaluation.simulators.simpler_instruct_benchmark import (
    BENCHMARK,
    categories,
    instruct_tasks,
    instruct_trials,
)

FACTS = Path(__file__).parents[2] / "shared" / "data" / "simplerenv_instruct_tasks.json"
LEVELS = ("instruction_aggregation", "situated_reasoning")


@pytest.mark.parametrize("names", [(), ("all",), ("split_scripts",)])
def test_both_published_sets_have_80_tasks_and_1138_trials(names):
    trials = instruct_trials(names)
    assert Counter(trial.groups[0] for trial in trials) == dict(zip(LEVELS, (745, 393), strict=True))
    levels = {trial.task: trial.groups[0] for trial in trials}
    assert Counter(levels.values()) == dict(zip(LEVELS, (50, 30), strict=True))


def test_the_sets_differ_in_the_two_tasks_of_the_split_scripts():
    one, split = ({trial.task for trial in instruct_trials([name])} for name in ("all", "split_scripts"))
    assert one - split == {"AltDryEgglpantInSceneEnv-v0", "AltDryOrangeInSceneEnv-v0"}
    assert split - one == {"AltPutSponeOnPlateInScene-v0", "AltPutOrangeOnPlateInScene-v0"}
    assert len(instruct_trials(["situated_reasoning"])) == 393
    assert len(instruct_trials(split - one)) == 48


def test_success_is_judged_at_the_last_step_only():
    assert not any(trial.stops_at_success for trial in instruct_trials(per_task=1))


def test_every_category_has_tasks_of_its_level_alone():
    trials = instruct_trials(per_task=1)
    assert {trial.groups[1]: trial.groups[0] for trial in trials} == dict(categories())
    assert set(BENCHMARK.groups) == {*LEVELS, *categories()}


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="SimplerEnv-Instruct has no task or group 'tools', .*groups are all, split"):
        instruct_trials(["tools"])


def test_the_data_file_agrees_with_the_published_scripts_argument_for_argument():
    if not FACTS.is_file():
        pytest.skip("the facts about the published tasks are not at hand")
    facts = json.loads(FACTS.read_text(encoding="utf-8"))
    ours = list(instruct_tasks().values())
    theirs = facts["tasks"] + facts["bridge_variants_in_split_scripts"]["tasks"]
    assert len(ours) == len(theirs)
    for task, fact in zip(ours, theirs, strict=True):
        first = task.trial(0)
        expected = {
            "environment": fact["env_id"],
            "instruction": fact.get("instructions", [fact["instruction"]])[0],
            "trials": fact["num_trials"],
            "robot": fact["robot"],
            "scene": fact["scene_name"],
            "steps": fact["max_episode_steps"],
            "overlay": Path(fact["rgb_overlay_path"]).name if fact["rgb_overlay_path"] else None,
            "build": fact.get("additional_env_build_kwargs", {}),
            "level": fact.get("level", "situated_reasoning"),
            "robot_xy": [fact["robot_init_x"][0], fact["robot_init_y"][0]],
            "yaw": fact.get("robot_init_rot_rpy_range", [0] * 9)[6],
        }
        assert expected == {
            "environment": task.environment,
            "instruction": task.instruction,
            "trials": len(task.starts),
            "robot": task.robot,
            "scene": task.scene,
            "steps": task.max_steps,
            "overlay": first.options["overlay"],
            "build": dict(task.build),
            "level": task.groups[0],
            "robot_xy": first.options["robot_xy"],
            "yaw": first.options["robot_yaw"],
        }
        last = task.starts[-1]
        if fact.get("obj_episode_range"):
            assert last["object_episode"] == fact["obj_episode_range"][1] - 1
        else:
            ends = [fact[f"obj_init_{axis}"][0 if fact[f"obj_init_{axis}"][2] == 1 else 1] for axis in "xy"]
            assert last["object_xy"] == pytest.approx(ends)
