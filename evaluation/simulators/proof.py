"""`python -m instructvla.evaluation.simulators.proof`: what the evaluation does, proven without trained weights.

A scripted expert succeeds in a task of each simulator. Its actions, replayed through policy server, runner and
simulator's process, must succeed again, and random ones must fail. A bare loop around the simulator, stepped with the
commands of the replay, must come to the same states, rewards and success flags, bit for bit.
"""

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from instructvla.command_errors import errors_on_stderr
from instructvla.evaluation.benchmarks import find_benchmark
from instructvla.evaluation.ledger import LEDGER, Ledger, Outcome
from instructvla.evaluation.recordings import Recording, load_recordings, recording_name
from instructvla.evaluation.scripted_policies import RANDOM, REPLAY
from instructvla.evaluation.served_process import served
from instructvla.evaluation.simulators.benchmark_definition import Benchmark
from instructvla.evaluation.simulators.installation import simulator_python
from instructvla.evaluation.simulators.simulator import Trial

HERE = Path(__file__).parent
PACKAGE = "instructvla.evaluation.simulators"
RUN_S = 3600.0  # longest time for a scripted expert or a bare loop
TRIES = 4  # initial placements at which a scripted expert may fail before
SUMMARY = "summary.md"
ABOUT = """\
# Proof without trained weights

Written by `make simulator-proof`. Each row is one episode. A scripted expert, which reads where things are from the
simulator, succeeds in it ("steps" until the episode's end). Its actions are replayed through the policy server, the
runner and the simulator's own process, and random actions take the same way. Then a loop around the simulator alone
(`evaluation/simulators/*_bare_loop.py`) is stepped with the commands of the replay, and all states, rewards and
success flags are compared bit by bit. A trial above 0 means that the expert failed in those before.
"""


@dataclass(frozen=True)
class Plan:
    """What is proven of a benchmark.

    Args:
        benchmark: as `find_benchmark` takes it.
        demonstration: module that records the scripted expert: `python -m MODULE TASK FOLDER --tries N`.
        bare_loop: script, called with the files TRIAL.json COMMANDS.npy OUTCOME.npz.
        tasks: that are run.
    """

    benchmark: str
    demonstration: str
    bare_loop: Path
    tasks: tuple[str, ...]


PLANS: Mapping[str, Plan] = {
    plan.benchmark: plan
    for plan in (
        Plan(
            "tabletop",
            f"{PACKAGE}.tabletop_demonstration",
            HERE / "tabletop_bare_loop.py",
            ("atomic/close-the-drawer", "atomic/pick-up-the-apple", "negation/i-am-very-thirsty-please-no-soda"),
        ),
        Plan(
            "simpler_env",
            f"{PACKAGE}.simpler_env_demonstration",
            HERE / "simpler_env_bare_loop.py",
            (
                "put_spoon/visual_matching",
                "put_carrot/visual_matching",
                "stack_blocks/visual_matching",
                "pick_coke_can/variant_aggregation/standing/base",
            ),
        ),
        Plan(
            "simpler_instruct",
            f"{PACKAGE}.simpler_env_demonstration",
            HERE / "simpler_env_bare_loop.py",
            (
                "AltPutSponeOnPlateInScene-v0",
                "AltPutOrangeOnPlateInScene-v0",
                "AltDryEgglpantInSceneEnv-v0",
                "AltDryOrangeInSceneEnv-v0",
                "FreeGraspSingleOpened7upCanInScene-v0",
            ),
        ),
        Plan(
            "libero",
            f"{PACKAGE}.libero_demonstration",
            HERE / "libero_bare_loop.py",
            (
                "pick_up_the_milk_and_place_it_in_the_basket",
                "pick_up_the_salad_dressing_and_place_it_in_the_basket",
                "pick_up_the_alphabet_soup_and_place_it_in_the_basket",
            ),
        ),
    )
}


