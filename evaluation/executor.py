"""From what a robot sees to what it does next: one object for a robot in a simulation and on a table.

executor = Executor(PolicyClient("ws://127.0.0.1:8000"), find_robot("widowx"))
executor.reset("put the spoon on the towel")
while running:
    step = executor.step({"primary": frame}, proprioception)
    robot.move(step.command)
"""

from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from instructvla.evaluation.chunk_schedules import Schedule
from instructvla.evaluation.decision_cadence import Cadence, noise_seed
from instructvla.evaluation.policy_observations import BACKGROUND
from instructvla.evaluation.robots import Robot
from instructvla.evaluation.system_two import Rewriting, SystemTwo

ACT_ONLY = Cadence()


class Answering(Protocol):
    """What answers an executor: `PolicyClient`, or anything with its `act`."""

    def act(self, images: Any, instruction: str, **options: Any) -> Any: ...


@dataclass(frozen=True)
class ExecutedStep:
    """One control step.

    Args:
        command: what the robot's environment steps with.
        action: (action_dim,) float64, the policy's, physical units, after ensembling.
        response: the policy's last words in this episode; None if it did not speak.
        asked: whether the policy was asked at this step.
        rewriting: what System 2 made of the instruction, which the policy was told; None without a System 2.
    """

    command: np.ndarray
    action: np.ndarray
    response: str | None
    asked: bool
    rewriting: Rewriting | None = None


class Pending(Protocol):
    """An answer on its way."""

    def is_ready(self) -> bool:
        """Asked once per step."""
        ...

    def result(self) -> Any: ...


@dataclass
class Delayed:
    """An answer that comes a number of control steps after it was asked for, as on a slower machine."""

    answer: Any
    steps: int

    def is_ready(self) -> bool:
        self.steps -= 1
        return self.steps < 0

    def result(self) -> Any:
        return self.answer


@dataclass
class InBackground:
    """An answer that another thread waits for."""

    future: Future

    def is_ready(self) -> bool:
        return self.future.done()

    def result(self) -> Any:
        return self.future.result()


