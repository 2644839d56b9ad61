from dataclasses import replace

import pytest

from instructvla.evaluation.ledger import Outcome
from instructvla.evaluation.simulators.simpler_env_tables import (
    AVERAGE,
    COLUMNS,
    PAPER_ROWS,
    instruct_summary,
    published,
    table_2,
    table_2_average,
)
from instructvla.evaluation.system_two import Rewriting

OWN_ROWS = ("InstructVLA", "Magma", "OpenVLA (FT)")  # evaluated by the paper's authors
CATEGORIES = {"new_verbs": "instruction_aggregation", "tool_use": "situated_reasoning"}


def outcomes(task, successes, trials, *groups):
    return [Outcome(task, index, 0, "", index < successes, 80, groups=groups) for index in range(trials)]


def line(table, start):
    return next(one for one in table.splitlines() if one.startswith(f"| {start} |"))


@pytest.mark.parametrize("name", [name for name in PAPER_ROWS if name.startswith(OWN_ROWS)])
def test_the_average_is_the_papers_of_its_own_rows(name):
    printed = PAPER_ROWS[name][AVERAGE]  # with one decimal, that the paper does not always round to the nearest
    assert table_2_average(PAPER_ROWS[name]) == pytest.approx(printed, abs=0.1)


def test_rows_that_the_paper_took_over_average_all_columns():
    for name in ("RT-1-X", "Octo-Base", "RoboVLMs-2B", "OpenVLA-7B", "SpatialVLA-3B"):
        mean = sum(PAPER_ROWS[name][column] for column in COLUMNS) / len(COLUMNS)
        assert mean == pytest.approx(PAPER_ROWS[name][AVERAGE], abs=0.06)


def test_the_papers_levels_average_to_its_overall_numbers():
    for row in published("simpler_instruct").values():
        levels = (row["instruction_aggregation"] + row["situated_reasoning"]) / 2
        assert levels == pytest.approx(row[AVERAGE], abs=0.1)


def test_a_column_is_the_mean_of_its_tasks_whatever_their_trials():
    column = "drawer/visual_matching"
    run = outcomes("a", 1, 1, column) + outcomes("b", 0, 9, column)
    table = table_2(run)
    assert line(table, "**this run**").startswith("| **this run** | 50.0 | – |")
    assert line(table, "its trials").startswith("| its trials | 10 | – |") and table.count("| 10 |") == 2


def test_a_whole_run_has_the_papers_columns_and_average():
    run = [one for number, column in enumerate(COLUMNS) for one in outcomes(column, number, 20, column)]
    cells = line(table_2(run), "**this run**").split("|")[2:-1]
    assert [float(cell) for cell in cells[:-1]] == [5.0 * number for number in range(11)]
    assert float(cells[-1]) == pytest.approx((15.0 + 20.0 + 45.0) / 3, abs=0.06)
    assert line(table_2(run), "InstructVLA Generalist (S.)").endswith("| 41.7 | 12.5 | 55.4 |")


def test_outcomes_without_a_verdict_count_for_nothing():
    column = "put_spoon/visual_matching"
    broken = Outcome("a", 5, 0, "", None, 3, error="died", groups=(column,))
    assert table_2([*outcomes("a", 1, 2, column), broken]) == table_2(outcomes("a", 1, 2, column))


def test_levels_and_categories_stand_beside_the_papers_numbers_and_say_how_much_was_run():
    run = outcomes("a", 4, 4, "instruction_aggregation", "new_verbs")
    run += outcomes("b", 0, 12, "instruction_aggregation", "new_verbs")
    text = instruct_summary(run, CATEGORIES, 1138)
    assert "2 tasks, 16 trials of the benchmark's 1138" in text
    assert line(text, "**this run**") == "| **this run** | 50.0 | – | – |"
    assert line(text, "InstructVLA Generalist") == "| InstructVLA Generalist | 43.3 | 48.8 | 46.0 |"
    assert line(text, "new_verbs").startswith("| new_verbs | Instruction Aggregation | 50.0 | 2 | 25.0 % [")
    both = instruct_summary(run + outcomes("c", 1, 5, "situated_reasoning", "tool_use"), CATEGORIES, 1138)
    assert line(both, "**this run**") == "| **this run** | 50.0 | 20.0 | 35.0 |"


def test_a_run_with_a_system_two_names_it_in_its_row():
    rewriting = Rewriting("clean up", "pick up the sponge", "strong-vlm")
    helped = [replace(one, rewritings=(rewriting,)) for one in outcomes("a", 1, 2, "put_spoon/visual_matching")]
    assert "| **this run + System 2 (strong-vlm)** |" in table_2(helped)
    assert "| **this run + System 2 (strong-vlm)** |" in instruct_summary(helped, CATEGORIES, 1138)
