"""The doctor on files: what is missing, cut off, left over or not a number is named."""

import json

import pytest
import torch

from instructvla.configuration_instructvla import InstructVLAConfig
from instructvla.evaluation.doctor_files import check_code, check_files, check_values, check_weights
from instructvla.nano import untrained_nano
from tests.broken_checkpoints import broken_copy, config, edit_json, findings, texts, weights, without, written, zero


@pytest.fixture(scope="module")
def nano(tmp_path_factory):
    folder = tmp_path_factory.mktemp("nano")
    untrained_nano().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def sharded(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sharded")
    untrained_nano().save_pretrained(folder, max_shard_size="8MB")
    return folder


def examined(folder):
    settings = InstructVLAConfig.from_pretrained(folder)
    return [
        *check_files(folder),
        *check_code(folder),
        *check_weights(folder, settings),
        *check_values(folder, settings),
    ]


def fill(name, value):
    return weights(lambda tensors: tensors[name].view(-1)[:2].fill_(value))


INDEX = "model.safetensors.index.json"
SHARD = "model-00002-of-00003.safetensors"
ADD = weights(lambda tensors: tensors.update(future_queries=torch.ones(2)))
POP = weights(lambda tensors: tensors.pop("projector.norm.bias"))
HUGE = (2**40).to_bytes(8, "little")
BROKEN = [
    (without("processor_config.json"), ["files: processor_config.json is missing"]),
    (without("tokenizer.json"), ["files: tokenizer.json is missing"]),
    (without("film_vision.py"), ["code: film_vision.py missing"]),
    (config(auto_map={}), ["code: no auto_map in config.json"]),
    (without("model.safetensors"), ["weights: neither model.safetensors nor"]),
    (written("model.safetensors", b""), ["weights: model.safetensors is truncated, or no safetensors file: 0 bytes"]),
    (written("model.safetensors", HUGE + b"{}"), ["weights: model.safetensors is truncated"]),
    (written("model.safetensors", b"\2" + b"\0" * 7 + b"[]"), ["weights: model.safetensors has a corrupt header"]),
    (config(horizon=8), ["weights: 3 tensors of another size: action_expert.action_head.0.weight is (512, 2048)"]),
    (ADD, ["weights: 1 tensor unexpected: future_queries"]),
    (POP, ["weights: 1 tensor missing: projector.norm.bias"]),
    (
        fill("projector.norm.bias", float("nan")),
        ["values: NaN or infinity in 1 tensor: projector.norm.bias (2 NaN of"],
    ),
    (
        fill("projector.norm.bias", -float("inf")),
        ["values: NaN or infinity in 1 tensor: projector.norm.bias (2 inf"],
    ),
    (zero("projector.linear_2.weight"), ["zeros: 1 tensor all zero: projector.linear_2.weight"]),
]


def assert_findings(lines, expected):
    found = findings(lines)
    assert len(found) == len(expected), found
    assert all(text.startswith(start) for text, start in zip(found, expected, strict=True)), found


def test_a_fresh_checkpoint_is_well_and_its_zeros_are_no_finding(nano, sharded):
    for folder in (nano, sharded):
        lines = examined(folder)
        assert_findings(lines, [])
        assert "235 tensors, 5.6 M parameters, float32, no NaN" in texts(lines, "ok")
        notes = texts(lines, "note")
        assert "language expert's LoRA B is zero" in notes and "action expert's" in notes and "FiLM is zero" in notes


@pytest.mark.parametrize("change, expected", BROKEN, ids=[start[0].split(":")[1][:40].strip() for _, start in BROKEN])
def test_one_fault_is_one_finding_that_names_it(nano, tmp_path, change, expected):
    assert_findings(examined(broken_copy(nano, tmp_path, change)), expected)


def test_every_broken_shard_is_named_and_the_others_are_still_read(sharded, tmp_path):
    def cut(folder):
        (folder / "model-00001-of-00003.safetensors").unlink()
        (folder / SHARD).write_bytes((folder / SHARD).read_bytes()[:-1])

    lines = examined(broken_copy(sharded, tmp_path, cut))
    assert_findings(lines, ["weights: model-00001-of-00003.safetensors is missing", f"weights: {SHARD} has "])
    assert "no NaN or infinity" in texts(lines, "ok")


def test_an_index_that_does_not_match_its_shards_is_a_finding(sharded, tmp_path):
    name = "language_model.norm.weight"
    weight_map = json.loads((sharded / INDEX).read_text(encoding="utf-8"))["weight_map"]
    other = next(file for file in weight_map.values() if file != weight_map[name])

    def move(folder):
        edit_json(folder / INDEX, lambda index: index["weight_map"].update({name: other}))

    found = findings(examined(broken_copy(sharded, tmp_path, move)))
    assert len(found) == 2
    assert any(f"{other} lacks {name}, which the index puts there" in text for text in found)
    assert any(f"{weight_map[name]} holds {name}, which the index does not know" in text for text in found)


NONSENSE = {
    b"{": "can't be read as JSON",
    b"[]": "must hold a JSON object",
    b'{"weight_map": {"a": 3}}': "no weight_map",
}


@pytest.mark.parametrize("content", NONSENSE)
def test_an_index_of_nonsense_is_refused(sharded, tmp_path, content):
    with pytest.raises(ValueError, match=f"{INDEX}' .*{NONSENSE[content]}"):
        examined(broken_copy(sharded, tmp_path, written(INDEX, content)))


def test_trained_adapters_and_film_are_no_longer_called_new(nano, tmp_path):
    def train(tensors):
        for name, tensor in tensors.items():
            if ".film_" in name:
                tensor.fill_(0.1)
            if ".lora_B" in name:
                tensor[:, 1].fill_(0.1)  # the action expert

    notes = texts(examined(broken_copy(nano, tmp_path, weights(train))), "note")
    assert "language expert" in notes and "action expert" not in notes and "FiLM" not in notes


def test_code_that_is_not_the_installed_one_is_noted(nano, tmp_path):
    lines = examined(broken_copy(nano, tmp_path, written("film_vision.py", b"x = 1\n")))
    assert "differs from the installed package, which is what is examined: film_vision.py" in texts(lines, "note")
