"""`instructvla evaluate BENCHMARK`: a policy's success rates in a simulator, episode by episode into a ledger."""

from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from tqdm import tqdm

from instructvla.command_errors import errors_on_stderr
from instructvla.evaluation.action_ensembling import AdaptiveEnsemble
from instructvla.evaluation.benchmark_table import benchmark_table
from instructvla.evaluation.benchmarks import MODULES, find_benchmark
from instructvla.evaluation.chunk_schedules import EveryStep, OpenLoop, Schedule, TemporalEnsemble
from instructvla.evaluation.decision_cadence import Cadence
from instructvla.evaluation.film_writer import check_film
from instructvla.evaluation.group_rates import group_rates
from instructvla.evaluation.ledger import LOGS, Ledger
from instructvla.evaluation.real_time_schedule import RealTimeChunks
from instructvla.evaluation.robots import ALPHA
from instructvla.evaluation.served_process import served
from instructvla.evaluation.simulators.benchmark_definition import Benchmark
from instructvla.evaluation.simulators.installation import simulator_python
from instructvla.evaluation.simulators.simulator import Trial

if TYPE_CHECKING:  # websockets is an extra
    from instructvla.evaluation.runner import Keep, PolicyUse
    from instructvla.evaluation.simulators.simulator_process import SimulatorProcess

app = typer.Typer(add_completion=False)


class Filmed(StrEnum):
    """Which episodes are filmed."""

    NONE = "none"
    FAILED = "failed"
    ALL = "all"


class Simulators:
    """Starts the processes of a benchmark's simulator, the first one at once.

    Args:
        benchmark: whose simulator.
        folder: for logs of what the simulators print.
        start_s, step_s: longest times for a start or reset, and for a step.

    Attributes:
        first: the process that the settings are asked of; the first worker takes it.
    """

    def __init__(self, benchmark: Benchmark, folder: Path, start_s: float, step_s: float):
        self._benchmark, self._folder = benchmark, folder
        self._limits = {"start_s": start_s, "step_s": step_s}
        self._python = simulator_python(benchmark)
        self._started = 0
        self._folder.mkdir(parents=True, exist_ok=True)
        self.first = self._start()
        self._spare: list[SimulatorProcess] = [self.first]

    def take(self) -> "SimulatorProcess":
        """A process that nobody else has."""
        return self._spare.pop() if self._spare else self._start()

    def close(self) -> None:
        for process in self._spare:
            process.close()

    def _start(self) -> "SimulatorProcess":
        from instructvla.evaluation.simulators.simulator_process import SimulatorProcess

        self._started += 1
        installation = self._benchmark.installation
        return SimulatorProcess(
            self._benchmark.adapter,
            self._python,
            {} if installation is None else installation.environment,
            self._folder / f"simulator_{self._started}.log",
            **self._limits,
        )


def run_settings(
    name: str,
    benchmark: Benchmark,
    metadata: Mapping[str, Any],
    use: "PolicyUse",
    schedule: str,
    first: "SimulatorProcess",
) -> dict[str, Any]:
    """What outcomes follow from, as JSON; `name` is what `find_benchmark` finds the benchmark by."""
    cadence = use.cadence
    return {
        "benchmark": name,
        "title": benchmark.title,
        "policy": "model" if metadata.get("weights") else metadata["model"],
        "name": metadata["model"],
        "revision": metadata.get("revision"),
        "weights": metadata.get("weights"),
        "think": cadence.think,
        "ratio": cadence.ratio,
        "rethink": cadence.rethink,
        "schedule": schedule,
        "delay": use.delay,
        "unnorm_key": use.unnorm_key,
        "simulator": first.versions,
        "notes": list(first.notes),
        "instructvla": version("instructvla"),
        "server": metadata.get("instructvla_version"),
    }


