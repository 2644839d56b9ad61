"""Samples per second of one data worker, for each reader, from 256 x 256 to the inputs of both vision towers.

Run with `make bench-data`. Beside each stands a lower bound of plain PIL and NumPy: JPEG (or video frame) decoded, two
bicubic resizes, floats; neither reading nor normalising nor checking. All run alternately on the same frames, in one
thread, and CPU seconds count, so that a busy machine changes little.
"""

import io
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import av
import numpy as np
import torch
import typer
from PIL import Image

from instructvla.processing import InstructVLAProcessor
from instructvla.processing.image_transforms import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    VLM_MEAN,
    VLM_STD,
    expert_view,
    normalized_pixels,
    squash,
)
from instructvla.training.data.episodes import EpisodeReader
from instructvla.training.data.field_mapping import FieldMapping
from instructvla.training.data.mixture import MixtureStream
from instructvla.training.data.prepare import prepare
from instructvla.training.data.readers import open_episodes
from instructvla.training.data.samples import decoded_views
from tests.lerobot_writer import CODECS, FRONT, LerobotDataset
from tests.rlds_writer import bridge_record, write_rlds
from tests.tiny_processor import tiny_processor

SIDE, VLM_SIDE, EXPERT_SIDE = 256, 448, 224
TARGET = 0.6
JPEG_BOUND = "PIL + NumPy, JPEG"
STAGES = ("read", "decode", "resize", "normalise", "other")
VIDEO_MAPPING = {
    "dataset": "video",
    "cameras": {"primary": FRONT},
    "action": {"parts": [{"field": "action"}], "names": ["x", "y"], "units": ["m", "m"]},
    "instruction": "task",
}


@dataclass(frozen=True)
class Contender:
    """One reader and the bound it is held against."""

    name: str
    reader: EpisodeReader
    bound: str


