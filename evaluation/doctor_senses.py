"""Does a model use what it is given? Each picture, the instruction and the state must change what comes out.

One batch through the VLM, one flow step of the action expert, fixed noise. The rows differ from the first in one thing
each, and the last repeats it: what differs between the two is the noise floor of the arithmetic. The latent action is
held while the expert's own inputs change, so that an eye that fails in the VLM can't hide behind the expert's. An
expert without a vision tower has no eyes of its own to examine.
"""

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import torch
from PIL import Image, ImageOps

from instructvla.evaluation.demo_scene import draw_tabletop_scene
from instructvla.evaluation.doctor_lines import Line, Lines, finding
from instructvla.modeling_instructvla import InstructVLAForConditionalGeneration
from instructvla.processing import InstructVLAProcessor

# As many tokens in Qwen2's vocabulary and in the nano one: the same padding, so nothing but the words differs.
INSTRUCTIONS = ("put the spoon on the towel", "open the drawer on the left")
# Relative change that counts. Measured: an untrained model's weakest sense (the state) gives 6e-3, a blind one 0.
THRESHOLD = 1e-4
NOISE_FACTOR = 3  # above the noise floor, where the arithmetic is not reproducible from row to row

INSTRUCTION, STATE = "instruction", "state"
REMEDIES = {
    "latent action": "look at vision_model, projector and language_model",
    "picture": "look at action_expert.vision and action_expert.visual_projector",
    INSTRUCTION: "look at action_expert.latent_projector",
    STATE: "look at action_expert.state_projector and at the state's statistics",
}

Frames = dict[str, Image.Image]


@dataclass(frozen=True)
class Reaction:
    """Relative changes by the input that was changed: of the latent action, and of the action with the rest held."""

    latent: dict[str, float]
    action: dict[str, float]
    latent_noise: float
    action_noise: float


@cache
def tabletop() -> Image.Image:
    """Drawn once: it takes longer than a small model does."""
    return draw_tabletop_scene()


def neutral_processor(processor: InstructVLAProcessor) -> InstructVLAProcessor:
    """A copy whose physical units are the normalised ones, for a checkpoint without usable statistics."""
    neutral = copy.copy(processor)
    sizes = {"action": processor.action_dim, "state": processor.state_dim or 0}
    neutral.statistics = {
        "normalized": {part: {"q01": [-1.0] * size, "q99": [1.0] * size} for part, size in sizes.items()}
    }
    return neutral


@torch.no_grad()
def measure(model: InstructVLAForConditionalGeneration, unnorm_key: str | None = None) -> Reaction:
    """How far each input moves the latent action and the action.

    Args:
        model: with a processor that has statistics.
        unnorm_key: of the statistics between whose q01 and q99 the state moves.
    """
    cameras = model.config.cameras
    base = {camera: tabletop().rotate(90 * number) for number, camera in enumerate(cameras)}
    changed = [base | {camera: ImageOps.invert(base[camera])} for camera in cameras]
    frames = [base, *changed, base, base]
    texts = [INSTRUCTIONS[0]] * (len(cameras) + 1) + [INSTRUCTIONS[1], INSTRUCTIONS[0]]
    latents = model.encode(frames, texts, think=False).latent_actions
    *moved, latent_noise = relative_changes(latents)
    names = [*(f"picture of camera {camera!r}" for camera in cameras), INSTRUCTION]
    latent = dict(zip(names, moved, strict=True))

    first, told = latents[:1], latents[-2:-1]
    conditions = torch.cat([first.expand(len(cameras) + 1, -1, -1), told, first, first])
    displacement = one_flow_step(model, conditions, [*frames[:-1], base, base], unnorm_key)
    *moved, stated, action_noise = relative_changes(displacement)
    action = dict(zip(names, moved, strict=True))
    if model.config.action_vision_config is None:
        action = {INSTRUCTION: action[INSTRUCTION]}
    if model.config.state_dim is not None:
        action[STATE] = stated
    return Reaction(latent, action, latent_noise, action_noise)


def one_flow_step(
    model: InstructVLAForConditionalGeneration, latents: torch.Tensor, frames: list[Frames], unnorm_key: str | None
) -> torch.Tensor:
    """How far one step moves the same noise in each row, (rows, horizon, action_dim); the last but one row has another
    state than the others: every dimension at q99 instead of q01."""
    config, processor = model.config, model.processor
    states = None
    if config.state_dim is not None:
        ranges = processor.statistics[processor.resolve_unnorm_key(unnorm_key)]["state"]
        states = [ranges["q01"]] * len(frames)
        states[-2] = ranges["q99"]
    inputs = processor.action_inputs(frames, states, unnorm_key).to(model.device)
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(1, config.horizon, config.action_dim, generator=generator).expand(len(frames), -1, -1)
    pixels, state = inputs.get("action_pixel_values"), inputs.get("state")
    noise = noise.to(model.device)
    return model.action_expert.sample(latents, pixels, noise, state, model.action_expert.flow_steps(1)) - noise


def relative_changes(rows: torch.Tensor) -> list[float]:
    """Distance of each further row from the first, relative to the first one's norm."""
    rows = rows.double().flatten(1)
    return ((rows[1:] - rows[0]).norm(dim=1) / rows[0].norm().clamp(min=1e-300)).tolist()


def check_senses(model: InstructVLAForConditionalGeneration, unnorm_key: str | None = None) -> Lines:
    """Each camera's picture changes the latent action and the action, the instruction and the state the action.

    What is changed and how is in `measure`; a change counts above `THRESHOLD` and above the noise of the arithmetic.
    """
    reaction = measure(model, unnorm_key)
    changes = [*reaction.latent.values(), *reaction.action.values(), reaction.latent_noise, reaction.action_noise]
    if not all(map(math.isfinite, changes)):
        yield finding("senses", "the model computes NaN or infinity", "look at its weights and its dtype")
        return
    yield Line("note", "senses", f"the latent action changes by {percents(reaction.latent)}")
    yield Line("note", "senses", f"the action changes by {percents(reaction.action)}")
    ignored = unchanged(reaction.latent, reaction.latent_noise)
    for name in ignored:
        yield finding("senses", f"the {name} does not change the latent action", REMEDIES["latent action"])
    for name in unchanged(reaction.action, reaction.action_noise):
        if name == INSTRUCTION and name not in ignored:
            text = "the instruction changes the latent action, but that does not change the action"
            yield finding("senses", text, REMEDIES[name])
        elif name != INSTRUCTION:  # one that never reached the latent action is one finding, not two
            text = f"the {name} does not change the action (with the latent action held)"
            yield finding("senses", text, REMEDIES.get(name, REMEDIES["picture"]))


def unchanged(changes: Mapping[str, float], noise: float) -> list[str]:
    return [name for name, change in changes.items() if change <= max(THRESHOLD, NOISE_FACTOR * noise)]


def percents(changes: Mapping[str, float]) -> str:
    return ", ".join(f"{change:.2%} with the {name}" for name, change in changes.items())
