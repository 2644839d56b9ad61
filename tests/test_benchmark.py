"""Claims about Tabletop-Instruct as a measurement."""

from collections import Counter

import pytest

from instructvla.evaluation.intervals import Rate
from instructvla.evaluation.ledger import Ledger, Outcome
from instructvla.evaluation.tabletop.benchmark import (
    rates,
    run_benchmark,
    select_tasks,
    trials_of,
)
from instructvla.evaluation.tabletop.instruct import instruct_task, instruct_tasks
from instructvla.evaluation.tabletop.policies import ExpertPolicy, RandomPolicy
from tests.tabletop_policies import APPLE, CLOSE, THIRSTY


def outcome(name: str, index: int = 0, success: bool = True) -> Outcome:
    return Outcome(name, index, seed=1, instruction="…", success=success, steps=3)


class Counting(ExpertPolicy):
    """Counts the trials that it starts."""

    started = 0

    def _decision(self, moment):
        Counting.started += moment.number == 0
        return super()._decision(moment)


def test_tasks_are_chosen_by_level_category_and_name():
    assert {task.level for task in select_tasks(["atomic"])} == {"atomic"}
    assert len(select_tasks(["aggregation"])) == 50 and len(select_tasks(["situated"])) == 30
    assert {task.category for task in select_tasks(["negation", "tool_use"])} == {"negation", "tool_use"}
    assert [task.name for task in select_tasks([THIRSTY, THIRSTY])] == [THIRSTY]
    assert select_tasks() == instruct_tasks()


def test_an_unknown_task_lists_what_exists():
    with pytest.raises(
        ValueError, match="'negatoin', the nearest is 'negation'; levels.*atomic, aggregation, situated.*"
    ):
        select_tasks(["negatoin"])


def test_each_level_gets_at_least_the_trials_asked_for_equally_per_task():
    trials = trials_of(instruct_tasks(), 200)
    levels = Counter(instruct_task(name).level for name, _ in trials)
    assert all(200 <= count < 200 + 50 for count in levels.values())
    for level in levels:
        per_task = Counter(name for name, _ in trials if instruct_task(name).level == level)
        assert len(set(per_task.values())) == 1


def test_the_start_of_the_trials_has_every_task_once():
    trials = trials_of(instruct_tasks(), 200)
    assert [index for _, index in trials[:96]] == [0] * 96 and len(set(trials)) == len(trials)


def test_the_file_can_decide_the_number_of_trials():
    (task,) = select_tasks([APPLE])
    assert len(trials_of([task], None)) == task.trials


def test_a_second_call_goes_on_where_the_first_stopped(tmp_path):
    trials = trials_of(select_tasks([APPLE, CLOSE]), 2)
    first = run_benchmark(Counting, trials[:1], tmp_path / "results")
    Counting.started = 0
    both = run_benchmark(Counting, trials, tmp_path / "results")
    assert Counting.started == len(trials) - 1 and both[0] == first[0]
    assert [one.key for one in both] == trials
    assert run_benchmark(Counting, trials, tmp_path / "results") == both and Counting.started == len(trials) - 1
    assert both == run_benchmark(Counting, trials)


def test_results_of_other_settings_are_refused(tmp_path):
    trials = trials_of(select_tasks([APPLE]), 1)
    run_benchmark(ExpertPolicy, trials, tmp_path)
    with pytest.raises(ValueError, match="other settings: policy was 'expert', is 'random'"):
        run_benchmark(RandomPolicy, trials, tmp_path)
    with pytest.raises(ValueError, match="other settings: max_steps was 80, is 9"):
        run_benchmark(ExpertPolicy, trials, tmp_path, max_steps=9)


def test_outcomes_are_written_before_the_run_is_over(tmp_path):
    class Fails(ExpertPolicy):
        def _decision(self, moment):
            if moment.instruction != "pick up the apple":
                raise RuntimeError("power cut")
            return super()._decision(moment)

    with pytest.raises(RuntimeError, match="power cut"):
        run_benchmark(Fails, [(APPLE, 0), (CLOSE, 0)], tmp_path, environments=1)
    assert list(Ledger.read(tmp_path).outcomes) == [(APPLE, 0)]


def test_rates_are_by_level_and_category():
    found = rates(
        [
            outcome(APPLE),
            outcome(THIRSTY),
            outcome(THIRSTY, 1, False),
            outcome("tool_use/fetch-me-something-to-drive-in-a-nail"),
        ]
    )
    assert found == {
        "atomic": Rate(1, 1),
        "situated_reasoning": Rate(2, 3),
        "negation": Rate(1, 2),
        "tool_use": Rate(1, 1),
    }


def test_processes_give_the_same_outcomes_as_one(tmp_path):
    trials = trials_of(select_tasks([APPLE, CLOSE]), 2)
    assert run_benchmark(ExpertPolicy, trials, tmp_path, 1, workers=2) == run_benchmark(ExpertPolicy, trials)
    with pytest.raises(ValueError, match="workers must be at least 1"):
        run_benchmark(ExpertPolicy, trials, workers=0)