@dataclass(frozen=True)
class Scene:
    """A wide picture that a camera pans over, two pixels a frame, so that videos have something to predict."""

    wide: Image.Image

    @classmethod
    def drawn(cls, seed: int, frames: int) -> "Scene":
        width = SIDE + 2 * frames
        coarse = np.random.default_rng(seed).integers(0, 256, (40, 40 * width // SIDE, 3), np.uint8)
        return cls(Image.fromarray(coarse).resize((width, SIDE), Image.Resampling.BICUBIC))

    def frame(self, number: int) -> Image.Image:
        return self.wide.crop((2 * number, 0, 2 * number + SIDE, SIDE))

    def jpeg(self, number: int) -> bytes:
        self.frame(number).save(file := io.BytesIO(), "JPEG", quality=88)
        return file.getvalue()


class PannedVideos(LerobotDataset):
    """A LeRobot dataset whose one camera shows scenes."""

    def write_videos(self, folder: Path, template: str, place: dict[str, int], numbers: list[int]) -> None:
        path = folder / template.format(video_key=FRONT, **place)
        path.parent.mkdir(parents=True, exist_ok=True)
        scene = Scene.drawn(place["episode_index"], len(numbers))
        encoder, options = CODECS[self.codec]
        with av.open(str(path), "w") as container:
            stream = container.add_stream(encoder, rate=self.fps, options=options)
            stream.width = stream.height = SIDE
            stream.pix_fmt, stream.codec_context.thread_count = "yuv420p", 1
            for number in range(len(numbers)):
                container.mux(stream.encode(av.VideoFrame.from_image(scene.frame(number))))
            container.mux(stream.encode())


def write_sources(folder: Path, episodes: int, steps: int) -> list[Contender]:
    """The same scenes as RLDS, as prepared Parquet and as LeRobot videos of both codecs."""
    jpegs = "steps/observation/image_0"
    records = [
        bridge_record(number, steps) | {jpegs: [scene.jpeg(frame) for frame in range(steps)]}
        for number in range(episodes)
        for scene in [Scene.drawn(number, steps)]
    ]
    rlds = open_episodes(write_rlds(folder / "rlds", records), "bridge")
    prepare(rlds, folder / "prepared")
    prepared = open_episodes(folder / "prepared")
    contenders = [Contender("RLDS", rlds, JPEG_BOUND), Contender("Parquet (prepared)", prepared, JPEG_BOUND)]
    for codec in CODECS:
        tasks = ["put object into the sink"] * episodes
        source = PannedVideos("v2.1", [steps] * episodes, tasks, codec=codec).write(folder / codec)
        reader = open_episodes(source, FieldMapping.from_dict(VIDEO_MAPPING))
        contenders.append(Contender(f"LeRobot ({codec})", reader, f"PyAV + PIL + NumPy, {codec}"))
    return contenders


def plain_inputs(picture: Image.Image) -> list[np.ndarray]:
    """(side, side, 3) float32 in [0, 1] for each tower: the least that has to be done."""
    return [
        np.divide(np.asarray(picture.resize((side, side), Image.Resampling.BICUBIC)), 255, dtype=np.float32)
        for side in (VLM_SIDE, EXPERT_SIDE)
    ]


def video_pictures(paths: Iterable[Path]) -> Iterable[Image.Image]:
    for path in paths:
        with av.open(str(path)) as container:
            container.streams.video[0].codec_context.thread_count = 1
            for frame in container.decode(video=0):
                yield frame.to_image()


def bounds_of(folder: Path, contenders: list[Contender]) -> dict[str, Callable[[], int]]:
    """Bound → what runs it once over all its frames and returns how many there were."""
    prepared = next(contender.reader for contender in contenders if contender.bound == JPEG_BOUND)
    jpegs = [
        picture
        for index in range(len(prepared))
        for pictures in prepared[index].images.values()
        for picture in pictures
    ]

    def run(pictures: Callable[[], Iterable[Image.Image]]) -> int:
        return sum(1 for picture in pictures() if plain_inputs(picture))

    bounds = {JPEG_BOUND: lambda: run(lambda: (Image.open(io.BytesIO(jpeg)).convert("RGB") for jpeg in jpegs))}
    for codec in CODECS:
        videos = sorted((folder / codec).rglob("*.mp4"))
        bounds[f"PyAV + PIL + NumPy, {codec}"] = lambda videos=videos: run(lambda: video_pictures(videos))
    return bounds


def bound_ms(run: Callable[[], int]) -> float:
    """CPU milliseconds per sample."""
    start = time.process_time()
    frames = run()
    return 1e3 * (time.process_time() - start) / frames


def reader_ms(reader: EpisodeReader, processor: InstructVLAProcessor, seed: int) -> dict[str, float]:
    """CPU milliseconds per sample: in "all", and of it in each of `STAGES`; one epoch of the shuffled stream."""
    stream = MixtureStream({"bench": reader}, horizon=16, shuffle_window=64, seed=seed, epochs=1)
    spent = dict.fromkeys(("all", *STAGES), 0.0)
    samples = 0
    while True:
        times = [time.process_time()]
        if (sample := next(stream, None)) is None:
            spent["read"] += time.process_time() - times[0]
            break
        times.append(time.process_time())
        views = decoded_views(sample.images, processor.cameras, sample.name)
        times.append(time.process_time())
        processor(images=views)
        times.append(time.process_time())
        resize, normalise = tower_seconds(views["primary"])
        read, decode, towers = np.diff(times)
        parts = (read, decode, resize, normalise, towers - resize - normalise)
        for stage, seconds in zip(STAGES, parts, strict=True):
            spent[stage] += seconds
        samples += 1
    spent["all"] = sum(spent[stage] for stage in STAGES)
    return {stage: 1e3 * seconds / samples for stage, seconds in spent.items()}


def tower_seconds(picture: Image.Image) -> tuple[float, float]:
    """CPU seconds of the processor's resizes and of its normalisation, done once more by themselves."""
    start = time.process_time()
    large, small = squash(picture, VLM_SIDE), expert_view(picture, EXPERT_SIDE, 1.0)
    resized = time.process_time()
    normalized_pixels([large], VLM_MEAN, VLM_STD)
    normalized_pixels([small], IMAGENET_MEAN, IMAGENET_STD)
    return resized - start, time.process_time() - resized


def measure(folder: Path, episodes: int, steps: int, rounds: int) -> tuple[dict[str, float], dict[str, dict], list]:
    """Medians over the rounds: bound → ms, reader → stage → ms; and the contenders."""
    contenders = write_sources(folder, episodes, steps)
    bounds = bounds_of(folder, contenders)
    processor = tiny_processor(image_size=VLM_SIDE, action_image_size=EXPERT_SIDE)
    bound_times: dict[str, list[float]] = {name: [] for name in bounds}
    reader_times: dict[str, list[dict[str, float]]] = {contender.name: [] for contender in contenders}
    for seed in range(rounds):
        for contender in contenders:
            bound_times[contender.bound].append(bound_ms(bounds[contender.bound]))
            reader_times[contender.name].append(reader_ms(contender.reader, processor, seed))
    medians = {name: statistics.median(times) for name, times in bound_times.items()}
    stages = {
        name: {stage: statistics.median(row[stage] for row in rows) for stage in ("all", *STAGES)}
        for name, rows in reader_times.items()
    }
    return medians, stages, contenders


def table(bounds: Mapping[str, float], readers: Mapping[str, Mapping[str, float]], contenders: list[Contender]) -> str:
    """A line per bound and per reader; times in CPU milliseconds per sample."""
    lines = [f"{'':<26}{'samples/s':>10}{'ms':>8}" + "".join(f"{stage:>10}" for stage in STAGES) + "   of its bound"]
    lines += [f"{name:<26}{1e3 / ms:>10.0f}{ms:>8.2f}" for name, ms in bounds.items()]
    for contender in contenders:
        stages = readers[contender.name]
        share = bounds[contender.bound] / stages["all"]
        lines.append(
            f"{contender.name:<26}{1e3 / stages['all']:>10.0f}{stages['all']:>8.2f}"
            + "".join(f"{stages[stage]:>10.2f}" for stage in STAGES)
            + f"{share:>9.0%}  {'' if share >= TARGET else f'below {TARGET:.0%}; '}most goes to "
            + max(STAGES, key=lambda stage: stages[stage])
        )
    return "\n".join(lines)


def main(
    episodes: Annotated[int, typer.Option(help="Of each format.")] = 4,
    steps: Annotated[int, typer.Option(help="Frames of each episode.")] = 40,
    rounds: Annotated[int, typer.Option(help="Alternating runs, whose median counts.")] = 5,
) -> None:
    """Write the same frames in each format, read them, and print the table."""
    torch.set_num_threads(1)
    os.environ.setdefault("SVT_LOG", "1")  # the AV1 encoder tells its settings at length otherwise
    with tempfile.TemporaryDirectory() as folder:
        typer.echo(table(*measure(Path(folder), episodes, steps, rounds)))


if __name__ == "__main__":
    typer.run(main)
