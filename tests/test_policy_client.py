"""Claims about the policy client: what it needs, and what it says when something is wrong."""

import socket
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from websockets.server import ServerProtocol

from instructvla.evaluation.policy_client import PolicyClient
from instructvla.evaluation.policy_messages import PolicyError, pack, unpack
from instructvla.evaluation.policy_server import PolicyServer, running_server
from tests.other_server import other_server
from tests.stand_in_policy import FRAME, HORIZON, StandInPolicy

NEITHER_TORCH_NOR_TRANSFORMERS = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "transformers", "diffusers", "timm", "peft"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
if BLOCKED:
    sys.meta_path.insert(0, Block())
import numpy as np
from instructvla.evaluation.policy_client import PolicyClient
with PolicyClient(URL) as client:
    client.reset()
    answer = client.act(np.zeros((32, 32, 3), np.uint8), "go", seed=6)
assert (answer.actions == 6).all() and answer.response == "words"
assert not {"torch", "transformers"} & set(sys.modules)
"""


def greet_and_freeze(listening, frozen):
    """A server that sends its metadata and then reads nothing."""
    connection, _ = listening.accept()
    with connection:
        protocol = ServerProtocol()
        protocol.receive_data(connection.recv(65536))
        (request,) = protocol.events_received()
        protocol.send_response(protocol.accept(request))
        protocol.send_binary(pack({}))
        for data in protocol.data_to_send():
            connection.sendall(data)
        frozen.wait(30)


@pytest.mark.parametrize("blocked", [True, False])
def test_a_client_process_needs_and_loads_neither_torch_nor_transformers(blocked):
    with running_server(PolicyServer(StandInPolicy())) as url:
        code = f"URL = {url!r}; BLOCKED = {blocked}\n" + NEITHER_TORCH_NOR_TRANSFORMERS
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_all_arguments_reach_the_policy():
    policy = StandInPolicy(cameras=("primary", "wrist"), state_dim=2)
    with running_server(PolicyServer(policy)) as url, PolicyClient(url) as client:
        assert client.metadata["cameras"] == ["primary", "wrist"]
        images = {"primary": FRAME, "wrist": FRAME + 1}
        client.act(images, "go", state=np.ones(2), unnorm_key="made", think=True)
        answer = client.act(images, "go", [0.5, 1], unnorm_key="made", reuse_latent=True, seed=4)
        request = policy.batches[-1][0].request
    assert (request.unnorm_key, request.reuse_latent, request.seed) == ("made", True, 4)
    assert request.state.tolist() == [0.5, 1.0] and (request.images["wrist"] == 8).all()
    assert policy.batches[0][0].request.think is True
    assert answer.actions.shape == (HORIZON, 7)
    assert answer.timing["total_ms"] >= answer.timing["infer_ms"]


def test_a_server_that_is_down_is_one_sentence_that_says_what_to_do():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"ws://127.0.0.1:{unused.getsockname()[1]}"
        began = time.monotonic()
        with pytest.raises(PolicyError, match=r"no policy server answers at .*instructvla serve MODEL") as caught:
            PolicyClient(url, connect_s=0.3)
    assert caught.value.code == "connection" and time.monotonic() - began < 5


def test_a_server_that_is_not_up_yet_is_waited_for():
    server = PolicyServer(StandInPolicy())
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    clients = []
    waiting = threading.Thread(target=lambda: clients.append(PolicyClient(f"ws://127.0.0.1:{port}")), daemon=True)
    waiting.start()
    time.sleep(0.2)
    with running_server(server, port=port):
        waiting.join(10)
        assert clients and clients[0].metadata["model"] == "stand-in"
        clients[0].close()


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "http://127.0.0.1", "ws://", ""])
def test_a_url_of_another_kind_is_named(url):
    with pytest.raises(PolicyError, match="is no address; give ws://HOST:PORT"):
        PolicyClient(url, connect_s=0.3)


def test_something_that_accepts_but_never_speaks_is_given_up():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"ws://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(PolicyError, match="no policy server answers"):
            PolicyClient(url, connect_s=0.4)


def test_an_answer_that_does_not_come_ends_the_connection_so_that_no_late_one_is_mistaken():
    def handler(connection):
        connection.send(pack({}))
        for _ in connection:
            time.sleep(0.4)
            connection.send(pack({"actions": np.zeros((1, 7))}))

    with other_server(handler) as url, PolicyClient(url, answer_s=0.1) as client:
        with pytest.raises(PolicyError, match="deadline: no answer"):
            client.act(FRAME, "go")
        with pytest.raises(PolicyError, match="connection: .* closed it"):
            client.act(FRAME, "go")


def test_a_server_that_stops_reading_is_given_up():
    """Its answers stop too; what it has not read yet fills the buffers."""
    frozen = threading.Event()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        url = f"ws://127.0.0.1:{listening.getsockname()[1]}"
        thread = threading.Thread(target=greet_and_freeze, args=(listening, frozen), daemon=True)
        thread.start()
        late = pytest.raises(PolicyError, match=r"deadline: .* did not take the observation within 0.3 s")
        with PolicyClient(url, answer_s=0.3) as client, late:
            client.act(np.zeros((4000, 4000, 3), np.uint8), "go")
        frozen.set()
        thread.join(10)


def test_a_plain_openpi_server_is_understood_with_its_tracebacks():
    def handler(connection):
        connection.send(pack({}))
        observation = unpack(connection.recv())
        connection.send(pack({"actions": np.full((2, 7), observation["images"][0, 0, 0])}))
        connection.recv()
        connection.send("Traceback (most recent call last):\nKeyError: 'state'")

    with other_server(handler) as url, PolicyClient(url) as client:
        answer = client.act(FRAME, "go")
        assert answer.actions.shape == (2, 7) and (answer.actions == 7).all() and answer.response is None
        with pytest.raises(PolicyError, match="KeyError: 'state'") as caught:
            client.act(FRAME, "go")
        assert caught.value.code == "internal error"


def test_a_server_of_another_kind_is_refused():
    other = other_server(lambda connection: connection.send(b"\xc1\xc1"))
    with other as url, pytest.raises(ValueError, match="not msgpack"):
        PolicyClient(url)


def test_what_cannot_be_sent_is_refused_before_it_is_sent():
    with running_server(PolicyServer(StandInPolicy())) as url, PolicyClient(url) as client:
        with pytest.raises(ValueError, match="can't be sent"):
            client.infer({"images": FRAME, "prompt": object()})
        assert client.act(FRAME, "go", seed=2).actions[0, 0] == 2
