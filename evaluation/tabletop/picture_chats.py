"""Conversations about pictures of random tables, in the JSON that multimodal chat comes in: what stage 0 reads."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from instructvla.evaluation.tabletop.expert_episodes import encoded
from instructvla.evaluation.tabletop.sampling import SPLITS, check_split, sample_scene
from instructvla.evaluation.tabletop.scene_chats import all_places, scene_chats
from instructvla.evaluation.tabletop.scene_xml import FRONT_CAMERA
from instructvla.evaluation.tabletop.simulation import Simulation
from instructvla.evaluation.tabletop.view import View
from instructvla.training.data.ordered_reading import read_in_order

Turn = tuple[str, str]

CHAT_FILE, PICTURES, SETTINGS = "chat.json", "images", "settings.json"
PER_FOLDER = 1000
GRIPPER_AREA = ((0.35, 0.65), (-0.27, 0.27), (0.12, 0.36), (-0.5, 0.5))  # x, y, z in m and yaw in rad


class PictureChats:
    """(record, picture) by number: a scene with the arm anywhere above it, and questions with their answers.

    Args:
        count: of pictures.
        split: "train" or "test", of scenes and phrases.
        seed: of all of them.
        image_size: px.
        turns: questions per picture, the caption and the places of everything among them.

    Raises:
        ValueError: for a value out of range.
    """

    def __init__(self, count: int, split: str = "train", seed: int = 0, image_size: int = 128, turns: int = 7):
        check_split(split)
        if count < 1 or seed < 0 or turns < 2:
            raise ValueError(f"count is {count}, seed {seed}, turns {turns}; give at least 1, 0 and 2.")
        self.count, self.split, self.seed, self.image_size, self.turns = count, split, seed, image_size, turns

    def __len__(self) -> int:
        return self.count

    def settings(self) -> dict[str, Any]:
        return dict(self.__dict__)

    def __getitem__(self, index: int) -> tuple[dict[str, Any], bytes]:
        rng = np.random.default_rng([self.seed, SPLITS.index(self.split), index])
        scene, _ = sample_scene(rng, self.split)
        simulation = Simulation(scene, tuple(float(rng.uniform(*bounds)) for bounds in GRIPPER_AREA))
        try:
            picture = encoded(simulation.picture(FRONT_CAMERA, self.image_size))
            points = simulation.picture_positions(FRONT_CAMERA)
        finally:
            simulation.close()
        turns = self._chosen(scene_chats(scene, rng, self.split, points), all_places(View.of_scene(scene, points)), rng)
        return chat_record(index, turns), picture

    def _chosen(self, chats: list[Turn], places: str, rng: np.random.Generator) -> list[Turn]:
        """The caption, the places and others by chance, in an order by chance."""
        wanted = [chats[0], *(turn for turn in chats if turn[1] == places)]
        others = [turn for turn in chats if turn not in wanted]
        chosen = [others[i] for i in rng.permutation(len(others))[: self.turns - len(wanted)]]
        turns = [*wanted, *chosen]
        return [turns[i] for i in rng.permutation(len(turns))]


def chat_record(index: int, turns: list[Turn]) -> dict[str, Any]:
    """In LLaVA's form; the picture stands before the first question."""
    said = [{"from": who, "value": text} for turn in turns for who, text in zip(("human", "gpt"), turn, strict=True)]
    said[0]["value"] = f"<image>\n{said[0]['value']}"
    return {"id": f"{index:06d}", "image": picture_path(index), "conversations": said}


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
