"""Checkpoints: saved whole or not at all, loaded strictly, with the processor of the same revision."""

import json
from importlib.metadata import version

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoModelForImageTextToText

import instructvla.checkpoint_instructvla as checkpoint_module
from instructvla import InstructVLAConfig, InstructVLAForConditionalGeneration
from instructvla.checkpoint_instructvla import library_versions, staged_checkpoint
from instructvla.nano import NANO_STATISTICS, nano_processor, untrained_nano


def picture(seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (60, 80, 3), dtype=np.uint8))


@pytest.fixture(scope="module")
def nano():
    return untrained_nano()


def another_model():
    """Other weights and other statistics."""
    model = untrained_nano(seed=1)
    model.processor = nano_processor(statistics={"other": NANO_STATISTICS["untrained"]}, control_rate_hz={"other": 3.0})
    return model


def holds(folder, model) -> bool:
    """Whether a folder loads as this model, weights and statistics."""
    loaded = InstructVLAForConditionalGeneration.from_pretrained(folder)
    name = "language_model.lm_head.weight"
    return (
        torch.equal(loaded.state_dict()[name], model.state_dict()[name])
        and loaded.processor.statistics == model.processor.statistics
    )


@pytest.fixture(scope="module")
def checkpoint(nano, tmp_path_factory):
    folder = tmp_path_factory.mktemp("nano")
    nano.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("auto_class", [AutoModel, AutoModelForImageTextToText, InstructVLAForConditionalGeneration])
def test_checkpoint_holds_weights_processor_code_and_card_and_loads_exactly(nano, checkpoint, auto_class):
    names = {path.name for path in checkpoint.iterdir()}
    assert {"model.safetensors", "config.json", "processor_config.json", "README.md", "tokenizer.json"} <= names
    assert {"modeling_instructvla.py", "configuration_instructvla.py", "processing_instructvla.py"} <= names
    model = auto_class.from_pretrained(checkpoint)
    assert not model.training
    for (name, saved), (loaded_name, loaded) in zip(nano.state_dict().items(), model.state_dict().items(), strict=True):
        assert name == loaded_name
        assert torch.equal(saved, loaded)
    actions = [m.generate_action(picture(), "pick it up", noise=torch.ones(1, 16, 7)).actions for m in (nano, model)]
    assert torch.equal(*actions)


