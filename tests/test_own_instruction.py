"""Claims about a user's own instruction and the scene that it gets."""

import numpy as np
import pytest

from instructvla.evaluation.tabletop.instruct import instruct_task, instruct_tasks, trial
from instructvla.evaluation.tabletop.own_instruction import listed_things, meant_task, own_assignment, plain, tasks_in
from instructvla.evaluation.tabletop.policies import ExpertPolicy
from instructvla.evaluation.tabletop.rollout import rollouts
from instructvla.evaluation.tabletop.sampling import sample_scene
from instructvla.evaluation.tabletop.scene import Skill, Task
from instructvla.evaluation.tabletop.success import check_task
from tests.tabletop_policies import THIRSTY


@pytest.mark.parametrize(
    ("instruction", "task"),
    [
        ("Pick up the apple!", Task(Skill.PICK_UP, "apple")),
        ("put the sponge in the green bowl", Task(Skill.PUT_IN, "sponge", "green bowl")),
        ("put the lemon in the drawer", Task(Skill.PUT_IN, "lemon", "drawer")),
        ("move the knife near the orange", Task(Skill.MOVE_NEAR, "knife", "orange")),
        ("open the drawer", Task(Skill.OPEN, "drawer")),
        ("close the drawer", Task(Skill.CLOSE, "drawer")),
        ("pick up the letter A", Task(Skill.PICK_UP, "letter A")),
    ],
)
def test_a_command_gets_a_scene_in_which_it_can_be_done(instruction, task):
    given = own_assignment(instruction, seed=1)
    assert given.judged and given.trial.task == task and given.trial.instruction == instruction
    (outcome,) = rollouts(ExpertPolicy(), [given])
    assert outcome.success and outcome.steps > 3


def test_another_wording_is_judged_by_the_task_that_it_means():
    assert own_assignment("saisis la banane", seed=3).trial.task == Task(Skill.PICK_UP, "banana")


def test_an_instruction_beyond_the_rules_still_runs_and_is_not_judged():
    given = own_assignment("stack the red block on the blue block", seed=0)
    assert not given.judged and {"red block", "blue block"} <= set(given.trial.scene.titles())
    assert not own_assignment("dance", seed=0).judged


def test_the_same_seed_gives_the_same_episode_and_another_one_another():
    first, again, other = (own_assignment("pick up the apple", seed) for seed in (4, 4, 5))
    assert first == again and first.trial.scene != other.trial.scene


def test_scenes_can_be_those_of_a_task_of_the_benchmark():
    given = own_assignment("dance", 2, scene_of=THIRSTY)
    assert given.trial.scene == trial(instruct_task(THIRSTY), 2).scene
    theirs = own_assignment(instruct_task(THIRSTY).instruction.upper(), 0, scene_of=THIRSTY)
    assert theirs.judged and theirs.trial == trial(instruct_task(THIRSTY), 0)
    with pytest.raises(ValueError, match="unknown task 'thirst'"):
        own_assignment("dance", 0, scene_of="thirst")


def test_the_benchmark_s_instructions_mean_their_tasks():
    for task in instruct_tasks()[::12]:
        one = trial(task, 0)
        assert meant_task(task.instruction, one.scene) == one.task, task.name


def test_everything_that_can_be_done_in_a_scene_is_a_task_of_it():
    for seed in range(5):
        scene, task = sample_scene(np.random.default_rng(seed), "test")
        tasks = list(tasks_in(scene))
        assert task in tasks and len(set(tasks)) == len(tasks)
        for one in tasks:
            check_task(one, scene)


@pytest.mark.parametrize(
    ("instruction", "seed", "message"), [("  ", 0, "is empty"), ("dance", -1, "must be 0 or more")]
)
def test_bad_input_is_refused(instruction, seed, message):
    with pytest.raises(ValueError, match=message):
        own_assignment(instruction, seed)


def test_too_many_things_are_refused_by_name():
    with pytest.raises(ValueError, match="no room for .*apple.*take fewer things"):
        own_assignment("apple banana orange lemon carrot tomato cucumber sponge hammer knife fork spoon brush", 0)


def test_wording_is_compared_without_case_and_punctuation():
    assert plain(" Pick  up, the APPLE! ") == plain("pick up the apple")


def test_the_things_of_a_scene_are_listed():
    assert "drawer (closed)" in listed_things(own_assignment("open the drawer", 0).trial.scene)
