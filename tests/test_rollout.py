"""Claims about closed-loop episodes, several at once."""

import numpy as np
import pytest

from instructvla.evaluation.ledger import Outcome
from instructvla.evaluation.tabletop import rollout
from instructvla.evaluation.tabletop.policies import Decision, ExpertPolicy, ModelPolicy, RandomPolicy
from instructvla.evaluation.tabletop.rollout import Assignment, rollouts
from tests.tabletop_policies import APPLE, CLOSE, THIRSTY, Recorder, assignments, shared_model


def by_trial(outcomes) -> dict[tuple[str, int], Outcome]:
    return {one.key: one for one in outcomes}


def test_the_expert_succeeds_and_chance_fails():
    trials = assignments(APPLE, THIRSTY, CLOSE)
    best, worst = (list(rollouts(policy, trials)) for policy in (ExpertPolicy(), RandomPolicy()))
    assert all(one.success and one.steps < 40 for one in best)
    assert not any(one.success for one in worst[:2]) and max(one.steps for one in worst) == 80


def test_an_outcome_says_what_was_asked_and_what_came_of_it():
    (given,) = assignments(THIRSTY)
    (outcome,) = rollouts(ExpertPolicy(), [given])
    assert (outcome.task, outcome.index, outcome.seed) == (THIRSTY, 0, given.trial.seed)
    assert outcome.instruction == given.trial.instruction and outcome.error is None
    assert outcome.decisions == outcome.steps
    assert Outcome.of_record(outcome.record()) == outcome


@pytest.mark.parametrize("environments", [2, 3])
def test_outcomes_do_not_depend_on_how_many_robots_run_at_once(environments):
    trials = assignments(APPLE, THIRSTY, count=2)
    policy = ModelPolicy(shared_model(), think=True, ratio=2, max_new_tokens=4)
    alone, together = (by_trial(rollouts(policy, trials, count, max_steps=12)) for count in (1, environments))
    assert alone == together
    assert all(one.responses for one in alone.values())


def test_all_robots_decide_together_until_no_trial_is_left():
    policy = Recorder(steps=4)
    outcomes = list(rollouts(policy, assignments(APPLE, count=3), environments=2, max_steps=8))
    assert [len(batch) for batch in policy.batches] == [2, 2, 1, 1]
    assert [[one.number for one in batch] for batch in policy.batches] == [[0, 0], [1, 1], [0], [1]]
    assert [[one.memory for one in batch] for batch in policy.batches] == [[None, None], [0, 0], [None], [0]]
    assert [one.index for one in outcomes] == [0, 1, 2]


def test_a_policy_sees_pictures_of_its_cameras_in_its_size_and_the_present_state():
    policy = Recorder()
    list(rollouts(policy, assignments(APPLE), max_steps=8))
    first, second = (batch[0] for batch in policy.batches)
    assert {name: picture.shape for name, picture in first.pictures.items()} == {"front": (32, 32, 3)}
    assert first.state.shape == (8,) and not np.array_equal(first.state, second.state)
    assert first.instruction == "pick up the apple"


def test_responses_are_kept_without_repetitions():
    class Says(Recorder):
        def act(self, moments):
            words = ["one", "one", "two", "one"]
            return [Decision(d.actions, words[d.memory], d.memory) for d in super().act(moments)]

    (outcome,) = rollouts(Says(steps=1), assignments(APPLE), max_steps=4)
    assert outcome.responses == ("one", "two", "one")


def test_an_action_that_can_not_be_executed_ends_that_episode_alone():
    class Broken(Recorder):
        def act(self, moments):
            bad = np.full((1, 7), np.nan)
            return [
                Decision(bad) if m.instruction == "pick up the apple" else Decision(np.zeros((4, 7))) for m in moments
            ]

    first, second = by_trial(rollouts(Broken(), assignments(APPLE, CLOSE), max_steps=4)).values()
    assert "finite" in first.error and first.success is False and first.steps == 0
    assert second.error is None and second.steps == 4


def test_an_episode_without_a_rule_runs_to_its_last_step():
    (given,) = assignments(CLOSE)
    (outcome,) = rollouts(ExpertPolicy(), [Assignment("free", 0, given.trial, judged=False)], max_steps=30)
    assert outcome.success is None and outcome.steps == 30


def test_a_watcher_sees_the_start_and_every_step():
    seen = []
    list(
        rollouts(
            Recorder(steps=3),
            assignments(APPLE),
            max_steps=5,
            watch=lambda robot: seen.append((robot.steps, robot.done)),
        )
    )
    assert seen == [(0, False), (1, False), (2, False), (3, False), (4, False), (5, True)]


@pytest.mark.parametrize(("option", "value"), [("environments", 0), ("max_steps", 0)])
def test_options_out_of_range_are_refused(option, value):
    with pytest.raises(ValueError, match=f"{option} must be at least 1, got 0"):
        list(rollouts(ExpertPolicy(), assignments(APPLE), **{option: value}))


def test_without_an_opengl_library_the_remedy_is_named(monkeypatch):
    def none():
        raise RuntimeError("No OpenGL library works. Install one: `apt-get install libegl1`")

    monkeypatch.setattr(rollout, "gl_context", none)
    with pytest.raises(ValueError, match="apt-get install libegl1"):
        next(rollouts(Recorder(), assignments(APPLE)))
    assert next(rollouts(ExpertPolicy(), assignments(APPLE))).success  # needs no pictures


def test_simulators_are_closed_when_a_policy_fails(monkeypatch):
    closed = []
    make = rollout.gymnasium.make

    def spied(*arguments, **options):
        env = make(*arguments, **options)
        monkeypatch.setattr(env, "close", lambda: closed.append(env))
        return env

    class Failing(Recorder):
        def act(self, moments):
            raise ValueError("no")

    monkeypatch.setattr(rollout.gymnasium, "make", spied)
    with pytest.raises(ValueError, match="no"):
        list(rollouts(Failing(), assignments(APPLE), environments=3))
    assert len(closed) == 3
