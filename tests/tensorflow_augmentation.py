"""Writes fixtures/tensorflow_augmentation.json: TensorFlow's own results of the released augmentation's operations.

Run `python -m tests.tensorflow_augmentation` where tensorflow is installed; the fixture was made with 2.21.
"""

import json
import math
from pathlib import Path

import numpy as np

FIXTURE = Path(__file__).parent / "fixtures" / "tensorflow_augmentation.json"
CROP = {"side": math.sqrt(0.9), "left": 0.012, "top": 0.031}
DRAWS = {
    "crop": CROP,
    "brightness": {"brightness": 0.15},
    "contrast": {"contrast": 0.8},
    "saturation": {"saturation": 1.2},
    "hue": {"hue": -0.05},
    "all": CROP | {"brightness": -0.1, "contrast": 1.15, "saturation": 0.85, "hue": 0.04},
}


def augmented_by_tensorflow(pixels: np.ndarray, draw: dict[str, float]) -> np.ndarray:
    """(height, width, 3) float32, 0 to 255 and not rounded, of uint8 pixels."""
    import tensorflow as tf

    image = tf.cast(pixels, tf.float32) / 255
    if "side" in draw:
        box = [draw["top"], draw["left"], draw["top"] + draw["side"], draw["left"] + draw["side"]]
        image = tf.image.crop_and_resize(image[None], [box], [0], image.shape[:2])[0]
    steps = [
        (tf.image.adjust_brightness, "brightness", 0.0),
        (tf.image.adjust_contrast, "contrast", 1.0),
        (tf.image.adjust_saturation, "saturation", 1.0),
        (tf.image.adjust_hue, "hue", 0.0),
    ]
    for adjust, name, neutral in steps:
        image = tf.clip_by_value(adjust(image, draw.get(name, neutral)), 0, 1)
    return (image * 255).numpy()


def main() -> None:
    pixels = np.random.default_rng(7).integers(0, 256, (6, 5, 3), np.uint8)
    results = {
        name: {"draw": draw, "pixels": np.round(augmented_by_tensorflow(pixels, draw).astype(float), 2).tolist()}
        for name, draw in DRAWS.items()
    }
    FIXTURE.write_text(json.dumps({"pixels": pixels.tolist(), "results": results}))


if __name__ == "__main__":
    main()
