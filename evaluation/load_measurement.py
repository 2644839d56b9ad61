"""How fast a policy server answers: latency and throughput of clients that ask one request after the other."""

import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from instructvla.evaluation.policy_client import PolicyClient
from instructvla.evaluation.policy_messages import PolicyError

FRAME_SIDE = 224  # pixels, as openpi's clients send them
INSTRUCTION = "put the spoon on the towel"
BUSY_PAUSE_S = 0.05


@dataclass(frozen=True)
class ClientLoad:
    """What a number of clients got in one run. Latencies in ms over all answers, throughput in answers per second."""

    clients: int
    answers: int
    refused: int
    p50_ms: float
    p99_ms: float
    throughput: float
    mean_batch: float
    reasons: tuple[str, ...] = ()

    def row(self) -> dict[str, Any]:
        return asdict(self)


def example_observation(metadata: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """A request that the server with this metadata answers: noise as frames, a zero state, a seed."""
    generator = np.random.default_rng(seed)
    images = {name: generator.integers(0, 256, (FRAME_SIDE, FRAME_SIDE, 3), np.uint8) for name in metadata["cameras"]}
    observation = {"images": images, "prompt": INSTRUCTION, "unnorm_key": metadata["unnorm_keys"][0], "seed": seed}
    if metadata["state_dim"] is not None:
        observation["state"] = np.zeros(metadata["state_dim"])
    return observation


def reason_of(error: Exception) -> str:
    """A client's failure as a refusal: the server's, or what its answer lacks."""
    return str(error) if isinstance(error, PolicyError) else f"answer: {type(error).__name__}: {error}"


class _AskingClient(threading.Thread):
    """Connects and asks once at its start, waits for the others, then asks until `stop` is set."""

    def __init__(self, url: str, token: str | None, seed: int, options: Mapping[str, Any], start: threading.Barrier):
        super().__init__(daemon=True)
        self.url, self.token, self.seed, self.options, self.begin = url, token, seed, options, start
        self.stop = threading.Event()
        self.latencies: list[float] = []
        self.batches: list[int] = []
        self.refusals: list[str] = []

    def run(self) -> None:
        try:
            with PolicyClient(self.url, self.token) as client:
                observation = example_observation(client.metadata, self.seed)
                self._ask(client, observation)
                self.begin.wait()
                self.latencies, self.batches, self.refusals = [], [], []
                while not self.stop.is_set():
                    self._ask(client, observation | self.options)
        except threading.BrokenBarrierError:  # another client could not start
            return
        except Exception as error:  # also what another kind of server answers: this thread is all that knows of it
            self.refusals.append(reason_of(error))
            self.begin.abort()

    def _ask(self, client: PolicyClient, observation: Mapping[str, Any]) -> None:
        began = time.perf_counter()
        try:
            answer = client.infer(observation)
        except PolicyError as error:
            if error.code == "connection":
                raise
            self.refusals.append(str(error))
            time.sleep(BUSY_PAUSE_S)
            return
        self.latencies.append(time.perf_counter() - began)
        self.batches.append(answer["server_timing"]["batch"])


def measure_load(
    url: str, clients: int, seconds: float, token: str | None = None, options: Mapping[str, Any] | None = None
) -> ClientLoad:
    """Latency and throughput with so many clients at once, after one request of each.

    Args:
        url: of the server.
        clients: how many ask at once, each the next request after its answer.
        seconds: how long; requests begun within this time count, and their throughput is over the time they took.
        options: of each request, e.g. `{"think": True}` to speak each time; default: words once per client.

    Raises:
        PolicyError: a client can't connect, or gets what is no answer of a policy server.
    """
    start = threading.Barrier(clients + 1)
    askers = [_AskingClient(url, token, seed, options or {}, start) for seed in range(clients)]
    for asker in askers:
        asker.start()
    try:
        start.wait()
    except threading.BrokenBarrierError:
        for asker in askers:
            asker.join()
        reason = next(text for asker in askers for text in asker.refusals)
        raise PolicyError.from_frame(reason) from None
    began = time.perf_counter()
    time.sleep(seconds)
    for asker in askers:
        asker.stop.set()
    for asker in askers:
        asker.join()
    return _summary(askers, time.perf_counter() - began)


def _summary(askers: list[_AskingClient], seconds: float) -> ClientLoad:
    latencies = [1000 * latency for asker in askers for latency in asker.latencies]
    refusals = [text for asker in askers for text in asker.refusals]
    p50, p99 = np.percentile(latencies, [50, 99]).tolist() if latencies else (float("nan"),) * 2
    return ClientLoad(
        clients=len(askers),
        answers=len(latencies),
        refused=len(refusals),
        p50_ms=p50,
        p99_ms=p99,
        throughput=len(latencies) / seconds,
        mean_batch=float(np.mean([size for asker in askers for size in asker.batches] or [0])),
        reasons=tuple(sorted(set(refusals))),
    )
