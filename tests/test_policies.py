"""Claims about what drives the arms: models in closed loop, the expert and chance."""

from types import SimpleNamespace

import gymnasium
import numpy as np
import pytest

from instructvla.evaluation.tabletop import ENVIRONMENT
from instructvla.evaluation.tabletop.policies import (
    ExpertPolicy,
    ModelPolicy,
    Moment,
    RandomPolicy,
    TimedPolicy,
    picture_side,
    tabletop_cameras,
)
from instructvla.evaluation.tabletop.world import Tabletop
from instructvla.evaluation.weights_fingerprint import weights_fingerprint
from tests.tabletop_policies import shared_model, tabletop_model

WORDS = 3  # tokens that the untrained model may say


def moment(
    instruction: str = "pick up the apple", seed: int = 5, number: int = 0, memory=None, shade: int = 90
) -> Moment:
    pictures = {"front": np.full((32, 32, 3), shade, np.uint8), "wrist": np.full((32, 32, 3), 200, np.uint8)}
    return Moment(instruction, seed, number, pictures, np.linspace(0, 0.7, 8, dtype=np.float32), None, memory)


def policy(**options) -> ModelPolicy:
    return ModelPolicy(shared_model(), **({"max_new_tokens": WORDS} | options))


def episode(one: ModelPolicy, decisions: int, monkeypatch) -> list[dict]:
    """What `generate_action` was asked at each decision of an episode, on ever lighter pictures."""
    asked, generate = [], shared_model().generate_action

    def spy(images, text, **options):
        asked.append(options | {"text": text})
        return generate(images, text, **options)

    monkeypatch.setattr(shared_model(), "generate_action", spy)
    memory = None
    for number in range(decisions):
        (decision,) = one.act([moment(number=number, memory=memory, shade=60 + number)])
        memory = decision.memory
    return asked


def test_a_model_executes_half_of_its_chunk_unless_told_otherwise():
    assert policy().act([moment()])[0].actions.shape == (4, 7)
    assert policy(execute=8).act([moment()])[0].actions.shape == (8, 7)


def test_a_thinking_model_speaks_once_and_its_words_are_reused(monkeypatch):
    asked = episode(policy(think=True), 3, monkeypatch)
    assert [one["think"] for one in asked] == [[True], [False], [False]]
    assert [one["context"] != [None] for one in asked] == [False, True, True]
    assert not any(one["reuse_latent"] for one in asked)


def test_a_model_thinks_again_at_every_so_many_th_run_of_the_vlm(monkeypatch):
    asked = episode(policy(think=True, rethink=2, ratio=2), 8, monkeypatch)
    assert [number for number, one in enumerate(asked) if one["think"] == [True]] == [0, 4]


def test_the_vlm_runs_at_every_ratio_th_decision_only(monkeypatch):
    asked = episode(policy(think=False, ratio=3), 7, monkeypatch)
    assert [number for number, one in enumerate(asked) if not one["reuse_latent"]] == [0, 3, 6]


def test_a_silent_model_says_nothing_and_sees_each_picture(monkeypatch):
    asked = episode(policy(think=False), 3, monkeypatch)
    assert all(one["think"] == [False] and one["context"] == [None] for one in asked)
    assert policy(think=False).act([moment()])[0].response is None


def test_instructions_are_in_lower_case_as_in_training(monkeypatch):
    asked = []
    generate = shared_model().generate_action
    monkeypatch.setattr(
        shared_model(),
        "generate_action",
        lambda images, text, **rest: asked.append(text) or generate(images, text, **rest),
    )
    policy(think=False).act([moment(" Pick up the letter A ")])
    assert asked == [["pick up the letter a"]]


@pytest.mark.parametrize("options", [{"think": True}, {"think": False}, {"think": True, "ratio": 2}])
def test_a_decision_does_not_depend_on_who_else_is_in_the_batch(options):
    one = policy(**options)
    robots = [moment("pick up the apple", 1), moment("open the drawer now please", 2), moment("saisis la banane", 3)]
    for number in range(3):
        together = one.act(robots)
        alone = [one.act([robot])[0] for robot in robots]
        for a, b in zip(together, alone, strict=True):
            assert a.response == b.response
            np.testing.assert_allclose(a.actions, b.actions, atol=1e-5)  # float32 sums in another order
        robots = [
            moment(robot.instruction, robot.seed, number + 1, decision.memory)
            for robot, decision in zip(robots, together, strict=True)
        ]


