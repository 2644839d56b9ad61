"""One episode: a simulator, an executor, and what became of it."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from instructvla.evaluation.executor import Executor
from instructvla.evaluation.ledger import Outcome
from instructvla.evaluation.policy_needs import PolicyNeeds
from instructvla.evaluation.recordings import Recorder, Recording
from instructvla.evaluation.simulators.simulator import Observation, Simulator, Trial
from instructvla.evaluation.system_two import Rewriting


@dataclass
class Moment:
    """What a film shows of a step.

    Args:
        observation: after the step; at first that of the reset.
        steps: done so far.
        instruction: what is asked for now.
        response: the policy's last words, or None.
        verdict: success or failure at the end; None on the way.
        atomic: what System 2 made of the instruction, which the policy is told; None without a System 2.
    """

    observation: Observation
    steps: int
    instruction: str
    response: str | None = None
    verdict: bool | None = None
    atomic: str | None = None


Watch = Callable[[Moment], None]


@dataclass
class Said:
    """What a policy said in an episode, without repetitions."""

    responses: list[str] = field(default_factory=list)

    def add(self, response: str | None) -> None:
        if response is not None and response not in self.responses[-1:]:
            self.responses.append(response)


def run_episode(
    simulator: Simulator,
    executor: Executor,
    trial: Trial,
    needs: PolicyNeeds,
    watches: Sequence[Watch] = (),
) -> tuple[Outcome, Recording]:
    """A trial from its reset to its end.

    Success is the last step's; trials that stop at success end with the first one.

    Raises:
        ValueError: the simulator or the policy refuses what it is given.
        SimulatorBrokeError: the simulator broke; the policy has no verdict then.
        PolicyError: the policy gave no answer.
        SystemTwoError: System 2 gave none; the policy has no verdict then, either.
    """
    began, said, decisions = time.monotonic(), Said(), 0
    rewritings: list[Rewriting] = []
    observation = simulator.reset(trial)
    instruction = trial.instruction or observation.instruction
    executor.reset(instruction, seed=trial.seed)
    recorder, steps = Recorder(trial, observation, instruction), 0
    _show(watches, Moment(observation, steps, instruction))
    while not is_over(trial, observation, steps):
        told = trial.instruction or observation.instruction
        if told != instruction:
            instruction = told
            executor.reset(instruction)
            recorder.tell(instruction)
        proprioception = observation.proprioception if needs.takes_state else None
        step = executor.step(needs.pictures(observation.images), proprioception)
        observation, steps = simulator.step(step.command), steps + 1
        recorder.add(step.action, step.command, observation)
        decisions += step.asked
        said.add(step.response)
        if step.rewriting is not None and step.rewriting not in rewritings[-1:]:
            rewritings.append(step.rewriting)
        atomic = None if step.rewriting is None else step.rewriting.atomic
        verdict = observation.success if is_over(trial, observation, steps) else None
        _show(watches, Moment(observation, steps, instruction, step.response, verdict, atomic))
    outcome = Outcome(
        task=trial.task,
        index=trial.index,
        seed=trial.seed,
        instruction=recorder.instruction,
        success=observation.success,
        steps=steps,
        decisions=decisions,
        responses=tuple(said.responses),
        groups=trial.groups,
        seconds=round(time.monotonic() - began, 2),
        rewritings=tuple(rewritings),
    )
    return outcome, recorder.recording()


def is_over(trial: Trial, observation: Observation, steps: int) -> bool:
    return steps >= trial.max_steps or observation.done or (observation.success and trial.stops_at_success)


def _show(watches: Sequence[Watch], moment: Moment) -> None:
    for watch in watches:
        watch(moment)
