"""Closed-loop episodes: several simulators in one process share batches of the policy, and processes share the trials.

All robots of a process decide together, then each executes its actions. What a trial gives does not depend on how many
robots run beside it, but for the floating-point error of the policy's batches (see `policies`).
"""

import multiprocessing
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from typing import Any

import gymnasium
import numpy as np
import torch

from instructvla.evaluation.ledger import Outcome
from instructvla.evaluation.tabletop import ENVIRONMENT
from instructvla.evaluation.tabletop.failures import EpisodeHistory
from instructvla.evaluation.tabletop.instruct import Trial
from instructvla.evaluation.tabletop.policies import Decision, Moment, Policy
from instructvla.evaluation.tabletop.rendering import gl_context
from instructvla.evaluation.tabletop.world import MAX_STEPS

ENVIRONMENTS = 8
ROUNDS_PER_BLOCK = 4  # trials per robot that a process takes at once


@dataclass(frozen=True)
class Assignment:
    """A trial to run.

    Args:
        name: of its task.
        index: of the trial among the task's.
        trial: scene, task, instruction and seed.
        judged: whether the trial's task says what success is; otherwise the episode runs to its last step.
        groups: what its success counts towards beside its task.
    """

    name: str
    index: int
    trial: Trial
    judged: bool = True
    groups: tuple[str, ...] = ()


@dataclass
class Robot:
    """An episode under way.

    Args:
        assignment: what is run.
        world: its simulator, just reset or later.
        max_steps: after which the episode ends.
        watch: called with this object at the start and after each step, as by the makers of films.
    """

    assignment: Assignment
    env: gymnasium.Env
    max_steps: int
    watch: Callable[["Robot"], None] | None = None
    steps: int = 0
    success: bool = False
    error: str | None = None
    responses: list[str] = field(default_factory=list)
    _decisions: int = 0
    _memory: Any = None

    def __post_init__(self):
        trial = self.assignment.trial
        observation, _ = self.env.reset(seed=trial.seed, options=trial.options())
        self._state = observation["state"]
        self._history = EpisodeHistory(trial.task, self.world.state())
        self._look()

    @property
    def world(self):
        return self.env.unwrapped

    @property
    def done(self) -> bool:
        return self.error is not None or self.success or self.steps >= self.max_steps

    def moment(self, cameras: Sequence[str], image_size: int) -> Moment:
        """What the policy sees now."""
        trial = self.assignment.trial
        pictures = {camera: self.world.simulation.picture(camera, image_size) for camera in cameras}
        return Moment(trial.instruction, trial.seed, self._decisions, pictures, self._state, self.world, self._memory)

    def follow(self, decision: Decision) -> None:
        """Executes a decision, until the episode is over."""
        self._decisions, self._memory = self._decisions + 1, decision.memory
        if decision.response is not None and decision.response not in self.responses[-1:]:
            self.responses.append(decision.response)
        for action in decision.actions:
            self._step(action)
            if self.done:
                return

    def _step(self, action: np.ndarray) -> None:
        try:
            observation, _, success, _, _ = self.env.step(action)
        except ValueError as error:
            self.error = str(error)
            return
        self._state, self.steps = observation["state"], self.steps + 1
        self.success = success and self.assignment.judged
        self._history.see(self.world.state())
        self._look()

    def _look(self) -> None:
        if self.watch is not None:
            self.watch(self)

    def outcome(self) -> Outcome:
        trial = self.assignment.trial
        failed = self.assignment.judged and not self.success
        said = self.responses[-1] if self.responses else None
        return Outcome(
            task=self.assignment.name,
            index=self.assignment.index,
            seed=trial.seed,
            instruction=trial.instruction,
            success=self.success if self.assignment.judged else None,
            steps=self.steps,
            decisions=self._decisions,
            responses=tuple(self.responses),
            error=self.error,
            groups=self.assignment.groups,
            cause=self._history.cause(said, self.error) if failed else None,
        )


def rollouts(
    policy: Policy,
    assignments: Iterable[Assignment],
    environments: int = ENVIRONMENTS,
    max_steps: int = MAX_STEPS,
    watch: Callable[[Robot], None] | None = None,
) -> Iterator[Outcome]:
    """Runs trials and gives each outcome when it is known.

    Args:
        policy: that drives all of them.
        assignments: taken one by one when a robot is free.
        environments: robots at once, in this process.
        max_steps: control steps after which an episode has failed.
        watch: called with each robot at its start and after each of its steps.

    Raises:
        ValueError: for an option out of range, an input that the policy refuses, or a machine that can't draw.
    """
    if policy.cameras or watch is not None:
        check_graphics()
    for name, value in (("environments", environments), ("max_steps", max_steps)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}.")
    waiting, robots = iter(assignments), []
    # Pictures are drawn when the policy decides, not at every step.
    free = [gymnasium.make(ENVIRONMENT, cameras=(), max_steps=max_steps) for _ in range(environments)]
    try:
        while True:
            while free and (assignment := next(waiting, None)) is not None:
                robots.append(Robot(assignment, free.pop(), max_steps, watch))
            if not robots:
                return
            decisions = policy.act([robot.moment(policy.cameras, policy.image_size) for robot in robots])
            for robot, decision in zip(robots, decisions, strict=True):
                robot.follow(decision)
            free += [robot.env for robot in robots if robot.done]
            finished, robots = [r for r in robots if r.done], [r for r in robots if not r.done]
            yield from (robot.outcome() for robot in finished)
    finally:
        for env in [*free, *(robot.env for robot in robots)]:
            env.close()


def check_graphics() -> None:
    """Refuses to go on without an OpenGL library (ValueError); the message names what to install."""
    try:
        gl_context()
    except RuntimeError as error:
        raise ValueError(str(error)) from error


def parallel_rollouts(
    make_policy: Callable[[], Policy],
    assignments: Sequence[Assignment],
    workers: int,
    environments: int = ENVIRONMENTS,
    max_steps: int = MAX_STEPS,
) -> Iterator[Outcome]:
    """`rollouts` in several processes, each with one thread and a policy of its own; outcomes come in any order.

    Args:
        make_policy: called once in each process; has to be picklable.
        assignments, environments, max_steps: as for `rollouts`; `environments` in each process.
        workers: number of processes.
    """
    size = ROUNDS_PER_BLOCK * environments
    blocks = [assignments[start : start + size] for start in range(0, len(assignments), size)]
    pool = ProcessPoolExecutor(
        workers, mp_context=multiprocessing.get_context("spawn"), initializer=_set_policy, initargs=(make_policy,)
    )
    try:
        tasks = [pool.submit(_run_block, block, environments, max_steps) for block in blocks]
        for task in as_completed(tasks):
            yield from task.result()
    finally:
        pool.shutdown(cancel_futures=True)


_policy: Policy | None = None  # of a worker process


def _set_policy(make_policy: Callable[[], Policy]) -> None:
    global _policy
    torch.set_num_threads(1)
    _policy = make_policy()


def _run_block(block: Sequence[Assignment], environments: int, max_steps: int) -> list[Outcome]:
    return list(rollouts(_policy, block, environments, max_steps))
