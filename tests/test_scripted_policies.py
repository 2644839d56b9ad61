"""Claims about policies without a model."""

import numpy as np
import pytest

from instructvla.evaluation.decision_cadence import noise_seed
from instructvla.evaluation.policy_observations import PolicyRequest
from instructvla.evaluation.scripted_policies import is_scripted, scripted_policy
from instructvla.evaluation.served_policy import PolicyCall
from tests.test_recordings import TRIAL, recorded


def request(instruction: str = "reach it", seed: int | None = None, unnorm_key: str | None = None) -> PolicyRequest:
    return PolicyRequest({}, instruction, unnorm_key=unnorm_key, seed=seed)


def test_a_replay_gives_the_recorded_actions_bit_by_bit_and_then_the_last_one(tmp_path):
    recording = recorded()
    recording.save(tmp_path)
    policy, context, actions = scripted_policy(f"replay:{tmp_path}"), None, []
    for number in range(4):
        (result,) = policy.act([PolicyCall(request(seed=noise_seed(TRIAL.seed, number)), context)])
        context = result.context
        actions.append(result.actions)
    np.testing.assert_array_equal(np.concatenate(actions), recording.actions[[0, 1, 2, 2]])


def test_an_episode_that_is_told_something_else_goes_on_from_there(tmp_path):
    recording = recorded()
    recording.save(tmp_path)
    (result,) = scripted_policy(f"replay:{tmp_path}").act([PolicyCall(request("go on", noise_seed(TRIAL.seed, 0)))])
    np.testing.assert_array_equal(result.actions[0], recording.actions[2])


def test_an_episode_that_was_not_recorded_is_refused(tmp_path):
    recorded().save(tmp_path)
    policy = scripted_policy(f"replay:{tmp_path}")
    with pytest.raises(ValueError, match="no recording of 'dance' .*e.g. of 'reach it'"):
        policy.act([PolicyCall(request("dance", 1))])


def test_random_actions_follow_from_the_seed_and_stay_in_the_robot_s_span():
    policy = scripted_policy("random")
    calls = [PolicyCall(request(seed=seed, unnorm_key="tabletop")) for seed in (1, 1, *range(2, 200))]
    actions = np.concatenate([result.actions for result in policy.act(calls)])
    np.testing.assert_array_equal(actions[0], actions[1])
    largest = np.abs(actions).max(0)
    assert (largest[:3] <= 0.05).all() and (largest[:3] > 0.045).all() and (largest[3:6] > 0.2).all()
    assert set(actions[:, 6]) == {0.0, 1.0}
    with pytest.raises(ValueError, match="need an unnorm_key, which tells the robot: bridge_dataset"):
        policy.act([PolicyCall(request(seed=1))])


def test_names_of_models_are_no_scripts():
    assert is_scripted("random") and is_scripted("replay:folder")
    assert not is_scripted("checkpoints/random") and not is_scripted("nano")
