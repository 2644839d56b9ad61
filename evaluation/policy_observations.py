"""What a policy server is asked: one observation dictionary, in our own form or in the flat form of openpi's examples.

Own form: `images` {camera: (height, width, 3) uint8} (one array if the model has one camera), `prompt` or
`instruction`, `state`, and the options `unnorm_key`, `think`, `reuse_latent`, `reset`, `seed`, `previous_actions`,
`delay`. Everything unknown is refused. `{"reset": True}` alone only resets.

openpi's form: `prompt`, and `observation/NAME` for each picture and for `state`. A picture's NAME is a camera of the
model, or one of openpi's names in `OPENPI_CAMERAS`. What the model has no use for under `observation/`, e.g.
joint positions or a second camera, is ignored, and the answer lists it, as openpi's own server picks what it needs.

Needs neither torch nor transformers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import numpy as np

KNOWN_KEYS = (
    "images",
    "prompt",
    "instruction",
    "state",
    "unnorm_key",
    "think",
    "reuse_latent",
    "reset",
    "seed",
    "previous_actions",
    "delay",
)
FLAT_PREFIX = "observation/"
FLAT_STATE = FLAT_PREFIX + "state"
OPENPI_CAMERAS = {"image": 0, "exterior_image_1_left": 0, "wrist_image": "wrist", "wrist_image_left": "wrist"}
"""openpi's picture names: the model's camera by number, or the first one with this in its name."""

MAX_INSTRUCTION = 2000  # characters
BACKGROUND = "background"
"""Of `think`: act on the last words now, and speak anew beside the actions."""

IMAGE_SIDES = (16, 4096)  # pixels; a sliver of a picture would become a huge one when its short side is resized


@dataclass(frozen=True)
class PolicyRequest:
    """One checked observation.

    Args:
        images: `(height, width, 3)` uint8 for each of the model's cameras; empty if the request only resets.
        instruction: what the robot shall do; empty if the request only resets.
        state: `(state_dim,)` float64, physical units, or None.
        unnorm_key, reuse_latent: as for `generate_action`.
        think: as for `generate_action`, or `BACKGROUND`.
        reset: forget the connection's earlier answers first.
        seed: of the flow's initial noise; None draws one.
        previous_actions: `(k, action_dim)` float64, what the last chunk still has to give, or None.
        delay: how many of these will have been executed when the answer is there.
        ignored: keys that the model has no use for.
    """

    images: dict[str, np.ndarray]
    instruction: str
    state: np.ndarray | None = None
    unnorm_key: str | None = None
    think: bool | str | None = None
    reuse_latent: bool = False
    reset: bool = False
    seed: int | None = None
    previous_actions: np.ndarray | None = None
    delay: int = 0
    ignored: tuple[str, ...] = ()


class ObservationReader:
    """Observations for one model.

    Args:
        cameras: the model's cameras, in order.
        state_dim: number of state values, None for a model without state.
        unnorm_keys: the checkpoint's statistics.
    """

    def __init__(self, cameras: Sequence[str], state_dim: int | None, unnorm_keys: Sequence[str]):
        self.cameras, self.state_dim, self.unnorm_keys = list(cameras), state_dim, list(unnorm_keys)
        self.camera_of = _openpi_names(self.cameras) | {camera: camera for camera in self.cameras}

    def read(self, message: Any) -> PolicyRequest:
        """The checked request in an unpacked message.

        Raises:
            ValueError: what is missing, unknown or of another shape; the message names it and what is accepted.
        """
        if not isinstance(message, Mapping) or not all(isinstance(key, str) for key in message):
            raise ValueError(f"an observation is a map with text keys, got {type(message).__name__}; see {KNOWN_KEYS}")
        if message.keys() == {"reset"}:
            return PolicyRequest({}, "", reset=_flag(message, "reset"))
        flat = {key: value for key, value in message.items() if key.startswith(FLAT_PREFIX)}
        own = {key: value for key, value in message.items() if key not in flat}
        self._check_known(own)
        pictures, state, ignored = self._flat_parts(flat)
        if own.get("images") is not None:
            if pictures:
                raise ValueError(f"pictures are given as images and as {FLAT_PREFIX}…; give them once")
            pictures = self._named_pictures(own["images"])
        if own.get("state") is not None:
            state = own["state"]
        return PolicyRequest(
            images=self._checked_pictures(pictures),
            instruction=_instruction(own),
            state=self._checked_state(state),
            unnorm_key=self._checked_key(own.get("unnorm_key")),
            think=_think(own.get("think")),
            reuse_latent=_flag(own, "reuse_latent"),
            reset=_flag(own, "reset"),
            seed=_count(own, "seed"),
            previous_actions=_actions(own.get("previous_actions")),
            delay=_count(own, "delay") or 0,
            ignored=tuple(ignored),
        )

    def _check_known(self, own: Mapping[str, Any]) -> None:
        for key in own:
            if key not in KNOWN_KEYS:
                hint = "".join(f"; the nearest is {near!r}" for near in get_close_matches(key, KNOWN_KEYS, 1))
                raise ValueError(
                    f"unknown key {key[:60]!r}; known are {', '.join(KNOWN_KEYS)}, {FLAT_PREFIX}NAME{hint}"
                )

    def _flat_parts(self, flat: Mapping[str, Any]) -> tuple[dict[str, Any], Any, list[str]]:
        """Pictures by the model's cameras, the state, and the keys that it has no use for."""
        pictures, ignored = {}, []
        state = flat.get(FLAT_STATE) if self.state_dim is not None else None
        for key, value in flat.items():
            camera = self.camera_of.get(key.removeprefix(FLAT_PREFIX))
            if camera in pictures:
                raise ValueError(f"camera {camera!r} is given twice, the second time as {key!r}; give it once")
            if camera is not None:
                pictures[camera] = value
            elif key != FLAT_STATE or self.state_dim is None:
                ignored.append(key[:60])
        return pictures, state, ignored

    def _named_pictures(self, images: Any) -> dict[str, Any]:
        if isinstance(images, Mapping):
            return dict(images)
        if len(self.cameras) != 1:
            raise ValueError(f"images must be a map with the cameras {self.cameras}, got {type(images).__name__}")
        return {self.cameras[0]: images}

    def _checked_pictures(self, pictures: Mapping[str, Any]) -> dict[str, np.ndarray]:
        if pictures.keys() != set(self.cameras):
            given = [str(name)[:60] for name in pictures]
            raise ValueError(f"the model sees the cameras {self.cameras}, but the pictures are of {given}")
        return {camera: _picture(pictures[camera], camera) for camera in self.cameras}

    def _checked_state(self, state: Any) -> np.ndarray | None:
        if self.state_dim is None:
            if state is not None:
                raise ValueError("this model takes no state; leave it out")
            return None
        if state is None:
            raise ValueError(f"this model needs a state of {self.state_dim} values; give state")
        try:
            values = np.array(state, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise ValueError(f"state must be {self.state_dim} numbers: {error}") from error
        if values.shape != (self.state_dim,) or not np.isfinite(values).all():
            raise ValueError(f"state must be {self.state_dim} finite numbers, got {values.tolist()!r:.200}")
        return values

    def _checked_key(self, key: Any) -> str | None:
        if key is None and len(self.unnorm_keys) != 1:
            raise ValueError(f"give unnorm_key, one of {self.unnorm_keys}: this model has several sets of statistics")
        if key is None or key in self.unnorm_keys:
            return key
        near = get_close_matches(str(key), self.unnorm_keys, 1, cutoff=0)
        raise ValueError(f"unknown unnorm_key {str(key)[:60]!r}; the nearest of {self.unnorm_keys} is {near[0]!r}")


def _openpi_names(cameras: list[str]) -> dict[str, str]:
    named = {}
    for name, place in OPENPI_CAMERAS.items():
        fitting = [cameras[place]] if isinstance(place, int) else [camera for camera in cameras if place in camera]
        if fitting:
            named[name] = fitting[0]
    return named


def _picture(image: Any, camera: str) -> np.ndarray:
    """`(height, width, 3)`; openpi's `(3, height, width)` is turned."""
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
        given = f"an array of {image.dtype}" if isinstance(image, np.ndarray) else type(image).__name__
        raise ValueError(f"the picture of {camera!r} must be a uint8 array of levels 0 to 255, got {given}")
    if image.ndim == 3 and image.shape[0] == 3 and image.shape[2] != 3:
        image = image.transpose(1, 2, 0)
    low, high = IMAGE_SIDES
    if image.ndim != 3 or image.shape[2] != 3 or not all(low <= side <= high for side in image.shape[:2]):
        raise ValueError(
            f"the picture of {camera!r} must have shape (height, width, 3) with sides of {low} to {high} pixels, "
            f"got {image.shape}"
        )
    return np.ascontiguousarray(image)


def _instruction(own: Mapping[str, Any]) -> str:
    given = [own[key] for key in ("prompt", "instruction") if own.get(key) is not None]
    if len(given) != 1:
        raise ValueError("give the instruction once, as prompt or as instruction")
    text = given[0]
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f"the instruction must be a text that says something, got {str(text)[:60]!r}")
    if len(text) > MAX_INSTRUCTION:
        raise ValueError(f"the instruction has {len(text)} characters; at most {MAX_INSTRUCTION} are read")
    return text


def _flag(own: Mapping[str, Any], name: str) -> bool:
    value = own.get(name)
    if value is None:
        return False
    if not isinstance(value, bool | np.bool_):
        raise ValueError(f"{name} must be true or false, got {str(value)[:60]!r}")
    return bool(value)


def _think(value: Any) -> bool | str | None:
    if value is None or value == BACKGROUND:
        return value
    if not isinstance(value, bool | np.bool_):
        raise ValueError(f"think must be true, false or {BACKGROUND!r}, got {str(value)[:60]!r}")
    return bool(value)


def _count(own: Mapping[str, Any], name: str) -> int | None:
    value = own.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or not 0 <= value < 2**63:
        raise ValueError(f"{name} must be an integer of at least 0, got {str(value)[:60]!r}")
    return int(value)


def _actions(value: Any) -> np.ndarray | None:
    if value is None:
        return None
    try:
        actions = np.array(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"previous_actions must be numbers: {error}") from error
    if actions.ndim != 2 or actions.size == 0 or not np.isfinite(actions).all():
        raise ValueError(f"previous_actions must be finite, (steps, action_dim), got shape {actions.shape}")
    return actions
