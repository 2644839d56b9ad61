"""Claims about the nano tokenizer that ships with the package, and about the script that makes it."""

import re

import pytest
from tokenizers import pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerBase
from typer.testing import CliRunner

from instructvla.processing.make_nano_tokenizer import (
    DEFAULT_FOLDER,
    QUERY_TOKENS,
    SPECIAL_TOKENS,
    app,
    corpus,
    language_motions,
    write_tokenizer,
)

TEXTS = [
    "put the spoon on the towel",
    "S'il te plaît, range la cuillère à gauche de l'évier.",
    "¿Dónde está el limón más ácido? ¡Aquí!",
    "cafe\u0301 and café differ, and both survive",
    "🤖👍🏽 日本語 שלום\u200f Ω≈0.5\u00a0m",
    "  two  spaces,\ttabs\r\n\n and a last space ",
    "1234567890 A1-B2 __init__ {x: [1, 2]}",
    "\x00\x7f control bytes",
]
HELD_OUT = [
    "Would you please take the yellow banana out of the sink and leave it beside the red bowl?",
    "I am hungry and want something sweet, but not the chocolate cake.",
    "The robot will open the gripper above the drawer, because the sponge has to fall into it.",
    "On the wooden table there are three cubes and an empty glass next to the stove.",
    "move forward left and up, close gripper",
]


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(DEFAULT_FOLDER)


def test_rebuilding_gives_the_shipped_files_byte_for_byte(tmp_path):
    write_tokenizer(tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / name).read_bytes() == (DEFAULT_FOLDER / name).read_bytes(), name


def test_the_vocabulary_has_2048_ids_and_the_queries_are_the_last_sixteen(tokenizer):
    assert tokenizer.is_fast
    assert len(tokenizer) == 2048
    assert sorted(tokenizer.get_vocab().values()) == list(range(2048))
    assert tokenizer.convert_tokens_to_ids(QUERY_TOKENS) == list(range(2032, 2048))
    assert tokenizer.convert_tokens_to_ids(SPECIAL_TOKENS) == list(range(2026, 2032))
    assert (tokenizer.pad_token, tokenizer.eos_token, tokenizer.model_max_length) == (
        "<|endoftext|>",
        "<|im_end|>",
        4096,
    )


def test_all_256_bytes_are_pieces(tokenizer):
    assert set(pre_tokenizers.ByteLevel.alphabet()) <= set(tokenizer.get_vocab())


@pytest.mark.parametrize("text", TEXTS)
def test_any_text_comes_back_unchanged(tokenizer, text):
    assert tokenizer.decode(tokenizer(text).input_ids) == text


@pytest.mark.parametrize("token", SPECIAL_TOKENS + QUERY_TOKENS)
def test_special_tokens_are_one_id_anywhere_and_vanish_when_skipped(tokenizer, token):
    ids = tokenizer(f"put {token}it").input_ids
    assert ids.count(tokenizer.convert_tokens_to_ids(token)) == 1
    assert tokenizer.decode(ids) == f"put {token}it"
    assert tokenizer.decode(ids, skip_special_tokens=True) == "put it"


@pytest.mark.parametrize("word", ["robot", "gripper", "move", "open", "action", "towel", "red", "left"])
def test_robot_words_are_one_piece_alone_and_inside_a_sentence(tokenizer, word):
    assert len(tokenizer.tokenize(word)) == len(tokenizer.tokenize(f" {word}")) == 1


def test_digits_are_single(tokenizer):
    assert tokenizer.tokenize("407") == ["4", "0", "7"]


def test_held_out_sentences_take_about_one_token_per_word(tokenizer):
    words = [word for sentence in HELD_OUT for word in re.findall(r"\w+|[^\w\s]", sentence)]
    tokens = [token for sentence in HELD_OUT for token in tokenizer.tokenize(sentence)]
    assert not set(HELD_OUT) & set(corpus())
    assert len(tokens) / len(words) < 1.15


def test_every_language_motion_is_different_and_none_is_split_inside_a_word(tokenizer):
    motions = language_motions()
    assert len(set(motions)) == len(motions) == 27 * 5 * 3
    assert "move right and open gripper" in motions and "stop" in motions
    assert all(len(tokenizer.tokenize(motion)) == len(re.findall(r"\w+|,", motion)) for motion in motions)


def test_a_folder_that_can_not_be_written_is_one_message(tmp_path):
    (tmp_path / "file").write_text("kept")
    result = CliRunner().invoke(app, ["--output", str(tmp_path / "file")])
    assert result.exit_code == 2, result.output
    assert "give another folder" in " ".join(result.output.replace("│", " ").split())
    assert (tmp_path / "file").read_text() == "kept"
