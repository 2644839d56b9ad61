"""Tabletop-Instruct for the runner of all benchmarks; `instructvla tabletop` runs it faster, many arms in one batch."""

from collections.abc import Sequence

from instructvla.evaluation.simulators.benchmark_definition import Benchmark
from instructvla.evaluation.simulators.simulator import Trial
from instructvla.evaluation.tabletop.benchmark import assignment, groups_of, select_tasks
from instructvla.evaluation.tabletop.phrases import Level
from instructvla.evaluation.tabletop.world import MAX_STEPS


def tabletop_trials(names: Sequence[str] = (), per_task: int | None = None) -> list[Trial]:
    """Trials of tasks, levels or categories.

    Args:
        per_task: None: as many as the benchmark's file says.

    Raises:
        ValueError: an unknown name; it lists what exists.
    """
    counts = {task.name: per_task or task.trials for task in select_tasks(names)}
    return [
        tabletop_trial(name, index) for index in range(max(counts.values())) for name, n in counts.items() if index < n
    ]


def tabletop_trial(name: str, index: int) -> Trial:
    given = assignment(name, index)
    return Trial(
        task=name,
        index=index,
        seed=given.trial.seed,
        robot="tabletop",
        max_steps=MAX_STEPS,
        groups=given.groups,
        instruction=given.trial.instruction,
    )


BENCHMARK = Benchmark(
    name="tabletop",
    title="Tabletop-Instruct",
    adapter="instructvla.evaluation.simulators.tabletop_simulator",
    trials=tabletop_trials,
    groups=tuple(map(str, [group for level in Level for group in (level, *groups_of(level))])),
)
