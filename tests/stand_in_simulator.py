"""A simulator of one point that is to be brought to a place, and that can misbehave in every way a real one does."""

import os
import sys
import time

import numpy as np

from instructvla.evaluation.simulators.simulator import Observation, Trial

TOLERANCE = 0.02  # m
FAULTS = ("hang", "die", "fail", "chatter", "slow")


class PointSimulator:
    """Options: `target` (3,), and `fault`, one of FAULTS, which happens at step 2; with `once`, a file, only once."""

    versions = {"point": "1.0"}
    notes = ("a point stands in for the robot",)

    def reset(self, trial: Trial) -> Observation:
        if trial.task == "unknown":
            raise ValueError("there is no task 'unknown'; there is reach.")
        self.trial, self.steps = trial, 0
        rng = np.random.default_rng(trial.seed)
        self.place = rng.uniform(-0.1, 0.1, 3)
        self.target = np.array(trial.options.get("target", (0.2, 0.0, 0.1)))
        if trial.options.get("at_target"):
            self.place = self.target.copy()
        return self._observation()

    def step(self, command: np.ndarray) -> Observation:
        self.steps += 1
        if self.steps == 2:
            self._misbehave(self.trial.options.get("fault"))
        self.place = self.place + command[:3]
        return self._observation()

    def close(self) -> None:
        pass

    def _observation(self) -> Observation:
        success = bool(np.abs(self.place - self.target).max() < TOLERANCE)
        picture = np.full((24, 32, 3), self.steps, np.uint8)
        words = "reach it" if self.steps < self.trial.options.get("changes_at", 1000) else "go on"
        return Observation({"primary": picture}, words, self.place.copy(), self.place.copy(), float(success), success)

    def _misbehave(self, fault: str | None) -> None:
        once = self.trial.options.get("once")
        if fault is None or (once and os.path.exists(once)):
            return
        if once:
            open(once, "w").close()
        if fault == "hang":
            time.sleep(60)
        if fault == "slow":
            time.sleep(0.3)
        if fault == "die":
            os._exit(3)
        if fault == "fail":
            raise RuntimeError("the solver diverged")
        if fault == "chatter":
            sys.stdout.write("chatter on standard output\x00\n")
            sys.stdout.flush()


def make_simulator() -> PointSimulator:
    return PointSimulator()