class Executor:
    """Asks the policy when the schedule needs a chunk, and turns its actions into a robot's commands.

    A step waits for an answer only where the schedule has no action left; with `RealTimeChunks` the robot goes on with
    the last chunk meanwhile.

    Args:
        policy: that is asked; it keeps the response and the latent action of this robot, as a `PolicyClient` does.
        robot: whose conventions apply.
        schedule: of chunks; default: the robot's released one.
        cadence: when the policy speaks and when its VLM runs.
        unnorm_key: whose statistics to use; may be left out when the checkpoint has one set.
        seed: of the flow's noise, with the decision's number; None draws at random.
        delay: control steps by which each answer is held back, to see in a simulation what a slower machine does.
        in_background: whether another thread waits for the answer, as on a robot that must not stop.
        thinks_in_background: whether a policy server renews the words beside the actions, which go on with the last
            words meanwhile; the episode's first words come before its first action.
        system_two: says each instruction in plain words before the policy first hears of it; the robot waits for it.

    Raises:
        ValueError: a negative delay, a delay for answers that have one of their own, or words to be renewed in the
            background by a cadence that never renews them.
    """

    def __init__(
        self,
        policy: Answering,
        robot: Robot,
        schedule: Schedule | None = None,
        cadence: Cadence = ACT_ONLY,
        unnorm_key: str | None = None,
        seed: int | None = None,
        delay: int = 0,
        in_background: bool = False,
        system_two: SystemTwo | None = None,
        thinks_in_background: bool = False,
    ):
        if delay < 0 or (delay and in_background):
            raise ValueError(f"delay is {delay}; give at least 0, and 0 for answers that are waited for in background.")
        if thinks_in_background and cadence.rethink is None:
            raise ValueError("thinks_in_background needs words that are renewed; give Cadence(think=True, rethink=N).")
        self.policy, self.robot, self.cadence = policy, robot, cadence
        self.schedule = robot.make_schedule() if schedule is None else schedule
        self.unnorm_key, self.seed = unnorm_key, seed
        self.instruction: str | None = None
        self._delay, self._system_two, self._thinks_in_background = delay, system_two, thinks_in_background
        self._thread = ThreadPoolExecutor(1) if in_background else None
        self._pending: Pending | None = None

    def reset(self, instruction: str, seed: int | None = None) -> None:
        """Start an episode, or another instruction within one: everything of the last one is forgotten.

        Args:
            instruction: what the robot is told.
            seed: of this episode's noise; None keeps the executor's.

        Raises:
            ValueError: an empty instruction.
        """
        if not instruction.strip():
            raise ValueError("the instruction is empty; say what the robot shall do.")
        self.instruction = instruction
        self.seed = self.seed if seed is None else seed
        self._forget_pending()
        self.schedule.reset()
        self._command = self.robot.make_command()
        self._decisions, self._response = 0, None
        self._rewriting: Rewriting | None = None

    def step(
        self, images: Mapping[str, np.ndarray] | np.ndarray, proprioception: np.ndarray | None = None
    ) -> ExecutedStep:
        """One control step.

        Args:
            images: (height, width, 3) uint8 per camera, whole frames.
            proprioception: as the robot's environment gives it; None for a policy without state, which is shown what
                the robot's `stateless_view` leaves of the frames.

        Raises:
            ValueError: before `reset`, or for proprioception that is not this robot's.
            PolicyError: the policy's refusal, or a missed deadline.
            SystemTwoError: System 2 has no plain instruction.
        """
        if self.instruction is None:
            raise ValueError("call reset(instruction) before the first step.")
        if asked := self._pending is None and self.schedule.needs_chunk():
            self._pending = self._ask(images, proprioception)
        if self._pending is not None and (self._pending.is_ready() or not self.schedule.has_action()):
            self._take(self._pending.result())
        action = self.schedule.action()
        return ExecutedStep(self._command(action), action, self._response, asked, self._rewriting)

    def close(self) -> None:
        """Ends the background thread, if there is one."""
        if self._thread is not None:
            self._thread.shutdown()

    def _ask(self, images: Mapping[str, np.ndarray] | np.ndarray, proprioception: np.ndarray | None) -> Pending:
        mode, number = self.cadence.mode(self._decisions), self._decisions
        if self._system_two is not None and number == 0:
            self._rewriting = self._system_two.rewriting(images, self.instruction)
        told = self.instruction if self._rewriting is None else self._rewriting.atomic
        state = proprioception
        if proprioception is not None and self.robot.state is not None:
            state = self.robot.state(proprioception)
        if proprioception is None and self.robot.stateless_view is not None:
            images = seen_through(self.robot.stateless_view, images)
        options = {
            "state": state,
            "unnorm_key": self.unnorm_key,
            "think": BACKGROUND if mode.think and number and self._thinks_in_background else mode.think,
            "reuse_latent": mode.reuse_latent,
            "reset": number == 0,
            "seed": None if self.seed is None else noise_seed(self.seed, number),
            **self.schedule.ask(),
        }
        self._decisions += 1
        if self._thread is not None:
            return InBackground(self._thread.submit(self.policy.act, images, told, **options))
        return Delayed(self.policy.act(images, told, **options), self._delay)

    def _take(self, answer: Any) -> None:
        self._pending = None
        self._response = answer.response if answer.response is not None else self._response
        self.schedule.add(answer.actions)

    def _forget_pending(self) -> None:
        """Waits for what is under way: the policy must not be asked twice at once."""
        if isinstance(self._pending, InBackground):
            wait([self._pending.future])
        self._pending = None


def seen_through(
    view: Callable[[np.ndarray], np.ndarray], images: Mapping[str, np.ndarray] | np.ndarray
) -> dict[str, np.ndarray] | np.ndarray:
    """Each camera's frame through the view."""
    if isinstance(images, np.ndarray):
        return view(images)
    return {camera: view(frame) for camera, frame in images.items()}
