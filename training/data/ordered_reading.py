"""Episodes read ahead by worker processes, in the order of their numbers."""

import multiprocessing
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import islice
from multiprocessing.context import BaseContext

from instructvla.training.data.episodes import BadEpisodeError, Episode, EpisodeReader


def read_in_order(
    reader: EpisodeReader, numbers: Sequence[int], workers: int
) -> Iterator[tuple[int, Episode | BadEpisodeError]]:
    """Episodes in the order of their numbers; with workers, some are read ahead in other processes."""
    if not workers:
        yield from ((number, read_or_error(reader, number)) for number in numbers)
        return
    pool = ProcessPoolExecutor(workers, mp_context=_processes(), initializer=_set_reader, initargs=(reader,))
    try:
        waiting, ahead = deque(), iter(numbers)
        while True:
            for number in islice(ahead, 2 * workers - len(waiting)):
                waiting.append((number, pool.submit(_read_here, number)))
            if not waiting:
                return
            number, future = waiting.popleft()
            yield number, future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def read_or_error(reader: EpisodeReader, number: int) -> Episode | BadEpisodeError:
    try:
        return reader[number]
    except BadEpisodeError as error:
        return error


def _processes() -> BaseContext:
    """Processes that inherit no threads or locks (a plain fork may hang on them), yet import the package only once."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


_reader: EpisodeReader | None = None  # of a worker process


def _set_reader(reader: EpisodeReader) -> None:
    global _reader
    _reader = reader


def _read_here(number: int) -> Episode | BadEpisodeError:
    return read_or_error(_reader, number)
