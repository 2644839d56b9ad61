"""Where the time of one action goes, stage by stage, with and without each reuse, in one run (`make bench`).

Every pair is timed alternately on the same weights and input, and its two results are compared.
"""

import copy
import json
import os
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode
from transformers import BatchFeature, SiglipVisionConfig

from instructvla.configuration_instructvla import nano_text_config
from instructvla.evaluation.demo_scene import draw_tabletop_scene
from instructvla.modeling_instructvla import InstructVLAForConditionalGeneration
from instructvla.nano import untrained_nano

INSTRUCTION = "put the spoon on the towel"
ACTION_ONLY, WITH_WORDS = "action only: everything", "think, then act: everything"
ENCODED_ONCE, COMPILED = " but image features", ", compiled"
WHOLE_ACTIONS = tuple(  # name, whether it thinks, whether the straightforward path keeps image features
    (name + (ENCODED_ONCE if keep_image else ""), think, keep_image)
    for name, think in ((ACTION_ONLY, False), (WITH_WORDS, True))
    for keep_image in (False, True)
)


def mid_size_fields() -> dict[str, Any]:
    """Of `InstructVLAConfig.nano`, for the paper's image and patch tokens (256 each) and a fraction of its width and
    depth, so that a CPU shows the proportions of the full model in minutes."""
    return {
        "vision_config": SiglipVisionConfig(
            hidden_size=384,
            intermediate_size=1536,
            num_hidden_layers=6,
            num_attention_heads=6,
            image_size=448,
            patch_size=14,
            vision_use_head=False,
        ),
        "text_config": nano_text_config(
            hidden_size=512,
            intermediate_size=2048,
            num_hidden_layers=8,
            num_attention_heads=8,
            num_key_value_heads=2,
        ),
        "adapter_config": {"rank": 32, "alpha": 64},
        "action_vision_config": {"embed_dim": 384, "depth": 12, "num_heads": 6, "feature_layer": 10},
        "action_expert_config": {
            "hidden_size": 384,
            "intermediate_size": 1536,
            "num_hidden_layers": 12,
            "num_attention_heads": 6,
        },
    }


def mid_size(seed: int = 0) -> InstructVLAForConditionalGeneration:
    """Random weights of the middle size."""
    return untrained_nano(seed, **mid_size_fields())


def timed(
    work: dict[str, Callable[[], torch.Tensor]], repeats: int
) -> tuple[dict[str, float], dict[str, torch.Tensor]]:
    """Median time and last result of each piece of work; the pieces take turns, so a busy moment hits all of them."""
    times: dict[str, list[float]] = {name: [] for name in work}
    results = {}
    for _ in range(repeats):
        for name, piece in work.items():
            start = time.perf_counter()
            results[name] = piece()
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}, results


def kept(make: Callable[[], torch.Tensor]) -> Callable[[], torch.Tensor]:
    """What is made now, each time."""
    made = make()
    return lambda: made


