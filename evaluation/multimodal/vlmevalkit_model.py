"""The model class for VLMEvalKit, which must be installed to import this module."""

from collections.abc import Mapping, Sequence
from typing import Any

from vlmeval.vlm.base import BaseModel

from instructvla.evaluation.multimodal.benchmarks import paper_benchmark
from instructvla.evaluation.multimodal.chat_model import ChatModel
from instructvla.evaluation.multimodal.vlmevalkit_prompts import prompt_of, question_text


class InstructVLA(BaseModel):
    """Answers VLMEvalKit's questions, greedily.

    Args:
        model_path: folder or Hub repository, or "nano".
        device, dtype, adapters: as for `ChatModel.load`.
        max_tiles: of a picture; default: as the paper's evaluation cuts the pictures of a benchmark.

    Raises:
        ValueError: no such checkpoint, device or dtype.
    """

    INSTALL_REQ = False
    INTERLEAVE = True

    def __init__(
        self,
        model_path: str,
        device: str | None = None,
        dtype: str | None = None,
        max_tiles: int | None = None,
        adapters: bool = True,
    ):
        super().__init__()
        self.chat_model = ChatModel.load(model_path, device, dtype, adapters=adapters)
        self.max_tiles = max_tiles

    def use_custom_prompt(self, dataset: str) -> bool:
        """Whether `build_prompt` asks, as the paper's evaluation does; other data sets are asked as the kit does."""
        return paper_benchmark(dataset) is not None

    def build_prompt(self, line: Mapping[str, Any], dataset: str) -> list[dict[str, str]]:
        """A row of a benchmark of Table 1 as the kit's message."""
        images = [{"type": "image", "value": path} for path in self.dump_image(line, dataset)]
        return [*images, {"type": "text", "value": question_text(line, paper_benchmark(dataset))}]

    def generate_inner(self, message: Sequence[Mapping[str, str]], dataset: str | None = None) -> str:
        """The answer to one message.

        Raises:
            ValueError: a message with video or audio.
        """
        return self.chat_model.answers([prompt_of(message, dataset, self.max_tiles)])[0]
