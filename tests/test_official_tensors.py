"""Claims about the tensors of a published checkpoint; its adapter folder is tested with the converter."""

import os

import pytest
import torch

from instructvla.official_tensors import OPTIMIZER_RULE, OfficialTensors, open_checkpoint
from tests.official_run_folder import published_tensors, write_run


@pytest.fixture
def run(tmp_path):
    return write_run(tmp_path / "run")


def test_shapes_and_dtypes_are_those_of_the_file(tmp_path):
    tensors = OfficialTensors(write_run(tmp_path / "run") / "checkpoints" / "step-000001.pt")
    expected = published_tensors("predict_action_stage1")
    assert len(tensors.shapes) == sum(map(len, expected.values()))
    assert tensors.shapes["mlp1.1.weight"] == tuple(expected["mlp1"]["1.weight"].shape)
    assert set(tensors.dtypes.values()) == {torch.float32}


def test_each_opening_maps_the_file_anew(tmp_path):
    tensors = OfficialTensors(write_run(tmp_path / "run") / "checkpoints" / "step-000001.pt")
    first, second = tensors.open()["mlp1.1.weight"], tensors.open()["mlp1.1.weight"]
    assert first.data_ptr() != second.data_ptr() and torch.equal(first, second)


def test_tensors_are_mapped_and_named_by_module(run):
    tensors, dropped = open_checkpoint(run / "checkpoints" / "step-000001.pt")
    expected = published_tensors("predict_action_stage1")["mlp1"]["1.weight"]
    assert torch.equal(tensors["mlp1.1.weight"], expected) and dropped == {}


def test_the_optimizer_is_dropped_by_its_rule(run):
    path = run / "checkpoints" / "step-000001.pt"
    torch.save(torch.load(path) | {"optimizer": {"state": {}}}, path)
    assert open_checkpoint(path)[1] == {OPTIMIZER_RULE: ["optimizer"]}


class Code:
    """Unpickling this would make a folder."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_code_in_a_checkpoint_is_never_run(run, tmp_path):
    path = run / "checkpoints" / "step-000001.pt"
    torch.save(torch.load(path) | {"optimizer": Code(tmp_path / "made_by_code")}, path)
    with pytest.raises(ValueError, match="could run code"):
        open_checkpoint(path)
    assert not (tmp_path / "made_by_code").exists()


def write(content):
    def to(path):
        torch.save(content, path)

    return to


MODULES = {name: {"a": torch.zeros(1)} for name in ("vision_model", "mlp1", "language_model", "action_model")}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path.write_bytes(b""), "no checkpoint"),
        (lambda path: path.write_text("weights"), "could run code|no checkpoint"),
        (write([1, 2]), "no dictionary 'model'"),
        (write({"state_dict": {}}), "no dictionary 'model'"),
        (write({"model": {**MODULES, "value_head": {}}}), "model.value_head"),
        (write({"model": MODULES, "ema": {}}), "doesn't know: ema"),
        (write({"model": {name: MODULES[name] for name in ("mlp1", "language_model")}}), "vision_model, action_model"),
        (write({"model": MODULES | {"mlp1": {"a": 3}}}), "mlp1.a, which is no dense tensor"),
        (write({"model": MODULES | {"mlp1": {"a": torch.eye(2).to_sparse()}}}), "mlp1.a, which is no dense tensor"),
    ],
)
def test_what_is_no_checkpoint_is_refused_by_its_name(tmp_path, make, message):
    path = tmp_path / "broken.pt"
    make(path)
    with pytest.raises(ValueError, match=message) as refusal:
        open_checkpoint(path)
    assert "broken.pt" in str(refusal.value)


def test_a_truncated_checkpoint_is_refused(run):
    path = run / "checkpoints" / "step-000001.pt"
    path.write_bytes(path.read_bytes()[:100_000])
    with pytest.raises(ValueError, match="no checkpoint that torch can map"):
        open_checkpoint(path)


def test_a_checkpoint_of_the_old_file_format_is_refused(run):
    path = run / "checkpoints" / "step-000001.pt"
    torch.save(torch.load(path), path, _use_new_zipfile_serialization=False)
    with pytest.raises(ValueError, match="no checkpoint that torch can map"):
        open_checkpoint(path)