def chosen_schedule(
    open_loop: int | None = None,
    adaptive: int | None = None,
    temporal: float | None = None,
    real_time: int | None = None,
    delay: int = 0,
) -> tuple[str, Callable[[], Schedule] | None]:
    """Name and maker of a schedule other than the robot's released one.

    Raises:
        ValueError: several are given, or one is out of range.
    """
    choices: list[tuple[str, Callable[[], Schedule]]] = []
    if open_loop is not None:
        choices.append((f"open loop of {open_loop}", partial(OpenLoop, open_loop)))
    if adaptive is not None:
        choices.append((f"adaptive ensembling of {adaptive}", partial(_adaptive, adaptive)))
    if temporal is not None:
        choices.append((f"temporal ensembling, decay {temporal:g}", partial(_temporal, temporal)))
    if real_time is not None:
        choices.append((f"real-time chunking, every {real_time}", partial(RealTimeChunks, real_time, delay)))
    if len(choices) > 1:
        raise ValueError("--open-loop, --adaptive, --temporal and --real-time exclude each other; give one.")
    for _, make in choices:
        make()  # says now what is out of range
    return choices[0] if choices else ("released", None)


def _adaptive(horizon: int) -> Schedule:
    return EveryStep(AdaptiveEnsemble(horizon, ALPHA))


def _temporal(decay: float) -> Schedule:
    return EveryStep(TemporalEnsemble(decay))


def evaluate(
    name: str,
    benchmark: Benchmark,
    trials: Sequence[Trial],
    url: str,
    use: "PolicyUse",
    schedule: str,
    keep: "Keep",
    workers: int,
    token: str | None,
    limits: Mapping[str, float],
) -> Ledger:
    """Runs what the ledger doesn't have yet.

    Args:
        name: by which `find_benchmark` finds the benchmark.
        url: of the policy server.
        use, schedule: how the policy is used, and its schedule's name.
        keep: the run's folder, and what is kept in it beside the ledger.
        limits: `start_s` and `step_s` of the simulators, `answer_s` of the policy.

    Raises:
        ValueError: results of other settings, or bad input as the simulator or the policy says.
        PolicyError: the server is gone.
    """
    from instructvla.evaluation.policy_client import PolicyClient
    from instructvla.evaluation.runner import Worker, run_trials, waiting_trials

    connect = partial(PolicyClient, url, token, answer_s=limits["answer_s"])
    with connect() as client:
        metadata = client.metadata
    simulators = Simulators(benchmark, keep.folder / LOGS, **_only(limits))
    try:
        settings = run_settings(name, benchmark, metadata, use, schedule, simulators.first)
        ledger = Ledger.open(keep.folder, settings)
        waiting = waiting_trials(trials, ledger.outcomes)
        make_worker = partial(Worker, simulators.take, connect, use, keep)
        done = len(trials) - len(waiting)
        with tqdm(total=len(trials), initial=done, unit="episode") as bar:
            for outcome in run_trials(make_worker, waiting, workers):
                ledger.add(outcome)
                bar.update()
                bar.set_postfix_str(str(group_rates(ledger.outcomes.values())["all"]))
    finally:
        simulators.close()
    return ledger


def _only(limits: Mapping[str, float]) -> dict[str, float]:
    return {name: limits[name] for name in ("start_s", "step_s")}


def rate_lines(benchmark: Benchmark, ledger: Ledger) -> list[str]:
    """Rates by group, what makes them differ from published ones, and what broke off."""
    lines = [f"{benchmark.title}: success", "", benchmark_table(benchmark, list(ledger.outcomes.values())), ""]
    lines += [f"note: {note}" for note in ledger.settings["notes"]]
    if broken := [outcome for outcome in ledger.outcomes.values() if outcome.success is None]:
        lines.append(f"{len(broken)} without a verdict, to be run again; {broken[0].task}: {broken[0].error}")
    return lines