@dataclass(frozen=True)
class Row:
    """What came of a task.

    Args:
        trial: that was run.
        steps: of the replay.
        replayed, random: whether it succeeded; None without a verdict.
        differences: of the bare loop from the replay; empty for equal episodes.
    """

    trial: Trial
    steps: int
    replayed: bool | None
    random: bool | None
    differences: tuple[str, ...]

    @property
    def proven(self) -> bool:
        return self.replayed is True and self.random is False and not self.differences


@dataclass(frozen=True)
class Proof:
    """What came of a benchmark's tasks.

    Args:
        settings: of the ledger of the replay: versions, notes.
        rows: one per task.
    """

    settings: Mapping[str, Any]
    rows: tuple[Row, ...]


def prove(plan: Plan, folder: Path, limits: Mapping[str, float]) -> Proof:
    """Demonstrates, replays, acts by chance and compares; what the folder holds is not done again.

    Args:
        folder: for recordings, ledgers and outcomes of the bare loop.
        limits: `start_s`, `step_s` and `answer_s` as `evaluate` takes them.

    Raises:
        ValueError: the simulator is not installed, the expert fails, or the bare loop breaks or takes too long.
        PolicyError: the server is gone.
        SimulatorBrokeError: the simulator doesn't start.
    """
    benchmark = find_benchmark(plan.benchmark)
    python = simulator_python(benchmark)
    environment = os.environ | dict(benchmark.installation.environment if benchmark.installation else {})
    for task in plan.tasks:
        if task not in _demonstrated(folder / "expert"):
            command = [python, "-m", plan.demonstration, task, folder / "expert", "--tries", str(TRIES)]
            _run(command, environment, f"the scripted expert in {task}")
    demonstrated = _demonstrated(folder / "expert")
    trials = [demonstrated[task] for task in plan.tasks]
    replay = _evaluated(plan, benchmark, trials, f"{REPLAY}{folder / 'expert'}", folder / "replay", limits)
    by_chance = _evaluated(plan, benchmark, trials, RANDOM, folder / "random", limits)
    rows = []
    for trial in trials:
        outcome = replay.outcomes[trial.key]
        episode = Recording.load(folder / "replay" / "recordings" / recording_name(trial))
        bare = _bare_episode(plan, episode, folder / "bare_loop", python, environment)
        different = tuple(episode.differences(bare))
        rows.append(Row(trial, outcome.steps, outcome.success, by_chance.outcomes[trial.key].success, different))
    return Proof(replay.settings, tuple(rows))


def _demonstrated(folder: Path) -> dict[str, Trial]:
    """Task → trial in which the expert succeeded."""
    if not folder.exists():
        return {}
    return {recording.trial.task: recording.trial for recording in load_recordings(folder)}


def _evaluated(
    plan: Plan, benchmark: Benchmark, trials: Sequence[Trial], policy: str, folder: Path, limits: Mapping[str, float]
) -> Ledger[Outcome]:
    """A policy's ledger of the trials, through server, runner and simulator's process."""
    from instructvla.evaluation.evaluate_command import evaluate
    from instructvla.evaluation.runner import Keep, PolicyUse, waiting_trials

    if (folder / LEDGER).exists():
        ledger = Ledger.read(folder)
        if not waiting_trials(trials, ledger.outcomes):
            return ledger
    with served(policy) as url:
        keep = Keep(folder, recordings=True)
        return evaluate(plan.benchmark, benchmark, trials, url, PolicyUse(), "released", keep, 1, None, limits)


