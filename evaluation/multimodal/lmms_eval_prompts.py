"""lmms-eval's requests as the model's prompts."""

import mimetypes
from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image

from instructvla.evaluation.multimodal.benchmarks import tiling_for
from instructvla.evaluation.multimodal.chat_model import Prompt

MAX_NEW_TOKENS = 512  # where a task sets no limit, as the paper's evaluation


def prompt_of(
    text: str,
    visuals: Sequence[Any] | None,
    generation: Mapping[str, Any],
    task: str,
    max_tiles: int | None = None,
) -> Prompt:
    """The prompt of a request.

    Args:
        text: the request's context.
        visuals: PIL images or paths of images; None or empty for a question without.
        generation: the task's generation options.
        task: that it is of.
        max_tiles: of a picture; default: as the paper's evaluation.

    Raises:
        ValueError: video, audio or another visual that is no image, or options that ask for sampling or beam search.
    """
    for visual in visuals or ():
        is_path = isinstance(visual, str) and (mimetypes.guess_type(visual)[0] or "").startswith("image/")
        if not is_path and not isinstance(visual, Image.Image):
            shown = visual if isinstance(visual, str) else type(visual).__name__
            raise ValueError(f"{task} asks about {shown}, but InstructVLA reads text and images; leave this task out.")
    check_greedy(generation, task)
    until = generation.get("until") or ()
    return Prompt(
        text,
        tuple(visuals or ()),
        max_new_tokens=generation.get("max_new_tokens") or MAX_NEW_TOKENS,
        until=(until,) if isinstance(until, str) else tuple(until),
        tiling=tiling_for(task, max_tiles),
    )


def check_greedy(generation: Mapping[str, Any], task: str) -> None:
    """Refuses options that ask for another way of decoding than the paper's greedy search (ValueError)."""
    samples = generation.get("do_sample") and generation.get("temperature") != 0
    if samples or (generation.get("num_beams") or 1) > 1:
        raise ValueError(
            f"{task} asks for sampling or beam search ({dict(generation)}), but the model answers greedily; "
            "add --gen_kwargs do_sample=False,num_beams=1."
        )
