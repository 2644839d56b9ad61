"""Acting: encode what the robot sees and hears, think in words, decode an action chunk (section 3.1, "Inference").

1. `encode` runs the VLM. When it thinks, the response is generated greedily until the first action query token; all
   action queries are then decoded in one pass that reuses the thinking's KV cache.
2. `decode_action` runs the action expert on the latent action and the current images.

Nothing is kept in the model between calls: what a caller wants to reuse is in the `ActionContext` that it owns.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from diffusers.utils.torch_utils import randn_tensor
from transformers.utils import ModelOutput

from .argument_checks import require_positive_integer
from .compiled_inference import InferenceReport, compile_for_inference
from .real_time_chunking import ChunkGuidance, prefix_weights
from .thinking_instructvla import ThinkingMixin, longest


@dataclass(frozen=True, eq=False)
class ActionContext:
    """What the VLM made of one call, for the caller to reuse in later ones.

    Args:
        instruction: one text per row.
        response: what the model said before acting, per row; None per row where it did not think.
        response_ids: the token ids of the responses, without queries; None per row where it did not think.
        latent_actions: C, (batch, num_action_queries, text_hidden_size).
    """

    instruction: tuple[str, ...]
    response: tuple[str | None, ...]
    response_ids: tuple[tuple[int, ...] | None, ...]
    latent_actions: torch.Tensor

    def __post_init__(self):
        if not isinstance(self.latent_actions, torch.Tensor):
            raise ValueError(f"latent_actions is a {type(self.latent_actions).__name__}, but it must be a tensor.")
        for name in ("instruction", "response", "response_ids"):
            object.__setattr__(self, name, as_rows(getattr(self, name)))
        sizes = {name: len(getattr(self, name)) for name in self.__dataclass_fields__}
        if len(set(sizes.values())) != 1:
            raise ValueError(f"Every part of an ActionContext has one entry per row; got {sizes}.")

    def __len__(self) -> int:
        return len(self.instruction)

    def rows(self) -> list["ActionContext"]:
        """A context of one row for each row; their latent actions are views."""
        texts = zip(self.instruction, self.response, self.response_ids, strict=True)
        latents = self.latent_actions.split(1)
        return [
            ActionContext((instruction,), (response,), (ids,), latent)
            for (instruction, response, ids), latent in zip(texts, latents, strict=True)
        ]

    @staticmethod
    def joined(contexts: Sequence["ActionContext"]) -> "ActionContext":
        """One context with the rows of all of them, in their order; at least one is needed."""
        return ActionContext(
            instruction=tuple(text for one in contexts for text in one.instruction),
            response=tuple(text for one in contexts for text in one.response),
            response_ids=tuple(ids for one in contexts for ids in one.response_ids),
            latent_actions=torch.cat([one.latent_actions for one in contexts]),
        )


@dataclass
class InstructVLAActionOutput(ModelOutput):
    """An action chunk and how it came about.

    Args:
        actions: (batch, horizon, action_dim) float32 on the CPU, in the physical units that the processor names.
        normalized_actions: the same chunk before un-normalisation, in [−1, 1], gripper dimensions 0 or 1.
        response: what the model said before acting, per row; None per row where it did not think.
        latent_actions: C, (batch, num_action_queries, text_hidden_size).
        context: to pass to the next call.
    """

    actions: torch.Tensor | None = None
    normalized_actions: torch.Tensor | None = None
    response: list[str | None] | None = None
    latent_actions: torch.Tensor | None = None
    context: ActionContext | None = None


class ActionGenerationMixin(ThinkingMixin):
    """`generate_action` and its two halves, for a model with `processor`, `language_model` and `action_expert`."""

    @torch.no_grad()
    def generate_action(
        self,
        images,
        text: str | list[str],
        state=None,
        unnorm_key: str | None = None,
        think: bool | Sequence[bool | None] | None = None,
        context: ActionContext | Sequence[ActionContext | None] | None = None,
        reuse_latent: bool = False,
        num_inference_steps: int | None = None,
        generator: torch.Generator | list[torch.Generator] | None = None,
        noise: torch.Tensor | None = None,
        max_new_tokens: int = 50,
        previous_actions=None,
        delay: int = 0,
    ) -> InstructVLAActionOutput:
        """Look, listen, think, act.

        Args:
            images: PIL image, uint8 array or tensor; a list of them for a batch; dictionaries by camera name when the
                checkpoint has several cameras.
            text: the instruction, or one per image.
            state: proprioceptive state in physical units, (state_dim,) or (batch, state_dim), if the model takes one.
            unnorm_key: whose statistics to use; may be left out when the checkpoint has one set.
            think: generate a response before acting, for all rows or one by one; default: what the checkpoint was
                trained for. A `context` brings its response along, so with one the default is not to think again.
                Thinking again with a context gives the same words as without, and costs one pass where they are those
                of the context. All rows return together: one that doesn't think waits for the words of those that do.
            context: of an earlier call with the same instructions; its response is reused instead of generated. A list
                holds a context of one row for each row, None where there is none.
            reuse_latent: also reuse the context's latent action: only the action expert runs, on the new images.
            num_inference_steps: flow-matching steps; default from the configuration.
            generator: of the flow's initial noise; a list gives one per row.
            noise: the initial noise itself, (batch, horizon, action_dim).
            max_new_tokens: limit of the response.
            previous_actions: what the last chunk still has to give when the images are taken, (batch, k, action_dim) or
                (k, action_dim) in physical units; the new chunk goes on from there (`real_time_chunking`).
            delay: how many of these will have been executed when the new chunk is ready.

        Raises:
            ValueError: for anything that does not fit the model, before the model runs.
        """
        contexts = self.contexts_of(context, text)
        thinks = self.thinking_rows(think, contexts)
        if reuse_latent and None in contexts:
            raise ValueError("reuse_latent=True needs the context of an earlier call; pass context=out.context.")
        if reuse_latent and any(thinks):
            raise ValueError("reuse_latent=True runs no VLM, so it can't think; leave think out, or reuse_latent.")
        expert_inputs = self.expert_inputs(images, state, unnorm_key, num_inference_steps, generator, noise)
        rows = len(expert_inputs["noise"])
        expert_inputs["guidance"] = self.chunk_guidance(previous_actions, delay, rows, unnorm_key)
        if reuse_latent:
            context = ActionContext.joined(contexts)
        else:
            context = self.encode(images, text, think=thinks, context=contexts, max_new_tokens=max_new_tokens)
        return self.run_action_expert(context, expert_inputs, unnorm_key)

    @torch.no_grad()
    def encode(
        self,
        images,
        text: str | list[str],
        think: bool | Sequence[bool | None] | None = None,
        context: ActionContext | Sequence[ActionContext | None] | None = None,
        max_new_tokens: int = 50,
    ) -> ActionContext:
        """The VLM's half of `generate_action`, with the same arguments: from images and text to a latent action."""
        self.check_evaluating()
        contexts = self.contexts_of(context, text)
        thinks = self.thinking_rows(think, contexts)
        if any(thinks):
            require_positive_integer("max_new_tokens", max_new_tokens)
        known = [None if one is None else one.response_ids[0] for one in contexts]
        styles = [
            self.config.response_style if speaks or ids is not None else None
            for speaks, ids in zip(thinks, known, strict=True)
        ]
        padding = {"padding_side": "left", "pad_to_multiple_of": self.padded_to}
        inputs = self.processor.prompt_inputs(images, text, response=styles, **padding).to(self.device)
        silent = [ids for speaks, ids in zip(thinks, known, strict=True) if not speaks]
        longest_response = max(max_new_tokens if any(thinks) else 0, longest(silent))
        longest_turn = longest_response + 1 + self.config.num_action_queries
        self.check_length(inputs["input_ids"].shape[1], longest_turn)
        features = (self.compiled or self).encode_images(inputs["pixel_values"])
        prompt, mask = self.place_images(inputs["input_ids"], features), inputs["attention_mask"]
        if any(thinks):
            response_ids, latent_actions = self.think(prompt, mask, max_new_tokens, known, thinks)
        else:
            response_ids = known
            turns = [self.silent_turn(ids) for ids in known]
            tokens = prompt.shape[1] + longest_turn + self.padded_to
            with self.decoding_session(len(prompt), tokens, keep=False) as session:
                latent_actions = self.decode_queries(turns, session, prompt, mask)
        return ActionContext(
            instruction=as_rows(text),
            response=tuple(self.response_text(ids) for ids in response_ids),
            response_ids=tuple(None if ids is None else tuple(ids) for ids in response_ids),
            latent_actions=latent_actions,
        )

    @torch.no_grad()
    def decode_action(
        self,
        context: ActionContext,
        images,
        state=None,
        unnorm_key: str | None = None,
        num_inference_steps: int | None = None,
        generator: torch.Generator | list[torch.Generator] | None = None,
        noise: torch.Tensor | None = None,
    ) -> InstructVLAActionOutput:
        """The action expert's half of `generate_action`, with the same arguments: from a latent action to actions."""
        self.check_context(context)
        expert_inputs = self.expert_inputs(images, state, unnorm_key, num_inference_steps, generator, noise)
        return self.run_action_expert(context, expert_inputs, unnorm_key)

    def expert_inputs(self, images, state, unnorm_key, num_inference_steps, generator, noise) -> dict:
        """What the action expert takes beside the latent action, checked."""
        self.check_evaluating()
        if num_inference_steps is not None:
            require_positive_integer("num_inference_steps", num_inference_steps)
        self.processor.resolve_unnorm_key(unnorm_key)
        inputs = self.processor.action_inputs(images, state=state, unnorm_key=unnorm_key).to(self.device)
        pixels = inputs.get("action_pixel_values")  # None for an expert without a vision tower
        rows = self.processor.count_rows(images) if pixels is None else len(pixels)
        return {
            "pixel_values": pixels,
            "state": inputs.get("state"),
            "noise": self.initial_noise(rows, generator, noise),
            "num_steps": num_inference_steps,
        }

    def chunk_guidance(self, previous_actions, delay: int, batch: int, unnorm_key: str | None) -> ChunkGuidance | None:
        """What the flow is guided to, normalised; None without previous actions."""
        if previous_actions is None:
            if delay:
                raise ValueError(f"delay is {delay}, which needs previous_actions; give both, or neither.")
            return None
        horizon, size = self.config.horizon, self.config.action_dim
        known = self.processor.normalize_actions(torch.as_tensor(previous_actions), unnorm_key).to(self.device)
        known = known.expand(batch, -1, -1) if known.ndim == 2 else known
        if known.ndim != 3 or len(known) != batch or not 1 <= known.shape[1] <= horizon:
            raise ValueError(
                f"previous_actions has shape {tuple(known.shape)}, but it must be ({batch}, 1 to {horizon}, {size})."
            )
        if not 0 <= delay <= known.shape[1]:
            raise ValueError(f"delay is {delay}, but previous_actions hold {known.shape[1]}; give 0 to that many.")
        target = known.new_zeros(batch, horizon, size)
        target[:, : known.shape[1]] = known
        return ChunkGuidance(target, prefix_weights(horizon, known.shape[1], delay))

    def run_action_expert(self, context: ActionContext, expert_inputs: dict, unnorm_key) -> InstructVLAActionOutput:
        batch = len(expert_inputs["noise"])
        if batch != len(context):
            raise ValueError(
                f"Got images for {batch} rows, but the context has {len(context)}; give one image per row."
            )
        sampled = self.sample_actions(context.latent_actions, **expert_inputs)
        normalized = self.processor.clip_actions(sampled)
        return InstructVLAActionOutput(
            actions=self.processor.decode_actions(normalized, unnorm_key),
            normalized_actions=normalized,
            response=list(context.response),
            latent_actions=context.latent_actions,
            context=context,
        )

    def sample_actions(
        self, latent_actions, pixel_values, state, noise, num_steps, guidance: ChunkGuidance | None = None
    ) -> torch.Tensor:
        """A normalised chunk, (batch, horizon, action_dim). Guidance needs gradients, so it is never compiled."""
        if self.compiled is not None and guidance is None:
            return self.compiled.sample(latent_actions, pixel_values, noise, state, num_steps)
        steps = self.action_expert.flow_steps(num_steps)
        return self.action_expert.sample(latent_actions, pixel_values, noise, state, steps, guidance)

    def compile_for_inference(
        self,
        rows: Sequence[int] = (1,),
        modes: Sequence[str] = ("act", "think"),
        instruction_tokens: int = 32,
        max_new_tokens: int = 50,
        kernels: str | None = None,
        progress: bool = True,
    ) -> InferenceReport:
        """Prepare `generate_action` for calls of known shapes: fixed caches, fused projections, compiled kernels, and
        on CUDA one graph per stage. The actions stay the same within rounding. Prepare a model on its device, in its
        type and with its weights: parameters become views of what the projections share. Other shapes work too: each
        is prepared once, at its first call, with a warning. Guided chunks (`previous_actions`) run their action expert
        as before.

        Args:
            rows: batch sizes.
            modes: "act" (without a response), "think", "latent" (on an earlier latent action).
            instruction_tokens: of the longest instruction.
            max_new_tokens: that calls will give.
            kernels: "inductor", the default on CUDA, or "eager", the default elsewhere.
            progress: show a bar.

        Raises:
            ValueError: in training mode, and for arguments that are out of range.
        """
        self.check_evaluating()
        with torch.no_grad():
            return compile_for_inference(self, rows, modes, instruction_tokens, max_new_tokens, kernels, progress)

    def initial_noise(self, batch: int, generator, noise) -> torch.Tensor:
        """ε ~ N(0, I), (batch, horizon, action_dim) float32, or the noise given, checked."""
        shape = (batch, self.config.horizon, self.config.action_dim)
        generators = generator if isinstance(generator, list) else [generator]
        if isinstance(generator, list) and len(generator) != batch:
            raise ValueError(f"Got {len(generator)} generators for {batch} rows; give one, or one per row.")
        if not all(isinstance(one, (torch.Generator, type(None))) for one in generators):
            raise ValueError(f"generator is {generator!r}, but it must be a torch.Generator, or a list of them.")
        if noise is None:
            return randn_tensor(shape, generator=generator, device=self.device, dtype=torch.float32)
        noise = torch.as_tensor(noise, dtype=torch.float32, device=self.device)
        if noise.shape != shape:
            raise ValueError(f"noise has shape {tuple(noise.shape)}, but it must be {shape}.")
        if not noise.isfinite().all():
            raise ValueError("noise must be finite, but it holds NaN or infinite values.")
        return noise

    def contexts_of(self, context, text: str | list[str]) -> list[ActionContext | None]:
        """One context of one row for each row, checked; None where there is none."""
        if not isinstance(text, (str, list, tuple)):
            raise ValueError(f"text is {text!r}, but it must be an instruction, or a list of them.")
        rows = as_rows(text)
        if context is None:
            return [None] * len(rows)
        if not isinstance(context, (list, tuple)):
            self.check_context(context, rows)
            return context.rows()
        if len(context) != len(rows):
            raise ValueError(
                f"Got {len(context)} contexts for {len(rows)} rows; give one per row, or None in its place."
            )
        for one, instruction in zip(context, rows, strict=True):
            if one is not None:
                self.check_context(one, instruction)
        return list(context)

    def thinking_rows(self, think, contexts: Sequence[ActionContext | None]) -> list[bool]:
        """Which rows generate a response, checked."""
        asked = think.tolist() if hasattr(think, "tolist") else think  # an array, or one of its values
        asked = list(asked) if isinstance(asked, (list, tuple)) else [asked] * len(contexts)
        if any(one not in (None, True, False) for one in asked):
            raise ValueError(
                f"think is {think!r}, but it must be True, False or None for the checkpoint's default, or a list with "
                "one of these per row."
            )
        if len(asked) != len(contexts):
            raise ValueError(
                f"think has {len(asked)} entries for {len(contexts)} rows; give one value, or one per row."
            )
        default = self.config.thinks_by_default
        return [
            default and context is None if one is None else bool(one)
            for one, context in zip(asked, contexts, strict=True)
        ]

    def check_context(self, context: ActionContext, text: str | list[str] | None = None) -> None:
        """Refuse what is no context of this model, or one that was made for other instructions."""
        if not hasattr(context, "response_ids"):
            raise ValueError(f"context is a {type(context).__name__}; give the `context` of an earlier output.")
        queries, size = self.config.num_action_queries, self.config.text_config.hidden_size
        shape = tuple(context.latent_actions.shape)
        if shape[1:] != (queries, size):
            raise ValueError(f"The context's latent actions are {shape}, but they must be (batch, {queries}, {size}).")
        forbidden = {*self.stop_token_ids, self.config.image_token_id}
        for token in (token for ids in context.response_ids for token in ids or ()):
            if not isinstance(token, int) or not 0 <= token < self.config.text_config.vocab_size or token in forbidden:
                raise ValueError(
                    f"The context's response_ids hold {token!r}, which no response of this model can hold."
                )
        if text is not None and context.instruction != as_rows(text):
            raise ValueError(
                f"The context was made for {list(context.instruction)!r}, but the instruction is "
                f"{list(as_rows(text))!r}. Leave the context out to start afresh with a new instruction."
            )

    def check_length(self, prompt: int, turn: int = 0) -> None:
        """Refuse a prompt of so many tokens, with so many that may follow it, that the model can't read them all."""
        limit = self.config.text_config.max_position_embeddings
        if prompt + turn > limit:
            follows = f" and what follows up to {turn}" if turn else ""
            raise ValueError(
                f"The prompt takes {prompt} tokens{follows}, but the model reads at most {limit}; "
                "shorten the text, or lower max_new_tokens."
            )

    def check_evaluating(self) -> None:
        if self.training:
            raise ValueError("The model is in training mode, where dropout would disturb it; call model.eval() first.")


def as_rows(text: str | list[str]) -> tuple[str, ...]:
    return (text,) if isinstance(text, str) else tuple(text)
