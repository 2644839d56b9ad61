"""The expert's episodes as a dataset: made when they are asked for, by number, and annotated from the true state."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from typing import Any

import gymnasium
import numpy as np

from instructvla.evaluation.tabletop import ENVIRONMENT
from instructvla.evaluation.tabletop.annotations import annotate
from instructvla.evaluation.tabletop.expert import Expert
from instructvla.evaluation.tabletop.sampling import SPLITS, check_split
from instructvla.evaluation.tabletop.scene import Skill
from instructvla.evaluation.tabletop.simulation import CONTROL_PERIOD
from instructvla.evaluation.tabletop.world import CAMERAS
from instructvla.evaluation.tabletop.world_state import STATE_NAMES
from instructvla.training.data.dataset_description import DatasetDescription
from instructvla.training.data.encoded_pictures import encoded
from instructvla.training.data.episodes import Annotation, BadEpisodeError, Episode

DATASET = "tabletop"
ATTEMPTS = 5  # scenes per episode, as the expert fails at a few
FORMAT = 2  # of what the episodes hold: another one is another dataset

DESCRIPTION = DatasetDescription(
    dataset=DATASET,
    cameras=CAMERAS,
    action_names=("x", "y", "z", "roll", "pitch", "yaw", "gripper"),
    action_units=("m", "m", "m", "rad", "rad", "rad", "open fraction"),
    gripper_dims=(6,),
    state_names=STATE_NAMES,
    state_units=("m", "m", "m", "rad", "rad", "rad", "open fraction", "share of the full grip"),
    motion={
        "window": 3,
        "translation_threshold": 0.03,
        "tilt_threshold": 0.3,
        "turn_threshold": 0.3,
        "gripper_threshold": 0.1,
        "rotation": [3, 4, 5],
        "rotation_form": "euler_xyz",
        "gripper": STATE_NAMES.index("gripper_opening"),
    },
)


class TabletopEpisodes:
    """Episodes of the scripted expert, a map-style reader; the same number gives the same episode in every process.

    Skills take turns. What is recorded at each step is what the policy sees there and the expert's action for it; a
    disturbed one may be executed in its place, so that the recordings show how to come back (Laskey et al. 2017, DART).

    Args:
        count: of episodes.
        split: "train" or "test", of scenes, combinations and phrases.
        seed: of all of them.
        image_size: px.
        noise: standard deviation in m of the disturbances; every second episode has none.
        skills: that take turns; default: all.

    Raises:
        ValueError: for a value out of range.
    """

    description = DESCRIPTION

    def __init__(
        self,
        count: int,
        split: str = "train",
        seed: int = 0,
        image_size: int = 128,
        noise: float = 0.01,
        skills: Sequence[Skill] = tuple(Skill),
    ):
        check_split(split)
        if count < 1 or seed < 0 or not noise >= 0:
            raise ValueError(f"count is {count}, seed {seed}, noise {noise}; give at least 1 and none below 0.")
        if not skills or any(skill not in list(Skill) for skill in skills):
            raise ValueError(f"skills is {list(skills)!r}, but there are {', '.join(Skill)}.")
        self.count, self.split, self.seed, self.image_size, self.noise = count, split, seed, image_size, noise
        self.skills = [Skill(skill) for skill in skills]
        self._env: gymnasium.Env | None = None

    def __len__(self) -> int:
        return self.count

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_env": None}  # a simulator stays in its process

    @property
    def provenance(self) -> dict[str, Any]:
        """What the episodes follow from, as JSON."""
        settings = {name: getattr(self, name) for name in ("count", "split", "seed", "image_size", "noise", "skills")}
        return {"source_fingerprint": self.fingerprint, "tabletop": settings}

    @property
    def fingerprint(self) -> str:
        facts = [FORMAT, self.split, self.seed, self.image_size, self.noise, self.skills, version("mujoco")]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()

    def __getitem__(self, index: int) -> Episode:
        """
        Raises:
            BadEpisodeError: if the expert failed in every attempt.
            IndexError: beyond the last.
        """
        if not 0 <= index < self.count:
            raise IndexError(index)
        if self._env is None:
            self._env = gymnasium.make(ENVIRONMENT, image_size=self.image_size)
        numbers = np.random.SeedSequence([self.seed, SPLITS.index(self.split), index]).generate_state(ATTEMPTS)
        for number in numbers.tolist():
            if (episode := self._attempt(index, number)) is not None:
                return episode
        raise BadEpisodeError(f"tabletop episode {index} (seed {self.seed}): the expert failed {ATTEMPTS} times")

    def _attempt(self, index: int, seed: int) -> Episode | None:
        """One try of the expert; None if it failed."""
        env, skill = self._env, self.skills[index % len(self.skills)]
        noise = self.noise * (index // len(self.skills) % 2)
        observation, info = env.reset(seed=seed, options={"split": self.split, "skill": skill})
        scene, task = info["scene"], info["task"]
        points = env.unwrapped.picture_positions()
        expert = Expert(scene, task, noise, seed)
        observations, actions, states, done = [], [], [], False
        while not done:
            states.append(env.unwrapped.state())
            observations.append(observation)
            actions.append(expert.act(states[-1]))
            disturbed = expert.perturbed(actions[-1]) if noise else actions[-1]
            observation, _, success, truncated, info = env.step(disturbed)
            done = success or truncated
        if not success:
            return None
        instruction = task.instruction()
        return Episode(
            dataset=DATASET,
            episode_id=f"{self.split}-{self.seed}-{index}",
            images={camera: [encoded(one[camera]) for one in observations] for camera in CAMERAS},
            actions=np.array(actions, np.float32),
            states=np.array([one["state"] for one in observations], np.float32),
            instructions=[instruction] * len(actions),
            control_rate_hz=1 / CONTROL_PERIOD,
            annotation=lowered(annotate(scene, task, states, np.random.default_rng(seed), self.split, points)),
        )


def lowered(annotation: Annotation) -> Annotation:
    """With commands in lower case: so training gives plain instructions, too, and the policy reads all."""
    rewritten, contexts = (
        tuple(replace(turn, question=turn.question.lower()) for turn in turns)
        for turns in (annotation.rewritten, annotation.contexts)
    )
    return replace(annotation, rewritten=rewritten, contexts=contexts)
