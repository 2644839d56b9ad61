"""`instructvla samples`: which kinds of conversation a dataset gives in a stage of training (paper appendix E.1)."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Annotated

import typer
from tqdm import tqdm
from transformers.utils.chat_template_utils import render_jinja_template

from instructvla.command_errors import errors_on_stderr
from instructvla.configuration_instructvla import InstructVLAConfig
from instructvla.processing.chat_prompts import IMAGE_TOKEN, QUERY_PATTERN, released_chat_template
from instructvla.training.data.episodes import BadEpisodeError, EpisodeReader
from instructvla.training.data.mixture import FrameSample, MixtureStream
from instructvla.training.data.readers import open_episodes
from instructvla.training.data.samples import (
    KINDS,
    STAGE_1,
    STAGE_2,
    ChatSample,
    FrameConversations,
    has_instruction,
)

STAGES = {1: STAGE_1, 2: STAGE_2}
SHUFFLE_WINDOW = 1000  # frames, so that a few episodes are mixed
MODEL = InstructVLAConfig()


@dataclass
class SampleShares:
    """What became of a number of frames.

    Args:
        shares: kind → the recipe's proportion.
        frames: how many were drawn.
        unlabelled: frames without an instruction, which training leaves out.
        bad: frames with a text that can't be used, which were left out.
        unreadable: episodes that were met and left out, as they can't be read.
        counts: (drawn, given) kind → how many samples: one whose frame lacks the text of its kind is a plain action.
        examples: samples of all kinds that were given, the first of each before the second.
    """

    shares: Mapping[str, float]
    frames: int = 0
    unlabelled: int = 0
    bad: int = 0
    unreadable: int = 0
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    examples: list[ChatSample] = field(default_factory=list)

    @property
    def samples(self) -> int:
        return sum(self.counts.values())

    def table(self) -> list[str]:
        """A line per kind: the share asked for, that of the draws, and that of the samples."""
        lines = [
            f"{self.frames:,} frames: {self.samples:,} samples, {self.unlabelled:,} left out without an instruction"
            + (f", {self.bad:,} with a text that can't be used" if self.bad else "")
            + (f"; {self.unreadable:,} episodes can't be read" if self.unreadable else ""),
            f"  {'kind':<12}{'asked':>9}{'drawn':>9}{'realised':>10}",
        ]
        asked, samples = sum(self.shares.values()), max(self.samples, 1)
        for kind in KINDS:
            drawn = sum(number for (wanted, _), number in self.counts.items() if wanted == kind)
            given = sum(number for (_, used), number in self.counts.items() if used == kind)
            if kind in self.shares or given:
                shares = (self.shares.get(kind, 0) / asked, drawn / samples, given / samples)
                lines.append(f"  {kind:<12}{shares[0]:>9.1%}{shares[1]:>9.1%}{shares[2]:>10.1%}{self._lack(kind)}")
        return lines

    def _lack(self, kind: str) -> str:
        """How many samples of a kind became plain actions."""
        lacking = sum(number for (wanted, used), number in self.counts.items() if wanted == kind != used)
        return f"   {lacking:,} frames lack the text: plain actions" if lacking else ""


def sample_shares(
    reader: EpisodeReader,
    shares: Mapping[str, float],
    *,
    frames: int = 2000,
    show: int = 5,
    seed: int = 0,
    skip_bad: bool = False,
    show_progress: bool = False,
) -> SampleShares:
    """Draw samples as training does, without pictures.

    Args:
        reader: of the dataset; it begins anew where it has fewer frames.
        shares: kind → proportion, e.g. `samples.STAGE_2`.
        frames: how many to draw.
        show: how many samples to keep as examples.
        seed: of the frames' order and of the kinds.
        skip_bad: go on without episodes and texts that can't be used.
        show_progress: on a terminal.

    Raises:
        BadEpisodeError: the first episode or text that can't be used, without `skip_bad`.
        ValueError: no episode can be read.
    """
    numbers = reader.without_pictures() if hasattr(reader, "without_pictures") else reader
    on_bad = "skip" if skip_bad else "raise"
    stream = MixtureStream({"dataset": numbers}, horizon=1, shuffle_window=SHUFFLE_WINDOW, seed=seed, on_bad=on_bad)
    conversations = FrameConversations(shares, num_action_queries=MODEL.num_action_queries, seed=seed)
    found = SampleShares(conversations.shares, counts=conversations.counts)
    quiet = None if show_progress else True  # None shows the bar on a terminal only
    drawn = tqdm(islice(stream, frames), total=frames, unit="frame", disable=quiet)
    try:
        samples = [
            sample
            for sample in usable_samples(drawn, conversations, found, skip_bad)
            if conversations.counts[sample.drawn, sample.kind] <= show
        ]
    except BadEpisodeError as error:
        raise error.with_skip_bad() from error
    found.unreadable = sum(map(len, stream.skipped.values()))
    found.examples = of_all_kinds(samples)[:show]
    return found


def usable_samples(
    frames: Iterable[FrameSample], conversations: FrameConversations, found: SampleShares, skip_bad: bool
) -> Iterator[ChatSample]:
    """The samples that frames give; those that give none are counted in `found`."""
    for frame in frames:
        found.frames += 1
        if not has_instruction(frame):
            found.unlabelled += 1
            continue
        try:
            yield conversations(frame)
        except BadEpisodeError:
            if not skip_bad:
                raise
            found.bad += 1


def of_all_kinds(samples: list[ChatSample]) -> list[ChatSample]:
    """The first of each kind, then the second of each, and so on."""
    seen: Counter[str] = Counter()
    rounds = []
    for sample in samples:
        rounds.append(seen[sample.kind])
        seen[sample.kind] += 1
    order = sorted(range(len(samples)), key=lambda place: (rounds[place], KINDS.index(samples[place].kind)))
    return [samples[place] for place in order]


def conversation_text(sample: ChatSample) -> str:
    """What the model reads, with its many image tokens and queries told by their number."""
    template = released_chat_template(MODEL.num_image_tokens)
    ((text,), _) = render_jinja_template(conversations=[sample.messages], chat_template=template)
    image = IMAGE_TOKEN * MODEL.num_image_tokens
    text = text.replace(image, f"{MODEL.num_image_tokens} × {IMAGE_TOKEN}")
    queries = QUERY_PATTERN.findall(text)
    return text.replace("".join(queries), f"{queries[0]}…{queries[-1]}") if queries else text


def example_lines(sample: ChatSample) -> Iterator[str]:
    """An example for a person: whose frame it is, and its conversation."""
    became = "" if sample.drawn == sample.kind else f", drawn as {sample.drawn}"
    yield f"\n{sample.kind}{became}: {sample.source}"
    yield from (f"  | {line}" for line in conversation_text(sample).splitlines())


app = typer.Typer(add_completion=False)


@app.command()
def main(
    source: Annotated[
        str, typer.Argument(metavar="DATASET", help="Prepared dataset, RLDS or LeRobot folder, or Hub dataset.")
    ],
    stage: Annotated[int, typer.Option(min=1, max=2, help="Of training, whose recipe is drawn.", show_default=False)],
    mapping: Annotated[
        str | None, typer.Option(help="What the fields mean: bridge, fractal, libero, or your YAML file.")
    ] = None,
    split: Annotated[str, typer.Option(help="Of the dataset.")] = "train",
    revision: Annotated[str | None, typer.Option(help="Of a Hub dataset.")] = None,
    frames: Annotated[int, typer.Option(min=1, help="How many to draw.")] = 2000,
    show: Annotated[int, typer.Option(min=0, help="Examples to print.")] = 5,
    seed: Annotated[int, typer.Option(min=0, help="Of all draws.")] = 0,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Go on without bad episodes and texts.")] = False,
) -> None:
    """Draw training samples of a dataset: shares of the kinds as asked and as realised, and examples."""
    with errors_on_stderr():
        reader = open_episodes(source, mapping, split, revision=revision)
        found = sample_shares(
            reader, STAGES[stage], frames=frames, show=show, seed=seed, skip_bad=skip_bad, show_progress=True
        )
    lines = [f"{reader.description.dataset}, stage {stage}", *found.table()]
    typer.echo("\n".join([*lines, *(line for sample in found.examples for line in example_lines(sample))]))


if __name__ == "__main__":
    app()
