"""Claims about the load measurement."""

import numpy as np
import pytest

from instructvla.evaluation.load_measurement import example_observation, measure_load
from instructvla.evaluation.policy_messages import PolicyError, pack
from instructvla.evaluation.policy_server import PolicyServer, ServerLimits, running_server
from instructvla.evaluation.served_policy import ServedPolicy
from instructvla.nano import untrained_nano
from tests.other_server import other_server
from tests.stand_in_policy import StandInPolicy


def test_clients_of_a_real_model_are_measured_and_share_batches():
    policy = ServedPolicy(untrained_nano(seed=0), "nano", max_new_tokens=3)
    with running_server(PolicyServer(policy)) as url:
        load = measure_load(url, clients=3, seconds=0.6, options={"reuse_latent": True})
    assert load.clients == 3 and load.answers >= 3 and load.refused == 0
    assert 0 < load.p50_ms <= load.p99_ms
    assert 0 < load.throughput <= load.answers / 0.6
    assert 1 <= load.mean_batch <= 3


def test_refusals_are_counted_apart_and_named():
    policy = StandInPolicy()
    with running_server(PolicyServer(policy)) as url:
        load = measure_load(url, clients=2, seconds=0.2, options={"unnorm_key": "other"})
    assert load.answers == 0 and load.refused > 0 and np.isnan(load.p50_ms)
    assert len(load.reasons) == 1 and load.reasons[0].startswith("bad request: unknown unnorm_key 'other'")


def test_a_client_that_cannot_connect_ends_the_measurement_with_the_reason():
    server = PolicyServer(StandInPolicy(), ServerLimits(max_clients=1))
    with running_server(server) as url, pytest.raises(PolicyError, match=r"refuses \(503\): busy") as caught:
        measure_load(url, clients=2, seconds=5)
    assert caught.value.code == "connection"


@pytest.mark.parametrize("metadata", [{}, {"cameras": ["primary"], "unnorm_keys": ["a"], "state_dim": None}])
def test_a_server_of_another_kind_ends_the_measurement_with_what_it_lacks(metadata):
    def handler(connection):
        connection.send(pack(metadata))
        for _ in connection:
            connection.send(pack({"actions": np.zeros((1, 7))}))

    lacks = "'server_timing'" if metadata else "'cameras'"
    with other_server(handler) as url, pytest.raises(PolicyError, match=f"KeyError: {lacks}"):
        measure_load(url, clients=2, seconds=5)


def test_the_example_observation_fits_the_model_that_the_metadata_tell_of():
    policy = StandInPolicy(cameras=("primary", "wrist"), state_dim=8)
    request = policy.reader.read(example_observation(policy.metadata, seed=4))
    assert list(request.images) == ["primary", "wrist"] and request.state.shape == (8,) and request.seed == 4