def _bare_episode(
    plan: Plan, episode: Recording, folder: Path, python: Path, environment: Mapping[str, str]
) -> Recording:
    """The same trial, stepped with the same commands by the bare loop."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / recording_name(episode.trial)
    trial, commands = path.with_suffix(".json"), path.with_suffix(".npy")
    if not path.exists() or not np.array_equal(np.load(path)["commands"], episode.commands):
        trial.write_text(json.dumps(episode.trial.record()), encoding="utf-8")
        np.save(commands, episode.commands)
        unfinished = path.with_suffix(".partial.npz")
        _run([python, plan.bare_loop, trial, commands, unfinished], environment, f"the bare loop of {plan.benchmark}")
        unfinished.replace(path)
    with np.load(path) as bare:
        return replace(episode, **{name: bare[name] for name in ("commands", "states", "rewards", "successes")})


def _run(command: Sequence[str | Path], environment: Mapping[str, str], what: str) -> None:
    try:
        subprocess.run(command, check=True, env=environment, timeout=RUN_S)
    except subprocess.CalledProcessError as error:
        raise ValueError(f"{what} ended with {error.returncode}; what it printed stands above.") from error
    except subprocess.TimeoutExpired as error:
        raise ValueError(f"{what} took longer than {RUN_S:g} s; it was ended.") from error


def section(plan: Plan, proof: Proof) -> str:
    """A benchmark's part of the summary, Markdown."""
    settings = proof.settings
    versions = ", ".join(f"{name} {version}" for name, version in settings["simulator"].items())
    lines = [f"## {settings['title']}", "", f"`{plan.benchmark}`: {versions}.", ""]
    lines += [f"Note: {note}.\n" for note in settings["notes"]]
    lines += ["| task | trial | steps | replayed expert | random actions | bare loop |", "|---|---|---|---|---|---|"]
    words = {True: "success", False: "failure", None: "no verdict"}
    for row in proof.rows:
        same = "; ".join(f"differs in {one}" for one in row.differences) or "identical"
        told = [row.trial.task, row.trial.index, row.steps, words[row.replayed], words[row.random], same]
        lines.append(f"| {' | '.join(map(str, told))} |")
    return "\n".join(lines) + "\n"


app = typer.Typer(add_completion=False)


@app.command()
def main(
    output: Annotated[Path, typer.Option(help="Folder; called again, it goes on.")] = Path("outputs/simulator_proof"),
    benchmark: Annotated[list[str] | None, typer.Option(help=f"Repeatable: {', '.join(PLANS)}; default: all.")] = None,
    start_s: Annotated[float, typer.Option(help="Longest time for a simulator's start and reset.")] = 1200.0,
    step_s: Annotated[float, typer.Option(help="Longest time for a simulator's step.")] = 300.0,
    answer_s: Annotated[float, typer.Option(help="Longest time for the policy's answer.")] = 60.0,
) -> None:
    """Prove the evaluation in every simulator that is installed, and write OUTPUT/summary.md."""
    from instructvla.evaluation.policy_messages import PolicyError
    from instructvla.evaluation.simulators.simulator_process import SimulatorBrokeError

    with errors_on_stderr():
        if unknown := [name for name in benchmark or () if name not in PLANS]:
            raise ValueError(f"nothing is planned for {unknown[0]!r}; there are {', '.join(PLANS)}.")
        parts, proven = [ABOUT], True
        for name in benchmark or PLANS:
            try:
                simulator_python(find_benchmark(name))
            except ValueError as error:
                if benchmark:
                    raise
                parts.append(f"## {find_benchmark(name).title}\n\nNot run: {error}\n")
                continue
            try:
                proof = prove(PLANS[name], output / name, {"start_s": start_s, "step_s": step_s, "answer_s": answer_s})
            except (PolicyError, SimulatorBrokeError) as error:
                raise ValueError(f"{error}. The same command goes on from here.") from error
            parts.append(section(PLANS[name], proof))
            proven = proven and all(row.proven for row in proof.rows)
        (output / SUMMARY).write_text("\n".join(parts), encoding="utf-8")
        typer.echo("\n".join(parts))
        if not proven:
            raise ValueError("a row is not as it should be: replays must succeed, chance fail, the bare loop be equal.")


if __name__ == "__main__":
    app()
