"""Claims about a policy server in a process of its own."""

import pytest

from instructvla.evaluation.policy_client import PolicyClient
from instructvla.evaluation.policy_messages import PolicyError
from instructvla.evaluation.served_process import served


def test_a_policy_is_served_by_a_process_that_ends_with_the_block(capfd, monkeypatch):
    with served("random", ["--max-clients", "3"]) as url, PolicyClient(url) as client:
        assert client.metadata["model"] == "random"
    assert "stopping" in capfd.readouterr().err
    with pytest.raises(PolicyError, match="no policy server answers"):
        PolicyClient(url, connect_s=0.1)


def test_a_running_server_is_taken_as_it_is():
    with served("ws://somewhere:1") as url:
        assert url == "ws://somewhere:1"


@pytest.mark.slow
def test_a_model_that_cannot_be_served_says_why(capfd):
    with pytest.raises(ValueError, match="/no/such/model can't be served"), served("/no/such/model"):
        pass
    assert "neither a folder nor the name of a Hub repository" in capfd.readouterr().err
