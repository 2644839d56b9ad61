"""`instructvla evaluate BENCHMARK`: a policy's success rates in a simulator, episode by episode into a ledger."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
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
from instructvla.evaluation.ledger import LOGS, Ledger, Outcome
from instructvla.evaluation.policy_needs import PolicyNeeds
from instructvla.evaluation.real_time_schedule import RealTimeChunks
from instructvla.evaluation.robots import ALPHA, find_robot
from instructvla.evaluation.served_process import served
from instructvla.evaluation.simulators.benchmark_definition import Benchmark
from instructvla.evaluation.simulators.installation import simulator_python
from instructvla.evaluation.simulators.simulator import Trial
from instructvla.evaluation.system_two import DEADLINE_S, SystemTwo, with_system_two

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
    cadence, helper = use.cadence, use.system_two
    return {
        "benchmark": name,
        "title": benchmark.title,
        "policy": "model" if metadata.get("weights") else metadata["model"],
        "name": with_system_two(metadata["model"], None if helper is None else helper.model),
        "revision": metadata.get("revision"),
        "weights": metadata.get("weights"),
        "think": cadence.think,
        "ratio": cadence.ratio,
        "rethink": cadence.rethink,
        "schedule": schedule,
        "delay": use.delay,
        "unnorm_key": use.unnorm_key,
        "system_two": None if helper is None else helper.settings(),
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
        ValueError: several are given, one is out of range, or a delay for a schedule that waits for each answer.
    """
    if delay and real_time is None:
        raise ValueError(f"--delay {delay} needs --real-time K; the other schedules wait for each answer.")
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
    needs = PolicyNeeds.of_metadata(metadata)
    for robot, key in {(trial.robot, trial.unnorm_key) for trial in trials}:  # before a simulator starts
        needs.statistics_for(find_robot(robot), use.unnorm_key or key)
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


@contextmanager
def system_two_at(
    url: str | None, model: str | None, key_variable: str | None, deadline_s: float
) -> Iterator[SystemTwo | None]:
    """The System 2 behind an endpoint, or None where none is asked for.

    Raises:
        ValueError: a URL without a model or the other way round, or an endpoint that can't be.
    """
    if (url is None) != (model is None):
        raise ValueError("--system-two-endpoint and --system-two-model go together; give both, or none of them.")
    if url is None or model is None:
        yield None
        return
    from instructvla.training.annotation.chat_endpoint import KEY_VARIABLE, ChatEndpoint

    try:
        endpoint = ChatEndpoint(url, model, key_variable=key_variable or KEY_VARIABLE)
    except ModuleNotFoundError as error:
        raise ValueError(f"System 2: {error}") from error
    with SystemTwo(endpoint, model, deadline_s) as system_two:
        yield system_two


def _only(limits: Mapping[str, float]) -> dict[str, float]:
    return {name: limits[name] for name in ("start_s", "step_s")}


def rate_lines(benchmark: Benchmark, ledger: Ledger) -> list[str]:
    """Rates by group, what makes them differ from published ones, and what broke off."""
    lines = [f"{benchmark.title}: success", "", benchmark_table(benchmark, list(ledger.outcomes.values())), ""]
    lines += [f"note: {note}" for note in ledger.settings["notes"]]
    lines += cost_lines(list(ledger.outcomes.values()))
    if broken := [outcome for outcome in ledger.outcomes.values() if outcome.success is None]:
        lines.append(f"{len(broken)} without a verdict, to be run again; {broken[0].task}: {broken[0].error}")
    return lines


def cost_lines(outcomes: Sequence[Outcome]) -> list[str]:
    """What System 2 took, where there was one."""
    rewritings = [rewriting for outcome in outcomes for rewriting in outcome.rewritings]
    if not rewritings:
        return []
    tokens_in, tokens_out = (
        sum(getattr(one, name) for one in rewritings) for name in ("prompt_tokens", "completion_tokens")
    )
    seconds = sum(rewriting.seconds for rewriting in rewritings) / len(rewritings)
    return [
        f"System 2 ({rewritings[0].model}): {len(rewritings):,} instructions rewritten, {tokens_in:,} tokens in, "
        f"{tokens_out:,} out, {seconds:.1f} s each"
    ]


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
    system_two_endpoint: Annotated[
        str | None, typer.Option(help="OpenAI-compatible URL of a VLM that says instructions in plain words first.")
    ] = None,
    system_two_model: Annotated[str | None, typer.Option(help="Its name there.")] = None,
    system_two_key_variable: Annotated[str | None, typer.Option(help="Environment variable with its key.")] = None,
    system_two_s: Annotated[float, typer.Option(min=0.1, help="Longest time for its answer.")] = DEADLINE_S,
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
            helper = system_two_at(system_two_endpoint, system_two_model, system_two_key_variable, system_two_s)
            with helper as system_two, served(policy, given) as url:
                thinks = _thinks(url, token) if think is None else think
                use = PolicyUse(Cadence(thinks, ratio, rethink), unnorm_key, make_schedule, delay, system_two)
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
