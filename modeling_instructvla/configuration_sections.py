"""The typed parts of the configuration, each checked when it is made (paper Tables 12 and 13)."""

import difflib
import inspect
import math
from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import diffusers

ATTENTION_MASKS = ("block_causal", "additive_bias")
ADAPTABLE_LINEARS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
FLOW_MATCHING_SCHEDULERS = ("FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler")
AS_FLOW = {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}  # makes other schedulers integrate a flow


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
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def is_positive_number(value: Any) -> bool:
    return is_number(value) and value > 0


def is_camera_name(value: Any) -> bool:
    """Without spaces: "primary wrist" is most likely two cameras without their comma."""
    return isinstance(value, str) and value.split() == [value]


def is_token_id(value: Any, vocabulary: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < vocabulary


@dataclass
class Section:
    """One typed part of the configuration, checked when it is made; `section` is its public name.

    Where it is `optional`, None leaves the part out of the model.
    """

    section: ClassVar[str] = ""
    optional: ClassVar[bool] = False

    def __post_init__(self):
        self.check()

    @classmethod
    def of(cls, value: "Section | dict | None") -> "Section | None":
        """The section itself, or built from its JSON form; None stays None if it is optional, else makes defaults."""
        if isinstance(value, cls) or (value is None and cls.optional):
            return value
        require(value is None or isinstance(value, dict), cls.section, value, f"a {cls.__name__} or a dictionary")
        refuse_unknown(value or {}, {field.name for field in fields(cls)}, f"{cls.section}.")
        return cls(**(value or {}))

    def require(self, condition: bool, field: str, allowed: str) -> None:
        require(condition, f"{self.section}.{field}", getattr(self, field), allowed)

    def require_positive_integers(self, *names: str) -> None:
        for name in names:
            self.require(is_positive_integer(getattr(self, name)), name, "an integer above 0")

    def require_positive_numbers(self, *names: str) -> None:
        for name in names:
            self.require(is_positive_number(getattr(self, name)), name, "a number above 0")

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
    the default of new training, released weights use block 2. `image_size` is in pixels. `film` False leaves the
    modulation by the latent action out; None in place of the section leaves the tower out, so that the expert has no
    eyes but the VLM's (both are ablations of the paper's Fig. 6).
    """

    section: ClassVar[str] = "action_vision_config"
    optional: ClassVar[bool] = True

    embed_dim: int = 1024
    depth: int = 24
    num_heads: int = 16
    mlp_ratio: float = 4.0
    patch_size: int = 14
    image_size: int = 224
    num_register_tokens: int = 4
    layer_norm_eps: float = 1e-6
    feature_layer: int | None = None
    film: bool = True

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
        self.require_positive_numbers("mlp_ratio", "layer_norm_eps")
        layer = self.feature_layer
        in_range = layer == 0 or (is_positive_integer(layer) and layer < self.depth)
        self.require(in_range, "feature_layer", f"a block index from 0 to {self.depth - 1}")
        self.require(isinstance(self.film, bool), "film", "true or false")

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
        self.require_positive_numbers("rope_theta", "rms_norm_eps")
        dropout = self.attention_dropout
        self.require(is_number(dropout) and 0 <= dropout < 1, "attention_dropout", "in [0, 1)")


@dataclass
class AdapterConfig(Section):
    """The mixture of LoRA adaptation experts and its scale head (paper section 3.1 and Table 12).

    One expert is stage 1 (the action LoRA, ungated); two are stage 2 (language, then action, gated by the scale head).
    None at all, 0, is what merging stage 1's expert into the base weights leaves.
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
        self.require_positive_integers("rank", "scale_head_depth", "scale_head_size")
        no_experts = type(self.experts) is int and self.experts == 0
        self.require(no_experts or is_positive_integer(self.experts), "experts", "an integer of 0 or more")
        self.require_positive_numbers("alpha")
        for field in ("dropout", "scale_head_dropout"):
            value = getattr(self, field)
            self.require(is_number(value) and 0 <= value < 1, field, "in [0, 1)")
        targets = self.target_modules
        known = isinstance(targets, list) and len(targets) > 0 and all(name in ADAPTABLE_LINEARS for name in targets)
        self.require(known, "target_modules", f"a non-empty list out of {', '.join(ADAPTABLE_LINEARS)}")

    @property
    def expert_names(self) -> list[str]:
        """Names of the experts in their order; of a mixture, those after language and action have their numbers."""
        if self.experts == 1:
            return ["action"]
        return ["language", "action", *(str(number) for number in range(2, self.experts))][: self.experts]


@dataclass
class FlowConfig(Section):
    """Flow matching (paper appendix E.2 and Table 13): noise at flow time 0, data at flow time 1.

    `tau_max` is the paper's s, `beta_a` and `beta_b` shape the distribution of the flow time, `time_max_period` is the
    longest period of the sinusoidal time embedding. `training_draws` is the number of noise samples and flow times per
    action chunk and training step (1 in the paper): more of them lower the gradient's variance at little cost, as the
    images and the latent action are encoded once for all (block-causal attention). `scheduler` names a diffusers
    flow-matching scheduler, `scheduler_kwargs` are its constructor's arguments.
    """

    section: ClassVar[str] = "flow_config"

    sigma_min: float = 0.001
    tau_max: float = 0.999
    beta_a: float = 1.5
    beta_b: float = 1.0
    num_inference_steps: int = 10
    time_max_period: float = 100.0
    training_draws: int = 1
    scheduler: str = "FlowMatchEulerDiscreteScheduler"
    scheduler_kwargs: dict[str, Any] | None = None

    def __post_init__(self):
        if self.scheduler_kwargs is None:
            euler = self.scheduler == "FlowMatchEulerDiscreteScheduler"
            self.scheduler_kwargs = {"invert_sigmas": True} if euler else {}
        super().__post_init__()

    def check(self) -> None:
        self.require_positive_integers("num_inference_steps", "training_draws")
        self.require(is_number(self.sigma_min) and 0 <= self.sigma_min < 1, "sigma_min", "in [0, 1)")
        self.require(is_number(self.tau_max) and 0 < self.tau_max <= 1, "tau_max", "in (0, 1]")
        self.require_positive_numbers("beta_a", "beta_b", "time_max_period")
        self.require(isinstance(self.scheduler_kwargs, dict), "scheduler_kwargs", "a dictionary")
        known = isinstance(self.scheduler, str) and self.scheduler.endswith("Scheduler")
        known = known and hasattr(diffusers, self.scheduler)
        self.require(known, "scheduler", "a scheduler of diffusers, e.g. FlowMatchEulerDiscreteScheduler")
        arguments = inspect.signature(getattr(diffusers, self.scheduler)).parameters
        accepted = self.scheduler_kwargs.keys() <= arguments.keys()
        self.require(accepted, "scheduler_kwargs", f"made of {', '.join(arguments)}")
        if self.scheduler not in FLOW_MATCHING_SCHEDULERS:
            as_flow = AS_FLOW.items() <= self.scheduler_kwargs.items()
            flows = f"{AS_FLOW} with more, to integrate a flow; or take one of {', '.join(FLOW_MATCHING_SCHEDULERS)}"
            self.require(as_flow, "scheduler_kwargs", flows)
