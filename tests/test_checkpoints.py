"""Claims about finding checkpoints by name."""

import pytest
import torch

from instructvla.evaluation.tabletop import checkpoints
from instructvla.evaluation.tabletop.checkpoints import load_checkpoint
from tests.tabletop_policies import tabletop_model


def test_a_folder_is_loaded_ready_to_act(tmp_path):
    tabletop_model().save_pretrained(tmp_path / "tiny")
    model = load_checkpoint(str(tmp_path / "tiny"))
    assert not model.training and model.processor.cameras == ["front"]


@pytest.mark.parametrize("name", ["outputs/run/missing", "checkpoints/tabletop-nan", "missing"])
def test_a_checkpoint_that_does_not_exist_lists_what_does(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for found in ("checkpoints/tabletop-nano", "outputs/run/checkpoint-5"):
        (tmp_path / found).mkdir(parents=True)
        (tmp_path / found / "config.json").write_text("{}")
    with pytest.raises(ValueError, match=f"there is no checkpoint {name}; found here: .*checkpoints/tabletop-nano"):
        load_checkpoint(name)


def test_the_default_is_not_looked_for_on_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        ValueError, match="no checkpoint checkpoints/tabletop-nano; found here: none.*make train-tabletop"
    ):
        load_checkpoint("checkpoints/tabletop-nano")


def test_names_of_hub_repositories_are_left_to_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    asked = []
    monkeypatch.setattr(checkpoints, "load_model", lambda name: asked.append(name) or torch.nn.Linear(1, 1))
    load_checkpoint("someone/model")
    assert asked == ["someone/model"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="on CUDA it keeps its precision")
def test_a_checkpoint_in_bfloat16_runs_in_float32_on_a_cpu(tmp_path):
    tabletop_model().bfloat16().save_pretrained(tmp_path)
    assert {parameter.dtype for parameter in load_checkpoint(str(tmp_path)).parameters()} == {torch.float32}
