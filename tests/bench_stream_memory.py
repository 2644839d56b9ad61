"""Memory and speed of streaming 2,000 prepared episodes, 256 x 256, two times over, in one process.

Run with `make bench-stream`. It needs Linux, and 2 GB of disk for temporary files.
"""

import io
import json
import multiprocessing
import os
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import matplotlib
import numpy as np
import typer
from PIL import Image

from instructvla.training.data.dataset_description import DatasetDescription
from instructvla.training.data.episodes import Episode
from instructvla.training.data.mixture import MixtureStream
from instructvla.training.data.parquet_reader import ParquetEpisodes
from instructvla.training.data.prepare import prepare
from tests.made_episodes import MadeEpisodes

PICTURES = 500  # different ones; an episode takes them in turn from a place of its own
LIMIT_MB = 1500
AXES = ("x", "y", "z", "roll", "pitch", "yaw", "gripper")
UNITS = ("m", "m", "m", "rad", "rad", "rad", "")


@dataclass
class DrawnEpisodes(MadeEpisodes):
    """Made episodes with real JPEGs of 256 x 256, as `prepare` takes them."""

    pictures: list[bytes] = field(default_factory=list)
    provenance = {"source_fingerprint": "drawn"}

    @property
    def description(self) -> DatasetDescription:
        return DatasetDescription(self.dataset, ("primary",), AXES, UNITS, (6,), AXES, UNITS)

    def __getitem__(self, index: int) -> Episode:
        episode = super().__getitem__(index)
        shown = [self.pictures[(31 * index + step) % len(self.pictures)] for step in range(len(episode))]
        episode.images["primary"][:] = shown
        return episode


def drawn_picture(generator: np.random.Generator) -> bytes:
    """A JPEG of about 20 KB."""
    coarse = Image.fromarray(generator.integers(0, 256, (40, 40, 3), np.uint8))
    file = io.BytesIO()
    coarse.resize((256, 256), Image.Resampling.BICUBIC).save(file, "JPEG", quality=88)
    return file.getvalue()


def prepare_episodes(folder: Path, name: str, count: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    pictures = [drawn_picture(generator) for _ in range(PICTURES)]
    lengths = generator.integers(20, 61, count).tolist()
    prepare(DrawnEpisodes(name, lengths, pictures=pictures), folder / name)


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def measure(folder: str, names: list[str], shuffle_window: int, epochs: int, every: int) -> dict[str, Any]:
    """What streaming takes; of the memory, what the imported libraries take is told apart."""
    imported = resident_mb()
    readers = {name: ParquetEpisodes(Path(folder) / name) for name in names}
    weights = {name: float(len(reader)) for name, reader in readers.items()}
    options = {"horizon": 16, "shuffle_window": shuffle_window, "epochs": epochs}
    stream = MixtureStream(readers, weights, **options)
    points, transferred, start = [], 0, time.perf_counter()
    for number, sample in enumerate(stream):
        if number % every == 0:
            points.append((number, time.perf_counter() - start, resident_mb()))
        if number == every:
            state, state_ms = timed_state(stream)
        transferred += sum(map(len, sample.images.values()))
    seconds = time.perf_counter() - start
    points.append((number + 1, seconds, resident_mb()))
    summary = {
        "samples": number + 1,
        "picture_GB": round(transferred / 1e9, 2),
        "samples_per_s": round((number + 1) / seconds),
        "MB_per_s": round(transferred / 1e6 / seconds),
        "RSS_of_imports_MB": round(imported),
        "peak_RSS_MB": round(max(memory for *_, memory in points)),
        "state_KB": round(len(state) / 1e3, 1),
        "state_ms": round(state_ms, 1),
        "resume_s": round(time_of_resuming(state, MixtureStream(readers, weights, **options)), 2),
    }
    return {"points": points, "summary": summary}


def timed_state(stream: MixtureStream) -> tuple[str, float]:
    """The place in the stream as JSON, and the milliseconds it took."""
    start = time.perf_counter()
    state = json.dumps(stream.state_dict())
    return state, 1e3 * (time.perf_counter() - start)


def time_of_resuming(state: str, fresh: MixtureStream) -> float:
    """Seconds until a fresh stream has read its window again."""
    start = time.perf_counter()
    fresh.load_state_dict(json.loads(state))
    return time.perf_counter() - start


def table(points: list[tuple[int, float, float]]) -> str:
    rows = [f"{'sample':>10} {'seconds':>10} {'RSS MB':>10}"]
    rows += [f"{number:>10,} {seconds:>10.1f} {memory:>10.0f}" for number, seconds, memory in points]
    return "\n".join(rows)


def draw_curve(points: list[tuple[int, float, float]], epochs: int, output: Path) -> None:
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 3.5), layout="constrained")
    samples, _, memory = zip(*points, strict=True)
    axes.plot(samples, memory, marker=".")
    axes.axhline(LIMIT_MB, color="tab:red", linestyle="--", label=f"limit, {LIMIT_MB:,} MB")
    for epoch in range(1, epochs):
        axes.axvline(samples[-1] * epoch / epochs, color="0.7", label=f"end of epoch {epoch}")
    axes.set(xlabel="samples", ylabel="resident memory (MB)", ylim=(0, 1.1 * LIMIT_MB))
    axes.legend()
    output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(output, dpi=150)


def main(
    episodes: Annotated[int, typer.Option(help="In all, of two datasets.")] = 2000,
    shuffle_window: Annotated[int, typer.Option(help="Frames held.")] = 1000,
    epochs: Annotated[int, typer.Option(help="Times over.")] = 2,
    output: Annotated[Path, typer.Option(help="Where the curve goes.")] = Path("outputs/stream_memory.png"),
) -> None:
    """Prepare episodes, stream them in a fresh process, print its memory and draw it."""
    counts = {"bridge": round(0.7 * episodes), "fractal": episodes - round(0.7 * episodes)}
    every = max(1, episodes * 40 * epochs // 20)
    with tempfile.TemporaryDirectory() as folder:
        for seed, (name, count) in enumerate(counts.items()):
            prepare_episodes(Path(folder), name, count, seed)
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            result = pool.apply(measure, (folder, list(counts), shuffle_window, epochs, every))
    draw_curve(result["points"], epochs, output)
    typer.echo(table(result["points"]))
    typer.echo(json.dumps(result["summary"], indent=2))
    typer.echo(f"curve: {output}")
    if result["summary"]["peak_RSS_MB"] > LIMIT_MB:
        raise SystemExit(f"error: the stream took more than {LIMIT_MB} MB")


if __name__ == "__main__":
    typer.run(main)
