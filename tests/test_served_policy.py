"""Claims about the model behind a policy server, on the nano model."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from instructvla.evaluation.load_measurement import example_observation
from instructvla.evaluation.policy_messages import pack, unpack
from instructvla.evaluation.served_policy import PolicyCall, ServedPolicy, load_policy
from instructvla.nano import untrained_nano


@pytest.fixture(scope="module")
def policy() -> ServedPolicy:
    return ServedPolicy(untrained_nano(seed=0), "nano", "r1", max_new_tokens=6)


def call(policy, seed, context=None, **changes) -> PolicyCall:
    return PolicyCall(policy.reader.read(example_observation(policy.metadata, seed) | changes), context)


def direct(policy, one: PolicyCall, **options):
    """The answer of `generate_action` to a request alone."""
    generator = torch.Generator().manual_seed(one.request.seed)
    return policy.model.generate_action(
        one.request.images["primary"], one.request.instruction, generator=generator, max_new_tokens=6, **options
    )


def assert_same(result, output):
    """Batches round differently: 1e-6 is far below a micrometre or a microradian."""
    np.testing.assert_allclose(result.actions, output.actions[0].numpy(), atol=1e-6)
    assert result.response == output.response[0]
    torch.testing.assert_close(result.context.latent_actions, output.latent_actions, atol=1e-4, rtol=1e-4)


def test_each_client_of_a_batch_gets_what_it_would_get_alone(policy):
    calls = [call(policy, seed, prompt=text) for seed, text in enumerate(["pick it up", "put it down there", "stop"])]
    assert len({policy.key(one) for one in calls}) == 1
    for one, result in zip(calls, policy.act(calls), strict=True):
        assert_same(result, direct(policy, one))
        assert result.actions.shape == (16, 7) and result.actions.dtype == np.float32


def test_contexts_of_several_clients_are_reused_each_for_its_own(policy):
    firsts = policy.act([call(policy, seed, prompt=f"task {seed}") for seed in range(2)])
    for options in ({}, {"reuse_latent": True}):
        calls = [
            call(policy, seed + 9, first.context, prompt=f"task {seed}", **options) for seed, first in enumerate(firsts)
        ]
        assert len({policy.key(one) for one in calls}) == 1
        for one, first, result in zip(calls, firsts, policy.act(calls), strict=True):
            assert_same(result, direct(policy, one, context=first.context, **options))
            assert result.response == first.response


def test_a_chunk_goes_on_where_the_client_s_last_one_leads(policy):
    previous = {"previous_actions": np.full((6, 7), 0.01), "delay": 2}
    calls = [call(policy, seed, prompt=f"task {seed}", **previous) for seed in range(2)]
    assert len({policy.key(one) for one in calls} | {policy.key(call(policy, 0))}) == 2
    for one, result in zip(calls, policy.act(calls), strict=True):
        assert_same(result, direct(policy, one, **previous))
        assert not np.allclose(result.actions, direct(policy, one).actions[0].numpy(), atol=1e-3)


def test_acting_without_words_gives_no_response(policy):
    one = call(policy, 3, think=False)
    result = policy.act([one])[0]
    assert_same(result, direct(policy, one, think=False))
    assert result.response is None


def test_thinking_again_replaces_the_response(policy):
    first = policy.act([call(policy, 1, think=False)])[0]
    again = policy.act([call(policy, 1, first.context, think=True)])[0]
    assert first.response is None and again.response is not None


def test_requests_that_need_other_work_have_other_keys(policy):
    silent, spoken = (policy.act([call(policy, 1, think=think)])[0].context for think in (False, True))
    calls = [
        call(policy, 1),
        call(policy, 1, think=False),
        call(policy, 1, spoken, reuse_latent=True),
        replace(call(policy, 1, spoken), words_only=True),
        call(policy, 1, think=False, unnorm_key=None),
    ]
    assert len({policy.key(one) for one in calls}) == len(calls)
    assert [policy.thinks(one) for one in calls] == [True, False, False, True, False]
    for context in (silent, spoken):
        assert policy.key(call(policy, 1, context)) == policy.key(calls[1])
        assert policy.key(call(policy, 1, context, reuse_latent=True)) == policy.key(calls[2])
        assert policy.key(call(policy, 2, context, think=True)) == policy.key(calls[0])


def test_thinking_in_the_background_is_acting_where_there_are_words_and_thinking_first_where_there_are_none(policy):
    silent, spoken = (policy.act([call(policy, 1, think=think)])[0].context for think in (False, True))
    contexts = (None, silent, spoken)
    assert [policy.thinks(call(policy, 1, one, think="background")) for one in contexts] == [True, True, False]


def test_robots_with_words_and_without_act_in_one_call(policy):
    spoken = policy.act([call(policy, 1, think=True, prompt="task 1")])[0].context
    calls = [call(policy, 2, spoken, prompt="task 1"), call(policy, 3, prompt="task 2", think=False)]
    assert policy.key(calls[0]) == policy.key(calls[1])
    with_words, without = policy.act(calls)
    assert_same(with_words, direct(policy, calls[0], context=spoken))
    assert_same(without, direct(policy, calls[1], think=False))


def test_words_alone_are_those_of_thinking_and_bring_no_action(policy):
    spoken = policy.act([call(policy, 1)])[0].context
    result = policy.act([replace(call(policy, 2, spoken), words_only=True)])[0]
    expected = direct(policy, call(policy, 2), think=True)
    assert result.actions is None and result.response == expected.response[0]
    torch.testing.assert_close(result.context.latent_actions, expected.latent_actions, atol=1e-4, rtol=1e-4)


def test_a_model_that_is_prepared_for_some_batches_is_called_with_no_other(monkeypatch):
    policy = ServedPolicy(untrained_nano(seed=0), "nano", max_new_tokens=2)
    asked, rows = [], []
    monkeypatch.setattr(policy.model, "compile_for_inference", lambda *given, **options: asked.append(given))
    for most, sizes in ((1, (1,)), (8, (1, 2, 4, 8)), (6, (1, 2, 4, 6))):
        policy.prepare(most)
        assert asked[-1] == (sizes, ("act", "think", "latent"))
    policy.model.language_model.layers[0].register_forward_pre_hook(lambda _, args: rows.append(len(args[0])))
    calls = [call(policy, seed, think=False, prompt=f"task {seed}") for seed in range(3)]
    results = policy.act(calls)
    assert len(results) == 3 and set(rows) == {4}
    for one, result in zip(calls, results, strict=True):
        np.testing.assert_allclose(result.actions, policy.act([one])[0].actions, atol=1e-6)
    assert set(rows) == {1, 4}


def test_without_a_seed_each_answer_has_its_own_noise(policy):
    observation = example_observation(policy.metadata, 1) | {"seed": None, "think": False}
    one = PolicyCall(policy.reader.read(observation))
    first, second = policy.act([one, one])
    assert not np.array_equal(first.actions, second.actions)


def test_the_metadata_tell_what_a_robot_must_know_and_can_be_sent(policy):
    told = unpack(pack(policy.metadata))
    assert (told["model"], told["revision"], told["cameras"]) == ("nano", "r1", ["primary"])
    assert told["unnorm_keys"] == ["untrained"] and told["control_rate_hz"] == {"untrained": 5.0}
    assert (told["horizon"], told["action_dim"], told["gripper_dims"]) == (16, 7, [6])
    assert told["action_names"][-1] == "gripper" and told["action_units"][0] == "m"


def test_a_model_with_state_and_two_cameras_is_served():
    fields = {"state_dim": 3, "cameras": ["primary", "wrist"]}
    policy = ServedPolicy(untrained_nano(seed=0, **fields), "nano", max_new_tokens=2)
    assert policy.warm_up().actions.shape == (16, 7)
    calls = [call(policy, seed, state=np.full(3, 0.1 * seed)) for seed in range(2)]
    alone = [policy.act([one])[0].actions for one in calls]
    np.testing.assert_allclose([result.actions for result in policy.act(calls)], alone, atol=1e-6)


def test_a_model_without_statistics_is_not_served():
    model = untrained_nano(seed=0)
    model.processor.statistics = None
    with pytest.raises(ValueError, match="no statistics"):
        ServedPolicy(model, "nano")


def test_a_saved_model_is_served_from_its_folder(tmp_path):
    untrained_nano(seed=0).save_pretrained(tmp_path / "model")
    policy = load_policy(str(tmp_path / "model"), device="cpu", max_new_tokens=2)
    assert policy.metadata["model"] == str(tmp_path / "model") and policy.metadata["device"] == "cpu"
    with pytest.raises(ValueError, match="--device gpu can't be used"):
        load_policy("nano", device="gpu")
