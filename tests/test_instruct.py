from collections import Counter

import pytest
import yaml

from instructvla.evaluation.tabletop.instruct import (
    TASKS_FILE,
    Trial,
    instruct_task,
    instruct_tasks,
    trial,
    trials,
)
from instructvla.evaluation.tabletop.phrases import MAX_WORDS, Group, Level, expressions, handles_unseen
from instructvla.evaluation.tabletop.sampling import combination_split
from instructvla.evaluation.tabletop.scene import Skill

SIZES = {
    "atomic": 16,
    **dict.fromkeys((group for group in Group if group.level is Level.AGGREGATION), 10),
    Group.IMPLICIT_GOALS: 8,
    Group.NEGATION: 8,
    Group.SUBTASKS: 7,
    Group.TOOL_USE: 7,
}


def changed(tmp_path, **fields):
    """A benchmark file of one task with other fields (None: left out), read."""
    entry = {
        "name": "one",
        "level": "situated_reasoning",
        "category": "tool_use",
        "instruction": "can I have something to sign with?",
        "scene": {"things": ["marker", "hammer"], "receptacles": ["white plate"], "distractors": 1},
        "task": {"skill": "pick up", "target": "marker"},
        "trials": 3,
    } | fields
    path = tmp_path / "tasks.yaml"
    path.write_text(yaml.safe_dump({"tasks": [{name: value for name, value in entry.items() if value is not None}]}))
    return instruct_tasks(path)


def test_the_benchmark_has_the_papers_shape():
    assert Counter(task.category for task in instruct_tasks()) == SIZES
    levels = Counter(task.level for task in instruct_tasks())
    assert levels[Level.AGGREGATION] == 50 and levels[Level.SITUATED] == 30
    assert {task.task.skill for task in instruct_tasks() if task.level is Level.ATOMIC} == set(Skill)


def test_every_row_of_the_table_has_200_trials():
    counts = Counter()
    for task in instruct_tasks():
        counts[task.category] += task.trials
    assert min(counts.values()) >= 200


@pytest.mark.parametrize("category", SIZES)
def test_each_instruction_means_its_task_alone_in_every_trial(category):
    for task in instruct_tasks():
        if task.category != category or task.group is None:
            continue
        for one in trials(task):
            titles = [one.scene.title(thing) for thing in one.scene.things]
            assert one.instruction in expressions(task.group, one.scene, one.task, "test")
            assert len(titles) == len(task.things) + task.distractors == len(set(titles))


def test_what_is_asked_is_new_to_the_train_split():
    for task in instruct_tasks():
        scene = trial(task, 0).scene
        items = [
            scene.titles()[t].item if t in scene.titles() else t for t in (task.task.target, task.task.destination)
        ]
        if task.level is not Level.ATOMIC and task.task.destination is not None:
            assert combination_split(task.task.skill, *items) == "test"
        assert handles_unseen(scene, task.task) is (task.group is Group.NOVEL_OBJECTS)


def test_instructions_are_short_and_different():
    texts = [task.instruction for task in instruct_tasks()]
    assert len(set(texts)) == len(texts)
    assert max(len(text.split()) for text in texts) <= MAX_WORDS


def test_trials_are_the_same_every_time_and_for_any_number():
    task = instruct_task("attributes/hold-the-leftmost-can")
    assert trials(task) == trials(task)
    assert trials(task, 3) == trials(task)[:3]
    assert len({one.seed for one in trials(task)}) == task.trials
    assert isinstance(trials(task, 1)[0], Trial) and set(trials(task, 1)[0].options()) == {"scene", "task"}


def test_an_unknown_task_names_the_nearest():
    with pytest.raises(ValueError, match="unknown task 'new_verbs/seal', the nearest is 'new_verbs/"):
        instruct_task("new_verbs/seal")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"level": "hard"}, "unknown level 'hard'; choose from atomic"),
        ({"category": "puns"}, "unknown category 'puns'; choose from new_verbs"),
        ({"category": "new_verbs"}, "new_verbs is a category of instruction_aggregation"),
        ({"instruction": None}, "it lacks 'instruction'"),
        ({"scene": {"things": ["hamer"]}}, "no 'hamer', the nearest is 'hammer'"),
        ({"scene": {"things": ["hammer"]}}, "the task handles marker, but in the scene there are hammer"),
        ({"scene": {"things": ["marker"], "drawer": "ajar"}}, "unknown drawer 'ajar'"),
        ({"trials": 0}, "trials must be a whole number from 1 on, got 0"),
        ({"task": {"skill": "throw", "target": "marker"}}, "unknown skill 'throw'"),
        ({"instruction": "word " * 15}, "has more than 14 words"),
        ({"colour": "red"}, "unknown fields colour"),
    ],
)
def test_a_bad_entry_is_named(tmp_path, fields, message):
    with pytest.raises(ValueError, match=f"tasks.yaml, one: .*{message}"):
        changed(tmp_path, **fields)


def test_combinations_of_training_are_refused(tmp_path):
    scene = {"things": ["marker", "hammer"], "receptacles": ["white plate"]}
    task = {"skill": "put on", "target": "marker", "destination": "white plate"}
    with pytest.raises(ValueError, match="is a combination that training episodes have"):
        changed(tmp_path, instruction="set something to sign with on the white plate", scene=scene, task=task)


def test_an_instruction_that_never_means_its_task_is_refused(tmp_path):
    (task,) = changed(tmp_path, instruction="can I have something to stir with?")
    with pytest.raises(ValueError, match="never meant 'pick up the marker'"):
        trials(task)


def test_files_that_hold_no_tasks_are_refused(tmp_path):
    path = tmp_path / "no.yaml"
    with pytest.raises(ValueError, match="can't be read as tasks"):
        instruct_tasks(path)
    path.write_text("- 1")
    with pytest.raises(ValueError, match="must hold `levels` and a list `tasks`"):
        instruct_tasks(path)
    path.write_text(yaml.safe_dump({"tasks": yaml.safe_load(TASKS_FILE.read_text())["tasks"][:1] * 2}))
    with pytest.raises(ValueError, match="trials must be"):
        instruct_tasks(path)
