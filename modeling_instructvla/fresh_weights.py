"""Where the tensors of a fresh model come from: the base VLM, DINOv2, or its own initialisation."""

import re
from collections.abc import Collection, Mapping
from pathlib import Path

import torch

from instructvla.configuration_instructvla import InstructVLAConfig
from instructvla.configuration_sections import ActionVisionConfig
from instructvla.dinov2_vision import DinoV2
from instructvla.modeling_instructvla import InstructVLAForConditionalGeneration
from instructvla.official_names import WeightAccount
from instructvla.plain_files import listed
from instructvla.safetensors_folder import SafetensorsFolder
from instructvla.streamed_checkpoint import choose_dtype

VISION_PREFIX = "action_model.film_vision_model.vision_model."
EMBEDDING, HEAD = "language_model.embed_tokens.weight", "language_model.lm_head.weight"

# What no source has. Everything else must come from one.
NEW = {
    "LoRA of the adaptation experts": r"language_model\.layers\..+\.lora_[AB]",
    "scale head": r"language_model\.scale_head\..+",
    "FiLM, as identity": r"action_expert\.vision\.blocks\.\d+\.film_(scale|shift)\.(weight|bias)",
    "action expert": r"action_expert\.(?!vision\.).+",
}


class Sources:
    """Both sources' tensors under the names of published checkpoints.

    Args:
        vlm: the base VLM's weights.
        vision, sizes: DINOv2 and its configuration, None for a model without it.
    """

    def __init__(self, vlm: SafetensorsFolder, vision: DinoV2 | None, sizes: ActionVisionConfig | None):
        self.vlm, self.vision, self.shapes, self.dtypes = vlm, vision, dict(vlm.shapes), dict(vlm.dtypes)
        if vision is not None:
            self.grid = (sizes.image_size, sizes.patch_size)
            self.shapes |= {VISION_PREFIX + name: shape for name, shape in vision.shapes(*self.grid).items()}
            self.dtypes |= {VISION_PREFIX + name: dtype for name, dtype in vision.weights.dtypes.items()}

    @property
    def folders(self) -> list[Path]:
        return [self.vlm.folder] + ([] if self.vision is None else [self.vision.weights.folder])

    def load(self, names: Collection[str]) -> dict[str, torch.Tensor]:
        """Some tensors, mapped from their files."""
        own = [name.removeprefix(VISION_PREFIX) for name in names if name.startswith(VISION_PREFIX)]
        vision = self.vision.load(own, *self.grid) if own else {}
        loaded = {VISION_PREFIX + name: tensor for name, tensor in vision.items()}
        return loaded | self.vlm.load(name for name in names if not name.startswith(VISION_PREFIX))


def weights_dtype(account: WeightAccount, dtypes: Mapping[str, torch.dtype], wanted: str | None) -> torch.dtype:
    """The dtype asked for, or that of the VLM's embeddings."""
    used = {name: dtypes[name] for names in account.used.values() for name in names}
    embedding = account.used.get(EMBEDDING, [None])[0]
    return choose_dtype(wanted, used, default=used.get(embedding, torch.float32))


def new_tensors(
    model: InstructVLAForConditionalGeneration, account: WeightAccount, shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, list[str]]:
    """Part → our names of the tensors that no source has and that may be random.

    Args:
        shapes: source name → shape.

    Raises:
        ValueError: tensors that would be left random although they shouldn't be, that have no place in the model, or
            have another size.
    """
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    new: dict[str, list[str]] = {}
    random = []
    for name in (name for name in expected if name not in account.used):
        part = next((part for part, pattern in NEW.items() if re.fullmatch(pattern, name)), None)
        if part is None:
            random.append(name)
        else:
            new.setdefault(part, []).append(name)
    problems = {
        "left random, as no source has them": random,
        "without a place in this model": [names[0] for name, names in account.used.items() if name not in expected],
        "of another size than the configuration needs": other_sizes(model.config, expected, account, shapes),
    }
    report = [
        f"{kind}: {listed([name.removeprefix(VISION_PREFIX) for name in names])}"
        for kind, names in problems.items()
        if names
    ]
    if report:
        raise ValueError("The weights do not make a whole model. Tensors " + "; tensors ".join(report) + ".")
    return new


def other_sizes(
    config: InstructVLAConfig,
    expected: Mapping[str, tuple[int, ...]],
    account: WeightAccount,
    shapes: Mapping[str, tuple[int, ...]],
) -> list[str]:
    """Source tensors whose shape is not the model's, with both; of the vocabulary the tokenizer's rows count."""
    problems = []
    for name in account.used.keys() & expected.keys():
        source = account.used[name][0]
        own, wanted = shapes[source], expected[name]
        if name in (EMBEDDING, HEAD) and own:
            own = (min(own[0], config.query_token_id), *own[1:])
            wanted = (wanted[0] - config.num_action_queries, *wanted[1:])
        if own != wanted:
            problems.append(f"{source} is {own}, not {wanted}")
    return sorted(problems)


def initialize_new(model: InstructVLAForConditionalGeneration, names: list[str], seed: int) -> dict[str, torch.Tensor]:
    """Give the named tensors memory and the model's own initial values; make the queries' embedding rows.

    The rows are normal with the language model's `initializer_range`, as in an embedding that transformers resizes
    with `mean_resizing=False`.
    """
    for name in names:
        module, _, parameter = name.rpartition(".")
        owner = model.get_submodule(module)
        empty = torch.empty_like(owner.get_parameter(parameter), device="cpu")
        setattr(owner, parameter, torch.nn.Parameter(empty))
    text = model.config.text_config
    size = (model.config.num_action_queries, text.hidden_size)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model.initialize_weights()  # what is on the meta device stays there
        return {name: torch.randn(size) * text.initializer_range for name in (EMBEDDING, HEAD)}
