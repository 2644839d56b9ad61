"""Claims about which episodes are run, and under which name scores are shown."""

import pytest

from instructvla.evaluation.robots import find_robot
from instructvla.evaluation.simulators.maniskill3_benchmark import BENCHMARK, maniskill3_trials


def test_each_task_has_the_24_published_episodes_and_the_last_step_decides():
    trials = maniskill3_trials()
    assert len(trials) == 4 * 24
    for task, steps in (("spoon", 60), ("carrot", 60), ("stack", 60), ("eggplant", 120)):
        of_task = [trial for trial in trials if trial.task == task]
        assert [trial.options["episode"] for trial in of_task] == list(range(24))
        assert {trial.max_steps for trial in of_task} == {steps}
    assert not any(trial.stops_at_success for trial in trials)
    assert find_robot(trials[0].robot).name == "widowx"


def test_all_tasks_come_first_with_their_first_trial():
    order = [(trial.task, trial.index) for trial in maniskill3_trials(per_task=2)]
    assert order[3:5] == [("eggplant", 0), ("spoon", 1)]


def test_more_than_24_start_again_with_other_noise():
    trial = maniskill3_trials(["carrot"], 26)[25]
    assert trial.options == {"episode": 1} and trial.seed == 25


def test_each_task_has_a_rate_of_its_own():
    assert BENCHMARK.groups == tuple(group for trial in maniskill3_trials(per_task=1) for group in trial.groups)


@pytest.mark.parametrize(("names", "count", "message"), [(["fold"], None, "no task 'fold'"), ([], 0, "at least 1")])
def test_what_there_is_not_is_refused(names, count, message):
    with pytest.raises(ValueError, match=message):
        maniskill3_trials(names, count)


def test_scores_are_labelled_as_maniskill3_s_and_published_ones_as_simpler_env_s():
    assert "ManiSkill3" in BENCHMARK.title
    assert all("SimplerEnv" in row for row in BENCHMARK.published)
