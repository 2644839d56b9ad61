"""Results on SimplerEnv and SimplerEnv-Instruct laid out as the paper's Table 2, with its numbers beside ours.

As in the published scripts, a group's rate is the mean of its tasks' rates, whatever their numbers of trials.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from statistics import fmean

import yaml

from instructvla.evaluation.intervals import Rate
from instructvla.evaluation.ledger import Outcome, system_two_of
from instructvla.evaluation.system_two import with_system_two
from instructvla.model_card import markdown_table

PUBLISHED_FILE = Path(__file__).parent / "simpler_env_published.yaml"
AVERAGE = "average"
MISSING = "–"
HEADINGS: Mapping[str, str] = {
    "drawer": "Open/Close Drawer",
    "put_in_drawer": "Put in Drawer",
    "pick_coke_can": "Pick Coke Can",
    "move_near": "Move Near",
    "put_spoon": "Put Spoon",
    "put_carrot": "Put Carrot",
    "stack_blocks": "Stack Blocks",
}
SETTINGS = {"visual_matching": "VM", "variant_aggregation": "VA"}
LEVELS = {"instruction_aggregation": "Instruction Aggregation", "situated_reasoning": "Situated Reasoning"}
OURS = "this run"
AVERAGE_NOTE = (
    "Avg of this run, and of the rows that the paper's authors evaluated: mean of the Google robot's VM mean, its VA "
    "mean and the WidowX mean. The rows that the paper took over give the mean of all eleven columns there."
)


@cache
def published(benchmark: str) -> dict[str, dict[str, float]]:
    """Rows of Table 2 that have numbers of a benchmark: row → column → rate in percent.

    Args:
        benchmark: "simpler_env" or "simpler_instruct".
    """
    content = yaml.safe_load(PUBLISHED_FILE.read_text(encoding="utf-8"))
    columns = content["columns"][benchmark]
    rows = {name: row[benchmark] for name, row in content["rows"].items() if benchmark in row}
    return {name: dict(zip(columns, row, strict=False)) for name, row in rows.items()}  # RT-2-X has no WidowX columns


PAPER_ROWS = published("simpler_env")
COLUMNS = tuple(column for column in PAPER_ROWS["InstructVLA Generalist"] if column != AVERAGE)


def task_rates(outcomes: Iterable[Outcome], group: str | None = None) -> dict[str, Rate]:
    """Task → successes and trials, of those that count towards a group; of all without one."""
    counts: dict[str, list[bool]] = {}
    for outcome in outcomes:
        if outcome.success is not None and (group is None or group in outcome.groups):
            counts.setdefault(outcome.task, []).append(outcome.success)
    return {task: Rate(sum(successes), len(successes)) for task, successes in counts.items()}


def mean_rate(rates: Mapping[str, Rate]) -> float | None:
    """Mean of tasks' rates in percent; None without a task."""
    return 100 * fmean(rate.value for rate in rates.values()) if rates else None


def table_2_average(cells: Mapping[str, float | None]) -> float | None:
    """The column Avg of Table 2: mean of the Google robot's two settings and the WidowX; None if a column lacks."""
    if any(cells.get(column) is None for column in COLUMNS):
        return None
    google, widowx = COLUMNS[:8], COLUMNS[8:]
    return fmean(
        fmean(cells[column] for column in part)
        for part in (
            [column for column in google if column.endswith("visual_matching")],
            [column for column in google if column.endswith("variant_aggregation")],
            widowx,
        )
    )


def table_2(outcomes: Sequence[Outcome]) -> str:
    """Table 2's part on SimplerEnv in Markdown, this run first; with the numbers of tasks and trials that were run."""
    rates = {column: task_rates(outcomes, column) for column in COLUMNS}
    ours = {column: mean_rate(found) for column, found in rates.items()}
    ours[AVERAGE] = table_2_average(ours)
    titles = [f"{HEADINGS[task]} {SETTINGS[setting]}" for task, setting in (column.split("/") for column in COLUMNS)]
    trials = [
        MISSING if not rates[column] else str(sum(rate.trials for rate in rates[column].values())) for column in COLUMNS
    ]
    return "\n\n".join(
        [
            "SimplerEnv, success in % (Table 2 of arXiv 2507.17520v1; VM visual matching, VA variant aggregation).",
            markdown_table(
                ["Methods", *titles, "Avg"],
                [
                    row(f"**{with_system_two(OURS, system_two_of(outcomes))}**", ours, (*COLUMNS, AVERAGE)),
                    [
                        "its trials",
                        *trials,
                        str(sum(rate.trials for found in rates.values() for rate in found.values())),
                    ],
                    *(row(name, cells, (*COLUMNS, AVERAGE)) for name, cells in PAPER_ROWS.items()),
                ],
            ),
            AVERAGE_NOTE,
        ]
    )


def instruct_summary(outcomes: Sequence[Outcome], categories: Mapping[str, str], trials: int) -> str:
    """SimplerEnv-Instruct in Markdown: levels as in Table 2, then categories.

    Args:
        outcomes: of the run.
        categories: category → its level, in the order of the table.
        trials: of the whole benchmark.
    """
    rates = {level: task_rates(outcomes, level) for level in LEVELS}
    ours = {level: mean_rate(found) for level, found in rates.items()}
    ours[AVERAGE] = None if None in ours.values() else fmean(ours.values())
    lines = []
    for category, level in categories.items():
        found = task_rates(outcomes, category)
        mean = mean_rate(found)
        lines.append([category, LEVELS[level], percent(mean), str(len(found)), pooled(found)])
    everything = task_rates(outcomes)
    return "\n\n".join(
        [
            f"SimplerEnv-Instruct, success in % at the last step (Table 2 of arXiv 2507.17520v1): {len(everything)} "
            f"tasks, {sum(rate.trials for rate in everything.values())} trials of the benchmark's {trials}.",
            markdown_table(
                ["Methods", *LEVELS.values(), "Avg"],
                [
                    row(f"**{with_system_two(OURS, system_two_of(outcomes))}**", ours, (*LEVELS, AVERAGE)),
                    ["its trials", *(pooled(rates[level]) for level in LEVELS), pooled(everything)],
                    *(row(name, cells, (*LEVELS, AVERAGE)) for name, cells in published("simpler_instruct").items()),
                ],
            ),
            "By category, as this package assigns the tasks to the paper's categories; 95 % intervals (Wilson).",
            markdown_table(["Category", "Level", "mean of tasks", "tasks", "all trials"], lines),
        ]
    )


def pooled(rates: Mapping[str, Rate]) -> str:
    """All trials together, with their interval and number."""
    together = Rate(sum(rate.successes for rate in rates.values()), sum(rate.trials for rate in rates.values()))
    return f"{together} ({together.trials})" if together.trials else MISSING


def row(title: str, cells: Mapping[str, float | None], columns: Iterable[str]) -> list[str]:
    return [title, *(percent(cells.get(column)) for column in columns)]


def percent(value: float | None) -> str:
    return MISSING if value is None else f"{value:.1f}"
