"""A small folder in the layout of VLA-IT's released validation split."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from instructvla.evaluation.metrics.language_samples import PICTURES, RELEASED


def turn(text: str) -> dict[str, str]:
    return {"question": f"{text}?", "answer": f"{text}."}


ANNOTATION = {
    "Caption": "A cup on a table.",
    "QA": [turn("what"), turn("where")],
    "CR": [turn("rewritten")],
    "CC": [turn("context"), turn("another")],
}


def released(folder: Path, annotations: Sequence[Any], pictures: str = PICTURES[0]) -> Path:
    """The layout, with a picture per annotation."""
    records = [{"hashkey": f"key{number}", "annotation": given} for number, given in enumerate(annotations)]
    (folder / RELEASED).write_text(json.dumps(records), encoding="utf-8")
    for number in range(len(annotations)):
        file = folder / pictures / f"key{number}_first_frame.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 6), (10 * number, 0, 0)).save(file)
    return folder