def test_large_checkpoints_are_sharded_and_load(nano, tmp_path):
    nano.save_pretrained(tmp_path, max_shard_size="4MB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 2
    model = InstructVLAForConditionalGeneration.from_pretrained(tmp_path)
    assert torch.equal(model.language_model.lm_head.weight, nano.language_model.lm_head.weight)


def tampered(checkpoint, folder, change) -> None:
    for path in checkpoint.iterdir():
        if path.is_file():
            (folder / path.name).write_bytes(path.read_bytes())
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


TAMPERINGS = {
    "missing: language_model.norm.weight": lambda tensors: tensors.pop("language_model.norm.weight"),
    "unexpected: future_queries": lambda tensors: tensors.update(future_queries=torch.ones(2)),
    r"of another size: projector.norm.bias: \(3,\) saved, \(512,\) expected": lambda tensors: tensors.update(
        {"projector.norm.bias": torch.ones(3)}
    ),
}


@pytest.mark.parametrize("message", TAMPERINGS)
def test_weights_that_do_not_fit_are_refused_by_name(checkpoint, tmp_path, message):
    tampered(checkpoint, tmp_path, TAMPERINGS[message])
    with pytest.raises(ValueError, match=message):
        InstructVLAForConditionalGeneration.from_pretrained(tmp_path)


def test_mismatched_sizes_can_not_be_waved_through(checkpoint):
    with pytest.raises(ValueError, match="would leave weights random"):
        InstructVLAForConditionalGeneration.from_pretrained(checkpoint, ignore_mismatched_sizes=True)


def test_model_without_a_processor_says_so(checkpoint, tmp_path):
    with pytest.raises(ValueError, match="assign model.processor"):
        _ = InstructVLAForConditionalGeneration(InstructVLAConfig.nano()).processor
    tampered(checkpoint, tmp_path, lambda tensors: None)
    (tmp_path / "processor_config.json").unlink()
    with pytest.raises(ValueError, match="has no processor_config.json"):
        _ = InstructVLAForConditionalGeneration.from_pretrained(tmp_path).processor


def test_processor_of_another_model_is_refused(nano):
    with pytest.raises(ValueError, match="num_image_tokens is 4, but the model needs 16"):
        nano.processor = nano_processor(num_image_tokens=4)


def test_processor_is_found_when_the_working_directory_changes(checkpoint, tmp_path, monkeypatch):
    monkeypatch.chdir(checkpoint.parent)
    model = InstructVLAForConditionalGeneration.from_pretrained(checkpoint.name)
    monkeypatch.chdir(tmp_path)
    assert model.processor.statistics


def test_saving_does_not_publish_half_a_checkpoint(nano, tmp_path):
    with pytest.raises(ValueError, match="call model.push_to_hub"):
        nano.save_pretrained(tmp_path / "out", push_to_hub=True)
    assert not (tmp_path / "out").exists()


def test_saving_without_statistics_writes_nothing(tmp_path):
    model = untrained_nano()
    model.processor = nano_processor(statistics=None, control_rate_hz=None)
    with pytest.raises(ValueError, match="statistics"):
        model.save_pretrained(tmp_path / "out")
    assert not (tmp_path / "out").exists()
    model.save_pretrained(tmp_path / "out", allow_no_statistics=True)
    assert holds(tmp_path / "out", model)


def test_a_checkpoint_replaces_another_whatever_their_shards(nano, tmp_path):
    other = another_model()
    (tmp_path / "notes.txt").write_text("kept")
    nano.save_pretrained(tmp_path)
    other.save_pretrained(tmp_path, max_shard_size="6MB")
    assert holds(tmp_path, other)
    nano.save_pretrained(tmp_path)
    assert holds(tmp_path, nano)
    assert not list(tmp_path.glob("*.index.json"))
    assert (tmp_path / "notes.txt").read_text() == "kept"


def test_an_interrupted_save_leaves_the_old_checkpoint(nano, tmp_path, monkeypatch):
    folder = tmp_path / "robot"
    nano.save_pretrained(folder)

    def full_disk(*args, **kwargs):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("transformers.modeling_utils.safe_save_file", full_disk)
        with pytest.raises(OSError, match="No space left"):
            another_model().save_pretrained(folder)
    assert holds(folder, nano)
    assert list(tmp_path.iterdir()) == [folder]


def test_an_interrupted_move_leaves_a_folder_that_does_not_load(nano, tmp_path, monkeypatch):
    nano.save_pretrained(tmp_path)
    replace, moved = checkpoint_module.os.replace, []

    def stop_after_three(source, target):
        if len(moved) == 3:
            raise OSError("interrupted")
        moved.append(target)
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint_module.os, "replace", stop_after_three)
        with pytest.raises(OSError, match="interrupted"):
            another_model().save_pretrained(tmp_path)
    with pytest.raises((OSError, ValueError)):
        AutoModel.from_pretrained(tmp_path)


def test_a_linked_folder_keeps_its_link(nano, tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "robot").symlink_to(tmp_path / "disk")
    nano.save_pretrained(tmp_path / "robot")
    another_model().save_pretrained(tmp_path / "robot")
    assert (tmp_path / "robot").is_symlink()
    assert holds(tmp_path / "disk", another_model())


def test_a_failed_first_save_leaves_no_folder(nano, tmp_path, monkeypatch):
    def full_disk(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("transformers.modeling_utils.safe_save_file", full_disk)
    with pytest.raises(OSError, match="No space left"):
        nano.save_pretrained(tmp_path / "robot")
    assert list(tmp_path.iterdir()) == []


def test_a_model_without_processor_does_not_inherit_the_one_it_overwrites(nano, tmp_path):
    nano.save_pretrained(tmp_path)
    InstructVLAForConditionalGeneration(InstructVLAConfig.nano()).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="has no processor_config.json"):
        _ = InstructVLAForConditionalGeneration.from_pretrained(tmp_path).processor


def test_only_files_of_the_same_kind_are_replaced(nano, tmp_path):
    nano.save_pretrained(tmp_path)
    (tmp_path / "model-best-of-3.safetensors").write_bytes(b"kept")
    nano.save_pretrained(tmp_path)
    assert (tmp_path / "model-best-of-3.safetensors").read_bytes() == b"kept"


def test_a_file_in_the_place_of_the_folder_is_refused(nano, tmp_path):
    (tmp_path / "robot").write_text("a file")
    with pytest.raises(ValueError, match="is a file"):
        nano.save_pretrained(tmp_path / "robot")
    assert (tmp_path / "robot").read_text() == "a file"


def test_truncated_weights_are_named(checkpoint, tmp_path):
    tampered(checkpoint, tmp_path, lambda tensors: None)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100_000])
    with pytest.raises(ValueError, match=f"weights of '{tmp_path}' are truncated or corrupt"):
        InstructVLAForConditionalGeneration.from_pretrained(tmp_path)


