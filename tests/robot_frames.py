"""Robot frames with a small picture, for tests of samples and batches."""

import io

import numpy as np
from PIL import Image

from instructvla.training.data.episodes import Annotation, Turn
from instructvla.training.data.mixture import FrameSample

ANNOTATION = Annotation(
    caption="A can and a towel on a table.",
    questions=(Turn("What is on the table?", "A can and a towel."),),
    rewritten=(Turn("stack the blocks", "I will grasp it."),),
    contexts=(Turn("I am thirsty", "The can helps, I take it."),),
)


def jpeg(seed: int = 0, height: int = 24, width: int = 32) -> bytes:
    """A smooth picture, other colours for another seed."""
    corners = np.random.default_rng(seed).integers(0, 256, (2, 2, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(corners).resize((width, height), Image.Resampling.BILINEAR).save(file, "JPEG", quality=95)
    return file.getvalue()


def robot_frame(number: int = 0, **fields) -> FrameSample:
    """A frame with everything that an annotated recording has, but no state."""
    defaults = {
        "dataset": "bridge",
        "episode_id": "7",
        "frame_index": number,
        "images": {"primary": jpeg(number)},
        "state": None,
        "actions": np.random.default_rng(number).uniform(-1, 1, (16, 7)).astype(np.float32),
        "action_mask": np.arange(16) < 12,
        "instruction": "pick up the can",
        "language_motion": "move arm left",
        "annotation": ANNOTATION,
        "control_rate_hz": 5.0,
    }
    return FrameSample(**(defaults | fields))
