"""A processor with the fixtures' tiny tokenizer and small images, and its statistics."""

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from instructvla.processing import InstructVLAProcessor
from tests.parity import load_fixture

SPECIAL_TOKENS = load_fixture("prompts_labels")[1]["tokenizer"]["special"]
ACTION = {"q01": [-1.0, -2.0, 0.0, -1.0, -1.0, -1.0, 0.0], "q99": [1.0, 2.0, 4.0, 1.0, 1.0, 1.0, 1.0]}
ACTION["mask"] = [True] * 6 + [False]
STATISTICS = {"bridge": {"action": ACTION, "state": {"q01": [0.0, -1.0, 3.0], "q99": [1.0, 1.0, 3.0]}}}
TWO_DATASETS = STATISTICS | {"fractal": STATISTICS["bridge"]}


def byte_tokenizer(special: list[str], num_queries: int = 16) -> PreTrainedTokenizerFast:
    """Byte-level BPE without merges: the special tokens, the 256 byte symbols in code-point order, the queries."""
    symbols = [*special, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    backend = Tokenizer(models.BPE(vocab={symbol: index for index, symbol in enumerate(symbols)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<|endoftext|>", eos_token="<|im_end|>", model_max_length=4096
    )
    tokenizer.add_tokens([f"<new_token_{index}>" for index in range(num_queries)], special_tokens=True)
    return tokenizer


def tiny_processor(**fields) -> InstructVLAProcessor:
    """A processor of the fixtures' tiny tokenizer and sizes."""
    sizes = {"num_image_tokens": 4, "num_action_queries": 16, "image_size": 28, "action_image_size": 14}
    tokenizer = fields.pop("tokenizer", None) or byte_tokenizer(SPECIAL_TOKENS)
    return InstructVLAProcessor(tokenizer, **(sizes | {"statistics": STATISTICS} | fields))
