import pytest

from instructvla.evaluation.simulators.simpler_env_trials import Grid, SimplerTask, select_tasks, task_trials

GRID = Grid((0.65, 0.85, 3), (-0.2, 0.2, 2), -0.09, (-0.3, -0.1, 2), (0.0, 0.4, 2), overlay="photo.png")
TASK = SimplerTask("near", "Near-v0", "table", (Grid((0.3, 0.3, 1), (0.2, 0.2, 1), layouts=3),), 80, ("column",))
OTHER = SimplerTask("far", "Far-v0", "table", (GRID,), 80, ("column", "row"), robot="widowx")


def test_the_objects_places_vary_before_the_robots_as_in_the_published_loops():
    starts = GRID.starts()
    assert len(starts) == 3 * 2 * 2 * 2
    assert [start["object_xy"] for start in starts[:4]] == [[-0.3, 0.0], [-0.3, 0.4], [-0.1, 0.0], [-0.1, 0.4]]
    assert [start["robot_xy"] for start in starts[::4]] == [
        [x, y] for x in (0.65, pytest.approx(0.75), 0.85) for y in (-0.2, 0.2)
    ]
    assert {(start["robot_yaw"], start["overlay"]) for start in starts} == {(-0.09, "photo.png")}


def test_trials_beyond_the_published_ones_start_again_with_new_noise():
    first, again = TASK.trial(0), TASK.trial(3)
    assert first.options == again.options and first.options["object_episode"] == 0
    assert (first.seed, again.seed) == (0, 3)


def test_trials_are_run_to_their_end_at_the_robots_rates():
    trial = OTHER.trial(0)
    assert not trial.stops_at_success
    assert (trial.robot, trial.options["control_freq"], trial.options["sim_freq"]) == ("widowx", 5, 500)


def test_first_trials_of_all_tasks_come_first():
    keys = [(trial.task, trial.index) for trial in task_trials([TASK, OTHER], 2)]
    assert keys == [("near", 0), ("far", 0), ("near", 1), ("far", 1)]
    assert len(task_trials([TASK, OTHER], None)) == 3 + 24
    with pytest.raises(ValueError, match="at least 1, got 0"):
        task_trials([TASK], 0)


def test_names_select_tasks_groups_and_sets_once():
    sets = {"all": [TASK, OTHER]}
    assert select_tasks([TASK, OTHER], ["far", "column", "all"], "Simpler", sets) == [OTHER, TASK]
    assert select_tasks([TASK, OTHER], ["row"], "Simpler", sets) == [OTHER]
    with pytest.raises(ValueError, match="Simpler has no task or group 'nearr', the nearest is 'near'; groups"):
        select_tasks([TASK, OTHER], ["nearr"], "Simpler", sets)