def test_a_corrupt_tokenizer_is_one_clear_error(checkpoint, tmp_path):
    tampered(checkpoint, tmp_path, lambda tensors: None)
    (tmp_path / "tokenizer.json").write_text('{"x": 1}')
    model = InstructVLAForConditionalGeneration.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match=f"processor of '{tmp_path}' can't be loaded"):
        _ = model.processor


def test_an_unknown_processor_field_is_refused(checkpoint, tmp_path):
    tampered(checkpoint, tmp_path, lambda tensors: None)
    fields = json.loads((tmp_path / "processor_config.json").read_text())
    (tmp_path / "processor_config.json").write_text(json.dumps(fields | {"action_crop_pc": 0.875}))
    model = InstructVLAForConditionalGeneration.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match="unknown field 'action_crop_pc'; the nearest is 'action_crop_pct'"):
        _ = model.processor


def test_a_model_cast_after_loading_saves_and_loads_bit_equal(nano, tmp_path):
    model = untrained_nano().to(torch.bfloat16)
    model.save_pretrained(tmp_path)
    loaded = InstructVLAForConditionalGeneration.from_pretrained(tmp_path)
    assert loaded.dtype == torch.bfloat16
    noise = torch.ones(1, 16, 7)
    actions = [m.generate_action(picture(), "pick it up", noise=noise).normalized_actions for m in (model, loaded)]
    assert torch.equal(*actions)


def test_saving_records_the_versions_of_installed_packages_alone(checkpoint, monkeypatch):
    recorded = InstructVLAConfig.from_pretrained(checkpoint).library_versions
    assert recorded == library_versions()
    assert recorded["torch"] == version("torch")
    assert {"transformers", "timm", "diffusers", "pillow", "instructvla"} <= recorded.keys()
    monkeypatch.setattr(checkpoint_module, "VERSIONED_PACKAGES", ("torch", "no-such-package"))
    assert list(library_versions()) == ["torch"]


def test_a_staged_checkpoint_appears_whole_or_not_at_all(tmp_path):
    with pytest.raises(RuntimeError), staged_checkpoint(tmp_path / "new") as staging:
        (staging / "config.json").write_text("half")
        raise RuntimeError("interrupted")
    assert list(tmp_path.iterdir()) == []
    with staged_checkpoint(tmp_path / "new") as staging:
        (staging / "config.json").write_text("whole")
        assert not (tmp_path / "new" / "config.json").exists()
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["config.json"]
    with pytest.raises(RuntimeError), staged_checkpoint(tmp_path / "new") as staging:
        (staging / "config.json").write_text("another half")
        raise RuntimeError("interrupted")
    assert (tmp_path / "new" / "config.json").read_text() == "whole"
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["config.json"]


def test_a_failed_save_takes_the_parents_that_it_made_with_it(tmp_path):
    (tmp_path / "a").mkdir()
    with pytest.raises(RuntimeError), staged_checkpoint(tmp_path / "a" / "b" / "c"):
        raise RuntimeError("interrupted")
    assert [path.name for path in tmp_path.rglob("*")] == ["a"]
    with pytest.raises(RuntimeError), staged_checkpoint(tmp_path / "a" / "b" / "c"):
        (tmp_path / "a" / "b" / "notes.txt").write_text("kept")
        raise RuntimeError("interrupted")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a", "b", "notes.txt"]


def test_what_a_killed_run_staged_goes_with_the_next_one(tmp_path):
    (tmp_path / ".saving.killed").mkdir()
    (tmp_path / ".saving.killed" / "model.safetensors").write_bytes(b"half")
    (tmp_path / ".saving.txt").write_text("a file, not ours")
    with staged_checkpoint(tmp_path) as staging:
        (staging / "config.json").write_text("whole")
        assert not (tmp_path / ".saving.killed").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == [".saving.txt", "config.json"]


@pytest.mark.parametrize("report", ["init_report.json", "conversion_report.json"])
def test_a_report_does_not_outlive_its_checkpoint(tmp_path, report):
    with staged_checkpoint(tmp_path) as staging:
        (staging / "config.json").write_text("first")
        (staging / report).write_text("on the first")
    assert (tmp_path / report).read_text() == "on the first"
    with staged_checkpoint(tmp_path) as staging:
        (staging / "config.json").write_text("second")
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


def test_a_staged_checkpoint_in_place_of_a_file_is_refused(tmp_path):
    (tmp_path / "robot").write_text("a file")
    with (
        pytest.raises(ValueError, match="is a file; a checkpoint needs a folder"),
        staged_checkpoint(tmp_path / "robot"),
    ):
        pass
