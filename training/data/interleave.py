"""Robot batches and multimodal batches in turn, at the paper's 7 to 1 (paper section 5, training details)."""

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import numpy as np

from instructvla.training.data.chat_json import ChatRecords
from instructvla.training.data.episode_visits import EpisodeVisits
from instructvla.training.data.episodes import BadEpisodeError
from instructvla.training.data.samples import ChatSample, SampleCheck, check_settings


class SampleStream(Protocol):
    """Endless samples whose place can be stored."""

    def __next__(self) -> ChatSample: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


class ChatStream(Iterator[ChatSample]):
    """Endless records of a chat file, shuffled anew in each epoch; over all shards, an epoch holds each record once.

    Args:
        records: of the file.
        seed: of the order.
        rank: of this process.
        world_size: processes.
        worker: of this process's data workers.
        num_workers: data workers of every process.
        on_bad: "raise" stops at a record that can't be used, "skip" goes on without it and notes it in `skipped`.
        check: raises `BadEpisodeError` for a record that can't be used either, e.g. `ActionCollator.check_fit`.

    Raises:
        ValueError: an unknown `on_bad`, or a rank or worker outside its range.
    """

    def __init__(
        self,
        records: ChatRecords,
        *,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        worker: int = 0,
        num_workers: int = 1,
        on_bad: str = "raise",
        check: SampleCheck | None = None,
    ):
        if on_bad not in ("raise", "skip"):
            raise ValueError(f"on_bad is {on_bad!r}; give 'raise' or 'skip'")
        for name, place, total in (("rank", rank, world_size), ("worker", worker, num_workers)):
            if not 0 <= place < total:
                raise ValueError(f"{name} is {place}; of {total} it is 0 to {total - 1}")
        shard, num_shards = rank * num_workers + worker, world_size * num_workers
        self._settings = {
            "seed": seed,
            "shard": shard,
            "num_shards": num_shards,
            "fingerprint": records.fingerprint,
        }
        checked = records if check is None else CheckedRecords(records, check)
        self._visits = EpisodeVisits(records.path.name, checked, seed=seed, shard=shard, num_shards=num_shards)
        self._visit, self._on_bad = 0, on_bad

    @property
    def skipped(self) -> dict[int, str]:
        """Index of a record that can't be used → why; only what this shard met."""
        return dict(self._visits.unreadable)

    def __next__(self) -> ChatSample:
        while True:
            self._visit += 1
            try:
                return self._visits.read(self._visit - 1)
            except BadEpisodeError:
                if self._on_bad == "raise":
                    raise

    def state_dict(self) -> dict[str, Any]:
        """The place in the stream, as JSON keeps it."""
        skipped = [[index, reason] for index, reason in self._visits.unreadable.items()]
        return {"settings": self._settings, "visit": self._visit, "skipped": skipped}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on where `state_dict` was called; other settings or another file are a ValueError."""
        check_settings(state["settings"], self._settings)
        self._visit = state["visit"]
        self._visits.unreadable = {index: reason for index, reason in state["skipped"]}


class CheckedRecords:
    """Records of a chat file, those among them that the check refuses being bad ones."""

    def __init__(self, records: ChatRecords, check: SampleCheck):
        self.records, self.check = records, check

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> ChatSample:
        sample = self.records[index]
        self.check(sample)
        return sample


class InterleavedBatches(Iterator[list[ChatSample]]):
    """Batches that are all robot or all chat, so that each has one kind of loss and of inputs.

    Of every `robot_share` + `chat_share` steps, `chat_share` are chat; which ones is drawn by the seed and the step
    alone, so all ranks do the same at the same step. (Evenly spaced, they would always meet the same data worker.)

    Args:
        robot: samples with a frame.
        chat: samples without one; None gives robot batches only.
        batch_size: samples in a batch of this process.
        chat_batch_size: the same of a chat batch; default: `batch_size`.
        robot_share: 7 in the paper; 0 beside chat gives chat batches only.
        chat_share: 1 in the paper.
        seed: of the steps' order; the same on every rank and worker.
        worker: of this process's data workers, whose batches the loader takes in turn.
        num_workers: as many.

    Raises:
        ValueError: a size or share below 1 (or 0), or a worker outside its range.
    """

    def __init__(
        self,
        robot: SampleStream,
        chat: SampleStream | None = None,
        *,
        batch_size: int,
        chat_batch_size: int | None = None,
        robot_share: int = 7,
        chat_share: int = 1,
        seed: int = 0,
        worker: int = 0,
        num_workers: int = 1,
    ):
        chat_batch_size = batch_size if chat_batch_size is None else chat_batch_size
        counts = {
            "batch_size": batch_size,
            "chat_batch_size": chat_batch_size,
            "robot_share": robot_share,
            "chat_share": chat_share,
        }
        for name, count in counts.items():
            least = 0 if name == "robot_share" and chat is not None else 1
            if count < least:
                raise ValueError(f"{name} is {count}; give {least} or more")
        if not 0 <= worker < num_workers:
            raise ValueError(f"worker is {worker}; of {num_workers} it is 0 to {num_workers - 1}")
        self._streams = {"robot": robot} if chat is None else {"robot": robot, "chat": chat}
        self._settings = counts | {"seed": seed, "worker": worker, "num_workers": num_workers}
        self._step = worker

    def __next__(self) -> list[ChatSample]:
        settings = self._settings
        is_chat = "chat" in self._streams and is_chat_step(
            self._step, settings["robot_share"], settings["chat_share"], settings["seed"]
        )
        stream = self._streams["chat" if is_chat else "robot"]
        size = settings["chat_batch_size" if is_chat else "batch_size"]
        batch = [next(stream) for _ in range(size)]
        self._step += settings["num_workers"]
        return batch

    def state_dict(self) -> dict[str, Any]:
        """The place of the batches and of both streams, as JSON keeps it."""
        streams = {name: stream.state_dict() for name, stream in self._streams.items()}
        return {"settings": self._settings, "step": self._step, "streams": streams}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on where `state_dict` was called; other settings or streams are a ValueError."""
        check_settings(
            state["settings"] | {"streams": sorted(state["streams"])},
            self._settings | {"streams": sorted(self._streams)},
        )
        for name, stream in self._streams.items():
            stream.load_state_dict(state["streams"][name])
        self._step = state["step"]


def is_chat_step(step: int, robot_share: int = 7, chat_share: int = 1, seed: int = 0) -> bool:
    """Whether a step trains on multimodal chat; a function of its arguments alone."""
    period, place = divmod(step, robot_share + chat_share)
    order = np.random.default_rng([seed, period]).permutation(robot_share + chat_share)
    return bool(order[place] < chat_share)
