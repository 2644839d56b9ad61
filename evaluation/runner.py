"""Episodes of a benchmark on several simulators at once: watched, restarted, written down one by one.

Each worker is a thread with a simulator's process and a connection to the policy server. A simulator that dies or hangs
is started again and its trial repeated; a server that is gone ends the run, which goes on later where it stopped.
"""

import queue
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from instructvla.evaluation.chunk_schedules import OpenLoop, Schedule
from instructvla.evaluation.decision_cadence import Cadence
from instructvla.evaluation.episode import Watch, run_episode
from instructvla.evaluation.episode_films import EpisodeFilm
from instructvla.evaluation.executor import Executor
from instructvla.evaluation.ledger import Outcome
from instructvla.evaluation.policy_client import PolicyClient
from instructvla.evaluation.policy_needs import PolicyNeeds
from instructvla.evaluation.recordings import Recording, recording_name
from instructvla.evaluation.robots import Robot, find_robot
from instructvla.evaluation.simulators.simulator import Trial
from instructvla.evaluation.simulators.simulator_process import SimulatorBrokeError, SimulatorProcess
from instructvla.evaluation.system_two import SystemTwo, SystemTwoError

ATTEMPTS = 3  # at a trial whose simulator breaks
ENDING_S = 10.0
FILMS, RECORDINGS = "films", "recordings"

Filmed = Literal["none", "failed", "all"]


@dataclass(frozen=True)
class PolicyUse:
    """How the policy is used.

    Args:
        cadence: when it speaks and when its VLM runs.
        unnorm_key: whose statistics; None: those of the trial's robot.
        make_schedule: gives, for one episode, the way from chunks to actions; None: the robot's released one.
        delay: control steps by which answers are held back, to see what a slower machine does.
        system_two: says instructions in plain words before the policy hears of them, or None.
    """

    cadence: Cadence = Cadence()
    unnorm_key: str | None = None
    make_schedule: Callable[[], Schedule] | None = None
    delay: int = 0
    system_two: SystemTwo | None = None


@dataclass(frozen=True)
class Keep:
    """What is kept of episodes beside their outcomes.

    Args:
        folder: for "films" and "recordings".
        films: of which episodes.
        recordings: whether what was done and what came of it is kept.
    """

    folder: Path
    films: Filmed = "none"
    recordings: bool = False


