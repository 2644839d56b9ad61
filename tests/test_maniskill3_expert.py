"""Claims about the expert in ManiSkill3's tasks, in a stand-in; `test_maniskill3_simulator` has the real thing."""

import pytest

from instructvla.evaluation.simulators.maniskill3_benchmark import maniskill3_trials
from instructvla.evaluation.simulators.maniskill3_expert import demonstrate
from instructvla.evaluation.simulators.maniskill3_tasks import TASKS
from tests.bridge_stand_in import CarryingPoint


@pytest.mark.parametrize("task", TASKS)
def test_it_takes_the_object_to_its_destination_in_time(task):
    for trial in maniskill3_trials([task], 6):
        recording, seen = demonstrate(CarryingPoint(), trial)
        assert recording.successes[-1] and len(recording.actions) < trial.max_steps
        assert len(seen) == len(recording.actions) + 1