def test_robots_at_different_decisions_share_a_call():
    one = policy(think=True, ratio=2)
    (first,) = one.act([moment()])
    later = moment(number=1, memory=first.memory)
    decisions = one.act([moment("open the drawer"), later, moment("close the drawer")])
    assert [decision.memory.instruction[0] for decision in decisions] == [
        "open the drawer",
        "pick up the apple",
        "close the drawer",
    ]


def test_the_noise_of_a_decision_follows_from_trial_and_number():
    one = policy(think=False)
    again, other_trial = one.act([moment(seed=5)])[0].actions, one.act([moment(seed=6)])[0].actions
    np.testing.assert_array_equal(one.act([moment(seed=5)])[0].actions, again)
    assert np.abs(again - other_trial).max() > 1e-3


def test_settings_name_everything_that_decisions_follow_from():
    settings = policy(ratio=2, rethink=3, execute=5, think=True, name="some/model").settings
    expected = {"policy": "model", "name": "some/model", "think": True, "ratio": 2, "execute": 5, "rethink": 3}
    assert expected.items() <= settings.items()
    assert settings["weights"] == weights_fingerprint(shared_model())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ratio": 0}, "ratio must be at least 1"),
        ({"execute": 9}, "chunks have 8 actions"),
        ({"execute": 0}, "execute is 0, but the model.s chunks have 8 actions; give 1 to 8"),
        ({"rethink": 2, "think": False}, "rethink needs a policy that thinks"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        policy(**options)


def test_models_for_another_arm_are_refused_by_what_does_not_fit():
    with pytest.raises(ValueError, match="takes 3 states, but this arm has 8"):
        ModelPolicy(_with_processor(state_dim=3))
    with pytest.raises(ValueError, match="gives 6 action dimensions"):
        ModelPolicy(_with_processor(action_dim=6))
    with pytest.raises(ValueError, match="looks through left, right; the tabletop has front, wrist"):
        ModelPolicy(_with_processor(cameras=["left", "right"]))


def _with_processor(**fields):
    known = shared_model()
    taken = (
        "cameras",
        "state_dim",
        "statistics",
        "image_size",
        "action_image_size",
        "action_dim",
        "resolve_unnorm_key",
    )
    processor = SimpleNamespace(**({name: getattr(known.processor, name) for name in taken} | fields))
    return SimpleNamespace(processor=processor, config=known.config, device=known.device)


def test_a_model_without_state_gets_none():
    model = tabletop_model(state_dim=None)
    assert ModelPolicy(model, think=False).act([moment()])[0].actions.shape == (4, 7)


def test_a_single_camera_of_any_name_stands_for_the_front_one():
    assert tabletop_cameras(["primary"]) == {"primary": "front"}
    assert tabletop_cameras(["wrist"]) == {"wrist": "wrist"}
    assert tabletop_cameras(["front", "wrist"]) == {"front": "front", "wrist": "wrist"}


def test_pictures_are_as_large_as_the_larger_tower_reads_and_the_tabletop_draws():
    assert (picture_side(96, 128), picture_side(448, None), picture_side(8), picture_side(1024)) == (128, 448, 16, 512)


def test_random_actions_fill_the_action_space_and_follow_from_the_seed():
    world = Tabletop(cameras=())
    moments = [Moment("", seed, 0, {}, np.zeros(8), world) for seed in (1, 1, 2)]
    first, again, other = (decision.actions for decision in RandomPolicy().act(moments))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    many = np.concatenate(
        [d.actions for d in RandomPolicy().act([Moment("", s, 0, {}, None, world) for s in range(99)])]
    )
    assert all(world.action_space.contains(row.astype(np.float32)) for row in many)
    assert (np.ptp(many, axis=0) > 0.9 * (world.action_space.high - world.action_space.low)).all()


def test_the_expert_decides_one_step_at_a_time_from_the_simulator():
    env = gymnasium.make(ENVIRONMENT, cameras=())
    env.reset(seed=0)
    moments = [Moment("anything", 0, 0, {}, None, env.unwrapped)]
    (decision,) = ExpertPolicy().act(moments)
    assert decision.actions.shape == (1, 7) and decision.response is None
    env.close()


def test_a_timed_policy_counts_time_per_decision_and_changes_nothing():
    timed = TimedPolicy(policy(think=False))
    np.testing.assert_array_equal(timed.act([moment()])[0].actions, policy(think=False).act([moment()])[0].actions)
    timed.act([moment(), moment(seed=7)])
    assert (timed.batches, timed.decisions) == (2, 3)
    assert timed.milliseconds == pytest.approx(1000 * timed.seconds / 3)
    assert timed.settings == timed.policy.settings
