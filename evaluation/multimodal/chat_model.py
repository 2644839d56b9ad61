"""Questions about pictures, answered or scored in batches: what both benchmark kits ask of the model."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from tqdm import tqdm

from instructvla.evaluation.doctor import choose_device
from instructvla.evaluation.multimodal.image_tiles import Tiling, image_tiles
from instructvla.evaluation.one_picture import load_model
from instructvla.processing.chat_prompts import IMAGE_TOKEN
from instructvla.processing.image_transforms import chat_images
from instructvla.streamed_checkpoint import choose_dtype
from instructvla.training.greedy_answers import greedy_continuations

NANO = "nano"


@dataclass(frozen=True)
class Prompt:
    """A user's question.

    Args:
        text: of the question.
        images: that it shows, in their order: PIL images or paths.
        max_new_tokens: limit of the answer.
        until: strings that end the answer and are no part of it.
        tiling: how each image is cut.
    """

    text: str
    images: tuple[Image.Image | str, ...] = ()
    max_new_tokens: int = 512
    until: tuple[str, ...] = ()
    tiling: Tiling = Tiling()


class ChatModel:
    """A model that answers in words, greedily, through its processor's chat template.

    Args:
        model: `InstructVLAForConditionalGeneration` in evaluation mode, with its processor.
        batch_size: prompts that are answered together.
        adapters: False asks the base VLM, as it was before adaptation.

    Raises:
        ValueError: a batch size that is no integer of at least 1.
    """

    def __init__(self, model: Any, batch_size: int = 1, adapters: bool = True):
        if type(batch_size) is not int or batch_size < 1:
            raise ValueError(f"batch_size is {batch_size!r}, but it must be an integer of at least 1.")
        self.model, self.batch_size, self.adapters = model, batch_size, adapters
        self.processor = model.processor

    @classmethod
    def load(
        cls,
        name: str,
        device: str | None = None,
        dtype: str | None = None,
        batch_size: int = 1,
        adapters: bool = True,
    ) -> "ChatModel":
        """The model of a checkpoint.

        Args:
            name: folder or Hub repository, or "nano" for the untrained preset.
            device: e.g. "cuda:1"; default: CUDA where there is one.
            dtype: "float32", "bfloat16" or "float16"; default: the checkpoint's, but float32 on a CPU.
            batch_size: as for the class.
            adapters: as for the class.

        Raises:
            ValueError: no such checkpoint, device or dtype.
        """
        place = choose_device(device)
        model = load_model(None if name == NANO else name)
        default = torch.float32 if place.type == "cpu" else model.dtype
        return cls(model.to(place, choose_dtype(dtype, {}, default)), batch_size, adapters)

    def answers(self, prompts: Sequence[Prompt]) -> list[str]:
        """What the model says to each prompt, in their order."""
        answers = [""] * len(prompts)
        for numbers in tqdm(list(batches(prompts, self.batch_size)), unit="batch", disable=None):
            batch = [prompts[number] for number in numbers]
            texts, tiles = self.rendered(batch)
            said = greedy_continuations(
                self.model,
                self.processor,
                texts,
                tiles,
                batch[0].max_new_tokens,
                batch[0].until,
                adapters=self.adapters,
            )
            for number, answer in zip(numbers, said, strict=True):
                answers[number] = answer
        return answers

    def log_likelihoods(self, prompts: Sequence[Prompt], continuations: Sequence[str]) -> list[tuple[float, bool]]:
        """ln p(continuation | prompt), and whether the continuation is what the model would say greedily."""
        scores = [(0.0, True)] * len(prompts)
        for numbers in tqdm(list(batches(prompts, self.batch_size)), unit="batch", disable=None):
            batch = [prompts[number] for number in numbers]
            rated = self.score(batch, [continuations[number] for number in numbers])
            for number, score in zip(numbers, rated, strict=True):
                scores[number] = score
        return scores

    @torch.no_grad()
    def score(self, prompts: Sequence[Prompt], continuations: Sequence[str]) -> list[tuple[float, bool]]:
        """`log_likelihoods` of one batch."""
        texts, tiles = self.rendered(prompts)
        inputs = self.processor.prompt_inputs(tiles, texts, padding_side="left")
        rows = [self.processor.encode_text(text) for text in continuations]
        longest = max(map(len, rows))
        padding = self.processor.tokenizer.pad_token_id
        tails = torch.tensor([row + [padding] * (longest - len(row)) for row in rows]).long()  # (batch, longest)
        counts = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows]).long()
        inputs["input_ids"] = torch.cat([inputs["input_ids"], tails], dim=1)
        inputs["attention_mask"] = torch.cat([inputs["attention_mask"], counts], dim=1)
        logits = self.model(
            **inputs.to(self.model.device), logits_to_keep=longest + 1, adapters=self.adapters
        ).logits.float()
        logits[..., self.model.config.image_token_id] = -torch.inf  # `generate` never says it either
        logits = logits[:, :-1].cpu()  # (batch, longest, vocab_size)
        chosen = logits.log_softmax(-1).gather(-1, tails.unsqueeze(-1)).squeeze(-1)
        greedy = (logits.argmax(-1) == tails) | (counts == 0)
        totals = chosen.masked_fill(counts == 0, 0).sum(dim=1)
        return list(zip(totals.tolist(), greedy.all(dim=1).tolist(), strict=True))

    def rendered(self, prompts: Sequence[Prompt]) -> tuple[list[str], list[list[Image.Image]]]:
        """The formatted text of each prompt and the tiles that it shows.

        Raises:
            ValueError: an image that can't be read.
        """
        texts, tiles = [], []
        for prompt in prompts:
            images, _ = chat_images(list(prompt.images), self.processor.cameras)
            cut = [image_tiles(image, prompt.tiling, self.processor.image_size) for image in images]
            content = [{"type": "image"} for _ in images] + [{"type": "text", "text": prompt.text}]
            messages = [{"role": "user", "content": content}]
            text = self.processor.apply_chat_template(messages, add_generation_prompt=True)
            texts.append(self.with_room(text, [len(pieces) for pieces in cut]))
            tiles.append([piece for pieces in cut for piece in pieces])
        return texts, tiles

    def with_room(self, text: str, counts: Sequence[int]) -> str:
        """A formatted prompt in which each image has the tokens of so many tiles between `<img>` and `</img>`."""
        one = IMAGE_TOKEN * self.processor.num_image_tokens
        before, *after = text.split(one, len(counts))
        return before + "".join(one * count + piece for count, piece in zip(counts, after, strict=True))


def batches(prompts: Sequence[Prompt], batch_size: int) -> Iterator[list[int]]:
    """Numbers of the prompts that are answered together: those of the same limits, the longest first."""
    groups = defaultdict(list)
    for number, prompt in enumerate(prompts):
        groups[prompt.max_new_tokens, prompt.until].append(number)
    for numbers in groups.values():
        numbers.sort(key=lambda number: (len(prompts[number].images), len(prompts[number].text)), reverse=True)
        yield from (numbers[start : start + batch_size] for start in range(0, len(numbers), batch_size))
