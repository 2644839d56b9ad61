"""Resumable streams behind a torch `DataLoader`'s workers, and as the `datasets` kind that trainers ask for."""

import json
import signal
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, Protocol

import torch
from datasets import IterableDataset
from torch.utils.data import DataLoader, get_worker_info
from torch.utils.data import IterableDataset as TorchIterableDataset

from instructvla.training.data.mixture import FrameSample, MixtureStream


class ResumableStream(Protocol):
    """An iterator that tells its place as something JSON keeps, e.g. a `MixtureStream` or batches made of one."""

    def __iter__(self) -> Iterator[Any]: ...

    def __next__(self) -> Any: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


class StreamLoader:
    """Items of one stream per data worker, taken from the workers in turn; resumed exactly, whatever was prefetched.

    Each item brings its worker's state along, so the loader's state is that of the items handed out, not of those that
    the workers have already made. Iterating again goes on where the last iteration was.

    Args:
        make_stream: (worker, num_workers) → that worker's stream at its start. Batches are best made in it, so that
            they are decoded and collated in the workers.
        num_workers: processes; 0 reads in this one.
        prefetch: items that each worker makes ahead.
        pin_memory: whether tensors are handed out in page-locked memory, for faster copies to a GPU.

    Raises:
        ValueError: a negative number of workers, or none to make ahead.
    """

    def __init__(
        self,
        make_stream: Callable[[int, int], ResumableStream],
        *,
        num_workers: int = 0,
        prefetch: int = 2,
        pin_memory: bool = False,
    ):
        if num_workers < 0:
            raise ValueError(f"num_workers is {num_workers}; give 0 (this process) or more")
        if prefetch < 1:
            raise ValueError(f"prefetch is {prefetch}; give 1 or more items")
        self._make_stream = make_stream
        self._num_workers = num_workers
        self._options = {"pin_memory": pin_memory, "prefetch_factor": prefetch if num_workers else None}
        self._next = 0
        self._states: list[str | None] = [None] * max(1, num_workers)

    def __iter__(self) -> Iterator[Any]:
        workers = _WorkerStreams(self._make_stream, self._next, list(self._states))
        loader = DataLoader(
            workers,
            batch_size=None,
            collate_fn=_unchanged,
            num_workers=self._num_workers,
            worker_init_fn=_leave_stopping_to_the_parent,
            generator=torch.Generator(),  # or iterating would draw from the global one, and a resumed run differ
            **self._options,
        )
        for worker, state, item in loader:
            if isinstance(item, _Failure):
                raise item.error
            self._states[worker] = state
            self._next = (worker + 1) % len(self._states)
            yield item

    def state_dict(self) -> dict[str, Any]:
        """The place after the last item handed out, as JSON keeps it."""
        states = [None if state is None else json.loads(state) for state in self._states]
        return {"next_worker": self._next, "workers": states}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on where `state_dict` was called, at the next iteration.

        Raises:
            ValueError: the state is of another number of workers. What the streams refuse is raised by the iteration.
        """
        if len(state["workers"]) != len(self._states):
            raise ValueError(
                f"the state is of {len(state['workers'])} data workers, this loader has {len(self._states)}; give "
                f"num_workers={len(state['workers'])} to go on with it"
            )
        self._next = state["next_worker"]
        self._states = [None if worker is None else json.dumps(worker) for worker in state["workers"]]


class _WorkerStreams(TorchIterableDataset):
    """What a worker runs: its stream from its state on, as (worker, state after the item, item)."""

    def __init__(self, make_stream: Callable[[int, int], ResumableStream], first: int, states: list[str | None]):
        self._make_stream, self._first, self._states = make_stream, first, states

    def __iter__(self) -> Iterator[tuple[int, str, Any]]:
        process = get_worker_info()
        # The loader asks process 0 first, whose turn it needn't be.
        worker = 0 if process is None else (process.id + self._first) % process.num_workers
        stream = self._make_stream(worker, len(self._states))
        try:
            if self._states[worker] is not None:
                stream.load_state_dict(json.loads(self._states[worker]))
            for item in stream:
                yield worker, json.dumps(stream.state_dict()), item  # a text passes the queue and the pinning as it is
        except ValueError as error:
            yield worker, "", _Failure(error)


@dataclass(frozen=True)
class _Failure:
    """Bad data that a worker met: raised where the items are used, or a user would see the worker's traceback first."""

    error: ValueError


def as_iterable_dataset(stream: MixtureStream, num_workers: int = 1) -> IterableDataset:
    """The stream's samples as dicts of the fields of `FrameSample`, for code that takes only `datasets` datasets.

    Its shards are the stream's workers. An endless stream never leaves the first shard it gets, so load it with
    exactly `num_workers` workers, or 0 for 1. Its `state_dict` counts samples, and on resuming all of them are read
    again and dropped: exact, but slow after a long run, where `StreamLoader` starts at once.
    """
    return IterableDataset.from_generator(
        _examples, gen_kwargs={"workers": list(range(num_workers)), "of": (stream, num_workers)}
    )


def _examples(workers: list[int], of: tuple[MixtureStream, int]) -> Iterator[dict[str, Any]]:
    stream, num_workers = of
    names = [field.name for field in fields(FrameSample)]
    for worker in workers:
        for sample in stream.for_worker(worker, num_workers):
            yield {name: getattr(sample, name) for name in names}


def _leave_stopping_to_the_parent(worker: int) -> None:
    """A signal to the whole group (Slurm, Ctrl-C) must not end the workers, whose batches a stopping run still takes;
    torch's own handler would, and the run with them. They end with their parent."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _unchanged(item: Any) -> Any:
    return item
