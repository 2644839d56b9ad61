"""Episodes that a small model can learn from: a gripper reaches for the block of the named colour and closes."""

import io
import json
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from instructvla.training.data.dataset_description import DatasetDescription
from instructvla.training.data.episodes import Annotation, Episode, Turn
from instructvla.training.data.prepare import prepare

COLOURS = {"red": (214, 48, 49), "green": (46, 160, 67), "blue": (38, 98, 222), "yellow": (240, 196, 32)}
SIDE = 64  # pixels
STEPS = 8
SPEED = 0.12  # of the picture's side, per step
NAMES = ("x", "y", "z", "roll", "pitch", "yaw", "gripper")
UNITS = ("m", "m", "m", "rad", "rad", "rad", "open fraction")


class ReachingEpisodes:
    """A reader of `count` episodes, each decided by its number; the first has number `first`."""

    def __init__(self, count: int, first: int = 0, dataset: str = "reaching"):
        self.count, self.first = count, first
        self.description = DatasetDescription(
            dataset=dataset,
            cameras=("primary",),
            action_names=NAMES,
            action_units=UNITS,
            gripper_dims=(6,),
            state_names=("x", "y", "gripper"),
            state_units=("m", "m", "open fraction"),
        )
        self.provenance = {"source_fingerprint": f"reaching {count} {first}", "mapping": {}}
        self.fingerprint = f"reaching {count} {first}"

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Episode:
        if not 0 <= index < self.count:
            raise IndexError(index)
        return reaching_episode(self.first + index, self.description.dataset)


def reaching_episode(number: int, dataset: str = "reaching") -> Episode:
    random = np.random.default_rng(number)
    colours = random.permutation(list(COLOURS))[:2].tolist()
    blocks = np.array([[random.uniform(0.1, 0.4), random.uniform(0.4, 0.9)], random.uniform([0.6, 0.4], [0.9, 0.9])])
    hand = random.uniform([0.3, 0.05], [0.7, 0.25])
    pictures, actions, states, motions = [], np.zeros((STEPS, 7), np.float32), np.zeros((STEPS, 3), np.float32), []
    for step in range(STEPS):
        way = np.clip(blocks[0] - hand, -SPEED, SPEED)
        is_open = float(np.abs(blocks[0] - hand).max() > 1e-6)
        actions[step, :2], actions[step, 6] = way, is_open
        states[step] = [*hand, is_open]
        pictures.append(picture(blocks, colours, hand))
        motions.append(motion(way, is_open))
        hand = hand + way
    wanted, other = colours
    return Episode(
        dataset=dataset,
        episode_id=str(number),
        images={"primary": pictures},
        actions=actions,
        states=states,
        instructions=[f"pick up the {wanted} block"] * STEPS,
        control_rate_hz=5.0,
        language_motions=motions,
        annotation=Annotation(
            caption=f"A {wanted} block and a {other} block lie on a table.",
            questions=(Turn("Which blocks are there?", f"A {wanted} one and a {other} one."),),
            rewritten=(Turn(f"Grab the block that is {wanted}.", f"I will pick up the {wanted} block."),),
            contexts=(Turn(f"I don't need the {other} block.", f"Then I will pick up the {wanted} block."),),
        ),
    )


def picture(blocks: np.ndarray, colours: list[str], hand: np.ndarray) -> bytes:
    image = Image.new("RGB", (SIDE, SIDE), (205, 190, 170))
    draw = ImageDraw.Draw(image)
    for (x, y), colour in zip(blocks * SIDE, colours, strict=True):
        draw.rectangle([x - 5, y - 5, x + 5, y + 5], COLOURS[colour])
    x, y = hand * SIDE
    draw.line([x, 0, x, y], (60, 60, 60), 4)
    draw.rectangle([x - 6, y - 2, x + 6, y + 2], (30, 30, 30))
    image.save(file := io.BytesIO(), "PNG")
    return file.getvalue()


def motion(way: np.ndarray, is_open: float) -> str:
    if not is_open:
        return "close gripper"
    sides = [("left", "right")[int(way[0] > 0)]] if abs(way[0]) > 0.02 else []
    heights = [("up", "down")[int(way[1] > 0)]] if abs(way[1]) > 0.02 else []
    return f"move {' '.join(sides + heights)}".strip() if sides or heights else "stop"


def write_reaching(folder: Path, count: int = 12) -> Path:
    """The episodes as a prepared dataset."""
    prepare(ReachingEpisodes(count), folder)
    return folder


def write_chat(path: Path, count: int = 12) -> Path:
    """Questions about colours, every other one with a picture, in LLaVA's JSON."""
    (path.parent / "images").mkdir(parents=True, exist_ok=True)
    records = []
    for number, name in enumerate(list(COLOURS)[n % len(COLOURS)] for n in range(count)):
        record = {"id": str(number), "conversations": [{"from": "human", "value": "Name a colour."}]}
        if number % 2 == 0:
            Image.new("RGB", (32, 32), COLOURS[name]).save(path.parent / "images" / f"{number}.png")
            record |= {"image": f"{number}.png"}
            record["conversations"][0]["value"] = "<image>\nWhich colour is this?"
        record["conversations"].append({"from": "gpt", "value": f"It is {name}."})
        records.append(record)
    path.write_text(json.dumps(records))
    return path
