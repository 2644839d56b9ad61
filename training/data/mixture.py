"""Weighted mixtures of datasets as a shuffled stream of frames that can be resumed exactly (paper section 4.1)."""

import math
from bisect import bisect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate, groupby
from typing import Any, Literal, Self

import numpy as np

from instructvla.training.data.action_chunks import action_chunk
from instructvla.training.data.episode_visits import EpisodeVisits
from instructvla.training.data.episodes import Annotation, BadEpisodeError, Episode, EpisodeReader

STATE_VERSION = 1


@dataclass(frozen=True, slots=True)
class FrameSample:
    """What the model learns from one frame; pictures are still encoded.

    Args:
        dataset: the episode's, key of its statistics (`unnorm_key`).
        episode_id: unique among the episodes of one `file_path`.
        frame_index: step of the episode.
        images: camera → encoded picture (JPEG or PNG).
        state: (state_dim,) float32, physical units, or None.
        actions: (horizon, action_dim) float32, physical units, this frame's action first.
        action_mask: (horizon,) bool, False where the episode was over and its last action is repeated.
        instruction: None where the recording has none.
        language_motion: None where unknown.
        annotation: VLA-IT's of the episode, or None.
        control_rate_hz: steps per second.
        epoch: how often the dataset was gone through before; with `name` it identifies every draw.
        file_path: of the original recording, or None.
    """

    dataset: str
    episode_id: str
    frame_index: int
    images: Mapping[str, bytes]
    state: np.ndarray | None
    actions: np.ndarray
    action_mask: np.ndarray
    instruction: str | None
    language_motion: str | None
    annotation: Annotation | None
    control_rate_hz: float
    epoch: int = 0
    file_path: str | None = None

    @property
    def name(self) -> str:
        """Dataset, recording, episode and frame, unlike any other frame's."""
        recording = f"{self.file_path}#" if self.file_path else ""
        return f"{self.dataset}/{recording}{self.episode_id}, frame {self.frame_index}"


def frame_sample(episode: Episode, frame_index: int, horizon: int, epoch: int = 0) -> FrameSample:
    """One frame of an episode with its chunk of future actions; it doesn't keep the rest of the episode alive."""
    actions, action_mask = action_chunk(episode.actions, frame_index, horizon)
    return FrameSample(
        dataset=episode.dataset,
        episode_id=episode.episode_id,
        frame_index=frame_index,
        images={camera: pictures[frame_index] for camera, pictures in episode.images.items()},
        state=None if episode.states is None else episode.states[frame_index].copy(),
        actions=actions,
        action_mask=action_mask,
        instruction=episode.instructions[frame_index],
        language_motion=None if episode.language_motions is None else episode.language_motions[frame_index],
        annotation=episode.annotation,
        control_rate_hz=episode.control_rate_hz,
        epoch=epoch,
        file_path=episode.file_path,
    )


