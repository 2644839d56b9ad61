"""Samples to batches for `model(**batch)`: ids, labels, both towers' pixels and action targets (paper appendix E.1)."""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image

from instructvla.configuration_sections import FlowConfig
from instructvla.processing import InstructVLAProcessor
from instructvla.training.data.episodes import BadEpisodeError
from instructvla.training.data.interleave import InterleavedBatches
from instructvla.training.data.mixture import FrameSample
from instructvla.training.data.samples import ChatSample, check_settings, decoded, decoded_views

IGNORED = -100
Views = dict[str, Image.Image]


class ActionCollator:
    """Batches of robot samples, or of multimodal ones.

    Rows are padded on the right, as in the released training, and only the assistant's words up to and including
    `<|im_end|>` are labels. A chat that exceeds `max_length` loses its last exchanges, and where one alone is too long,
    the end of its answer. Nothing of a picture is ever cut, and nothing of a robot's sample.

    Args:
        processor: of the model; its statistics normalise the actions and the state.
        max_length: tokens of the longest row, at most the tokenizer's context.
        augment: (frame, camera → RGB picture) → the pictures that both towers' transforms get, so that they see the
            same; e.g. `functools.partial(augment_frame, augmentation=ImageAugmentation())`. Not called for chat.

    Attributes:
        counts: "rows"; "shortened" chats, which lost exchanges; "cut" ones, which lost the end of an answer. Of this
            process: a data worker has its own, see `CollatedBatches`.

    Raises:
        ValueError: `max_length` below 1.
    """

    def __init__(
        self,
        processor: InstructVLAProcessor,
        *,
        max_length: int = 2048,
        augment: Callable[[FrameSample, Views], Views] | None = None,
    ):
        if max_length < 1:
            raise ValueError(f"max_length is {max_length}; give 1 or more tokens")
        self.processor = processor
        self.max_length = min(max_length, processor.tokenizer.model_max_length)
        self.augment = augment
        self.counts: Counter[str] = Counter()
        self._tokens_of: dict[str, int] = {}  # word → first token

    def __call__(self, samples: Sequence[ChatSample]) -> dict[str, torch.Tensor]:
        """
        Returns:
            input_ids, attention_mask and labels (batch, seq); pixel_values (images, 3, image_size, image_size) unless
            no row has a picture. Of robot samples also actions (batch, horizon, action_dim), normalised, action_mask
            (batch, horizon) bool, action_pixel_values (batch, cameras, 3, action_image_size, action_image_size) and,
            if the model takes it, state (batch, state_dim), normalised; all float32.

        Raises:
            BadEpisodeError: a picture that can't be decoded, or a sample that does not fit; the message names it.
            ValueError: no samples, or robot and chat samples mixed.
        """
        robots = sum(sample.frame is not None for sample in samples)
        if not samples or robots not in (0, len(samples)):
            raise ValueError(
                f"a batch must be all robot samples or all chat, got {robots} robot samples of {len(samples)}"
            )
        images = [self._images(sample) for sample in samples]
        conversations = [self._fitting(sample) for sample in samples]
        self.counts["rows"] += len(samples)
        batch = self._tokens(conversations, images)
        self._label_regions(batch, samples)
        if robots:
            rows = [self._action_row(sample, views) for sample, (views,) in zip(samples, images, strict=True)]
            batch |= {name: torch.cat([row[name] for row in rows]) for name in rows[0]}
        return batch

    def _images(self, sample: ChatSample) -> list[Image.Image | Views]:
        """The sample's pictures in reading order, decoded; of a frame, those of the model's cameras, augmented."""
        if sample.frame is None:
            return [decoded(picture, sample.source) for picture in sample.images]
        views = decoded_views(sample.images[0], self.processor.cameras, sample.source)
        return [views if self.augment is None else self.augment(sample.frame, views)]

    def check_fit(self, sample: ChatSample) -> None:
        """Refuse a sample of which a batch can't be made within `max_length`, for streams that may skip it.

        Raises:
            BadEpisodeError: a robot's sample or a picture would be cut, or no label would be left.
        """
        messages, ids = self._shortened(sample)
        if (
            len(ids) > self.max_length
            and len(asked := self._ids(messages[:-1], answer_follows=True)) >= self.max_length
        ):
            raise BadEpisodeError(
                f"{sample.source} has {len(asked)} tokens before its first answer, but max_length is "
                f"{self.max_length}, so that no label is left; raise it, or shorten the question"
            )

    def _fitting(self, sample: ChatSample) -> list[dict[str, Any]]:
        """The messages, without the last exchanges if they are too long."""
        messages, ids = self._shortened(sample)
        if messages is not sample.messages:
            self.counts["shortened"] += 1
        if len(ids) > self.max_length:
            self.counts["cut"] += 1
        return messages

    def _shortened(self, sample: ChatSample) -> tuple[list[dict[str, Any]], list[int]]:
        """The messages and their tokens, without the last exchanges if they are too long; the first always stays."""
        messages = sample.messages
        ids = self._ids(messages)
        if len(ids) > self.max_length and sample.frame is not None:
            raise BadEpisodeError(
                f"{sample.source} ({sample.kind}) has {len(ids)} tokens with its action queries, but max_length is "
                f"{self.max_length}; raise it, or shorten the texts"
            )
        while len(ids) > self.max_length and (shorter := _without_last_exchange(messages)):
            messages, ids = shorter, self._ids(shorter)
        if len(ids) > self.max_length:
            self._check_cut(ids, sample.source)
        return messages, ids

    def _check_cut(self, ids: list[int], source: str) -> None:
        """Refuse to cut a row where that would take something of a picture."""
        image = self.processor.image_token_id
        if image in ids[self.max_length - 1 :]:
            needed = len(ids) - ids[::-1].index(image) + 1  # the token that closes the picture
            raise BadEpisodeError(
                f"{source} needs {needed} tokens for its pictures, but max_length is {self.max_length}; raise it"
            )

    def _ids(self, messages: list[dict[str, Any]], answer_follows: bool = False) -> list[int]:
        """All tokens of a conversation, however many; padding stays on, see `encode_texts`."""
        text = self.processor.apply_chat_template(messages, add_generation_prompt=answer_follows)
        return self.processor.tokenizer([text], padding=True, add_special_tokens=False, verbose=False)["input_ids"][0]

    def _tokens(self, conversations: list[list[dict]], images: list[list]) -> dict[str, torch.Tensor]:
        inputs = self.processor.apply_chat_template(
            [_with_images(*row) for row in zip(conversations, images, strict=True)],
            tokenize=True,
            return_dict=True,
            return_assistant_tokens_mask=True,
            processor_kwargs={"padding_side": "right", "truncation": True, "max_length": self.max_length},
        )
        said = torch.as_tensor(np.asarray(inputs.pop("assistant_masks"))).bool()
        return {**inputs, "labels": inputs["input_ids"].masked_fill(~said, IGNORED)}

    def _label_regions(self, batch: dict[str, torch.Tensor], samples: Sequence[ChatSample]) -> None:
        """Patches that a sample names get its word as their label, by its first token (token labelling, Jiang et al.
        2021); it stands one place later, as every label of a causal model does."""
        side = math.isqrt(self.processor.num_image_tokens)
        for ids, labels, sample in zip(batch["input_ids"], batch["labels"], samples, strict=True):
            patches = (ids == self.processor.image_token_id).nonzero().flatten().tolist()
            for u, v, word in sample.regions if patches else ():  # a picture can be lost with its exchange
                column, row = (min(int(share * side), side - 1) for share in (u, v))
                labels[patches[row * side + column] + 1] = self._first_token(word)

    def _first_token(self, word: str) -> int:
        if word not in self._tokens_of:
            self._tokens_of[word] = self.processor.encode_text(f" {word}")[0]
        return self._tokens_of[word]

    def _action_row(self, sample: ChatSample, views: Views) -> dict[str, torch.Tensor]:
        """The action expert's inputs and targets, a batch of one."""
        frame, processor = sample.frame, self.processor
        try:
            state = None if processor.state_dim is None else frame.state
            inputs = processor.action_inputs([views], state, frame.dataset)
            actions = processor.normalize_actions(torch.from_numpy(frame.actions), frame.dataset)
        except ValueError as error:
            raise BadEpisodeError(f"{sample.source}: {error}") from error
        return {**inputs, "actions": actions[None], "action_mask": torch.from_numpy(frame.action_mask)[None]}


