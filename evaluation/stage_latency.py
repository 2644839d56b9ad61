"""Where the time of an action goes: each stage's seconds beside its FLOPs, its weights' bytes and the roofline."""

import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from instructvla.evaluation.demo_scene import draw_tabletop_scene
from instructvla.evaluation.roofline import Peaks, synchronize
from instructvla.weight_precision import stored_tensors

INSTRUCTION = "put the spoon on the towel"
WORD = "word"
WORDS = 8  # of a response, for the time of one

Mark = Callable[[str], None]


@dataclass(frozen=True)
class StageCost:
    """One stage of an action; of the words, one.

    Args:
        seconds: median.
        flops: that are computed.
        weights: bytes of weights that are read; keys, values and activations are not counted.
    """

    name: str
    seconds: float
    flops: int
    weights: int

    def roofline_share(self, peaks: Peaks) -> float:
        """The least time on this machine over the measured one."""
        return peaks.seconds(self.flops, self.weights) / self.seconds

    def record(self, peaks: Peaks) -> dict[str, Any]:
        """As JSON."""
        return {
            "stage": self.name,
            "ms": 1000 * self.seconds,
            "gflop": self.flops / 1e9,
            "weights_mb": self.weights / 1e6,
            "roofline_share": self.roofline_share(peaks),
        }


class StagedAction:
    """The stages of one action on one picture, run one by one as `generate_action` does.

    Args:
        model: in evaluation mode.
        words: length of the response, which is made of any tokens.
    """

    def __init__(self, model: Any, words: int = WORDS):
        self.model, self.words = model, words
        scene, processor = draw_tabletop_scene(), model.processor
        self.images = {camera: scene for camera in processor.cameras} if len(processor.cameras) > 1 else scene
        self.state = None if processor.state_dim is None else np.zeros(processor.state_dim)
        self.key = next(iter(processor.statistics))

    def run(self, mark: Mark) -> None:
        """All stages, `mark` called with each one's name when it is done."""
        model = self.model
        lm, queries = model.language_model, model.config.num_action_queries
        padding = {"padding_side": "left", "pad_to_multiple_of": model.padded_to}
        vlm = model.processor.prompt_inputs(self.images, INSTRUCTION, **padding)
        seen = model.expert_inputs(self.images, self.state, self.key, None, None, None)
        vlm = vlm.to(model.device)
        mark("preprocessing")
        features = (model.compiled or model).encode_images(vlm["pixel_values"])
        mark("images")
        prompt, mask = model.place_images(vlm["input_ids"], features), vlm["attention_mask"]
        room = prompt.shape[1] + self.words + queries + 2 * model.padded_to
        silent, spoken = [model.assistant_turn(None)], [model.assistant_turn([])]
        with model.decoding_session(1, room) as session:
            latent = model.decode_queries(silent, session, prompt, mask)
        mark("prompt and queries")
        with model.decoding_session(1, room) as session:
            hidden = session.append(prompt, mask, last=1)
            mark("prompt")
            for _ in range(self.words):
                token = model.next_tokens(hidden[:, -1])
                hidden = session.append(lm.embed_tokens(token.unsqueeze(1)), torch.ones_like(mask[:, :1]), last=1)
            mark(WORD)
            model.decode_queries(spoken, session)
        mark("queries")
        model.sample_actions(latent, **seen).cpu()
        mark("action expert")

    def weights(self) -> dict[str, int]:
        """Bytes that each stage reads: a weight counts in each pass that needs it."""
        model, expert = self.model, self.model.action_expert
        layers = size_of(model.language_model.layers)
        adapted = size_of(model.language_model.layers, lambda name: "lora_" in name)
        mixture = model.language_model.scale_head is not None
        decoder = layers + (layers - adapted + size_of(model.language_model.scale_head) if mixture else 0)
        steps = model.config.flow_config.num_inference_steps
        prefix_passes = 1 if expert.attention == "block_causal" else 0
        flow = steps * (size_of(expert.action_embedding) + size_of(expert.action_head))
        flow += (steps + prefix_passes) * size_of(expert.transformer)
        towers = (expert.vision, expert.visual_projector, expert.latent_projector, expert.state_projector)
        return {
            "preprocessing": 0,
            "images": size_of(model.vision_model) + size_of(model.projector),
            "prompt and queries": decoder,
            "prompt": decoder,
            WORD: decoder + size_of(model.language_model.lm_head),
            "queries": decoder,
            "action expert": flow + sum(map(size_of, towers)),
        }


def size_of(module: torch.nn.Module | None, counts: Callable[[str], bool] = lambda name: True) -> int:
    """Bytes of the parameters that count; 0 for no module."""
    named = () if module is None else module.named_parameters()
    return sum(stored.nbytes for name, p in named if counts(name) for stored in stored_tensors(p))


@contextmanager
def left_eager(model: Any):
    """The model without what `compile_for_inference` made of it."""
    compiled, model.compiled = model.compiled, None
    try:
        yield
    finally:
        model.compiled = compiled


@torch.no_grad()
def measure_stages(model: Any, repeats: int = 10, warm_up: int = 2) -> list[StageCost]:
    """Every stage's cost; median of the repeats."""
    action, times = StagedAction(model), defaultdict(list)
    for number in range(warm_up + repeats):
        last = time.perf_counter()

        def mark(name: str, number: int = number) -> None:
            nonlocal last
            synchronize(model.device)
            now = time.perf_counter()
            if number >= warm_up:
                times[name].append(now - last)
            last = now

        action.run(mark)
    flops, weights = counted_flops(action), action.weights()
    per = {WORD: action.words}
    return [
        StageCost(name, median(found) / per.get(name, 1), flops[name] // per.get(name, 1), weights[name])
        for name, found in times.items()
    ]


def counted_flops(action: StagedAction) -> Mapping[str, int]:
    """FLOPs by stage, operation by operation. Graphs can't be looked into: the eager stages are counted."""
    found, before = {}, 0
    with left_eager(action.model), FlopCounterMode(display=False) as counter:

        def mark(name: str) -> None:
            nonlocal before
            total = counter.get_total_flops()
            found[name], before = total - before, total

        action.run(mark)
    return found


def stage_table(costs: list[StageCost], peaks: Peaks) -> str:
    """A row per stage, and the machine's measured peaks below."""
    lines = [f"{'stage':<24}{'ms':>10}{'GFLOP':>11}{'weights, MB':>13}{'of roofline':>13}"]
    for cost in costs:
        numbers = f"{1000 * cost.seconds:>10.2f}{cost.flops / 1e9:>11.2f}{cost.weights / 1e6:>13.1f}"
        lines.append(f"{cost.name:<24}{numbers}{cost.roofline_share(peaks):>13.1%}")
    lines.append(f"measured peaks: {peaks.flops / 1e12:.3f} TFLOP/s of matmul, {peaks.bytes / 1e9:.1f} GB/s of copying")
    return "\n".join(lines)
