"""Claims about one episode."""

from dataclasses import replace

import numpy as np

from instructvla.evaluation.episode import run_episode
from instructvla.evaluation.executor import Executor
from instructvla.evaluation.policy_client import PolicyAnswer
from instructvla.evaluation.policy_needs import PolicyNeeds
from instructvla.evaluation.robots import find_robot
from instructvla.evaluation.simulators.simulator import Trial
from tests.stand_in_simulator import PointSimulator
from tests.stand_in_system_two import StandInSystemTwo

TRIAL = Trial("reach", 3, 5, "tabletop", 12, ("easy",), options={"target": [0.2, 0.0, 0.1]})
NEEDS = PolicyNeeds(("front",), True, ("tabletop",))


class Homing:
    """Goes to the target, four small steps at a time, and says so."""

    def __init__(self):
        self.requests = []

    def act(self, images, instruction, state=None, **options):
        self.requests.append({"images": images, "instruction": instruction, "state": state, **options})
        move = np.clip((np.array(TRIAL.options["target"]) - state) / 4, -0.05, 0.05)
        return PolicyAnswer(np.tile(np.append(move, [0, 0, 0, 1]), (8, 1)), f"I {instruction}.", {})


def run(trial: Trial, **given):
    policy, moments = Homing(), []
    executor = Executor(policy, find_robot("tabletop"), unnorm_key="tabletop")
    outcome, recording = run_episode(PointSimulator(), executor, trial, NEEDS, [moments.append])
    return policy, moments, outcome, recording


def test_success_ends_the_episode_and_its_outcome_says_how_it_went():
    policy, moments, outcome, recording = run(TRIAL)
    assert outcome.success and outcome.steps < 12 and outcome.key == ("reach", 3) and outcome.groups == ("easy",)
    assert outcome.responses == ("I reach it.",) and outcome.decisions == len(policy.requests)
    assert len(recording.actions) == outcome.steps and recording.successes[-1]
    assert [moment.steps for moment in moments] == list(range(outcome.steps + 1))
    assert [moment.verdict for moment in moments] == [None] * outcome.steps + [True]


def test_where_the_last_step_is_judged_the_episode_goes_on_after_success():
    _, _, outcome, recording = run(replace(TRIAL, stops_at_success=False))
    assert outcome.steps == 12 and outcome.success == recording.successes[-1]
    assert recording.successes[:-1].any()


def test_a_policy_that_never_arrives_fails_after_the_last_step():
    _, moments, outcome, _ = run(replace(TRIAL, max_steps=3))
    assert outcome.success is False and outcome.steps == 3 and moments[-1].verdict is False


def test_the_policy_gets_its_camera_the_state_and_the_statistics():
    policy, *_ = run(TRIAL)
    first = policy.requests[0]
    assert list(first["images"]) == ["front"] and first["unnorm_key"] == "tabletop" and first["reset"]
    np.testing.assert_array_equal(first["state"], PointSimulator().reset(TRIAL).proprioception)


def test_a_simulator_that_asks_for_something_else_on_the_way_is_heard():
    policy, _, _, recording = run(replace(TRIAL, options=TRIAL.options | {"changes_at": 2}))
    assert recording.instructions == ((0, "reach it"), (2, "go on"))
    assert policy.requests[1]["instruction"] == "go on" and policy.requests[1]["reset"]
    policy, *_ = run(replace(TRIAL, instruction="mine", options=TRIAL.options | {"changes_at": 2}))
    assert {request["instruction"] for request in policy.requests} == {"mine"}


def test_the_outcome_and_the_films_tell_what_system_two_made_of_the_instructions():
    trial = replace(TRIAL, options=TRIAL.options | {"changes_at": 2})
    policy, moments = Homing(), []
    executor = Executor(policy, find_robot("tabletop"), unnorm_key="tabletop", system_two=StandInSystemTwo())
    outcome, _ = run_episode(PointSimulator(), executor, trial, NEEDS, [moments.append])
    made = [(one.instruction, one.atomic) for one in outcome.rewritings]
    assert made == [("reach it", "REACH IT"), ("go on", "GO ON")] and outcome.instruction == "reach it"
    assert {request["instruction"] for request in policy.requests} == {"REACH IT", "GO ON"}
    assert [moment.atomic for moment in moments[:2]] == [None, "REACH IT"] and moments[-1].instruction == "go on"
