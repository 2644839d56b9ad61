"""Configuration of InstructVLA: typed sub-configurations, checked on construction (paper Tables 12 and 13)."""

import difflib
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar

from transformers import PreTrainedConfig, Qwen2Config, SiglipVisionConfig

ATTENTION_MASKS = ("block_causal", "additive_bias")
ADAPTABLE_LINEARS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")

# Where the classes are in the code that travels with a checkpoint.
AUTO_MAP = {
    "AutoConfig": "configuration_instructvla.InstructVLAConfig",
    "AutoModel": "modeling_instructvla.InstructVLAForConditionalGeneration",
    "AutoModelForImageTextToText": "modeling_instructvla.InstructVLAForConditionalGeneration",
    "AutoProcessor": "processing_instructvla.InstructVLAProcessor",
}

# Keys that `PreTrainedConfig` itself reads or writes beside its dataclass fields.
LIBRARY_KEYS = {
    "auto_map",
    "model_type",
    "torch_dtype",
    "name_or_path",
    "attn_implementation",
    "experts_implementation",
    "output_attentions",
    "num_labels",
}


def require(condition: bool, field: str, value: Any, allowed: str) -> None:
    """Raise a `ValueError` that names the field, the value given and what is allowed, unless `condition` holds."""
    if not condition:
        raise ValueError(f"{field} is {value!r}, but it must be {allowed}.")


def refuse_unknown(given: Iterable[str], known: set[str], prefix: str = "") -> None:
    """Raise a `ValueError` for the first name in `given` that is not known, with the nearest known one."""
    for name in given:
        if name not in known:
            nearest = difflib.get_close_matches(name, known, n=1)
            hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
            raise ValueError(f"{prefix}{name} is not a field; the fields are {', '.join(sorted(known))}.{hint}")


def is_positive_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


@dataclass
class Section:
    """One typed part of the configuration, checked when it is made; `section` is its public name."""

    section: ClassVar[str] = ""

    def __post_init__(self):
        self.check()

    @classmethod
    def of(cls, value: "Section | dict | None") -> "Section":
        """The section itself, built from its JSON form, or with its defaults for None."""
        if isinstance(value, cls):
            return value
        require(value is None or isinstance(value, dict), cls.section, value, f"a {cls.__name__} or a dictionary")
        refuse_unknown(value or {}, {field.name for field in fields(cls)}, f"{cls.section}.")
        return cls(**(value or {}))

    def require(self, condition: bool, field: str, allowed: str) -> None:
        require(condition, f"{self.section}.{field}", getattr(self, field), allowed)

    def require_positive_integers(self, *names: str) -> None:
        for name in names:
            self.require(is_positive_integer(getattr(self, name)), name, "an integer above 0")

    def check(self) -> None:
        """Raise `ValueError` on the first bad value."""


@dataclass
class ProjectorConfig(Section):
    """Vision-to-language projector: pixel shuffle, then LayerNorm, Linear, GELU, Linear.

    `downsample_ratio` is the factor on each side of the patch grid: 0.5 turns 32 x 32 patches into 256 tokens.
    """

    section: ClassVar[str] = "projector"

    downsample_ratio: float = 0.5

    def check(self) -> None:
        ratio = self.downsample_ratio
        ok = is_number(ratio) and 0 < ratio <= 1 and (1 / ratio) % 1 == 0
        self.require(ok, "downsample_ratio", "1 / k for an integer k, e.g. 0.5")