class Worker:
    """A simulator's process and a connection to the policy.

    Args:
        start_simulator: starts the process.
        connect: opens the connection.
        use: of the policy.
        keep: what is kept of episodes; None: nothing.
    """

    def __init__(
        self,
        start_simulator: Callable[[], SimulatorProcess],
        connect: Callable[[], PolicyClient],
        use: PolicyUse,
        keep: Keep | None = None,
    ):
        self._start_simulator, self._use, self._keep = start_simulator, use, keep
        self._client = connect()
        self._needs = PolicyNeeds.of_metadata(self._client.metadata)
        self._simulator: SimulatorProcess | None = None
        self._aborted = False

    def run(self, trial: Trial) -> Outcome:
        """The outcome of a trial.

        It has no verdict if the simulator broke at every attempt, System 2 failed, or `abort` was called.

        Raises:
            ValueError: the simulator or the policy refuses what it is given.
            PolicyError: the server is gone, or gave no answer in time.
        """
        broke = "the run was stopped"
        for _ in range(ATTEMPTS):
            if self._aborted:
                break
            try:
                return self._attempt(trial)
            except SystemTwoError as error:
                broke = str(error)
                break
            except SimulatorBrokeError as error:
                self._end_simulator()
                broke = str(error)
        instruction = trial.instruction or ""
        return Outcome(trial.task, trial.index, trial.seed, instruction, None, 0, error=broke, groups=trial.groups)

    def abort(self) -> None:
        """End the trial under way, from another thread."""
        self._aborted = True
        self._client.close()
        if self._simulator is not None:
            self._simulator.abort()

    def close(self) -> None:
        self._client.close()
        self._end_simulator()

    def _attempt(self, trial: Trial) -> Outcome:
        if self._simulator is None:
            self._simulator = self._start_simulator()
        robot = find_robot(trial.robot)
        use = self._use
        key = self._needs.statistics_for(robot, use.unnorm_key or trial.unnorm_key)
        schedule = self._make_schedule(robot)
        executor = Executor(self._client, robot, schedule, use.cadence, key, delay=use.delay, system_two=use.system_two)
        with ExitStack() as stack:
            film = self._film(trial)
            watches: list[Watch] = [] if film is None else [stack.enter_context(film)]
            outcome, recording = run_episode(self._simulator, executor, trial, self._needs, watches)
        return self._kept(outcome, recording, film)

    def _make_schedule(self, robot: Robot) -> Schedule:
        if self._use.make_schedule is not None:
            return self._use.make_schedule()
        single_actions = self._client.metadata.get("horizon") == 1  # which leave nothing to ensemble
        return OpenLoop(1) if single_actions else robot.make_schedule()

    def _film(self, trial: Trial) -> EpisodeFilm | None:
        if self._keep is None or self._keep.films == "none":
            return None
        return EpisodeFilm(self._keep.folder / FILMS / Path(recording_name(trial)).with_suffix(".mp4"))

    def _kept(self, outcome: Outcome, recording: Recording, film: EpisodeFilm | None) -> Outcome:
        if self._keep is None:
            return outcome
        if self._keep.recordings:
            recording.save(self._keep.folder / RECORDINGS)
        if film is None:
            return outcome
        if self._keep.films == "failed" and outcome.success:
            film.path.unlink()
            return outcome
        return replace(outcome, film=str(film.path.relative_to(self._keep.folder)))

    def _end_simulator(self) -> None:
        if self._simulator is not None:
            self._simulator.close()
            self._simulator = None


def run_trials(make_worker: Callable[[], Worker], trials: Sequence[Trial], workers: int = 1) -> Iterator[Outcome]:
    """Outcomes as they come.

    Args:
        make_worker: called once in each worker's thread.
        trials: begun in this order.
        workers: simulators at once.

    Raises:
        ValueError: fewer than 1 worker, or as `Worker.run`; all workers are ended first.
        PolicyError: likewise.
    """
    if workers < 1:
        raise ValueError(f"workers must be at least 1, got {workers}.")
    run = _Run(make_worker, trials)
    threads = [threading.Thread(target=run.work, daemon=True) for _ in range(min(workers, len(trials)))]
    for thread in threads:
        thread.start()
    try:
        for _ in trials:
            result = run.results.get()
            if isinstance(result, BaseException):
                raise result
            yield result
    finally:
        run.stop()
        for thread in threads:
            thread.join(ENDING_S)  # one that starts a simulator is left to end with this process


class _Run:
    """What the threads of a run share."""

    def __init__(self, make_worker: Callable[[], Worker], trials: Sequence[Trial]):
        self._make_worker = make_worker
        self._waiting: queue.SimpleQueue[Trial] = queue.SimpleQueue()
        for trial in trials:
            self._waiting.put(trial)
        self._workers: list[Worker] = []
        self._stopped = False
        self.results: queue.SimpleQueue[Outcome | BaseException] = queue.SimpleQueue()

    def work(self) -> None:
        """A worker's thread: trials until there are none, or the run is stopped."""
        try:
            worker = self._make_worker()
            self._workers.append(worker)
            try:
                while not self._stopped:
                    self.results.put(worker.run(self._waiting.get_nowait()))
            except queue.Empty:
                pass  # all trials are taken
            finally:
                worker.close()
        except BaseException as error:  # raised again in the thread that collects the results
            self.results.put(error)

    def stop(self) -> None:
        self._stopped = True
        for worker in self._workers:
            worker.abort()


def waiting_trials(trials: Sequence[Trial], outcomes: Mapping[tuple[str, int], Outcome]) -> list[Trial]:
    """Those without a verdict yet: not run, or broken off by their simulator."""
    return [trial for trial in trials if trial.key not in outcomes or outcomes[trial.key].success is None]