class Bench:
    """One model, one camera frame, one instruction, and what the model answers, up to `max_tokens` tokens.

    Args:
        compiled: the same weights again, to be prepared with `compile_for_inference` here.
    """

    def __init__(
        self,
        model: InstructVLAForConditionalGeneration,
        max_tokens: int,
        compiled: InstructVLAForConditionalGeneration | None = None,
    ):
        self.model, self.max_tokens, self.compiled = model, max_tokens, compiled
        image = draw_tabletop_scene()
        self.prompts = {think: self.prompt_inputs(model, image, think) for think in (False, True)}
        self.vlm = self.prompts[True]
        self.pixels = model.processor.action_inputs(image)["action_pixel_values"]
        self.noise = torch.randn(
            1, model.config.horizon, model.config.action_dim, generator=torch.Generator().manual_seed(0)
        )
        self.prompt, self.mask = self.embed(), self.vlm["attention_mask"]
        self.response, self.latent = self.think()
        if compiled is not None:
            longest = len(compiled.processor.encode_text(INSTRUCTION))
            compiled.compile_for_inference(instruction_tokens=longest, max_new_tokens=max_tokens, kernels="inductor")
            self.padded = {think: self.prompt_inputs(compiled, image, think) for think in (False, True)}

    def prompt_inputs(
        self, model: InstructVLAForConditionalGeneration, image: Image.Image, think: bool
    ) -> BatchFeature:
        """As `generate_action` prepares them."""
        style = model.config.response_style if think else None
        padding = {"padding_side": "left", "pad_to_multiple_of": model.padded_to}
        return model.processor.prompt_inputs(image, INSTRUCTION, response=style, **padding)

    def embed(self, think: bool = True) -> torch.Tensor:
        return self.model.embed_prompt(self.prompts[think]["input_ids"], self.prompts[think]["pixel_values"])

    def think(self) -> tuple[list[int], torch.Tensor]:
        """As `generate_action` does it: SigLIP once, one KV cache for prompt, response and queries."""
        responses, latent = self.model.think(self.embed(), self.mask, self.max_tokens, known=[None], thinks=[True])
        return responses[0], latent

    def think_again(self, recompute: str, keep_image: bool) -> torch.Tensor:
        """The same response and queries with less reuse.

        Args:
            recompute: "queries" thinks on a KV cache, then encodes the whole sequence anew for the queries, as the
                released code does; "everything" also encodes it anew for every token of the response.
            keep_image: whether the image features are kept, or SigLIP runs for every new encoding.
        """
        model, embed_tokens = self.model, self.model.language_model.embed_tokens
        turn = torch.tensor([model.assistant_turn(self.response)])

        def encode(spoken: int) -> torch.Tensor:
            prompt = self.prompt if keep_image else self.embed()
            embeds = torch.cat([prompt, embed_tokens(turn[:, :spoken])], dim=1)
            return model.language_model(embeds, torch.ones(embeds.shape[:2], dtype=torch.long))

        if recompute == "queries":
            self.think()
        else:
            for spoken in range(len(self.response)):
                model.language_model.lm_head(encode(spoken)[:, -1]).argmax(dim=-1)
        return encode(turn.shape[1])[:, -model.config.num_action_queries :]

    def flow(self, cached: bool) -> torch.Tensor:
        """All flow steps on a given prefix, from its keys and values or from the prefix itself."""
        expert = self.model.action_expert
        rotary, mask = expert.rotary(self.prefix), expert.attention_mask(self.prefix)
        condition = {"rotary": rotary, "mask": mask, "prefix": self.prefix}
        if cached:
            condition = {"rotary": rotary, "cache": expert.encode_prefix(self.prefix, rotary, mask, read=False)}
        return expert.decode(condition, self.noise)

    def act(self, think: bool, compiled: bool = False) -> torch.Tensor:
        """A normalised chunk, as `generate_action` computes it from prepared inputs."""
        model, prompts = (self.compiled, self.padded) if compiled else (self.model, self.prompts)
        vlm = prompts[think]
        features = (model.compiled or model).encode_images(vlm["pixel_values"])
        prompt, mask = model.place_images(vlm["input_ids"], features), vlm["attention_mask"]
        if think:
            latent = model.think(prompt, mask, self.max_tokens, known=[None], thinks=[True])[1]
        else:
            room = prompt.shape[1] + model.config.num_action_queries + model.padded_to
            with model.decoding_session(1, room, keep=False) as session:
                latent = model.decode_queries([model.assistant_turn(None)], session, prompt, mask)
        return model.sample_actions(latent, self.pixels, None, self.noise, None)

    def act_straightforwardly(self, think: bool, keep_image: bool = False) -> torch.Tensor:
        """The same without any reuse: the whole sequence with its image is encoded anew for every word and for the
        queries, each time with the vocabulary's logits everywhere; in every flow step the action expert sees images and
        prefix anew, and its tower runs all its blocks.

        Args:
            keep_image: whether each tower's features are kept, as in the released code, or computed anew each time.
        """
        model, expert = self.model, self.model.action_expert
        words = self.response if think else []
        embed = kept(partial(self.embed, think)) if keep_image else partial(self.embed, think)

        def encode(tokens: list[int]) -> torch.Tensor:
            embeds = embed()
            if tokens:
                embeds = torch.cat([embeds, model.language_model.embed_tokens(torch.tensor([tokens]))], dim=1)
            hidden = model.language_model(embeds, torch.ones(embeds.shape[:2], dtype=torch.long))
            model.language_model.lm_head(hidden)[:, -1].argmax(dim=-1)
            return hidden

        for spoken in range(len(words)):
            encode(words[:spoken])
        latent = encode(model.assistant_turn(words if think else None))[:, -model.config.num_action_queries :]
        look = partial(self.prefix_with_all_blocks, latent)
        look = kept(look) if keep_image else look

        def velocity(noisy_actions: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
            prefix = look()
            return expert.velocity(
                noisy_actions, time, expert.rotary(prefix), expert.attention_mask(prefix), prefix=prefix
            )

        return expert.decode({}, self.noise, velocity=velocity)

    def prefix_with_all_blocks(self, latent: torch.Tensor) -> torch.Tensor:
        """The action expert's prefix from a tower with the blocks above its features, which a checkpoint here doesn't
        hold; the topmost stands for each of them."""
        expert = self.model.action_expert
        skipped = self.model.config.action_vision_config.depth - len(expert.vision.blocks)
        tokens, condition = expert.vision.embed(self.pixels.flatten(0, 1)), latent.mean(dim=1, keepdim=True)
        for _ in range(skipped):
            expert.vision.blocks[-1](tokens, condition)
        return expert.embed_prefix(latent, self.pixels, None)

    def stages(self, repeats: int) -> dict[str, float]:
        """Seconds of each stage of one thinking call."""
        model = self.model
        filled = model.language_model.new_cache()
        model.language_model(self.prompt, self.mask, filled)
        token = model.language_model.embed_tokens(torch.tensor([[0]]))
        queries = model.language_model.embed_tokens(torch.tensor([model.assistant_turn([])]))
        caches = iter([copy.deepcopy(filled) for _ in range(2 * repeats)])

        def after_prompt(embeds: torch.Tensor) -> torch.Tensor:
            mask = torch.ones(1, self.prompt.shape[1] + embeds.shape[1], dtype=torch.long)
            return model.language_model(embeds, mask, next(caches))

        latent, images = self.latent, self.pixels.flatten(0, 1)
        return timed(
            {
                "SigLIP and projector": lambda: model.encode_images(self.vlm["pixel_values"]),
                "prefill": lambda: model.language_model(self.prompt, self.mask, model.language_model.new_cache()),
                "thinking, per token": lambda: model.language_model.lm_head(after_prompt(token)[:, -1]).argmax(),
                "queries": lambda: after_prompt(queries),
                "FiLM-ViT": lambda: model.action_expert.vision(images, latent),
                "flow steps, all": lambda: self.flow(cached=True),
            },
            repeats,
        )[0]

    def reuses(self, repeats: int) -> dict[str, dict[str, float]]:
        """Seconds with and without each reuse, and a check that both give the same."""
        self.prefix = self.model.action_expert.embed_prefix(self.latent, self.pixels, None)
        think, again = lambda: self.think()[1], self.think_again
        pairs = {
            "flow steps: prefix cache": (lambda: self.flow(True), lambda: self.flow(False), repeats),
            "queries: image features": (lambda: again("queries", True), lambda: again("queries", False), repeats),
            "queries: KV cache": (think, lambda: again("queries", True), repeats),
            "queries: KV cache and image features": (think, lambda: again("queries", False), repeats),
            "think, then act: KV cache": (think, lambda: again("everything", True), 1),
            "think, then act: KV cache and image features": (think, lambda: again("everything", False), 1),
        }
        for name, think, keep_image in WHOLE_ACTIONS:
            straight = partial(self.act_straightforwardly, think, keep_image)
            pairs[name] = (partial(self.act, think), straight, repeats)
            if self.compiled is not None:
                pairs[name + COMPILED] = (partial(self.act, think, True), straight, repeats)
        results = {}
        for name, (with_reuse, without, turns) in pairs.items():
            results[name], outputs = timed({"with": with_reuse, "without": without}, turns)
            torch.testing.assert_close(outputs["with"], outputs["without"], rtol=1e-3, atol=1e-3)
        return results

    def flops(self) -> dict[str, dict[str, int]]:
        """Of whole actions with and without all reuses: what their times could differ by, all products equally fast."""
        found = {}
        for name, think, keep_image in WHOLE_ACTIONS:
            with FlopCounterMode(display=False) as least:
                self.act(think)
            with FlopCounterMode(display=False) as most:
                self.act_straightforwardly(think, keep_image)
            found[name] = {"with": least.get_total_flops(), "without": most.get_total_flops()}
        return found


def report(stages: dict[str, float], reuses: dict[str, dict[str, float]], flops: dict[str, dict[str, int]]) -> str:
    lines = [f"{'stage':<52}{'ms':>10}"]
    lines += [f"{name:<52}{1000 * seconds:>10.2f}" for name, seconds in stages.items()]
    lines += ["", f"{'reuse':<52}{'with, ms':>10}{'without':>10}{'ratio':>8}"]
    for name, pair in reuses.items():
        ratio = pair["without"] / pair["with"]
        lines.append(f"{name:<52}{1000 * pair['with']:>10.2f}{1000 * pair['without']:>10.2f}{ratio:>7.2f}x")
    lines += ["", f"{'products':<52}{'GFLOP':>10}{'without':>10}{'ratio':>8}"]
    for name, pair in flops.items():
        ratio = pair["without"] / pair["with"]
        lines.append(f"{name:<52}{pair['with'] / 1e9:>10.2f}{pair['without'] / 1e9:>10.2f}{ratio:>7.2f}x")
    return "\n".join(lines)


app = typer.Typer(add_completion=False)


@app.command()
@torch.no_grad()
def main(
    size: Annotated[str, typer.Option(help="nano or mid")] = "mid",
    tokens: Annotated[int, typer.Option(min=1, help="longest response; random weights may stop earlier")] = 20,
    repeats: Annotated[int, typer.Option(min=1)] = 3,
    compiled: Annotated[
        bool, typer.Option("--compile/--no-compile", help="also measure inductor's kernels; preparing takes minutes")
    ] = False,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads of torch")] = 2,
    output: Annotated[Path | None, typer.Option(dir_okay=False, help="also write the numbers as JSON")] = None,
) -> None:
    """Print the time of each stage, and of each reuse against going without it."""
    sizes = {"nano": untrained_nano, "mid": mid_size}
    if size not in sizes:
        raise typer.BadParameter(f"{size!r} is unknown; choose {' or '.join(sizes)}", param_hint="--size")
    if output is not None and not os.access(output.absolute().parent, os.W_OK):
        raise typer.BadParameter(
            f"{str(output)!r} is in no folder that can be written; make it first", param_hint="--output"
        )
    torch.set_num_threads(threads)
    bench = Bench(sizes[size](), tokens, sizes[size]() if compiled else None)
    parameters = sum(parameter.numel() for parameter in bench.model.parameters()) / 1e6
    reuses = bench.reuses(repeats)
    stages, flops = bench.stages(repeats), bench.flops()
    typer.echo(
        f"{size}: {parameters:.1f} M parameters, float32, {threads} threads, {len(bench.response)} thought tokens\n"
    )
    typer.echo(report(stages, reuses, flops))
    if output is not None:
        output.write_text(json.dumps({"stages": stages, "reuses": reuses, "flops": flops}, indent=2))


if __name__ == "__main__":
    app()