def _with_images(messages: list[dict[str, Any]], images: Sequence[Image.Image | Mapping]) -> list[dict[str, Any]]:
    """The messages with the pictures in their places; those of exchanges that were left out remain unused."""
    remaining = iter(images)
    return [
        message
        if isinstance(message["content"], str)
        else message
        | {
            "content": [
                part if part["type"] == "text" else part | {"image": next(remaining)} for part in message["content"]
            ]
        }
        for message in messages
    ]


def _without_last_exchange(messages: list[dict[str, Any]]) -> list[dict[str, Any]] | None:
    """The messages before the last question; None where that is the first."""
    questions = [index for index, message in enumerate(messages) if message["role"] == "user"]
    return messages[: questions[-1]] if len(questions) > 1 else None


class CollatedBatches(Iterator[dict[str, Any]]):
    """Batches for the model from batches of samples, with a place; made in a `StreamLoader`'s data workers.

    Beside the collator's tensors each batch has "sample_names", a list for messages, and robot batches have the flow
    loss's "noise" (batch · training_draws, horizon, action_dim) and "flow_time". They are drawn here, by seed, shard
    and place alone, so that they depend on neither device nor number of processes.

    Args:
        batches: of samples, e.g. `InterleavedBatches`.
        collator: what makes tensors of them.
        flow: of the model; None leaves the draws to it.
        seed: of the draws.
        shard: of this stream among those of all ranks and data workers.
    """

    def __init__(
        self,
        batches: InterleavedBatches,
        collator: ActionCollator,
        flow: FlowConfig | None = None,
        *,
        seed: int = 0,
        shard: int = 0,
    ):
        self.batches, self.collator, self.flow = batches, collator, flow
        self._key, self._made = [seed, shard], 0

    def __next__(self) -> dict[str, Any]:
        samples = next(self.batches)
        batch, names = self.collator(samples), [sample.source for sample in samples]
        if not (batch["labels"][:, 1:] != IGNORED).any():
            raise BadEpisodeError(f"the batch of {', '.join(names)} has no label; leave these out, or raise max_length")
        if "actions" in batch and self.flow is not None:
            batch |= flow_draws(batch["actions"].shape, self.flow, np.random.default_rng([*self._key, self._made]))
        self._made += 1
        return batch | {"sample_names": names}

    def state_dict(self) -> dict[str, Any]:
        """The place of the batches and the collator's counts, which so reach the main process."""
        return {
            "settings": self._settings(),
            "batches": self.batches.state_dict(),
            "made": self._made,
            "counts": dict(self.collator.counts),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on where `state_dict` was called; the state of other batches is a ValueError."""
        check_settings(state["settings"], self._settings())
        self.batches.load_state_dict(state["batches"])
        self._made = state["made"]
        self.collator.counts = Counter(state["counts"])

    def _settings(self) -> dict[str, Any]:
        return {"max_length": self.collator.max_length, "augmentation": describe(self.collator.augment)}


def describe(augment: Callable | None) -> str:
    """What pictures are augmented with, for comparison."""
    return repr(augment.keywords) if isinstance(augment, partial) else repr(augment)


def flow_draws(shape: Sequence[int], flow: FlowConfig, generator: np.random.Generator) -> dict[str, torch.Tensor]:
    """Noise ε and τ = s · (1 − z), z ~ Beta(a, b) (paper Table 13), both float32, for an action batch of a shape:
    `training_draws` for each chunk, one after the other."""
    draws = shape[0] * flow.training_draws
    noise = generator.standard_normal((draws, *shape[1:]), dtype=np.float32)
    flow_time = flow.tau_max * (1 - generator.beta(flow.beta_a, flow.beta_b, draws))
    return {"noise": torch.from_numpy(noise), "flow_time": torch.from_numpy(flow_time.astype(np.float32))}
