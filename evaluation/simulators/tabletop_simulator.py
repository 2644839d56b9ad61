"""The embedded tabletop behind the runner's wire."""

from importlib.metadata import version

import numpy as np

from instructvla.evaluation.simulators.simulator import Observation, Trial
from instructvla.evaluation.tabletop.instruct import instruct_task, trial
from instructvla.evaluation.tabletop.world import CAMERAS, Tabletop

IMAGE_SIZE = 224  # px


class TabletopSimulator:
    """One tabletop; the trial's task and index say which scene.

    Attributes:
        world: the environment.
    """

    notes = ()

    def __init__(self):
        self.versions = {"mujoco": version("mujoco"), "instructvla": version("instructvla")}
        self.world = Tabletop(IMAGE_SIZE, CAMERAS)

    def reset(self, given: Trial) -> Observation:
        episode = trial(instruct_task(given.task), given.index)
        seen, info = self.world.reset(seed=episode.seed, options=episode.options())
        self._instruction = episode.instruction
        return self._observation(seen, 0.0, False, False)

    def step(self, command: np.ndarray) -> Observation:
        seen, reward, success, truncated, _ = self.world.step(command)
        return self._observation(seen, reward, success, truncated)

    def close(self) -> None:
        self.world.close()

    def _observation(self, seen: dict, reward: float, success: bool, truncated: bool) -> Observation:
        data = self.world.simulation.data
        return Observation(
            images={camera: seen[camera] for camera in CAMERAS},
            instruction=self._instruction,
            proprioception=seen["state"].astype(np.float64),
            state=np.concatenate([[data.time], data.qpos, data.qvel, data.act]),
            reward=reward,
            success=success,
            done=success or truncated,
        )


def make_simulator() -> TabletopSimulator:
    return TabletopSimulator()
