import json
from dataclasses import replace

import pytest

from instructvla.training.annotation.annotation_texts import EpisodeTexts, episode_texts, open_texts, recorded_texts
from instructvla.training.data.episodes import BadEpisodeError
from instructvla.training.data.vla_it import native_turns
from tests.annotated_texts import ANNOTATION
from tests.made_episodes import MadeEpisodes


def record(annotation):
    kinds = {"CR": annotation.rewritten, "CC": annotation.contexts, "QA": annotation.questions}
    turns = {kind: native_turns(given) for kind, given in kinds.items()}
    return {"features": {"move_primitive": []}, "alt_instruction": {"Caption": annotation.caption, **turns}}


def test_vla_it_json_gives_annotations_without_instructions(tmp_path):
    file = tmp_path / "instruction.json"
    file.write_text(json.dumps({"a/out.npy": {"0": record(ANNOTATION), "1": {"alt_instruction": None}}}))
    assert list(recorded_texts(file)) == [EpisodeTexts(None, ANNOTATION), EpisodeTexts(None, None)]
    count, texts = open_texts(str(file))
    assert count is None and len(list(texts)) == 2


def test_a_record_of_another_form_is_an_error_in_its_place(tmp_path):
    file = tmp_path / "instruction.json"
    file.write_text(json.dumps({"a/out.npy": {"0": {"alt_instruction": 7}, "1": record(ANNOTATION)}}))
    bad, good = recorded_texts(file)
    assert isinstance(bad, BadEpisodeError) and "episode 0" in str(bad)
    assert good.annotation == ANNOTATION


class AnnotatedEpisodes(MadeEpisodes):
    description = None  # only joined annotations need it

    def __getitem__(self, index):
        return replace(super().__getitem__(index), annotation=ANNOTATION)


def test_episodes_give_their_first_instruction_and_their_annotation():
    first, second, third = episode_texts(AnnotatedEpisodes("toys", [2, 1, 3], bad=(1,)))
    assert first == third == EpisodeTexts("put the spoon on the towel", ANNOTATION)
    assert isinstance(second, BadEpisodeError)


def test_options_of_datasets_don_t_fit_an_annotation_file(tmp_path):
    file = tmp_path / "instruction.json"
    with pytest.raises(ValueError, match="there is no file"):
        open_texts(str(file))
    file.write_text("{}")
    with pytest.raises(ValueError, match="leave out --mapping"):
        open_texts(str(file), mapping="bridge")
