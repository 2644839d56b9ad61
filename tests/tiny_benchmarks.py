"""Tiny local tasks for the multimodal benchmark kits: the colours of four pictures."""

import base64
import csv
import io
from pathlib import Path

from PIL import Image

COLOURS = ("red", "green", "blue", "white")
QUESTION = "What colour is this?"
LMMS_EVAL_TASK = """\
task: tiny_{name}
dataset_path: json
dataset_kwargs:
  data_files:
    test: {data}
test_split: test
output_type: {kind}
doc_to_visual: !function colours.visual
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{answer}}}}"
{more}
metadata:
  version: 1.0
"""
OPEN = """\
generation_kwargs:
  max_new_tokens: 3
  until: ["never said"]
metric_list:
  - {metric: exact_match, aggregation: mean, higher_is_better: true}"""
CHOICES = """\
doc_to_choice: [red, green, blue, white]
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}"""


def colour_picture(colour: str) -> Image.Image:
    return Image.new("RGB", (40, 30), colour)


def write_lmms_eval_tasks(folder: Path) -> None:
    """`tiny_open`, answered in words, and `tiny_choices`, scored by likelihood."""
    rows = [f'{{"question": "{QUESTION}", "answer": "{colour}"}}' for colour in COLOURS]
    data = folder / "colours.jsonl"
    data.write_text("\n".join(rows) + "\n")
    (folder / "colours.py").write_text(
        'from PIL import Image\n\n\ndef visual(doc):\n    return [Image.new("RGB", (40, 30), doc["answer"])]\n'
    )
    for name, kind, more in (("open", "generate_until", OPEN), ("choices", "multiple_choice", CHOICES)):
        task = LMMS_EVAL_TASK.format(name=name, kind=kind, data=data, more=more)
        (folder / f"tiny_{name}.yaml").write_text(task)


def write_vlmevalkit_table(folder: Path, name: str) -> None:
    """A data set of multiple choice, in the kit's format: pictures in base64."""
    with (folder / f"{name}.tsv").open("w", newline="") as file:
        table = csv.writer(file, delimiter="\t")
        table.writerow(["index", "image", "question", "A", "B", "C", "D", "answer", "category", "split"])
        for index, colour in enumerate(COLOURS):
            png = io.BytesIO()
            colour_picture(colour).save(png, "PNG")
            picture = base64.b64encode(png.getvalue()).decode()
            table.writerow([index, picture, QUESTION, *COLOURS, "ABCD"[index], "colour", "val"])
