"""Policies without a model that a policy server can serve: chance, and the replay of recorded episodes.

They prove the way from server to simulator without trained weights: a replayed success must succeed again, and chance
must fail.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from instructvla.evaluation.decision_cadence import noise_seed
from instructvla.evaluation.policy_observations import ObservationReader, PolicyRequest
from instructvla.evaluation.recordings import Recording, load_recordings
from instructvla.evaluation.robots import ROBOTS

RANDOM, REPLAY = "random", "replay:"
ACTION_DIM = 7


@dataclass(frozen=True)
class ScriptContext:
    """What a connection remembers.

    Args:
        instruction: of its episode, as the session compares it.
        place: of the next action, in whatever the policy goes through.
    """

    instruction: tuple[str]
    place: Any


@dataclass(frozen=True)
class ScriptResult:
    """`actions`: (1, action_dim) float64."""

    actions: np.ndarray
    context: ScriptContext
    response: str | None = None


class ScriptedPolicy:
    """What the policy server needs of a policy; see `ServedPolicy`."""

    revision = None

    def __init__(self, name: str, cameras: Sequence[str], unnorm_keys: Sequence[str]):
        self.name = name
        self.reader = ObservationReader(cameras, None, unnorm_keys)
        self.metadata: dict[str, Any] = {
            "model": name,
            "revision": None,
            "instructvla_version": version("instructvla"),
            "device": "none",
            "unnorm_keys": list(unnorm_keys),
            "cameras": list(cameras),
            "state_dim": None,
            "horizon": 1,
            "action_dim": ACTION_DIM,
            "thinks_by_default": False,
        }

    def thinks(self, call: Any) -> bool:
        return False

    def key(self, call: Any) -> Hashable:
        """All calls can be answered together."""
        return None

    def act(self, calls: Sequence[Any]) -> list[ScriptResult]:
        return [self.result(call.request, call.context) for call in calls]

    def result(self, request: PolicyRequest, context: ScriptContext | None) -> ScriptResult:
        raise NotImplementedError


class RandomActions(ScriptedPolicy):
    """Random actions, by the request's seed, of the robot whose statistics are asked for.

    Args:
        camera: name of the one picture that it is sent.
    """

    def __init__(self, camera: str = "primary"):
        self._robot_of = {key: robot for robot in ROBOTS.values() for key in robot.unnorm_keys}
        super().__init__(RANDOM, [camera], list(self._robot_of))

    def result(self, request: PolicyRequest, context: ScriptContext | None) -> ScriptResult:
        if request.unnorm_key is None:
            raise ValueError(f"random actions need an unnorm_key, which tells the robot: {', '.join(self._robot_of)}")
        action = self._robot_of[request.unnorm_key].random_action(np.random.default_rng(request.seed))
        return ScriptResult(action[None], ScriptContext((request.instruction,), None))


class Replay(ScriptedPolicy):
    """The actions of recorded episodes, one per request; after the last one, it is repeated.

    An episode is known by what it was told and the seed of its first decision; one that is told something else on its
    way goes on from there.

    Args:
        recordings: all that may be asked for.
    """

    def __init__(self, name: str, recordings: Sequence[Recording]):
        keys = [key for robot in ROBOTS.values() for key in robot.unnorm_keys]
        super().__init__(name, recordings[0].cameras[:1], keys)
        self._places: Mapping[tuple[str, int], tuple[Recording, int]] = {
            (told, noise_seed(one.trial.seed, 0)): (one, step) for one in recordings for step, told in one.instructions
        }

    def result(self, request: PolicyRequest, context: ScriptContext | None) -> ScriptResult:
        recording, step = self._find(request) if context is None else context.place
        action = recording.actions[min(step, len(recording.actions) - 1)]
        return ScriptResult(action[None], ScriptContext((request.instruction,), (recording, step + 1)))

    def _find(self, request: PolicyRequest) -> tuple[Recording, int]:
        try:
            return self._places[request.instruction, request.seed]
        except KeyError:
            raise ValueError(
                f"no recording of {request.instruction!r} with this episode's seed; there are {len(self._places)}, "
                f"e.g. of {next(iter(self._places))[0]!r}"
            ) from None


def is_scripted(name: str) -> bool:
    return name == RANDOM or name.startswith(REPLAY)


def scripted_policy(name: str) -> ScriptedPolicy:
    """The policy called "random", or "replay:FOLDER" of recordings.

    Raises:
        ValueError: a folder without recordings.
    """
    if name == RANDOM:
        return RandomActions()
    return Replay(name, load_recordings(Path(name.removeprefix(REPLAY))))