class _Draws:
    """Uniform numbers in [0, 1) in an order of their own: how many were drawn is the whole state."""

    BLOCK = 4096

    def __init__(self, key: list[int], drawn: int = 0):
        self._key, self.drawn = key, drawn
        self._block = self._make_block()

    def draw(self) -> float:
        number = self._block[self.drawn % self.BLOCK]
        self.drawn += 1
        if self.drawn % self.BLOCK == 0:
            self._block = self._make_block()
        return number

    def _make_block(self) -> list[float]:
        return np.random.default_rng([*self._key, self.drawn // self.BLOCK]).random(self.BLOCK).tolist()


@dataclass(slots=True)
class _Cursor:
    """Where a dataset is being read: the frame after the last one taken."""

    visits: EpisodeVisits
    weight: float
    visit: int = 0
    frame: int = 0
    episode: Episode | None = None

    def is_over(self) -> bool:
        return self.visits.is_over(self.visit)

    def open(self) -> Episode:
        self.episode = self.episode or self.visits.read(self.visit)
        return self.episode

    def close(self) -> None:
        self.visit, self.frame, self.episode = self.visit + 1, 0, None


# A frame in the window, with what finds it again: the place of its dataset and that dataset's visit.
_Taken = tuple[int, int, FrameSample]


class MixtureStream(Iterator[FrameSample]):
    """Frames of several datasets, shuffled within a window, endless unless `epochs` is given.

    Every frame that enters the window comes from a dataset drawn with its weight, so weights are proportions of frames.
    Episodes are visited in another random order each epoch and read whole, one at a time and dataset; the window
    holds encoded pictures. Over all ranks and workers an epoch holds every frame once. The shards get episodes, not
    frames, so with `epochs` they end after different numbers of frames: train on the endless stream, where no rank runs
    dry, and keep `epochs` for evaluation. With `epochs` the weights only set the order; every frame comes that often.

    An iterator: it goes on where it was, and `state_dict` is valid after any sample.

    Args:
        datasets: name → reader. The names are those of the weights and seed the order; a sample carries its episode's
            own `dataset`.
        weights: name → proportion of frames, above 0; they need not sum to 1. None weighs all alike.
        horizon: actions in a chunk.
        shuffle_window: frames held to be drawn from; 1 keeps the order in which they are read.
        seed: of all draws, 0 or more.
        rank: of this process.
        world_size: processes.
        worker: of this process's data workers.
        num_workers: data workers of every process.
        epochs: stop after as many; None is endless.
        on_bad: "raise" stops at an episode that can't be read, "skip" goes on without it and notes it in `skipped`.

    Raises:
        ValueError: an argument that is not as above, or a dataset without episodes.
    """

    def __init__(
        self,
        datasets: Mapping[str, EpisodeReader],
        weights: Mapping[str, float] | None = None,
        *,
        horizon: int,
        shuffle_window: int = 1000,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        worker: int = 0,
        num_workers: int = 1,
        epochs: int | None = None,
        on_bad: Literal["raise", "skip"] = "raise",
    ):
        weights = _check_weights(datasets, weights)
        _check_counts(horizon=horizon, shuffle_window=shuffle_window, world_size=world_size, num_workers=num_workers)
        _check_counts(epochs=1 if epochs is None else epochs)
        _check_place("rank", rank, "world_size", world_size)
        _check_place("worker", worker, "num_workers", num_workers)
        if seed < 0:
            raise ValueError(f"seed is {seed}; give 0 or more")
        if on_bad not in ("raise", "skip"):
            raise ValueError(f"on_bad is {on_bad!r}; give 'raise' or 'skip'")
        self._datasets = dict(datasets)
        self._settings = {
            "weights": weights,
            "horizon": horizon,
            "shuffle_window": shuffle_window,
            "seed": seed,
            "rank": rank,
            "world_size": world_size,
            "worker": worker,
            "num_workers": num_workers,
            "epochs": epochs,
            "on_bad": on_bad,
        }
        self._rewind()

    def for_worker(self, worker: int, num_workers: int) -> Self:
        """The same stream from its start, as one of `num_workers` data workers of this rank reads it."""
        return type(self)(self._datasets, **(self._settings | {"worker": worker, "num_workers": num_workers}))

    @property
    def skipped(self) -> dict[str, dict[int, str]]:
        """Dataset → number of an episode that couldn't be read → why; only what this shard met."""
        return {cursor.visits.name: dict(cursor.visits.unreadable) for cursor in self._cursors}

    def __next__(self) -> FrameSample:
        while len(self._window) < self._settings["shuffle_window"] and (taken := self._take()):
            self._window.append(taken)
        if not self._window:
            raise StopIteration
        chosen = int(self._draws.draw() * len(self._window))
        self._window[chosen], self._window[-1] = self._window[-1], self._window[chosen]
        return self._window.pop()[2]

    def state_dict(self) -> dict[str, Any]:
        """The place in the stream, as numbers, texts and lists that JSON keeps.

        The frames in the window are stored by reference and read again on loading: memory and disk hold no picture.
        """
        return {
            "version": STATE_VERSION,
            "settings": self._described_settings(),
            "draws": self._draws.drawn,
            "cursors": [[cursor.visit, cursor.frame] for cursor in self._cursors],
            "window": {
                "datasets": [place for place, _, _ in self._window],
                "visits": [visit for _, visit, _ in self._window],
                "frames": [sample.frame_index for _, _, sample in self._window],
            },
            "skipped": [[[*item] for item in cursor.visits.unreadable.items()] for cursor in self._cursors],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on where `state_dict` was called, sample for sample.

        Raises:
            ValueError: the state is of a stream with other settings, or other data; the message names them.
            BadEpisodeError: an episode of the window can't be read any more.
        """
        _check_state(state, self._described_settings())
        self._rewind(drawn=state["draws"])
        for cursor, (visit, frame), skipped in zip(self._cursors, state["cursors"], state["skipped"], strict=True):
            cursor.visit, cursor.frame = visit, frame
            cursor.visits.unreadable.update((index, reason) for index, reason in skipped)
        self._window = self._read_window(**state["window"])

    def _rewind(self, drawn: int = 0) -> None:
        settings = self._settings
        shard = settings["rank"] * settings["num_workers"] + settings["worker"]
        num_shards = settings["world_size"] * settings["num_workers"]
        order = {"seed": settings["seed"], "shard": shard, "num_shards": num_shards, "epochs": settings["epochs"]}
        self._cursors = [
            _Cursor(EpisodeVisits(name, reader, **order), settings["weights"][name])
            for name, reader in self._datasets.items()
        ]
        self._draws = _Draws([settings["seed"], shard], drawn)
        self._window: list[_Taken] = []
        self._shape: tuple[int, str] | None = None

    def _take(self) -> _Taken | None:
        """The next frame in the order of reading, with its dataset's place and its visit; None when all is read."""
        while active := [place for place, cursor in enumerate(self._cursors) if not cursor.is_over()]:
            place = self._draw_dataset(active)
            cursor = self._cursors[place]
            try:
                episode = cursor.open()
            except BadEpisodeError:
                if self._settings["on_bad"] == "raise":
                    raise
                cursor.close()
                continue
            taken = (place, cursor.visit, self._sample(cursor, episode, cursor.visit, cursor.frame))
            cursor.frame += 1
            if cursor.frame == len(episode):
                cursor.close()
            return taken
        return None

    def _draw_dataset(self, active: list[int]) -> int:
        sums = list(accumulate(self._cursors[place].weight for place in active))
        return active[bisect(sums, self._draws.draw() * sums[-1], hi=len(sums) - 1)]

    def _sample(self, cursor: _Cursor, episode: Episode, visit: int, frame: int) -> FrameSample:
        size, first = self._shape = self._shape or (episode.actions.shape[1], f"{episode.dataset}/{episode.episode_id}")
        if episode.actions.shape[1] != size:
            raise ValueError(
                f"{episode.dataset}/{episode.episode_id} has actions of {episode.actions.shape[1]} dimensions, {first} "
                f"of {size}; a mixture needs one action size, choose the same dimensions in the field mappings"
            )
        return frame_sample(episode, frame, self._settings["horizon"], cursor.visits.epoch(visit))

    def _read_window(self, datasets: list[int], visits: list[int], frames: list[int]) -> list[_Taken]:
        """The window's frames; each of their episodes is read once and let go."""
        window: dict[int, _Taken] = {}
        episodes = list(zip(datasets, visits, strict=True))
        slots = sorted(range(len(episodes)), key=episodes.__getitem__)
        for (place, visit), group in groupby(slots, key=episodes.__getitem__):
            cursor = self._cursors[place]
            episode = cursor.visits.read(visit)
            window |= {slot: (place, visit, self._sample(cursor, episode, visit, frames[slot])) for slot in group}
        return [window[slot] for slot in range(len(episodes))]

    def _described_settings(self) -> dict[str, Any]:
        datasets = {
            name: {"episodes": len(reader), "fingerprint": getattr(reader, "fingerprint", None)}
            for name, reader in self._datasets.items()
        }
        decisive = {name: value for name, value in self._settings.items() if name != "on_bad"}
        return decisive | {"datasets": datasets}


def _check_weights(datasets: Mapping[str, EpisodeReader], weights: Mapping[str, float] | None) -> dict[str, float]:
    if not datasets:
        raise ValueError("datasets is empty; give at least one")
    empty = [name for name, reader in datasets.items() if len(reader) == 0]
    if empty:
        raise ValueError(f"{empty[0]!r} has no episodes; leave it out")
    weights = dict.fromkeys(datasets, 1.0) if weights is None else weights
    if set(weights) != set(datasets):
        raise ValueError(f"weights are of {sorted(weights)}, datasets are {sorted(datasets)}; give a weight for each")
    for name, weight in weights.items():
        if not (weight > 0 and math.isfinite(weight)):
            raise ValueError(f"the weight of {name!r} is {weight}; give a finite one above 0, or leave the dataset out")
    return {name: float(weights[name]) for name in datasets}


def _check_counts(**counts: int) -> None:
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f"{name} is {count}; give 1 or more")


def _check_place(name: str, place: int, total_name: str, total: int) -> None:
    if not 0 <= place < total:
        raise ValueError(f"{name} is {place}; with {total_name} {total} it is 0 to {total - 1}")


def _check_state(state: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    if state.get("version") != STATE_VERSION:
        raise ValueError(f"the state has version {state.get('version')!r}; this stream reads {STATE_VERSION}")
    saved = state["settings"]
    other = [name for name in settings if saved.get(name) != settings[name]]
    if other:
        differences = "; ".join(f"{name} was {saved.get(name)}, is {settings[name]}" for name in other)
        raise ValueError(
            f"the state is of another stream: {differences}. Give the same settings and data, or start anew"
        )
