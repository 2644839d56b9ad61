"""Claims about where annotations to be checked come from."""

import json

import pytest

from instructvla.training.annotation.checked_source import EpisodeSource, RecordedSource, open_source
from instructvla.training.data.episodes import BadEpisodeError
from tests.annotated_episodes import ANNOTATIONS, INSTRUCTIONS, AnnotatedRecordings


class PartlyUnreadable(AnnotatedRecordings):
    def __getitem__(self, index: int):
        if index == 1:
            raise BadEpisodeError("memory: record 1 is truncated")
        return super().__getitem__(index)


def test_episodes_have_texts_and_pictures():
    source = EpisodeSource("memory", AnnotatedRecordings())
    assert source.count == 4
    assert [one.annotation for one in source.texts()] == list(ANNOTATIONS)
    first, last = source.shown([3, 0, 2])
    assert (first.episode, first.instruction, last.episode) == (0, INSTRUCTIONS[0], 3)
    assert len(first.pictures) == 3 and all(one.startswith("data:image/jpeg;base64,") for one in first.pictures)


def test_an_episode_that_can_not_be_shown_becomes_a_problem():
    source = EpisodeSource("memory", PartlyUnreadable())
    assert [one.episode for one in source.shown([0, 1, 3])] == [0, 3]
    assert source.problems == ["memory: record 1 is truncated"]


def test_an_annotation_file_has_neither_instructions_nor_pictures(tmp_path):
    path = tmp_path / "vla_it.json"
    path.write_text(json.dumps({"/a": {"0": {"alt_instruction": {"Caption": "A cup."}}, "1": {}}}))
    source = open_source(str(path))
    assert isinstance(source, RecordedSource) and source.count is None
    assert [(one.episode, one.instruction, one.annotation.caption, one.pictures) for one in source.shown([0, 1])] == [
        (0, None, "A cup.", ())
    ]


def test_options_that_do_not_fit_are_refused(tmp_path):
    with pytest.raises(ValueError, match="there is no file"):
        open_source(str(tmp_path / "none.json"))
    (tmp_path / "vla_it.json").write_text("{}")
    with pytest.raises(ValueError, match="without episodes: .* give the dataset with --vla-it"):
        open_source(str(tmp_path / "vla_it.json"), mapping="bridge")
