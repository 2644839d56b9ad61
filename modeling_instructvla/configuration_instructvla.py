"""Configuration of InstructVLA: the library's sub-configurations, our sections, and what must fit between them."""

import copy
import dataclasses
import difflib
from typing import Any, ClassVar

from huggingface_hub.errors import StrictDataclassError
from transformers import PreTrainedConfig, Qwen2Config, SiglipVisionConfig

from .configuration_sections import (
    ActionExpertConfig,
    ActionVisionConfig,
    AdapterConfig,
    FlowConfig,
    ProjectorConfig,
    Section,
    is_camera_name,
    is_positive_integer,
    is_token_id,
    refuse_unknown,
    require,
)

# Where the classes are in the code that travels with a checkpoint.
AUTO_MAP = {
    "AutoConfig": "configuration_instructvla.InstructVLAConfig",
    "AutoModel": "modeling_instructvla.InstructVLAForConditionalGeneration",
    "AutoModelForImageTextToText": "modeling_instructvla.InstructVLAForConditionalGeneration",
    "AutoProcessor": "processing_instructvla.InstructVLAProcessor",
}

# Keys that transformers' own classes read or write beside the dataclass fields of `PreTrainedConfig`.
LIBRARY_KEYS = {
    "auto_map",
    "model_type",
    "torch_dtype",
    "name_or_path",
    "attn_implementation",
    "experts_implementation",
    "output_attentions",
    "num_labels",
    "use_cache",
    "quantization_config",
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
}


# Fields that another given field stands for or decides.
DERIVED = {"layer_types": None, "rope_parameters": {"rope_theta", "rope_scaling"}, "scheduler_kwargs": {"scheduler"}}


# Entries of the two tokenizers before the action queries; the nano one's own queries.
EAGLE2_ENTRIES, NANO_ENTRIES, NANO_QUERIES = 151674, 2032, 16