@dataclass
class ActionVisionConfig(Section):
    """The action expert's FiLM-conditioned DINOv2 tower (paper section 3.1); defaults are ViT-L/14 with registers.

    `feature_layer` is the index of the block whose output is used; later blocks are not built. The penultimate block is
    the default of new training, released weights use block 2. `image_size` is in pixels.
    """

    section: ClassVar[str] = "action_vision_config"

    embed_dim: int = 1024
    depth: int = 24
    num_heads: int = 16
    mlp_ratio: float = 4.0
    patch_size: int = 14
    image_size: int = 224
    num_register_tokens: int = 4
    layer_norm_eps: float = 1e-6
    feature_layer: int | None = None

    def __post_init__(self):
        if self.feature_layer is None and is_positive_integer(self.depth):
            self.feature_layer = max(self.depth - 2, 0)
        super().__post_init__()

    def check(self) -> None:
        self.require_positive_integers("embed_dim", "depth", "num_heads", "patch_size", "image_size")
        self.require(self.embed_dim % self.num_heads == 0, "embed_dim", f"a multiple of num_heads ({self.num_heads})")
        self.require(self.image_size % self.patch_size == 0, "image_size", f"a multiple of {self.patch_size}")
        registers = self.num_register_tokens
        self.require(registers == 0 or is_positive_integer(registers), "num_register_tokens", "0 or more")
        self.require(is_number(self.mlp_ratio) and self.mlp_ratio > 0, "mlp_ratio", "a number above 0")
        layer = self.feature_layer
        in_range = layer == 0 or (is_positive_integer(layer) and layer < self.depth)
        self.require(in_range, "feature_layer", f"a block index from 0 to {self.depth - 1}")

    @property
    def num_patches(self) -> int:
        return (self.image_size // self.patch_size) ** 2


@dataclass
class ActionExpertConfig(Section):
    """The action expert's transformer (paper Table 12, "Action Backbone").

    `attention` is "block_causal" (the paper) or "additive_bias" (what the released weights compute: the block-causal
    mask is added to the attention logits as 0 or 1 and blocks nothing).
    """

    section: ClassVar[str] = "action_expert_config"

    hidden_size: int = 768
    intermediate_size: int = 3072
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    rope_theta: float = 1000.0
    rms_norm_eps: float = 1e-6
    attention_dropout: float = 0.1
    attention: str = "block_causal"

    def check(self) -> None:
        self.require_positive_integers("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
        heads = self.num_attention_heads
        even_head = self.hidden_size % (2 * heads) == 0
        self.require(even_head, "hidden_size", f"a multiple of 2 x num_attention_heads ({2 * heads})")
        self.require(self.attention in ATTENTION_MASKS, "attention", f"one of {', '.join(ATTENTION_MASKS)}")
        self.require(is_number(self.rope_theta) and self.rope_theta > 0, "rope_theta", "a number above 0")
        dropout = self.attention_dropout
        self.require(is_number(dropout) and 0 <= dropout < 1, "attention_dropout", "in [0, 1)")


@dataclass
class AdapterConfig(Section):
    """The mixture of LoRA adaptation experts and its scale head (paper section 3.1 and Table 12).

    One expert is stage 1 (the action LoRA, ungated); two are stage 2 (language, then action, gated by the scale head).
    """

    section: ClassVar[str] = "adapter_config"

    rank: int = 128
    alpha: float = 256
    dropout: float = 0.05
    target_modules: list[str] | tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "down_proj")
    experts: int = 2
    scale_head_depth: int = 4
    scale_head_size: int = 128
    scale_head_dropout: float = 0.2

    def __post_init__(self):
        if isinstance(self.target_modules, tuple):
            self.target_modules = list(self.target_modules)
        super().__post_init__()

    def check(self) -> None:
        self.require_positive_integers("rank", "experts", "scale_head_depth", "scale_head_size")
        self.require(is_number(self.alpha) and self.alpha > 0, "alpha", "a number above 0")
        for field in ("dropout", "scale_head_dropout"):
            value = getattr(self, field)
            self.require(is_number(value) and 0 <= value < 1, field, "in [0, 1)")
        targets = self.target_modules
        known = isinstance(targets, list) and len(targets) > 0 and set(targets) <= set(ADAPTABLE_LINEARS)
        self.require(known, "target_modules", f"a non-empty list out of {', '.join(ADAPTABLE_LINEARS)}")


@dataclass
class FlowConfig(Section):
    """Flow matching (paper appendix E.2 and Table 13): noise at flow time 0, data at flow time 1.

    `tau_max` is the paper's s, `beta_a` and `beta_b` shape the distribution of the flow time, `time_max_period` is the
    longest period of the sinusoidal time embedding. `scheduler` names a diffusers flow-matching scheduler,
    `scheduler_kwargs` are its constructor's arguments.
    """

    section: ClassVar[str] = "flow_config"

    sigma_min: float = 0.001
    tau_max: float = 0.999
    beta_a: float = 1.5
    beta_b: float = 1.0
    num_inference_steps: int = 10
    time_max_period: float = 100.0
    scheduler: str = "FlowMatchEulerDiscreteScheduler"
    scheduler_kwargs: dict[str, Any] | None = None

    def __post_init__(self):
        if self.scheduler_kwargs is None:
            euler = self.scheduler == "FlowMatchEulerDiscreteScheduler"
            self.scheduler_kwargs = {"invert_sigmas": True} if euler else {}
        super().__post_init__()

    def check(self) -> None:
        self.require_positive_integers("num_inference_steps")
        self.require(is_number(self.sigma_min) and 0 <= self.sigma_min < 1, "sigma_min", "in [0, 1)")
        self.require(is_number(self.tau_max) and 0 < self.tau_max <= 1, "tau_max", "in (0, 1]")
        for field in ("beta_a", "beta_b", "time_max_period"):
            value = getattr(self, field)
            self.require(is_number(value) and value > 0, field, "a number above 0")
        named = isinstance(self.scheduler, str) and self.scheduler.endswith("Scheduler")
        self.require(named, "scheduler", "the name of a diffusers scheduler, e.g. FlowMatchEulerDiscreteScheduler")
        self.require(isinstance(self.scheduler_kwargs, dict), "scheduler_kwargs", "a dictionary")


def library_config(value: Any, field: str, config_class: type, default: Callable) -> PreTrainedConfig:
    """A transformers configuration given as itself, as its JSON form, or as None for the default."""
    require(
        value is None or isinstance(value, (dict, config_class)), field, value, f"a {config_class.__name__} or a dict"
    )
    if value is None:
        return default()
    return config_class(**value) if isinstance(value, dict) else value


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


def eagle2_text_config() -> Qwen2Config:
    """Qwen2.5-1.5B with Eagle2's image tokens and 64 action queries at the end of the vocabulary."""
    return Qwen2Config(
        vocab_size=151738,
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


def nano_text_config(**sizes: int) -> Qwen2Config:
    """A Qwen2 of any size on the package's own tokenizer: 2,048 entries, the last 16 of them action queries."""
    return Qwen2Config(
        vocab_size=2048,
        max_position_embeddings=4096,
        rope_parameters={"rope_type": "default", "rope_theta": 1_000_000.0},
        bos_token_id=2026,
        eos_token_id=2028,
        pad_token_id=2026,
        tie_word_embeddings=False,
        **sizes,
    )


class InstructVLAConfig(PreTrainedConfig):
    """Configuration of the whole model; the defaults are the paper's 2B model.

    Args:
        vision_config: the VLM's SigLIP tower.
        text_config: the Qwen2 language model; its vocabulary includes the action queries.
        projector, action_vision_config, action_expert_config, adapter_config, flow_config: see the classes above.
        num_action_queries: N, the number of action queries.
        horizon: H, the number of actions in a chunk.
        action_dim: dimensions of one action.
        state_dim: dimensions of the proprioceptive state, or None for a model without state.
        cameras: camera names in the order the action expert reads them; the VLM sees them side by side.
        image_token_id: id of `<IMG_CONTEXT>`.
        query_token_id: id of `<new_token_0>`; the other queries follow it.

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
    action_vision_config: dict | ActionVisionConfig | None = None
    action_expert_config: dict | ActionExpertConfig | None = None
    adapter_config: dict | AdapterConfig | None = None
    flow_config: dict | FlowConfig | None = None
    num_action_queries: int = 64
    horizon: int = 16
    action_dim: int = 7
    state_dim: int | None = None
    cameras: list[str] | tuple[str, ...] = ("primary",)
    image_token_id: int = 151667
    query_token_id: int = 151674
    tie_word_embeddings: bool = False

    def __post_init__(self, **kwargs):
        own_fields = set(type(self).__annotations__) - {"sections"}
        refuse_unknown([key for key in kwargs if key not in LIBRARY_KEYS and key[0] != "_"], own_fields)
        self.vision_config = library_config(
            self.vision_config, "vision_config", SiglipVisionConfig, eagle2_vision_config
        )
        self.text_config = library_config(self.text_config, "text_config", Qwen2Config, eagle2_text_config)
        for section in self.sections:
            setattr(self, section.section, section.of(getattr(self, section.section)))
        if isinstance(self.cameras, tuple):
            self.cameras = list(self.cameras)
        super().__post_init__(**kwargs)
        if not hasattr(self, "auto_map"):
            self.auto_map = dict(AUTO_MAP)
        self.check()

    def to_dict(self) -> dict[str, Any]:
        return super().to_dict() | {name: asdict(getattr(self, name)) for name in self.section_names()}

    def to_diff_dict(self) -> dict[str, Any]:
        """What `config.json` holds: our fields in full, so that later defaults can't change a checkpoint."""
        sections = {name: asdict(getattr(self, name)) for name in self.section_names()}
        own = {name: getattr(self, name) for name in type(self).__annotations__ if isinstance(getattr(self, name), int)}
        return super().to_diff_dict() | sections | own | {"cameras": self.cameras, "state_dim": self.state_dim}

    @classmethod
    def section_names(cls) -> list[str]:
        return [section.section for section in cls.sections]

    def require(self, condition: bool, field: str, allowed: str) -> None:
        require(condition, field, getattr(self, field), allowed)

    def check(self) -> None:
        for field in ("num_action_queries", "horizon", "action_dim"):
            self.require(is_positive_integer(getattr(self, field)), field, "an integer above 0")
        no_state = self.state_dim is None
        self.require(no_state or is_positive_integer(self.state_dim), "state_dim", "None or an integer above 0")
        cameras = self.cameras
        named = isinstance(cameras, list) and len(cameras) > 0 and all(isinstance(name, str) for name in cameras)
        self.require(named and len(set(cameras)) == len(cameras), "cameras", "a non-empty list of different names")

        vision = self.vision_config
        if vision.image_size % vision.patch_size:
            require(False, "vision_config.image_size", vision.image_size, f"a multiple of {vision.patch_size}")
        fits = (self.image_grid * self.projector.downsample_ratio) % 1 == 0
        ratio = self.projector.downsample_ratio
        require(fits, "projector.downsample_ratio", ratio, f"1 / k with k dividing {self.image_grid} patches")

        vocabulary = self.text_config.vocab_size
        last_query = self.query_token_id + self.num_action_queries - 1
        in_vocabulary = self.query_token_id >= 0 and last_query < vocabulary
        self.require(in_vocabulary, "query_token_id", f"at most {vocabulary - self.num_action_queries}")
        clash = not 0 <= self.image_token_id < vocabulary or self.query_token_id <= self.image_token_id <= last_query
        self.require(not clash, "image_token_id", f"a vocabulary id below {vocabulary} that is no action query")

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
        return cls(**fields)

    @classmethod
    def nano(cls, **fields) -> "InstructVLAConfig":
        """About 5 M parameters for tests and demos on a CPU; it goes with the package's own 2,048-entry tokenizer."""
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
            "num_action_queries": 16,
            "image_token_id": 2031,
            "query_token_id": 2032,
        }
        return cls(**(preset | fields))


InstructVLAConfig.register_for_auto_class()
