"""Who drives the arms: an InstructVLA checkpoint, the scripted expert as the ceiling, or chance as the floor.

A policy decides for several robots at once. It keeps nothing between its calls: what it wants to remember of an episode
is in the `Decision` that it gives, and comes back with the next `Moment` of that robot.
"""

import time
from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np

from instructvla.evaluation.decision_cadence import Cadence, noise_seed
from instructvla.evaluation.policy_observations import PolicyRequest
from instructvla.evaluation.served_policy import PolicyCall, PolicyResult, ServedPolicy
from instructvla.evaluation.tabletop.expert import Expert
from instructvla.evaluation.tabletop.expert_episodes import DATASET
from instructvla.evaluation.tabletop.world import CAMERAS, Tabletop
from instructvla.evaluation.tabletop.world_state import STATE_NAMES

ACTION_DIM = 7
PICTURE_SIDES = (16, 512)  # px that the tabletop renders
RANDOM_STEPS = 4  # that the random policy decides at once


@dataclass(frozen=True)
class Moment:
    """What a policy gets of one robot when it has to decide.

    Args:
        instruction: what the robot was told.
        seed: of the trial.
        number: of decisions in this episode so far.
        pictures: camera → (S, S, 3) uint8, of the policy's cameras.
        state: (8,) float32, named by `STATE_NAMES`.
        world: the simulator; the expert alone looks into it.
        memory: of the robot's last decision; None at the first.
    """

    instruction: str
    seed: int
    number: int
    pictures: dict[str, np.ndarray]
    state: np.ndarray
    world: Tabletop
    memory: Any = None


@dataclass(frozen=True)
class Decision:
    """What one robot does next.

    Args:
        actions: (steps, 7), all of them to be executed before the next decision.
        response: what the policy says it does; None if it doesn't speak.
        memory: for the robot's next moment.
    """

    actions: np.ndarray
    response: str | None = None
    memory: Any = None


class Policy(Protocol):
    """Decides for a batch of robots; a robot's decision does not depend on who else is in the batch.

    Attributes:
        cameras: whose pictures it needs.
        image_size: px of these pictures.
        settings: all that its decisions follow from, as JSON.
    """

    cameras: tuple[str, ...]
    image_size: int

    @property
    def settings(self) -> dict[str, Any]: ...

    def act(self, moments: Sequence[Moment]) -> list[Decision]: ...


