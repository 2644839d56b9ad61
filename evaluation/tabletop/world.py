"""The tabletop as a Gymnasium environment, "instructvla/Tabletop-v0"."""

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np

from instructvla.evaluation.tabletop.arm import WRIST_CAMERA
from instructvla.evaluation.tabletop.sampling import SPLITS, check_split, sample_scene
from instructvla.evaluation.tabletop.scene import Scene, Skill, Task
from instructvla.evaluation.tabletop.scene_xml import FRONT_CAMERA, LARGEST_PICTURE
from instructvla.evaluation.tabletop.simulation import CONTROL_PERIOD, LARGEST_MOVE, LARGEST_TURN, Simulation
from instructvla.evaluation.tabletop.success import check_task, succeeded
from instructvla.evaluation.tabletop.world_state import STATE_NAMES, WorldState

CAMERAS = (FRONT_CAMERA, WRIST_CAMERA)
MAX_STEPS = 80
START = (0.41, 0.0, 0.26)  # m
START_SPREAD = 0.04  # m, to each side along each axis
START_TURN = 0.1  # rad, likewise
OPTIONS = ("split", "skill", "scene", "task")


class Tabletop(gymnasium.Env):
    """A 7-joint arm over a table of things with a meaning; 7-D end-effector deltas at 5 Hz.

    Observations: a picture (S, S, 3) uint8 under each camera's name, and "state", (8,) float32, named by `STATE_NAMES`.
    Actions (7,): dx, dy, dz in m (to ±0.05 per step) and a rotation vector in rad (to ±0.25), in the base's frame;
    gripper, above 0.5 open. Larger ones are clipped. The step that completes the task has reward 1 and ends it.

    Args:
        image_size: S in px, 16 to 512.
        cameras: of "front" and "wrist"; () draws nothing.
        render_mode: None or "rgb_array".
        film_size: px of `render`'s pictures, which have shadows and smooth edges; to 512.
        max_steps: steps after which an episode is truncated.

    Raises:
        ValueError: for a camera that isn't there, or a size out of range.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": round(1 / CONTROL_PERIOD)}

    def __init__(
        self,
        image_size: int = 128,
        cameras: Sequence[str] = CAMERAS,
        render_mode: str | None = None,
        film_size: int = 384,
        max_steps: int = MAX_STEPS,
    ):
        check_sizes(image_size=image_size, film_size=film_size)
        if unknown := sorted(set(cameras) - set(CAMERAS)):
            raise ValueError(f"there is no camera {', '.join(unknown)}; there are {', '.join(CAMERAS)}.")
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ValueError(f"render_mode must be None or 'rgb_array', got {render_mode!r}.")
        if max_steps < 1:
            raise ValueError(f"max_steps must be 1 or more, got {max_steps}.")
        self.image_size, self.cameras, self.render_mode = image_size, tuple(cameras), render_mode
        self.film_size, self.max_steps = film_size, max_steps
        self.simulation: Simulation | None = None
        picture = gymnasium.spaces.Box(0, 255, (image_size, image_size, 3), np.uint8)
        state = gymnasium.spaces.Box(-np.inf, np.inf, (len(STATE_NAMES),), np.float32)
        self.observation_space = gymnasium.spaces.Dict({**dict.fromkeys(self.cameras, picture), "state": state})
        bounds = np.array([LARGEST_MOVE] * 3 + [LARGEST_TURN] * 3 + [1.0], np.float32)
        lowest = np.concatenate([-bounds[:6], [0.0]]).astype(np.float32)
        self.action_space = gymnasium.spaces.Box(lowest, bounds, dtype=np.float32)

    def reset(self, *, seed: int | None = None, options: Mapping[str, Any] | None = None) -> tuple[dict, dict]:
        """Starts an episode; the same seed and options give the same one, in every process.

        Args:
            seed: of the scene and of the arm's start; None goes on from the last seed.
            options: "split" ("train" or "test") and "skill", or a "scene" and a "task" of one's own.

        Raises:
            ValueError: for an unknown option, or a task that names what isn't in the scene.
        """
        super().reset(seed=seed)
        options = dict(options or {})
        check_options(options)
        for_start, *for_scenes = self.np_random.spawn(1 + len(SPLITS))
        if "scene" in options:
            self.scene, self.task = options["scene"], options["task"]
        else:
            split = options.get("split", "train")
            check_split(split)
            # A generator for each split, so that a test scene isn't a train scene in other colours.
            for_scene = for_scenes[SPLITS.index(split)]
            self.scene, self.task = sample_scene(for_scene, split, options.get("skill"))
        check_task(self.task, self.scene)
        self._forget()
        self.simulation = Simulation(self.scene, random_start(for_start))
        self._steps, self._start = 0, self.simulation.state()
        return self._observation(self._start), self._info(success=False)

    def step(self, action: np.ndarray) -> tuple[dict, float, bool, bool, dict]:
        """One control period of 0.2 s.

        Raises:
            ValueError: for an action of another shape or with a value that is not finite, or before `reset`.
        """
        if self.simulation is None:
            raise ValueError("there is no episode; call reset first.")
        action = np.asarray(action, float)
        if action.shape != (7,) or not np.isfinite(action).all():
            raise ValueError(f"an action is 7 finite numbers (3 moves, 3 turns, gripper), got {action.tolist()}.")
        self.simulation.step(action)
        self._steps += 1
        state = self.simulation.state()
        success = succeeded(self.task, self._start, state)
        truncated = self._steps >= self.max_steps and not success
        return self._observation(state), float(success), success, truncated, self._info(success)

    def state(self) -> WorldState:
        """What is true now."""
        return self.simulation.state()

    def render(self) -> np.ndarray | None:
        """The front camera's view for a film: (film_size, film_size, 3) uint8; None without a render mode."""
        if self.render_mode is None:
            return None
        return self.film_frame(FRONT_CAMERA)

    def film_frame(self, camera: str = FRONT_CAMERA, size: int | None = None) -> np.ndarray:
        """A picture with shadows and smooth edges: (size, size, 3) uint8."""
        return self.simulation.film_frame(camera, size or self.film_size)

    def picture_positions(self, camera: str = FRONT_CAMERA) -> dict[str, tuple[float, float]]:
        """Title → u (right) and v (down) of its middle in a camera's picture, 0 to 1."""
        return self.simulation.picture_positions(camera)

    def close(self) -> None:
        self._forget()

    def _forget(self) -> None:
        if self.simulation is not None:
            self.simulation.close()
            self.simulation = None

    def _observation(self, state: WorldState) -> dict[str, np.ndarray]:
        pictures = {camera: self.simulation.picture(camera, self.image_size) for camera in self.cameras}
        return {**pictures, "state": np.array([*state.tcp, state.gripper, state.grip_force], np.float32)}

    def _info(self, success: bool) -> dict[str, Any]:
        return {"instruction": self.task.instruction(), "task": self.task, "scene": self.scene, "success": success}


