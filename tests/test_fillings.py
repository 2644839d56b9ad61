from instructvla.evaluation.tabletop.fillings import (
    attribute_fillings,
    goal_fillings,
    job_fillings,
    later_commands,
    negation_fillings,
    receiving_places,
    task_slots,
)
from instructvla.evaluation.tabletop.meanings import exclusions
from instructvla.evaluation.tabletop.scene import Skill, Task
from tests.tabletop_scenes import in_a_row, sampled


def values(fillings, slot):
    return {filling[slot] for filling in fillings if slot in filling}


def test_places_are_in_or_on_their_receptacle():
    assert task_slots(Task(Skill.PUT_IN, "apple", "drawer"))["place"] == "in the drawer"
    assert task_slots(Task(Skill.PUT_ON, "apple", "white plate"))["place"] == "on the white plate"
    assert "place" not in task_slots(Task(Skill.MOVE_NEAR, "apple", "fork"))


def test_a_need_names_no_task_while_two_things_meet_it():
    task = Task(Skill.PICK_UP, "water bottle")
    assert "I am thirsty" in values(goal_fillings(in_a_row("water bottle", "apple"), task, "train"), "need")
    both = in_a_row("water bottle", "cola can")
    assert "I am thirsty" not in values(goal_fillings(both, task, "train"), "need")
    assert "I want to drink water" in values(goal_fillings(both, task, "train"), "need")


def test_a_need_with_an_exclusion_leaves_the_target():
    scene = in_a_row("water bottle", "cola can", "apple")
    fillings = list(negation_fillings(scene, Task(Skill.PICK_UP, "water bottle"), "train"))
    assert {"need": "I am thirsty", "excluded": "soda"} in fillings
    fillings = list(negation_fillings(scene, Task(Skill.PICK_UP, "cola can"), "train"))
    assert {"need": "I am thirsty", "excluded": "water"} in fillings
    assert "soda" not in values(fillings, "excluded")


def test_what_is_ruled_out_never_fits_the_target():
    for split in ("train", "test"):
        for scene, task in sampled(80, split):
            if task.target == "drawer":
                continue
            placed = scene.titles()[task.target]
            for filling in negation_fillings(scene, task, split):
                assert task.target not in (filling.get("twin"), filling.get("bystander"))
                assert "bystander" not in filling or filling["bystander"] != task.destination
                assert filling.get("no_colour") != placed.colour
                assert "excluded" not in filling or placed.item not in exclusions()[filling["excluded"]].fits
                assert filling.get("bad_place") != task_slots(task).get("place", "")


def test_a_twin_is_the_only_other_one():
    task = Task(Skill.PICK_UP, "apple")
    assert {"noun": "fruit", "twin": "lemon"} in list(negation_fillings(in_a_row("apple", "lemon"), task, "train"))
    three = list(negation_fillings(in_a_row("apple", "lemon", "banana"), task, "train"))
    assert not values(three, "twin")
    assert {"noun": "fruit", "no_colour": "yellow"} in three


def test_jobs_belong_to_one_tool():
    scene = in_a_row("marker", "hammer")
    assert "to write with" in values(job_fillings(scene, Task(Skill.PICK_UP, "marker"), "train"), "job")
    assert not values(job_fillings(in_a_row("marker", "brush"), Task(Skill.PICK_UP, "marker"), "train"), "job")


def test_attributes_never_name_the_destination():
    for scene, task in sampled(60, "train"):
        for filling in attribute_fillings(scene, task, "train"):
            assert task.destination is None or f"the {task.destination}" not in filling["reference"]


def test_later_steps_can_be_done_after_the_task():
    scene = in_a_row("apple", "fork", receptacles=("white bowl",), drawer=0.0)
    commands = set(later_commands(scene, Task(Skill.OPEN, "drawer")))
    assert "put the apple in the drawer" in commands and "close the drawer" not in commands
    commands = set(later_commands(scene, Task(Skill.PICK_UP, "apple")))
    assert commands == {"pick up the fork", "put the fork in the white bowl", "open the drawer"}


def test_only_an_open_drawer_receives_things():
    assert ("drawer", "in the drawer") in receiving_places(in_a_row("apple", drawer=1.0))
    assert receiving_places(in_a_row("apple", receptacles=("white plate",), drawer=0.0)) == [
        ("white plate", "on the white plate")
    ]