def merged(base: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """`given` over `base`, less what in `base` follows from a field that is given anew."""
    stale = {name for name, sources in DERIVED.items() if sources is None or sources & given.keys()}
    return {name: value for name, value in base.items() if name not in stale} | given


def library_config(value: Any, field: str, default: PreTrainedConfig) -> PreTrainedConfig:
    """A transformers configuration given as itself, as (a part of) its JSON form, or as None for the default."""
    config_class = type(default)
    require(
        value is None or isinstance(value, (dict, config_class)), field, value, f"a {config_class.__name__} or a dict"
    )
    if isinstance(value, config_class):
        return copy.deepcopy(value)
    if value is None:
        return default
    own_fields = set(config_class.__dataclass_fields__) - set(PreTrainedConfig.__dataclass_fields__)
    for name in set(value) - own_fields:
        if nearest := difflib.get_close_matches(name, own_fields, n=1, cutoff=0.85):
            raise ValueError(f"{field}.{name} is not a field. Did you mean {nearest[0]!r}?")
    given = {name: part for name, part in value.items() if name != "attn_implementation"}  # the whole model's to say
    try:
        return config_class(**merged(default.to_dict(), given))
    except StrictDataclassError as error:
        raise ValueError(f"{field} does not make a {config_class.__name__}: {error}") from error


def require_sizes(config: PreTrainedConfig, field: str, *names: str) -> None:
    for name in names:
        size = getattr(config, name)
        require(is_positive_integer(size), f"{field}.{name}", size, "an integer above 0")


def eagle2_vision_config() -> SiglipVisionConfig:
    """SigLIP so400m-patch14 at 448 x 448, without the pooling head that Eagle2 never uses."""
    return SiglipVisionConfig(
        hidden_size=1152,
        intermediate_size=4304,
        num_hidden_layers=27,
        num_attention_heads=16,
        image_size=448,
        patch_size=14,
        vision_use_head=False,
    )


def eagle2_text_config(num_action_queries: int = 64) -> Qwen2Config:
    """Qwen2.5-1.5B with Eagle2's image tokens and the action queries at the end of the vocabulary."""
    return Qwen2Config(
        vocab_size=EAGLE2_ENTRIES + num_action_queries,
        hidden_size=1536,
        intermediate_size=8960,
        num_hidden_layers=28,
        num_attention_heads=12,
        num_key_value_heads=2,
        max_position_embeddings=32768,
        rope_parameters={"rope_type": "default", "rope_theta": 1_000_000.0},
        bos_token_id=151643,
        eos_token_id=151645,
        pad_token_id=151643,
        tie_word_embeddings=False,
    )


def nano_text_config(num_action_queries: int = NANO_QUERIES, **sizes: int) -> Qwen2Config:
    """A Qwen2 of any size on the package's own tokenizer: 2,048 entries, the last 16 of them action queries.

    Further queries enlarge the vocabulary.
    """
    return Qwen2Config(
        vocab_size=NANO_ENTRIES + max(num_action_queries, NANO_QUERIES),
        max_position_embeddings=4096,
        rope_parameters={"rope_type": "default", "rope_theta": 1_000_000.0},
        bos_token_id=2026,
        eos_token_id=2028,
        pad_token_id=2026,
        tie_word_embeddings=False,
        **sizes,
    )


TRANSFORMER_SIZES = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")


class InstructVLAConfig(PreTrainedConfig):
    """Configuration of the whole model; the defaults are the paper's 2B model.

    Args:
        vision_config: the VLM's SigLIP tower.
        text_config: the Qwen2 language model; its vocabulary includes the action queries.
        projector, action_vision_config, action_expert_config, adapter_config, flow_config: `configuration_sections`.
            `action_vision_config=None` makes an action expert without a vision tower of its own.
        num_action_queries: N, the number of action queries; the last N entries of the vocabulary.
        horizon: H, the number of actions in a chunk.
        action_dim: dimensions of one action.
        state_dim: dimensions of the proprioceptive state, or None for a model without state.
        cameras: camera names in the order the action expert reads them; the VLM sees them side by side.
        stem_channels: of the stride-2 convolutions with which both vision towers make their patches, before the one
            that ends in the tower's width; None makes patches by one convolution, as SigLIP and DINOv2 do.
        image_token_id: id of `<IMG_CONTEXT>`.
        query_token_id: id of `<new_token_0>`; the other queries follow it.
        library_versions: package versions that wrote the checkpoint, set on saving.

    Raises:
        ValueError: on construction, naming the field, its value and what is allowed.
    """

    model_type = "instructvla"
    sub_configs = {"vision_config": SiglipVisionConfig, "text_config": Qwen2Config}
    sections: ClassVar[tuple[type[Section], ...]] = (
        ProjectorConfig,
        ActionVisionConfig,
        ActionExpertConfig,
        AdapterConfig,
        FlowConfig,
    )

    vision_config: dict | SiglipVisionConfig | None = None
    text_config: dict | Qwen2Config | None = None
    projector: dict | ProjectorConfig | None = None
    action_vision_config: dict | ActionVisionConfig | None = dataclasses.field(default_factory=dict)  # None: no tower
    action_expert_config: dict | ActionExpertConfig | None = None
    adapter_config: dict | AdapterConfig | None = None
    flow_config: dict | FlowConfig | None = None
    num_action_queries: int = 64
    horizon: int = 16
    action_dim: int = 7
    state_dim: int | None = None
    cameras: list[str] | tuple[str, ...] = ("primary",)
    stem_channels: list[int] | None = None
    image_token_id: int = 151667
    query_token_id: int = 151674
    tie_word_embeddings: bool = False
    library_versions: dict[str, str] | None = None

    def __post_init__(self, **kwargs):
        refuse_unknown([key for key in kwargs if key not in LIBRARY_KEYS and key[0] != "_"], self.own_fields())
        self.vision_config = library_config(self.vision_config, "vision_config", eagle2_vision_config())
        self.vision_config.vision_use_head = False  # the VLM reads patches, never the pooled vector
        self.text_config = library_config(self.text_config, "text_config", eagle2_text_config())
        for section in self.sections:
            setattr(self, section.section, section.of(getattr(self, section.section)))
        if isinstance(self.cameras, tuple):
            self.cameras = list(self.cameras)
        super().__post_init__(**kwargs)
        if not hasattr(self, "auto_map"):
            self.auto_map = dict(AUTO_MAP)
        self.check()

    @classmethod
    def own_fields(cls) -> set[str]:
        """Names of the fields that this class adds to `PreTrainedConfig`."""
        return set(cls.__annotations__) - {"sections"}

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs):
        """As in transformers, but values that override our fields are merged in before the checks."""
        overrides = {name: kwargs.pop(name) for name in cls.own_fields() & kwargs.keys()}
        for name, value in overrides.items():
            if isinstance(value, dict) and isinstance(config_dict.get(name), dict):
                overrides[name] = merged(config_dict[name], value)
        return super().from_dict(config_dict | overrides, **kwargs)

    def to_dict(self) -> dict[str, Any]:
        parts = {section.section: getattr(self, section.section) for section in self.sections}
        return super().to_dict() | {
            name: part if part is None else dataclasses.asdict(part) for name, part in parts.items()
        }

    def to_diff_dict(self) -> dict[str, Any]:
        """What `config.json` holds: our fields in full, so that later defaults can't change a checkpoint, and of others
        only what loading accepts."""
        everything = self.to_dict()
        known = LIBRARY_KEYS | set(PreTrainedConfig.__dataclass_fields__)
        others = {key: value for key, value in super().to_diff_dict().items() if key in known or key[0] == "_"}
        return others | {name: everything[name] for name in sorted(self.own_fields())}

    def require(self, condition: bool, field: str, allowed: str) -> None:
        require(condition, field, getattr(self, field), allowed)

    def check(self) -> None:
        for field in ("num_action_queries", "horizon", "action_dim"):
            self.require(is_positive_integer(getattr(self, field)), field, "an integer above 0")
        no_state = self.state_dim is None
        self.require(no_state or is_positive_integer(self.state_dim), "state_dim", "None or an integer above 0")
        cameras = self.cameras
        named = isinstance(cameras, list) and cameras and all(is_camera_name(name) for name in cameras)
        allowed = "a non-empty list of different names without spaces, such as [primary, wrist]"
        self.require(named and len(set(cameras)) == len(cameras), "cameras", allowed)
        self.check_vision()
        self.check_stem()
        self.check_text()

    def check_vision(self) -> None:
        vision = self.vision_config
        require_sizes(vision, "vision_config", "patch_size", "image_size", *TRANSFORMER_SIZES)
        heads = vision.num_attention_heads
        divisible = vision.hidden_size % heads == 0
        require(divisible, "vision_config.num_attention_heads", heads, f"a divisor of {vision.hidden_size}")
        divisible = vision.image_size % vision.patch_size == 0
        require(divisible, "vision_config.image_size", vision.image_size, f"a multiple of {vision.patch_size}")
        ratio = self.projector.downsample_ratio
        fits = (self.image_grid * ratio) % 1 == 0
        require(fits, "projector.downsample_ratio", ratio, f"1 / k with k dividing {self.image_grid} patches")

    def check_stem(self) -> None:
        channels = self.stem_channels
        if channels is None:
            return
        sized = isinstance(channels, list) and channels and all(map(is_positive_integer, channels))
        self.require(sized, "stem_channels", "None or a non-empty list of integers above 0")
        patch = 2 ** (len(channels) + 1)
        towers = {"vision_config": self.vision_config, "action_vision_config": self.action_vision_config}
        for name, tower in towers.items():
            fits = tower is None or tower.patch_size == patch
            allowed = f"{patch}, as stem_channels makes {len(channels) + 1} convolutions of stride 2"
            require(fits, f"{name}.patch_size", getattr(tower, "patch_size", None), allowed)

    def check_text(self) -> None:
        text, vocabulary = self.text_config, self.text_config.vocab_size
        require_sizes(text, "text_config", "vocab_size", "num_key_value_heads", *TRANSFORMER_SIZES)
        heads, groups = text.num_attention_heads, text.num_key_value_heads
        divisible = heads % groups == 0 and (getattr(text, "head_dim", None) or text.hidden_size % (2 * heads) == 0)
        allowed = f"a multiple of {groups} key-value heads and a divisor of half of {text.hidden_size}"
        require(divisible, "text_config.num_attention_heads", heads, allowed)
        self.require(self.num_action_queries < vocabulary, "num_action_queries", f"below {vocabulary} (vocab_size)")
        self.require(
            not self.tie_word_embeddings, "tie_word_embeddings", "False: input and output embeddings are apart"
        )
        tied = text.tie_word_embeddings
        require(not tied, "text_config.tie_word_embeddings", tied, "False: input and output embeddings are apart")
        require(not text.use_sliding_window, "text_config.use_sliding_window", True, "False: attention is full")
        ends = self.end_of_turn_ids
        ended = len(ends) > 0 and all(is_token_id(end, vocabulary) for end in ends)
        require(ended, "text_config.eos_token_id", text.eos_token_id, f"an id (or a list of ids) below {vocabulary}")
        first, queries = self.query_token_id, self.num_action_queries
        in_vocabulary = is_token_id(first, vocabulary) and is_token_id(first + queries - 1, vocabulary)
        room = f"{queries} queries follow it in a vocabulary of {vocabulary} (text_config.vocab_size)"
        self.require(in_vocabulary, "query_token_id", f"an id of at most {vocabulary - queries}, as {room}")
        image = self.image_token_id
        apart = is_token_id(image, vocabulary) and not first <= image < first + queries
        self.require(apart, "image_token_id", f"an id below {vocabulary} that is no action query")

    @property
    def end_of_turn_ids(self) -> list[int]:
        """Tokens that end an answer; the first is `<|im_end|>`."""
        ends = self.text_config.eos_token_id
        return list(ends) if isinstance(ends, list) else [ends]

    @property
    def image_grid(self) -> int:
        """Patches on each side of the VLM's image."""
        return self.vision_config.image_size // self.vision_config.patch_size

    @property
    def num_image_tokens(self) -> int:
        """Language-model tokens of one image."""
        return int(self.image_grid * self.projector.downsample_ratio) ** 2

    @property
    def response_style(self) -> str:
        """What the checkpoint says before it acts: a free-form answer (stage 2) or a language motion (stage 1)."""
        return "answer" if self.adapter_config.experts > 1 else "motion"

    @property
    def thinks_by_default(self) -> bool:
        """Whether the checkpoint was trained to answer before it acts: stage 2 is, stage 1 is not."""
        return self.adapter_config.experts > 1

    @classmethod
    def instructvla_2b(cls, **fields) -> "InstructVLAConfig":
        """The paper's model: Eagle2-2B, DINOv2 ViT-L, a 12-layer action expert and two adaptation experts."""
        queries = fields.get("num_action_queries", cls.num_action_queries)
        preset = {"text_config": eagle2_text_config(queries)} if is_positive_integer(queries) else {}
        return cls(**(preset | fields))

    @classmethod
    def nano(cls, **fields) -> "InstructVLAConfig":
        """About 5 M parameters for tests and demos on a CPU; it goes with the package's own 2,048-entry tokenizer."""
        queries = fields.get("num_action_queries", NANO_QUERIES)
        preset = {
            "vision_config": SiglipVisionConfig(
                hidden_size=128,
                intermediate_size=384,
                num_hidden_layers=2,
                num_attention_heads=4,
                image_size=112,
                patch_size=14,
                vision_use_head=False,
            ),
            "text_config": nano_text_config(
                queries if is_positive_integer(queries) else NANO_QUERIES,
                hidden_size=192,
                intermediate_size=512,
                num_hidden_layers=3,
                num_attention_heads=6,
                num_key_value_heads=2,
            ),
            "action_vision_config": ActionVisionConfig(embed_dim=128, depth=4, num_heads=4, image_size=112),
            "action_expert_config": ActionExpertConfig(
                hidden_size=128, intermediate_size=384, num_hidden_layers=3, num_attention_heads=4
            ),
            "adapter_config": AdapterConfig(rank=16, alpha=32, scale_head_size=64),
            "num_action_queries": NANO_QUERIES,
            "image_token_id": 2031,
            "query_token_id": NANO_ENTRIES,
        }
        return cls(**(preset | fields))


InstructVLAConfig.register_for_auto_class()