def random_start(rng: np.random.Generator) -> tuple[float, float, float, float]:
    """x, y, z in m and yaw in rad of the gripper at the start."""
    place = np.add(START, rng.uniform(-START_SPREAD, START_SPREAD, 3))
    return (*map(float, place), float(rng.uniform(-START_TURN, START_TURN)))


def check_sizes(**sizes: int) -> None:
    for name, size in sizes.items():
        if not isinstance(size, int) or not 16 <= size <= LARGEST_PICTURE // 2:
            raise ValueError(f"{name} must be 16 to {LARGEST_PICTURE // 2} px, got {size!r}.")


def check_options(options: Mapping[str, Any]) -> None:
    if unknown := sorted(set(options) - set(OPTIONS)):
        raise ValueError(f"there is no option {', '.join(unknown)}; there are {', '.join(OPTIONS)}.")
    if ("scene" in options) != ("task" in options):
        raise ValueError("a scene of one's own needs a task, and a task its scene; give both.")
    if "scene" in options and {"split", "skill"} & set(options):
        raise ValueError("give either a scene and its task, or what to sample them by (split, skill).")
    for name, kind in (("scene", Scene), ("task", Task)):
        if name in options and not isinstance(options[name], kind):
            raise ValueError(f"{name} must be a {kind.__name__}, got {options[name]!r}.")
    if options.get("skill") is not None and options["skill"] not in list(Skill):
        raise ValueError(f"there is no skill {options['skill']!r}; there are {', '.join(Skill)}.")
