"""What may be wrong with one episode: small checks, each of which yields what it finds."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from instructvla.processing.image_transforms import DECODING_ERRORS
from instructvla.training.data.dataset_description import DatasetDescription
from instructvla.training.data.encoded_pictures import open_picture, problem_of
from instructvla.training.data.episodes import Episode, Turn
from instructvla.training.data.message_groups import few

DARK = 8  # mean brightness below which a uniform frame is called black, of 255
UNIFORM = 2.0  # standard deviation of brightness below which a frame shows nothing
THUMBNAIL = 64  # pixels of a side that blankness is judged on, if the format can be decoded so
RANGE_TOLERANCE = 1e-3  # rounding of files
SHORTEST_CORRELATION = 4  # steps
WRONG_SIGN = -0.3  # correlation from which on two signs are called opposite
NOT_A_TEXT = {"none", "nan", "null", "n/a"}


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    Args:
        check: which check found it.
        message: what and where in the episode, for a person.
        cause: what findings of the same kind share; by default the message but for its numbers.
    """

    check: str
    message: str
    cause: str = ""


def check_length(episode: Episode, shortest: int) -> Iterator[Finding]:
    """Fewer than `shortest` steps."""
    if len(episode) < shortest:
        yield Finding("length", f"it has {len(episode)} steps, fewer than {shortest}")


def check_finite(episode: Episode) -> Iterator[Finding]:
    """NaN and infinity in actions and states."""
    for name, values in (("action", episode.actions), ("state", episode.states)):
        bad = np.argwhere(~np.isfinite(values)) if values is not None else ()
        if len(bad):
            step, dim = bad[0].tolist()
            where = f"at step {step} is {values[step, dim]} in dimension {dim}"
            yield Finding("finite", f"its {name} {where} ({len(bad)} such values)")


def check_sizes(episode: Episode, description: DatasetDescription) -> Iterator[Finding]:
    """Cameras, or action or state dimensions, that are not those of the dataset."""
    for name, values, names in (
        ("action", episode.actions, description.action_names),
        ("state", episode.states, description.state_names),
    ):
        size = 0 if values is None else values.shape[1]
        if size != len(names):
            yield Finding("sizes", f"its {name} has {size} dimensions, the dataset's {len(names)}")
    if sorted(episode.images) != sorted(description.cameras):
        yield Finding("sizes", f"its cameras are {sorted(episode.images)}, the dataset's {sorted(description.cameras)}")


def check_instruction(episode: Episode) -> Iterator[Finding]:
    """Steps without instruction, or with a text such as "None" in its place."""
    missing = sum(text is None or not text.strip() for text in episode.instructions)
    if missing:
        yield Finding("instruction", f"{missing} of its {len(episode)} steps have no instruction")
    if found := [text for text in episode.instructions if is_no_text(text)]:
        yield Finding("instruction", f"its instruction is the text {found[0]!r}")


def check_annotation(episode: Episode) -> Iterator[Finding]:
    """Motions and annotations that are empty, or a text such as "None"."""
    for step, motion in enumerate(episode.language_motions or ()):
        if motion is not None and (not motion.strip() or is_no_text(motion)):
            yield Finding("annotation", f"its language motion at step {step} is the text {motion!r}")
            break
    annotation = episode.annotation
    if annotation is None:
        return
    if annotation.caption is not None and (not annotation.caption.strip() or is_no_text(annotation.caption)):
        yield Finding("annotation", f"its caption is the text {annotation.caption!r}")
    for kind in ("questions", "rewritten", "contexts"):
        turns: tuple[Turn, ...] = getattr(annotation, kind)
        empty = [number for number, turn in enumerate(turns) if not (turn.question.strip() and turn.answer.strip())]
        if empty:
            yield Finding("annotation", f"{len(empty)} of its {len(turns)} {kind} lack a text; the first is {empty[0]}")


def is_no_text(text: str | None) -> bool:
    return text is not None and text.strip().lower() in NOT_A_TEXT


def check_images(episode: Episode, samples: int) -> Iterator[Finding]:
    """Frames whose size differs from the first's or that can't be decoded; of `samples` frames, black and blank ones.

    Only those `samples` frames are decoded, of the others the header is read. A JPEG's brightness is that of a
    thumbnail, which it gives without full decoding.
    """
    chosen = np.unique(np.linspace(0, len(episode) - 1, min(samples, len(episode))).round().astype(int)).tolist()
    for camera, pictures in episode.images.items():
        yield from check_camera(camera, pictures, chosen)


def check_camera(camera: str, pictures: list[bytes], chosen: list[int]) -> Iterator[Finding]:
    """One finding for all broken frames of a camera, one for other sizes, one for each kind of blank frames."""
    sizes, broken = picture_sizes(pictures)
    blank: dict[str, list[int]] = {}
    for step in (step for step in chosen if step not in broken):
        try:
            if kind := blankness(pictures[step]):
                blank.setdefault(kind, []).append(step)
        except DECODING_ERRORS as error:
            broken[step] = f"frame {step} can't be decoded: {problem_of(error, len(pictures[step]))}"
    if broken:
        first, *others = sorted(broken)
        likewise = f"; others that can't be: {few(others)}" if others else ""
        yield Finding("images", f"{camera}: {broken[first]}{likewise}", f"{camera}: broken")
    if len(sizes) > 1:
        (size, _), (other, step), *_ = sizes.items()
        yield Finding(
            "images", f"{camera}: frames are {size[0]}×{size[1]}, but from step {step} on {other[0]}×{other[1]}"
        )
    for kind, steps in blank.items():
        message = f"{camera}: {len(steps)} of {len(chosen)} frames seen are {kind}: {few(steps)}"
        yield Finding("blank frames", message, f"{camera}: {kind}")


