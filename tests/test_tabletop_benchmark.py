"""Claims about Tabletop-Instruct for the runner of all benchmarks."""

from collections import Counter

import pytest

from instructvla.evaluation.simulators.tabletop_benchmark import BENCHMARK, tabletop_trials
from instructvla.evaluation.tabletop.instruct import instruct_task, instruct_tasks, trial
from tests.tabletop_policies import APPLE, THIRSTY


def test_trials_are_those_of_the_benchmark():
    (apple, thirsty, *_) = tabletop_trials([APPLE, THIRSTY], 2)
    given = trial(instruct_task(THIRSTY), 0)
    assert (thirsty.task, thirsty.seed, thirsty.instruction) == (THIRSTY, given.seed, given.instruction)
    assert apple.groups == ("atomic",) and thirsty.groups == ("situated_reasoning", "negation")
    assert set(thirsty.groups) <= set(BENCHMARK.groups)


def test_by_default_there_are_as_many_as_the_file_says():
    counts = Counter(one.task for one in tabletop_trials())
    assert counts == {task.name: task.trials for task in instruct_tasks()}
    assert Counter(one.task for one in tabletop_trials(["negation"], 3)).most_common()[0][1] == 3


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="no task, level or category 'negatoin', the nearest is 'negation'"):
        tabletop_trials(["negatoin"])
