"""Claims about the tensors of a published checkpoint; its adapter folder is tested with the converter."""

import torch

from instructvla.official_tensors import OfficialTensors
from tests.official_run_folder import published_tensors, write_run


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
