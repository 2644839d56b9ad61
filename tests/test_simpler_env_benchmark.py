"""SimplerEnv's tasks against the published scripts' and metrics' numbers (simpler-env/SimplerEnv at 4ab7178)."""

import json
from collections import Counter

import pytest

from instructvla.evaluation.robots import find_robot
from instructvla.evaluation.simulators.simpler_env_benchmark import BENCHMARK, TASKS, simpler_env_trials

TRIALS = {  # tasks, trials: what the published scripts run, without the camera variants that their tables leave out
    "drawer/visual_matching": (4 * 6, 4 * 6 * 9),
    "drawer/variant_aggregation": (7 * 6, 7 * 6 * 9),
    "put_in_drawer/visual_matching": (4, 4 * 27),
    "put_in_drawer/variant_aggregation": (7, 7 * 27),
    "pick_coke_can/visual_matching": (3 * 4, 3 * 4 * 25),
    "pick_coke_can/variant_aggregation": (3 * 9, 3 * 9 * 25),
    "move_near/visual_matching": (4, 4 * 60),
    "move_near/variant_aggregation": (8, 8 * 60),
    "put_spoon/visual_matching": (1, 24),
    "put_carrot/visual_matching": (1, 24),
    "stack_blocks/visual_matching": (1, 24),
}


def find(task, index=0):
    return next(one for one in TASKS if one.name == task).trial(index)


def test_every_column_of_table_2_has_its_published_tasks_and_trials():
    trials = simpler_env_trials()
    tasks = {trial.task: trial.groups[0] for trial in trials}
    numbers = Counter(tasks.values()), Counter(trial.groups[0] for trial in trials)
    assert {column: (numbers[0][column], numbers[1][column]) for column in BENCHMARK.groups} == TRIALS
    assert len(tasks) == len(TASKS)


def test_visual_matching_shows_a_photo_and_variant_aggregation_none():
    for task in TASKS:
        shown = {start["overlay"] is not None for start in task.starts}
        assert shown == {"visual_matching" in task.name}, task.name


def test_a_drawers_photo_goes_with_the_place_that_it_was_taken_from():
    trial = find("drawer/visual_matching/CloseBottomDrawer/cabinet_arm", 2)
    assert trial.max_steps == 113 and trial.options == {
        "env": "CloseBottomDrawerCustomInScene-v0",
        "scene": "dummy_drawer",
        "robot": "google_robot_static",
        "control_freq": 3,
        "sim_freq": 513,
        "build": {
            "shader_dir": "rt",
            "station_name": "mk_station_recolor",
            "light_mode": "simple",
            "disable_bad_material": True,
            "urdf_version": "recolor_cabinet_visual_matching_1",
        },
        "instruction": None,
        "robot_xy": [0.889, -0.203],
        "robot_yaw": -0.06,
        "overlay": "open_drawer_a2.png",
        "object_xy": [0.0, 0.0],
    }


def test_long_tasks_have_an_apple_and_200_steps():
    matching = find("put_in_drawer/visual_matching/plain_arm", 26)
    variants = find("put_in_drawer/variant_aggregation/office")
    assert matching.max_steps == variants.max_steps == 200
    assert [one.options["build"]["model_ids"] for one in (matching, variants)] == ["baked_apple_v2", "apple"]
    assert (matching.options["overlay"], matching.options["object_xy"]) == ("open_drawer_c0.png", [-0.02, 0.08])


def test_trials_can_be_sent_to_the_simulator_and_name_known_robots():
    for trial in simpler_env_trials(per_task=1):
        assert json.loads(json.dumps(trial.record())) == trial.record()
        find_robot(trial.robot)


def test_columns_and_settings_are_selectable_and_unknown_ones_refused():
    assert {trial.robot for trial in simpler_env_trials(["widowx"])} == {"widowx"}
    assert len(simpler_env_trials(["drawer/visual_matching"], 2)) == 48
    assert len(simpler_env_trials(["visual_matching", "variant_aggregation"], 1)) == len(TASKS)
    with pytest.raises(ValueError, match="SimplerEnv has no task or group 'drawers'; groups are all, "):
        simpler_env_trials(["drawers"])
