"""Causes of failure: each follows from what happened, and an episode's own failure gets one."""

from dataclasses import replace

import pytest

from instructvla.evaluation.tabletop.failures import Cause, EpisodeHistory
from instructvla.evaluation.tabletop.instruct import Trial
from instructvla.evaluation.tabletop.policies import RandomPolicy
from instructvla.evaluation.tabletop.rollout import Assignment, rollouts
from instructvla.evaluation.tabletop.scene import Skill, Task
from instructvla.evaluation.tabletop.world_state import ObjectState, WorldState
from tests.tabletop_scenes import in_a_row

APPLE, FORK, BOWL = ObjectState(0.5, 0.1, 0.03), ObjectState(0.6, -0.2, 0.01), ObjectState(0.4, -0.1, 0.02)
START = WorldState(
    {"apple": APPLE, "fork": FORK, "white bowl": BOWL},
    (0.4, 0, 0.2, 0, 0, 0),
    1.0,
    drawer=0.0,
    handle=(0.3, 0.3, 0.1),
)
PICK, PUT = Task(Skill.PICK_UP, "apple"), Task(Skill.PUT_IN, "apple", "white bowl")


def state(tcp=(0.4, 0, 0.2), drawer=0.0, **objects: ObjectState) -> WorldState:
    return replace(START, tcp=(*tcp, 0, 0, 0), drawer=drawer, objects={**START.objects, **objects})


HELD, AWAY = state(apple=replace(APPLE, held=True)), state(tcp=(0.7, -0.3, 0.2))
AT_APPLE, AT_HANDLE = state(tcp=(0.5, 0.1, 0.05)), state(tcp=(0.3, 0.3, 0.12))


@pytest.mark.parametrize(
    ("task", "states", "cause"),
    [
        (PICK, [AWAY], Cause.NEVER_NEAR),
        (PICK, [AT_APPLE, AWAY], Cause.MISSED),
        (PICK, [HELD], Cause.NOT_BROUGHT),
        (PICK, [HELD, AT_APPLE], Cause.LOST),
        (PUT, [HELD, AWAY], Cause.ELSEWHERE),
        (PICK, [AT_APPLE, state(fork=replace(FORK, held=True))], Cause.OTHER_THING),
        (Task(Skill.OPEN, "drawer"), [AWAY], Cause.NEVER_NEAR),
        (Task(Skill.OPEN, "drawer"), [AT_HANDLE, AWAY], Cause.MISSED),
        (Task(Skill.OPEN, "drawer"), [AT_HANDLE, state(drawer=0.5)], Cause.NOT_FAR_ENOUGH),
        (Task(Skill.OPEN, "drawer"), [HELD], Cause.OTHER_THING),
    ],
)
def test_a_cause_follows_from_what_happened(task, states, cause):
    history = EpisodeHistory(task, START)
    for one in states:
        history.see(one)
    assert history.cause() is cause


def test_words_of_another_task_come_before_deeds():
    history = EpisodeHistory(PICK, START)
    assert history.cause("I will pick up the fork.") is Cause.OTHER_WORDS
    assert history.cause("i will pick up the apple. ") is Cause.NEVER_NEAR
    assert history.cause("I will pick up the fork.", error="NaN") is Cause.BROKE_OFF


def test_a_failed_episode_has_a_cause_and_others_have_none():
    trial = Trial(0, in_a_row("apple", "fork"), PICK, "pick up the apple")
    given = [Assignment("judged", 0, trial), Assignment("free", 0, trial, judged=False)]
    judged, free = sorted(rollouts(RandomPolicy(), given, max_steps=3), key=lambda outcome: outcome.task == "free")
    assert judged.cause == Cause.NEVER_NEAR and free.cause is None
    assert type(judged).of_record(judged.record()) == judged