@app.command()
def main(
    benchmark: Annotated[str, typer.Argument(help=f"{', '.join(MODULES)}, or PACKAGE.MODULE of your own.")],
    policy: Annotated[str, typer.Argument(help="ws://HOST:PORT, or what `serve` takes: a model, random, replay:…")],
    output: Annotated[Path, typer.Option(help="Folder of the run; called again, it goes on.")],
    tasks: Annotated[list[str] | None, typer.Option(help="Tasks or groups; repeatable; default: all.")] = None,
    trials: Annotated[int | None, typer.Option(min=1, help="Of each task; default: as published.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Simulators at once.")] = 1,
    films: Annotated[Filmed, typer.Option(help="Which episodes are filmed.")] = Filmed.NONE,
    record: Annotated[bool, typer.Option(help="Keep actions and states, for replay:OUTPUT/recordings.")] = False,
    think: Annotated[bool | None, typer.Option(help="Answer before acting; default: as trained.")] = None,
    ratio: Annotated[int, typer.Option(min=1, help="n of VLM : action expert = 1 : n.")] = 1,
    rethink: Annotated[int | None, typer.Option(min=1, help="Answer again every so many runs of the VLM.")] = None,
    open_loop: Annotated[int | None, typer.Option(help="Execute so many actions of each chunk.")] = None,
    adaptive: Annotated[int | None, typer.Option(help="Adaptive ensembling of so many chunks, α 0.1.")] = None,
    temporal: Annotated[float | None, typer.Option(help="Decay of temporal ensembling.")] = None,
    real_time: Annotated[int | None, typer.Option(help="Real-time chunking: ask every so many actions.")] = None,
    delay: Annotated[int, typer.Option(min=0, help="Hold answers back by so many steps.")] = 0,
    unnorm_key: Annotated[str | None, typer.Option(help="Statistics; default: those of the robot.")] = None,
    device: Annotated[str | None, typer.Option(help="Of a model that is served meanwhile.")] = None,
    revision: Annotated[str | None, typer.Option(help="Of a model that is served meanwhile.")] = None,
    token: Annotated[str | None, typer.Option(envvar="INSTRUCTVLA_TOKEN", help="The server's.")] = None,
    start_s: Annotated[float, typer.Option(help="Longest time for a simulator's start and reset.")] = 300.0,
    step_s: Annotated[float, typer.Option(help="Longest time for a simulator's step.")] = 60.0,
    answer_s: Annotated[float, typer.Option(help="Longest time for the policy's answer.")] = 60.0,
) -> None:
    """Run a policy on a benchmark; interrupted or called again, it goes on where it stopped."""
    with errors_on_stderr():
        try:
            from instructvla.evaluation.policy_messages import PolicyError
            from instructvla.evaluation.runner import Keep, PolicyUse
            from instructvla.evaluation.simulators.simulator_process import SimulatorBrokeError
        except ImportError as error:
            raise ValueError(f"the runner needs {error.name}: pip install 'instructvla[serve]'") from error
        chosen = find_benchmark(benchmark)
        selected = chosen.trials(tasks or (), trials)
        schedule, make_schedule = chosen_schedule(open_loop, adaptive, temporal, real_time, delay)
        if films is not Filmed.NONE:
            check_film(output / "films" / "film.mp4")
        simulator_python(chosen)  # says now what is missing
        given = [*(("--device", device) if device else ()), *(("--revision", revision) if revision else ())]
        limits = {"start_s": start_s, "step_s": step_s, "answer_s": answer_s}
        try:
            with served(policy, given) as url:
                thinks = _thinks(url, token) if think is None else think
                use = PolicyUse(Cadence(thinks, ratio, rethink), unnorm_key, make_schedule, delay)
                keep = Keep(output, films.value, record)
                ledger = evaluate(benchmark, chosen, selected, url, use, schedule, keep, workers, token, limits)
        except (PolicyError, SimulatorBrokeError) as error:
            raise ValueError(f"{error}. The same command goes on from here.") from error
        typer.echo("\n".join(rate_lines(chosen, ledger)))


def _thinks(url: str, token: str | None) -> bool:
    from instructvla.evaluation.policy_client import PolicyClient

    with PolicyClient(url, token) as client:
        return bool(client.metadata.get("thinks_by_default"))


if __name__ == "__main__":
    app()