class ModelPolicy:
    """An InstructVLA model in closed loop.

    Rows of a batch are independent up to floating-point error. Each decision starts from noise of its own, which the
    trial's seed and the decision's number give.

    Args:
        model: in evaluation mode, with its processor.
        think: answer in words before acting, once at the episode's start; None: as the checkpoint was trained.
        ratio: n of the paper's VLM : action expert = 1 : n; the VLM runs at every n-th decision, the action expert at
            each, on the latest pictures and the last latent action.
        execute: actions of a chunk that are executed before the next decision; None: half of the chunk.
        rethink: think again at every so many-th run of the VLM; None: never.
        max_new_tokens: limit of a response.
        name: of the checkpoint, for reports.

    Raises:
        ValueError: for a model that can't drive this arm, or an option out of range.
    """

    def __init__(
        self,
        model: Any,
        think: bool | None = None,
        ratio: int = 1,
        execute: int | None = None,
        rethink: int | None = None,
        max_new_tokens: int = 50,
        name: str = "model",
    ):
        self._served = ServedPolicy(model, name, max_new_tokens=max_new_tokens)
        processor, horizon = model.processor, model.config.horizon
        self._camera_of = tabletop_cameras(processor.cameras)
        self.cameras = tuple(dict.fromkeys(self._camera_of.values()))
        self.image_size = picture_side(processor.image_size, processor.action_image_size)
        self._takes_state = check_sizes(processor.action_dim, processor.state_dim)
        self._unnorm_key = processor.resolve_unnorm_key(DATASET if DATASET in processor.statistics else None)
        self.cadence = Cadence(bool(model.config.thinks_by_default) if think is None else think, ratio, rethink)
        self.execute = max(1, horizon // 2) if execute is None else execute
        if not 1 <= self.execute <= horizon:
            raise ValueError(
                f"execute is {execute}, but the model's chunks have {horizon} actions; give 1 to {horizon}."
            )
        self.name = name

    @property
    def settings(self) -> dict[str, Any]:
        return {
            "policy": "model",
            **asdict(self.cadence),
            **{name: getattr(self, name) for name in ("name", "execute", "image_size")},
            "max_new_tokens": self._served.max_new_tokens,
            "weights": self._served.weights,
        }

    def act(self, moments: Sequence[Moment]) -> list[Decision]:
        """One decision per moment, in as few batches as there are ways to decide (thinking, reusing, …)."""
        calls = [self._call(moment) for moment in moments]
        rows_of: dict[Hashable, list[int]] = {}
        for row, call in enumerate(calls):
            rows_of.setdefault(self._served.key(call), []).append(row)
        results: dict[int, PolicyResult] = {}
        for rows in rows_of.values():
            results |= dict(zip(rows, self._served.act([calls[row] for row in rows]), strict=True))
        return [
            Decision(results[row].actions[: self.execute], results[row].response, results[row].context)
            for row in range(len(calls))
        ]

    def _call(self, moment: Moment) -> PolicyCall:
        mode = self.cadence.mode(moment.number)
        request = PolicyRequest(
            images={name: moment.pictures[camera] for name, camera in self._camera_of.items()},
            instruction=moment.instruction.strip().lower(),  # as commands are in training
            state=moment.state if self._takes_state else None,
            unnorm_key=self._unnorm_key,
            think=mode.think,
            reuse_latent=mode.reuse_latent,
            seed=noise_seed(moment.seed, moment.number),
        )
        return PolicyCall(request, None if mode.is_fresh else moment.memory)


class RandomPolicy:
    """The floor: actions uniform in the action space, by the trial's seed."""

    cameras: tuple[str, ...] = ()
    image_size = PICTURE_SIDES[0]
    settings = {"policy": "random"}

    def act(self, moments: Sequence[Moment]) -> list[Decision]:
        return [Decision(self._actions(moment)) for moment in moments]

    def _actions(self, moment: Moment) -> np.ndarray:
        space = moment.world.action_space
        rng = np.random.default_rng([moment.seed, moment.number])
        return rng.uniform(space.low, space.high, (RANDOM_STEPS, ACTION_DIM))


class ExpertPolicy:
    """The ceiling: the scripted expert, which knows the task and the simulator's state."""

    cameras: tuple[str, ...] = ()
    image_size = PICTURE_SIDES[0]
    settings = {"policy": "expert"}

    def act(self, moments: Sequence[Moment]) -> list[Decision]:
        return [self._decision(moment) for moment in moments]

    def _decision(self, moment: Moment) -> Decision:
        expert = moment.memory or Expert(moment.world.scene, moment.world.task)
        return Decision(expert.act(moment.world.state())[None], memory=expert)


class TimedPolicy:
    """A policy that counts how long its decisions take.

    Args:
        policy: whose decisions these are.
    """

    def __init__(self, policy: Policy):
        self.policy = policy
        self.cameras, self.image_size = policy.cameras, policy.image_size
        self.seconds, self.batches, self.decisions = 0.0, 0, 0

    @property
    def settings(self) -> dict[str, Any]:
        return self.policy.settings

    @property
    def milliseconds(self) -> float:
        """Per decision."""
        return 1000 * self.seconds / max(1, self.decisions)

    def act(self, moments: Sequence[Moment]) -> list[Decision]:
        start = time.perf_counter()
        decisions = self.policy.act(moments)
        self.seconds += time.perf_counter() - start
        self.batches, self.decisions = self.batches + 1, self.decisions + len(moments)
        return decisions


def tabletop_cameras(cameras: Sequence[str]) -> dict[str, str]:
    """A model's camera → the tabletop's; a model's only camera stands for the front one whatever its name.

    Raises:
        ValueError: for a camera that the tabletop doesn't have.
    """
    if len(cameras) == 1 and cameras[0] not in CAMERAS:
        return {cameras[0]: CAMERAS[0]}
    if unknown := [camera for camera in cameras if camera not in CAMERAS]:
        raise ValueError(f"the model looks through {', '.join(unknown)}; the tabletop has {', '.join(CAMERAS)}.")
    return {camera: camera for camera in cameras}


def picture_side(*sides: int | None) -> int:
    """px to render for a model's towers: as the larger one reads it, as far as the tabletop can."""
    low, high = PICTURE_SIDES
    return min(high, max(low, *(side or 0 for side in sides)))


def check_sizes(action_dim: int, state_dim: int | None) -> bool:
    """Whether the model takes a state.

    Raises:
        ValueError: if it has another number of actions or states than this arm.
    """
    if action_dim != ACTION_DIM:
        raise ValueError(f"the model gives {action_dim} action dimensions, but this arm takes {ACTION_DIM}.")
    if state_dim not in (None, len(STATE_NAMES)):
        raise ValueError(
            f"the model takes {state_dim} states, but this arm has {len(STATE_NAMES)} ({', '.join(STATE_NAMES)})."
        )
    return state_dim is not None
