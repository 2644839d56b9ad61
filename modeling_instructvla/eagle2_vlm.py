"""Eagle2, the base VLM, as it is published: its config.json and tokenizer, checked and in our terms."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerBase, Qwen2Config
from transformers.activations import ACT2FN

from instructvla.configuration_sections import is_positive_integer, is_positive_number, require
from instructvla.hub_source import local_folder
from instructvla.plain_files import read_json
from instructvla.processing.chat_prompts import PROMPT_TOKENS

TOKENIZER_FILES = ("tokenizer*", "vocab*", "merges.txt", "added_tokens.json", "special_tokens_map.json")
REQUIRED = {"select_layer": -1, "ps_version": "v2"}  # features after the last norm, pixel shuffle's second order
Check = tuple[Callable[[Any], bool], str]  # whether a value is right, and what is


def is_activation(value: Any) -> bool:
    return isinstance(value, str) and value in ACT2FN


def is_object(value: Any) -> bool:
    return isinstance(value, dict)


def is_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def is_id_or_ids(value: Any) -> bool:
    return all(map(is_id, value)) if isinstance(value, list) else is_id(value)


SIZE: Check = (is_positive_integer, "an integer above 0")
NUMBER: Check = (is_positive_number, "a number above 0")
ACTIVATION: Check = (is_activation, "the name of an activation in transformers, such as 'silu'")
VISION_FIELDS = {  # all are needed: a default would be another model's
    "hidden_size": SIZE,
    "intermediate_size": SIZE,
    "num_hidden_layers": SIZE,
    "num_attention_heads": SIZE,
    "image_size": SIZE,
    "patch_size": SIZE,
    "hidden_act": ACTIVATION,
    "layer_norm_eps": NUMBER,
}
TEXT_FIELDS = {  # these, too
    "hidden_size": SIZE,
    "intermediate_size": SIZE,
    "num_hidden_layers": SIZE,
    "num_attention_heads": SIZE,
    "num_key_value_heads": SIZE,
    "vocab_size": SIZE,
    "rope_theta": NUMBER,
    "rms_norm_eps": NUMBER,
    "hidden_act": ACTIVATION,
}
OPTIONAL_TEXT_FIELDS = {
    "max_position_embeddings": SIZE,
    "rope_scaling": (is_object, "a JSON object"),
    "initializer_range": NUMBER,
    "bos_token_id": (is_id, "an id of the vocabulary"),
    "eos_token_id": (is_id_or_ids, "an id of the vocabulary, or a list of them"),
}


@dataclass
class Eagle2:
    """What the base VLM's files say.

    Args:
        folder: where they are.
        vision_config, text_config: fields of `SiglipVisionConfig` and `Qwen2Config`; the vocabulary is without queries.
        downsample_ratio: of the projector's pixel shuffle.
        tokenizer: without action queries.
        tied_embeddings: whether the weights hold one matrix for input and output embeddings.
    """

    folder: Path
    vision_config: dict[str, Any]
    text_config: dict[str, Any]
    downsample_ratio: float
    tokenizer: PreTrainedTokenizerBase
    tied_embeddings: bool = False

    def config_fields(self, num_action_queries: int) -> dict[str, Any]:
        """Fields of `InstructVLAConfig` that the base VLM decides, for a vocabulary with queries at its end."""
        require(is_positive_integer(num_action_queries), "num_action_queries", num_action_queries, "an integer above 0")
        token_id = self.tokenizer.convert_tokens_to_ids
        eos = self.text_config.get("eos_token_id")
        ends = [token_id("<|im_end|>"), *(eos if isinstance(eos, list) else [eos])]
        ends = [end for end in dict.fromkeys(ends) if end is not None]
        text = {
            "vocab_size": len(self.tokenizer) + num_action_queries,
            "eos_token_id": ends if len(ends) > 1 else ends[0],
            "pad_token_id": self.tokenizer.pad_token_id,
            "bos_token_id": self.text_config.get("bos_token_id"),
            "tie_word_embeddings": False,
            "use_sliding_window": False,
        }
        return {
            "vision_config": self.vision_config,
            "text_config": self.text_config | text,
            "projector": {"downsample_ratio": self.downsample_ratio},
            "num_action_queries": num_action_queries,
            "image_token_id": token_id("<IMG_CONTEXT>"),
            "query_token_id": len(self.tokenizer),
        }

    def tokenizer_with_queries(self, num_action_queries: int) -> PreTrainedTokenizerBase:
        """Its tokenizer with `<new_token_0>` … at the end of the vocabulary."""
        tokenizer = read_tokenizer(self.folder)
        queries = [f"<new_token_{index}>" for index in range(num_action_queries)]
        if tokenizer.add_tokens(queries, special_tokens=True) != num_action_queries:
            raise ValueError(f"The tokenizer of {str(self.folder)!r} has action queries already; give the base VLM's.")
        return tokenizer


def read_eagle2(source: str | Path, revision: str | None = None) -> Eagle2:
    """Read config.json and the tokenizer of an Eagle2 folder or Hub repository; its weights are not touched.

    Raises:
        ValueError: if a file or field is missing, a field has no possible value, or it is another architecture; the
            message names the field.
    """
    folder = local_folder(source, ["config.json", *TOKENIZER_FILES], revision)
    path = folder / "config.json"
    if not path.is_file():
        raise ValueError(f"{str(source)!r} has no config.json; the base VLM must be Eagle2's folder or Hub repository.")
    config = read_json(path)
    parts = {name: config.get(name) for name in ("vision_config", "llm_config")}
    absent = [name for name, part in parts.items() if not isinstance(part, dict)]
    if absent:
        raise ValueError(f"{path} has no {absent[0]}; the base VLM must be in Eagle2's format.")
    vision, text = parts["vision_config"], parts["llm_config"]
    require_same_architecture(config, vision, text)
    vision_fields = needed_fields(path, "vision_config", vision, VISION_FIELDS)
    optional = {name: check for name, check in OPTIONAL_TEXT_FIELDS.items() if text.get(name) is not None}
    text_fields = needed_fields(path, "llm_config", text, TEXT_FIELDS | optional)
    ratio = config.get("downsample_ratio", 0.5)
    require(is_positive_number(ratio), "downsample_ratio", ratio, "a number above 0, such as 0.5")
    require_divisible(vision_fields, text_fields)
    size, own = config.get("force_image_size"), vision_fields["image_size"]
    require(size in (None, own), "force_image_size", size, f"{own} as in vision_config")
    return Eagle2(
        folder,
        vision_fields,
        text_fields,
        ratio,
        read_tokenizer(folder),
        bool(text.get("tie_word_embeddings")),
    )


def require_same_architecture(config: dict[str, Any], vision: dict[str, Any], text: dict[str, Any]) -> None:
    """Refuse what would load and compute something else (ValueError naming the field)."""
    for name, value in REQUIRED.items():
        require(config.get(name, value) == value, name, config.get(name), f"{value!r} as in Eagle2")
    require_type(vision, "vision_config", "siglip_vision_model")
    require_type(text, "llm_config", "qwen2")
    require(not text.get("use_sliding_window"), "llm_config.use_sliding_window", True, "false: attention is full")


def needed_fields(path: Path, section: str, part: dict[str, Any], checks: Mapping[str, Check]) -> dict[str, Any]:
    """The fields that have a check, all there and as they must be (ValueError)."""
    absent = [f"{section}.{name}" for name in checks if part.get(name) is None]
    if absent:
        raise ValueError(f"{path} lacks {', '.join(absent)}; copy the base VLM's own config.json there.")
    for name, (is_right, allowed) in checks.items():
        require(is_right(part[name]), f"{section}.{name}", part[name], allowed)
    return {name: part[name] for name in checks}


def require_divisible(vision: dict[str, Any], text: dict[str, Any]) -> None:
    """Refuse heads and patches that do not divide what they are parts of (ValueError naming the field)."""
    for section, part in (("vision_config", vision), ("llm_config", text)):
        heads, width = part["num_attention_heads"], part["hidden_size"]
        require(width % heads == 0, f"{section}.num_attention_heads", heads, f"a divisor of hidden_size ({width})")
    heads, groups = text["num_attention_heads"], text["num_key_value_heads"]
    allowed = f"a divisor of num_attention_heads ({heads})"
    require(heads % groups == 0, "llm_config.num_key_value_heads", groups, allowed)
    size, patch = vision["image_size"], vision["patch_size"]
    require(size % patch == 0, "vision_config.image_size", size, f"a multiple of patch_size ({patch})")


def require_type(part: dict[str, Any], name: str, model_type: str) -> None:
    given = part.get("model_type")
    require(given == model_type, f"{name}.model_type", given, f"{model_type!r}; other towers are not supported")


def read_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer in a folder, which must know the prompt's special tokens (ValueError)."""
    if not (folder / "tokenizer.json").is_file() and not (folder / "vocab.json").is_file():
        raise ValueError(f"{str(folder)!r} has no tokenizer.json or vocab.json; copy the base VLM's tokenizer there.")
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, config=Qwen2Config())  # or it asks to run the folder's code
    except Exception as error:  # the tokenizers library raises bare Exception for a file that it can't read
        reason = " ".join(str(error).split())[:300]
        raise ValueError(f"The tokenizer in {str(folder)!r} can't be read ({reason}); copy its files again.") from error
    known = tokenizer.get_vocab()
    missing = [token for token in PROMPT_TOKENS if token not in known]
    if missing:
        raise ValueError(f"The tokenizer in {str(folder)!r} lacks {', '.join(missing)}; it is not Eagle2's.")
    return tokenizer
