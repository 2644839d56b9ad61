"""LIBERO's trials against what its suites and the released evaluation hold."""

import subprocess
from collections import Counter

import pytest

from instructvla.evaluation.ledger import Outcome
from instructvla.evaluation.robots import find_robot
from instructvla.evaluation.simulators.libero_benchmark import (
    BENCHMARK,
    SUITE_OF,
    SUITES,
    libero_table,
    libero_trials,
)
from tests.libero_installation import libero_python

MAX_STEPS = {"libero_spatial": 220, "libero_object": 280, "libero_goal": 300, "libero_10": 520}


def test_each_suite_has_ten_tasks_of_fifty_trials_from_fifty_initial_states():
    trials = libero_trials()
    assert Counter(trial.groups[0] for trial in trials) == dict.fromkeys(MAX_STEPS, 500)
    assert set(Counter(trial.task for trial in trials).values()) == {50}
    assert len({(trial.task, trial.options["initial_state"]) for trial in trials}) == len(trials) == 2000


@pytest.mark.parametrize(("suite", "max_steps"), MAX_STEPS.items())
def test_episodes_are_as_long_as_the_released_ones(suite, max_steps):
    assert {trial.max_steps for trial in libero_trials([suite], 1)} == {max_steps}


def test_150_trials_per_task_are_three_seeds_of_the_500():
    trials = libero_trials(["libero_goal"], 150)
    assert len(trials) == 1500
    states = Counter((trial.task, trial.options["initial_state"]) for trial in trials)
    assert set(states.values()) == {3}
    assert all(
        len({trial.seed for trial in trials if trial.task == task}) == 150 for task in SUITES["libero_goal"].tasks
    )


def test_a_trial_does_not_depend_on_how_many_are_run():
    assert libero_trials(["turn_on_the_stove"], 2) == libero_trials(["turn_on_the_stove"], 60)[:2]


def test_first_come_the_trials_of_index_0_of_all_tasks():
    trials = libero_trials(per_task=2)
    assert [trial.index for trial in trials] == [0] * 40 + [1] * 40


def test_tasks_and_suites_can_be_chosen_and_none_is_run_twice():
    trials = libero_trials(["turn_on_the_stove", "libero_goal", "turn_on_the_stove"], 1)
    assert sorted(trial.task for trial in trials) == sorted(SUITES["libero_goal"].tasks)


def test_instructions_are_the_released_lower_case_words():
    told = {trial.task: trial.instruction for trial in libero_trials(per_task=1)}
    assert told["turn_on_the_stove"] == "turn on the stove"
    assert told["KITCHEN_SCENE8_put_both_moka_pots_on_the_stove"] == "put both moka pots on the stove"
    assert all(text == text.lower() for text in told.values())


def test_every_group_and_every_statistics_key_is_known():
    trials = libero_trials(per_task=1)
    assert {trial.groups for trial in trials} == {(suite,) for suite in BENCHMARK.groups}
    assert {trial.unnorm_key for trial in trials} == set(find_robot("libero").unnorm_keys)


@pytest.mark.parametrize("name", ["libero_sptial", "turn_on_the_stoves"])
def test_an_unknown_name_is_refused_with_the_known_ones(name):
    with pytest.raises(
        ValueError, match=f"no suite or task '{name}', the nearest is '(libero_spatial|turn_on_the_stove)'"
    ):
        libero_trials([name])


def test_no_trials_are_refused():
    with pytest.raises(ValueError, match="at least 1, got 0"):
        libero_trials(["libero_goal"], 0)


def outcome(suite: str, index: int, success: bool) -> Outcome:
    return Outcome(SUITES[suite].tasks[0], index, index, "do it", success, 100, 13, groups=(suite,))


def test_the_table_has_a_column_for_each_suite_and_their_mean():
    outcomes = [outcome(suite, index, index < 3) for suite in SUITES for index in range(4)]
    outcomes += [outcome("libero_10", index, False) for index in range(4, 12)]
    heading, _, ours = libero_table(outcomes).split("\n\n")[1].splitlines()
    assert heading == "|  | Spatial | Object | Goal | Long | Average |"
    cells = [cell.strip() for cell in ours.split("|")[2:-1]]
    assert [cell.split()[0] for cell in cells] == ["75.0", "75.0", "75.0", "25.0", "62.5"]
    assert [cell.endswith(f"({trials})") for cell, trials in zip(cells, (4, 4, 4, 12), strict=False)] == [True] * 4


def test_the_table_shows_three_seeds_one_by_one_and_no_mean_of_some_suites():
    outcomes = [outcome("libero_goal", index, index >= 50) for index in (0, 1, 50, 100)]
    rows = [line.split(" | ") for line in libero_table(outcomes).splitlines() if "seed" in line or "this run" in line]
    assert [row[0] for row in rows] == ["| this run", "| seed 1 of it", "| seed 2 of it", "| seed 3 of it"]
    assert [row[3].split()[0] for row in rows] == ["50.0", "0.0", "100.0", "100.0"]
    assert all(row[1] == "–" and row[5] == "– |" for row in rows)


@pytest.mark.slow
def test_suites_and_instructions_are_those_of_the_installed_libero():
    code = (
        "from libero.libero.benchmark import task_maps\n"
        f"for suite in {list(SUITES)}:\n"
        "    for task in task_maps[suite].values(): print('TASK', suite, task.name, task.language, sep='|')"
    )
    printed = subprocess.run([libero_python(), "-c", code], capture_output=True, text=True, check=True).stdout
    theirs = [line.split("|")[1:] for line in printed.splitlines() if line.startswith("TASK|")]
    ours = {trial.task: trial.instruction for trial in libero_trials(per_task=1)}
    assert theirs == [[suite, task, ours[task]] for task, suite in SUITE_OF.items()]
