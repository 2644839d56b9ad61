"""Claims about texts as recordings hold them."""

import numpy as np
import pytest

from instructvla.training.data.episodes import BadEpisodeError, RawEpisode
from instructvla.training.data.recorded_texts import (
    NoTextError,
    instruction_text,
    instruction_texts,
    metadata_text,
    text_fields,
)
from tests.memory_episodes import bridge_recording, jpeg


@pytest.mark.parametrize(
    "value",
    [
        "open it",
        b" open it ",
        np.bytes_(b"open it"),
        np.array(b"open it"),
        ["open it"],
        np.array(["open it"]),
        [["open it"]],
    ],
)
def test_a_text_is_one_however_it_is_wrapped(value):
    assert instruction_text(value) == "open it"


@pytest.mark.parametrize("value", [None, "", b"", "  ", [""]])
def test_an_empty_text_is_none_and_never_the_word_none(value):
    assert instruction_text(value) is None and metadata_text(value) is None


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (1, "the value 1"),
        (np.int64(1), "the value 1"),
        (np.float32(0.5), "the value 0.5"),
        (True, "the value True"),
        (["put it down", "open it"], r"a list of 2, \['put it down', 'open it'\]"),
        ([], "a list of 0"),
        (np.zeros(512, np.uint8), r"an array \(512,\) of uint8"),
        (["word"] * 500, r"a list of 500, \['word', .*…$"),
        (jpeg(0), r"a picture \(\d+ bytes\)"),
    ],
)
def test_what_is_no_text_is_refused_and_told(value, told):
    with pytest.raises(NoTextError, match=f"^{told}"):
        instruction_text(value)


def test_an_id_may_be_a_number():
    assert (metadata_text(np.int32(3)), metadata_text(7), metadata_text([b"a"])) == ("3", "7", "a")
    with pytest.raises(NoTextError, match="a list of 2"):
        metadata_text([1, 2])


def test_a_text_that_can_not_be_decoded_makes_the_episode_bad():
    raw = RawEpisode({"said": [b"open", b"\xff\xfe\xff"]}, source="file, record 4")
    with pytest.raises(BadEpisodeError, match="file, record 4: said is no UTF-8 text"):
        instruction_texts(raw, "said", 2)


def test_the_fields_of_texts_are_found_and_those_of_pictures_and_numbers_left_out():
    assert text_fields(bridge_recording(0)) == ["episode_metadata/file_path", "language_instruction"]
