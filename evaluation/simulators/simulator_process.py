"""A simulator in a process of its own, as the runner holds it: started, watched, ended."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import numpy as np

from instructvla.evaluation.simulators.simulator import Observation, Trial
from instructvla.evaluation.simulators.wire import WireClosedError, receive, send

HOST = "instructvla.evaluation.simulators.host"
START_S, STEP_S, ENDING_S = 300.0, 60.0, 5.0
LAST_WORDS = 200  # characters of the log


class SimulatorBrokeError(RuntimeError):
    """A simulator died, hung or failed; a new process may do better."""


class SimulatorProcess:
    """A simulator behind a pipe, with a longest time for each answer.

    Args:
        adapter: module with `make_simulator`, imported in the process.
        python: interpreter of the simulator's virtual environment; default: this one.
        environment: variables beside those of this process.
        log: file that what the simulator prints is appended to.
        start_s: longest time for the start, and for each reset.
        step_s: longest time for a step.

    Attributes:
        versions, notes: as the adapter gives them.

    Raises:
        ValueError: no such interpreter, or the adapter refuses to start, e.g. for lack of a GL library.
        SimulatorBrokeError: it died or was not ready in time.
    """

    def __init__(
        self,
        adapter: str,
        python: str | Path | None = None,
        environment: Mapping[str, str] | None = None,
        log: Path | None = None,
        start_s: float = START_S,
        step_s: float = STEP_S,
    ):
        self.start_s, self.step_s, self._log = start_s, step_s, log
        errors = subprocess.DEVNULL if log is None else log.open("ab")
        try:
            self._process = subprocess.Popen(
                [str(python or sys.executable), "-m", HOST, adapter],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                bufsize=0,
                env={**os.environ, **(environment or {})},
                process_group=0,
            )
        except OSError as error:
            raise ValueError(f"the simulator's interpreter {python} can't be started ({error.strerror}).") from error
        finally:
            if log is not None:
                errors.close()
        try:
            hello = self._answer(start_s, "start")
        except BaseException:
            self.kill()
            raise
        self.versions: dict[str, str] = hello["versions"]
        self.notes: tuple[str, ...] = tuple(hello["notes"])

    def reset(self, trial: Trial) -> Observation:
        """Start an episode.

        Raises:
            ValueError: the simulator doesn't have this task or option.
            SimulatorBrokeError: it died, failed, or gave no answer in time; the process is ended.
        """
        return self._ask({"reset": trial.record()}, self.start_s, f"reset of {trial.task}")

    def step(self, command: np.ndarray) -> Observation:
        """One control step; raises as `reset`."""
        return self._ask({"step": np.asarray(command, np.float64)}, self.step_s, "step")

    def close(self) -> None:
        """End it, at first by closing the wire."""
        if self._process.poll() is None:
            self._process.stdin.close()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(ENDING_S)
        self.kill()

    def abort(self) -> None:
        """From another thread: end it at once, so that the thread that waits for it is told."""
        with suppress(ProcessLookupError):  # it may have ended by itself
            os.killpg(self._process.pid, signal.SIGKILL)

    def kill(self) -> None:
        """End it and what it has started, at once."""
        if self._process.stdout.closed:
            return
        self.abort()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            pipe.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ask(self, request: dict[str, Any], within_s: float, what: str) -> Observation:
        try:
            send(self._process.stdin, request)
            return Observation(**self._answer(within_s, what)["observation"])
        except WireClosedError as error:
            raise self._broken(f"died before its {what}") from error
        except SimulatorBrokeError:
            self.kill()
            raise

    def _answer(self, within_s: float, what: str) -> dict[str, Any]:
        try:
            answer = receive(self._process.stdout, within_s)
        except TimeoutError as error:
            raise SimulatorBrokeError(f"the simulator gave no answer to its {what} within {within_s:g} s") from error
        except WireClosedError as error:
            raise self._broken(f"died at its {what}") from error
        if "refused" in answer:
            raise ValueError(answer["refused"])
        if "broken" in answer:
            raise SimulatorBrokeError(f"the simulator failed at its {what}: {answer['broken']}")
        return answer

    def _broken(self, how: str) -> SimulatorBrokeError:
        self.kill()
        code = self._process.returncode
        return SimulatorBrokeError(f"the simulator {how} (exit {code}){self._last_words()}")

    def _last_words(self) -> str:
        if self._log is None:
            return ""
        said = self._log.read_text(encoding="utf-8", errors="replace").split()
        return f"; {self._log} ends: {' '.join(said)[-LAST_WORDS:]}" if said else ""
