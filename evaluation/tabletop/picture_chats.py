"""Conversations about pictures of random tables, in the JSON that multimodal chat comes in: what stage 0 reads."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from instructvla.evaluation.tabletop.expert_episodes import FORMAT
from instructvla.evaluation.tabletop.sampling import SPLITS, check_split, sample_scene
from instructvla.evaluation.tabletop.scene import Scene
from instructvla.evaluation.tabletop.scene_chats import located, scene_chats
from instructvla.evaluation.tabletop.scene_xml import FRONT_CAMERA
from instructvla.evaluation.tabletop.simulation import Simulation
from instructvla.evaluation.tabletop.view import Point, View
from instructvla.training.data.encoded_pictures import encoded
from instructvla.training.data.ordered_reading import read_in_order

Turn = tuple[str, str]

CHAT_FILE, PICTURES, SETTINGS = "chat.json", "images", "settings.json"
PER_FOLDER = 1000
CLEAR = 0.13  # of the picture's side: that far from all things a patch shows
NOTHING = "nothing"
GRIPPER_AREA = ((0.35, 0.65), (-0.27, 0.27), (0.12, 0.36), (-0.5, 0.5))  # x, y, z in m and yaw in rad


class PictureChats:
    """(record, picture) by number: a scene with the arm anywhere above it, and questions with their answers.

    Args:
        count: of pictures.
        split: "train" or "test", of scenes and phrases.
        seed: of all of them.
        image_size: px.
        turns: questions per picture, one of them about the places of everything.

    Raises:
        ValueError: for a value out of range.
    """

    def __init__(self, count: int, split: str = "train", seed: int = 0, image_size: int = 128, turns: int = 3):
        check_split(split)
        if count < 1 or seed < 0 or turns < 1:
            raise ValueError(f"count is {count}, seed {seed}, turns {turns}; give at least 1, 0 and 1.")
        self.count, self.split, self.seed, self.image_size, self.turns = count, split, seed, image_size, turns

    def __len__(self) -> int:
        return self.count

    def settings(self) -> dict[str, Any]:
        return {"format": FORMAT, **self.__dict__}

    def __getitem__(self, index: int) -> tuple[dict[str, Any], bytes]:
        rng = np.random.default_rng([self.seed, SPLITS.index(self.split), index])
        scene, _ = sample_scene(rng, self.split)
        simulation = Simulation(scene, tuple(float(rng.uniform(*bounds)) for bounds in GRIPPER_AREA))
        try:
            picture = encoded(simulation.picture(FRONT_CAMERA, self.image_size))
            points = simulation.picture_positions(FRONT_CAMERA)
        finally:
            simulation.close()
        return chat_record(index, self._turns(scene, points, rng), regions(points, rng)), picture

    def _turns(self, scene: Scene, points: Mapping[str, Point], rng: np.random.Generator) -> list[Turn]:
        """Where everything is, and others by chance, in an order by chance."""
        chats = scene_chats(scene, rng, self.split, points)
        others = [chats[i] for i in rng.permutation(len(chats))[: self.turns - 1]]
        turns = [located(View.of_scene(scene, points), self.split, rng), *others]
        return [turns[i] for i in rng.permutation(len(turns))]


def chat_record(index: int, turns: list[Turn], shown: list[dict[str, Any]]) -> dict[str, Any]:
    """In LLaVA's form; the picture stands before the first question."""
    said = [{"from": who, "value": text} for turn in turns for who, text in zip(("human", "gpt"), turn, strict=True)]
    said[0]["value"] = f"<image>\n{said[0]['value']}"
    return {"id": f"{index:06d}", "image": picture_path(index), "conversations": said, "regions": shown}


def regions(points: Mapping[str, Point], rng: np.random.Generator) -> list[dict[str, Any]]:
    """What patches show: the noun of each thing at its place, and at about as many free places nothing."""
    free = [place for place in rng.random((len(points), 2)) if is_free(place, points)]
    empty = [{"point": np.round(place, 3).tolist(), "word": NOTHING} for place in free]
    things = [
        {"point": np.round(point, 3).tolist(), "word": title.split()[-1]} for title, point in sorted(points.items())
    ]
    return [*empty, *things]


def is_free(place: Sequence[float], points: Mapping[str, Point]) -> bool:
    return all(max(abs(place[0] - u), abs(place[1] - v)) > CLEAR for u, v in points.values())


def picture_path(index: int) -> str:
    return f"{index // PER_FOLDER:03d}/{index:06d}.jpg"


def write_chats(chats: PictureChats, folder: str | Path, workers: int = 0, show_progress: bool = False) -> Path:
    """Write conversations and pictures; called again it begins anew after an interruption, and leaves what is finished.

    Returns:
        The chat file, whose pictures are in the folder "images" beside it.

    Raises:
        ValueError: the folder holds conversations of other settings.
    """
    folder = Path(folder)
    done, settings = folder / CHAT_FILE, json.dumps(chats.settings())
    if done.is_file():
        if (folder / SETTINGS).read_text() != settings:
            raise ValueError(f"{folder} holds conversations of other settings; give another folder, or delete it.")
        return done
    for number in range(0, len(chats), PER_FOLDER):
        (folder / PICTURES / picture_path(number)).parent.mkdir(parents=True, exist_ok=True)
    (folder / SETTINGS).write_text(settings)
    staged = folder / f".{CHAT_FILE}"
    progress = tqdm(total=len(chats), unit="picture", disable=None if show_progress else True)
    with staged.open("w", encoding="utf-8") as file, progress:
        for number, (record, picture) in read_in_order(chats, range(len(chats)), workers):
            (folder / PICTURES / picture_path(number)).write_bytes(picture)
            file.write(json.dumps(record, ensure_ascii=False) + "\n")
            progress.update()
    os.replace(staged, done)
    return done