def picture_sizes(pictures: list[bytes]) -> tuple[dict[tuple[int, int], int], dict[int, str]]:
    """Size → first step with it, by the headers, and step → what is wrong with a header."""
    sizes: dict[tuple[int, int], int] = {}
    broken: dict[int, str] = {}
    for step, picture in enumerate(pictures):
        try:
            sizes.setdefault(open_picture(picture, f"frame {step}").size, step)
        except ValueError as error:
            broken[step] = str(error)
    return sizes, broken


def blankness(picture: bytes) -> str | None:
    """ "black" or "blank" for a frame of one brightness, else None; one that can't be decoded raises Pillow's error."""
    with open_picture(picture) as image:
        image.draft("L", (THUMBNAIL, THUMBNAIL))
        pixels = np.asarray(image.convert("L"), np.float32)
    if pixels.std() >= UNIFORM:
        return None
    return "black" if pixels.mean() < DARK else "blank"


def check_frozen(episode: Episode, shortest: int) -> Iterator[Finding]:
    """A state or an action that is the same at every step."""
    for name, values in (("state", episode.states), ("action", episode.actions)):
        if values is not None and len(values) >= max(shortest, 2) and (values == values[0]).all():
            yield Finding("frozen", f"its {name} is the same at all {len(values)} steps")


def check_gripper_range(episode: Episode, description: DatasetDescription) -> Iterator[Finding]:
    """Gripper actions outside 0 (closed) to 1 (open)."""
    for dim in description.gripper_dims:
        values = episode.actions[:, dim] if dim < episode.actions.shape[1] else np.zeros(1)
        if values.min() < -RANGE_TOLERANCE or values.max() > 1 + RANGE_TOLERANCE:
            yield Finding(
                "gripper",
                f"its gripper action (dimension {dim}) spans {values.min():g} to {values.max():g}, not 0 closed to 1 "
                "open; correct the convention in the mapping",
            )


def check_gripper_sign(episode: Episode, description: DatasetDescription) -> Iterator[Finding]:
    """A gripper that closes when the action opens it: at every delay up to a second the two are opposed.

    Compared are the action and the opening of the gripper in the state, over the steps of an episode in which both
    change; the largest correlation over the delays must not be below −0.3.
    """
    aperture = gripper_aperture(description)
    if aperture is None or not description.gripper_dims or episode.states is None:
        return
    dim, sign = aperture
    if dim >= episode.states.shape[1] or description.gripper_dims[0] >= episode.actions.shape[1]:
        return
    command, opening = episode.actions[:, description.gripper_dims[0]], episode.states[:, dim] * sign
    delays = range(1, max(round(episode.control_rate_hz), 1) + 1)
    found = [correlation(command[:-delay], opening[delay:]) for delay in delays if delay < len(episode)]
    known = [value for value in found if value is not None]
    if known and max(known) < WRONG_SIGN:
        yield Finding(
            "gripper",
            f"its gripper closes when the action opens it (correlation {max(known):.2f}); correct the convention in "
            "the mapping",
        )


def gripper_aperture(description: DatasetDescription) -> tuple[int, int] | None:
    """State dimension that tells the gripper's opening, and 1 if it grows with it, else −1; None if none is known."""
    motion = description.motion or {}
    if motion.get("gripper") is not None:
        return motion["gripper"], motion.get("gripper_open_sign", 1)
    signs = {"open fraction": 1, "closed fraction": -1}
    known = [(dim, signs[unit]) for dim, unit in enumerate(description.state_units) if unit in signs]
    return known[0] if known else None


def correlation(first: np.ndarray, second: np.ndarray) -> float | None:
    """Pearson's r of two (n,) columns; None if one of them is constant, or there are too few."""
    if len(first) < SHORTEST_CORRELATION or not (np.isfinite(first).all() and np.isfinite(second).all()):
        return None
    first, second = first.astype(np.float64), second.astype(np.float64)
    first, second = first - first.mean(), second - second.mean()
    scale = np.sqrt((first @ first) * (second @ second))
    return float(first @ second / scale) if scale > 1e-12 else None


def check_episode(
    episode: Episode, description: DatasetDescription, *, shortest: int, frames: int
) -> Iterator[Finding]:
    """All that is found wrong with an episode by itself.

    Args:
        shortest: steps that an episode must have.
        frames: how many frames of each camera are decoded.
    """
    yield from check_length(episode, shortest)
    yield from check_sizes(episode, description)
    yield from check_finite(episode)
    yield from check_instruction(episode)
    yield from check_annotation(episode)
    yield from check_frozen(episode, shortest)
    yield from check_gripper_range(episode, description)
    yield from check_gripper_sign(episode, description)
    yield from check_images(episode, frames)
