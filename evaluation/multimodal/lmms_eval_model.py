"""The model class for lmms-eval, which must be installed to import this module."""

from collections.abc import Sequence
from typing import Any

from accelerate import Accelerator
from lmms_eval.api.instance import GenerationResult, Instance
from lmms_eval.api.model import lmms

from instructvla.evaluation.multimodal.chat_model import ChatModel, Prompt
from instructvla.evaluation.multimodal.lmms_eval_prompts import prompt_of


class InstructVLA(lmms):
    """Answers lmms-eval's requests, greedily.

    A "simple" model, which gets a question's text and pictures: a "chat" model would get them interleaved, but the
    released prompts show the pictures first and refer to them by number.

    Args:
        pretrained: folder or Hub repository, or "nano".
        device: e.g. "cuda:1"; default: that of the process under `accelerate launch`, else CUDA where there is one.
        dtype, adapters: as for `ChatModel.load`.
        batch_size: requests that are answered together.
        max_tiles: of a picture; default: as the paper's evaluation cuts the pictures of a benchmark.

    Raises:
        ValueError: no such checkpoint, device or dtype, or a batch size that is no number.
    """

    is_simple = True

    def __init__(
        self,
        pretrained: str,
        device: str | None = None,
        dtype: str | None = None,
        batch_size: int | str = 1,
        max_tiles: int | None = None,
        adapters: bool = True,
    ):
        super().__init__()
        if not str(batch_size).isdigit():
            raise ValueError(f"--batch_size is {batch_size!r}, but it must be a number, for example 8.")
        self.accelerator = Accelerator()
        self._rank, self._world_size = self.accelerator.process_index, self.accelerator.num_processes
        place = str(self.accelerator.device) if self._world_size > 1 else device
        self.chat_model = ChatModel.load(pretrained, place, dtype, int(batch_size), adapters)
        self.device = self.chat_model.model.device
        self.max_tiles = max_tiles

    def generate_until(self, requests: Sequence[Instance]) -> list[str]:
        """An answer to each request.

        Raises:
            ValueError: a request with video or audio, or one for sampling or beam search.
        """
        prompts = []
        for request in requests:
            text, generation, visuals_of, number, task, split = request.args
            prompts.append(self.prompt(text, generation, visuals_of, self.task_dict[task][split][number], task))
        return self.chat_model.answers(prompts)

    def loglikelihood(self, requests: Sequence[Instance]) -> list[GenerationResult]:
        """Mean loss of each request's continuation, as of the kit's own models, and whether it is the greedy one.

        The kit takes the choice of the smallest number. A bare pair, which its interface names, it would turn into a
        string (0.7.3), so each pair is the result's `text`.

        Raises:
            ValueError: a request with video or audio.
        """
        prompts, continuations = [], []
        for request in requests:
            text, target, visuals_of, number, task, split = request.args
            document = self.task_dict[task][split][number]
            prompts.append(self.prompt(text, {}, visuals_of, document, task))
            continuations.append(target if isinstance(target, str) else target(document))
        lengths = [max(1, len(self.chat_model.processor.encode_text(text))) for text in continuations]
        scores = self.chat_model.log_likelihoods(prompts, continuations)
        return [
            GenerationResult(text=(-score / length, greedy))
            for (score, greedy), length in zip(scores, lengths, strict=True)
        ]

    def generate_until_multi_round(self, requests: Sequence[Instance]) -> list[str]:
        """Refuses tasks of several rounds (ValueError)."""
        raise ValueError(f"{requests[0].task_name} has several rounds, but the adapter asks once; leave this task out.")

    def prompt(self, text: str, generation: dict[str, Any], visuals_of: Any, document: Any, task: str) -> Prompt:
        """The prompt of a request about a document of a task."""
        return prompt_of(text, visuals_of(document), generation, task, self.max_tiles)
