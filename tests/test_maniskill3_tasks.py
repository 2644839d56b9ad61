"""Claims about the four tasks and about where objects of demonstrations lie."""

import json

import numpy as np
import pytest

from instructvla.evaluation.simulators.maniskill3_tasks import TASKS, find_task, random_placement


@pytest.mark.parametrize("name", TASKS)
def test_objects_lie_within_the_grid_apart_and_as_json(name):
    task, rng = find_task(name), np.random.default_rng(0)
    for _ in range(50):
        placement = json.loads(json.dumps(random_placement(task, rng)))
        (source, destination), orientations = np.array(placement["positions"]), np.array(placement["orientations"])
        assert (np.abs(source[:2] - task.centre) <= task.half_edges).all()
        assert np.linalg.norm(source[:2] - destination[:2]) >= task.separation
        assert (source[2], destination[2]) == task.heights
        np.testing.assert_allclose(np.linalg.norm(orientations, axis=1), 1, atol=1e-5)


def test_placements_differ_and_follow_from_the_generator():
    one, two, other = (random_placement(TASKS["carrot"], np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert one == two != other


def test_the_basket_stays_where_it_is():
    placement = random_placement(TASKS["eggplant"], np.random.default_rng(3))
    assert placement["positions"][1][:2] == list(TASKS["eggplant"].destination)


def test_an_unknown_task_is_refused_with_what_there_is():
    with pytest.raises(ValueError, match="no task 'fold'; there are spoon, carrot, stack, eggplant"):
        find_task("fold")
