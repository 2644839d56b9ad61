"""Claims about a run's settings: what is wrong is named before anything starts."""

import sys

import pytest
import yaml

from instructvla.training.run_config import read_run_config

SMALLEST = {
    "model": {"source": "nano"},
    "data": {"datasets": [{"source": "data/bridge"}]},
    "output_dir": "outputs/run",
    "trainer": {"max_steps": 10},
}


def written(tmp_path, changes=None):
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(SMALLEST | (changes or {})))
    return path


def test_the_smallest_file_has_the_papers_defaults(tmp_path):
    config = read_run_config(written(tmp_path))
    assert config.data.datasets[0].weight is None and config.data.datasets[0].split == "train"
    assert config.data.chat is None and config.retention is None and config.train is None
    augmentation = config.data.make_augmentation()
    assert augmentation.crop_area == 0.9 and augmentation.contrast == (0.8, 1.2)


def test_sections_and_lists_become_what_they_describe(tmp_path):
    chat = {"file": "chat.json", "robot_share": 3}
    data = {"datasets": [{"source": "a"}, {"source": "b", "weight": 2}], "chat": chat, "augmentation": None}
    config = read_run_config(written(tmp_path, {"data": data, "train": ["scale_head"]}))
    assert [dataset.weight for dataset in config.data.datasets] == [None, 2.0]
    assert config.data.chat.robot_share == 3 and config.train == ["scale_head"]
    assert config.data.make_augmentation() is None


def test_overrides_reach_every_place(tmp_path):
    settings = ["trainer.max_steps=5", "data.datasets.0.weight=3", "evaluation.every=7", "model.set.horizon=8"]
    config = read_run_config(written(tmp_path), [*settings, "trainer.learning_rate=1e-4", "data.chat.file=c.json"])
    assert config.trainer == {"max_steps": 5, "learning_rate": 1e-4} and config.evaluation.every == 7
    assert config.data.datasets[0].weight == 3.0 and config.data.chat.file == "c.json"
    assert config.model.set == {"horizon": 8}


def test_a_file_starts_from_its_base_and_changes_what_it_gives(tmp_path):
    written(tmp_path, {"data": {"datasets": [{"source": "a"}], "max_length": 99, "shares": {"action": 1, "motion": 1}}})
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "own.yaml").write_text("base: ../run.yaml\ndata: {shares: {action: 1.0}}\noutput_dir: other")
    config = read_run_config(tmp_path / "sub" / "own.yaml")
    assert config.data.max_length == 99 and config.data.shares == {"action": 1.0} and config.output_dir == "other"
    assert config.trainer == {"max_steps": 10}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"modle": {}}, "modle is not a field.*Did you mean 'model'"),
        ({"data": {"datasets": [{"sauce": "a"}]}}, "data.datasets.0.sauce is not a field.*'source'"),
        ({"data": {"datasets": []}}, "data.datasets is empty"),
        ({"data": {}}, "data.datasets is missing"),
        ({"trainer": {"max_step": 3}}, "trainer.max_step is not a field.*'max_steps'"),
        ({"trainer": {}}, "trainer.max_steps is None; give how many"),
        ({"trainer": {"max_steps": 3, "packing": True}}, "trainer.packing can't be set: rows hold pictures"),
        ({"trainer": {"max_steps": 3, "num_train_epochs": 2}}, "give max_steps"),
        ({"output_dir": 3}, "output_dir is 3, but it must be str"),
        ({"compile": "yes"}, "compile is 'yes', but it must be bool"),
        ({"evaluation": {"every": 0}}, "evaluation.every is 0; give 1 or more"),
        ({"evaluation": {"episodes": True}}, "evaluation.episodes is True, but it must be int"),
        ({"model": {"source": "nano", "frozen_dtype": "float8"}}, "must be one of float32, bfloat16"),
        ({"model": "nano"}, "model is 'nano', but it must be KEY: VALUE pairs"),
        ({"data": {"datasets": [{"source": "a"}], "annotated_share": 2}}, "annotated_share is 2.0; give a share"),
        (
            {"data": {"datasets": [{"source": "a"}], "augmentation": {"crop": 1}}},
            "data.augmentation.crop is not a field.*'crop_area'",
        ),
        ({"data": {"datasets": {"source": "a"}}}, "data.datasets is {.*, but it must be list"),
        (
            {"data": {"datasets": [{"source": "a", "weight": -1}]}},
            "data.datasets.0.weight is -1.0; give a number",
        ),
        ({"evaluation": None}, "evaluation is null, but it must be KEY: VALUE pairs; episodes: 0 evaluates nothing"),
        ({"train": [3]}, r"train is \[3\], but it must be a list of str"),
        ({"retention": {"file": "a", "records": 0}}, "retention.records is 0; give 1 or more"),
        ({"retention": {"file": "a", "max_loss_increase": -1}}, "retention.max_loss_increase is -1.0; give 0 or more"),
        ({"retention": {"file": "a"}, "evaluation": {"episodes": 0}}, "by its action error; hold out evaluation.episo"),
    ],
)
def test_a_wrong_setting_is_named_with_its_file(changes, message, tmp_path):
    path = written(tmp_path, changes)
    with pytest.raises(ValueError, match=f"(?s)run.yaml: .*{message}"):
        read_run_config(path)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.shares={action: much}", "data.shares.action is 'much', but it must be a number"),
        ("data.shares={acton: 1}", "data.shares: unknown kind of sample 'acton'"),
        ("data.shares={action: 0}", "data.shares: .*at least one must be above 0"),
        ("data.shuffle_window=0", "data.shuffle_window is 0; give 1 or more"),
        ("data.chat={file: a, batch_size: 0}", "data.chat.batch_size is 0; give 1 or more"),
        ("trainer.learning_rate=fast", "trainer.learning_rate is 'fast', but it must be float"),
        ("trainer.learning_rate=-1", "trainer.learning_rate is -1; give 0 or more"),
        ("trainer.save_steps=abc", "trainer.save_steps is 'abc', but it must be float"),
        ("trainer.save_steps=0", "trainer.save_steps is 0; give a number of steps"),
        ("trainer.gradient_accumulation_steps=0", "trainer.gradient_accumulation_steps is 0; give 1 or more"),
        ("trainer.per_device_train_batch_size=2.5", "trainer.per_device_train_batch_size is 2.5, but it must be int"),
        ("trainer.bf16=maybe", "trainer.bf16 is 'maybe', but it must be bool or null"),
        ("trainer.lr_scheduler_type=flat", "trainer.lr_scheduler_type is 'flat', but it must be one of .*constant"),
        ("trainer.run_name=3", "trainer.run_name is 3, but it must be str or null"),
        ("trainer.deepspeed=none.json", "trainer.deepspeed is 'none.json', but there is no such file"),
        ("trainer.accelerator_config=none.json", "trainer.accelerator_config is 'none.json', but there is no such"),
        ("trainer.save_strategy=no", "trainer.save_strategy can't be set: a run always writes checkpoints"),
        ("trainer.load_best_model_at_end=true", "can't be set: the retention gate keeps the best"),
        ("trainer.metric_for_best_model=loss", "can't be set: the retention gate keeps"),
        ("trainer.greater_is_better=true", "can't be set: the retention gate keeps"),
    ],
)
def test_a_value_that_would_end_a_run_late_is_refused_at_once(override, message, tmp_path):
    with pytest.raises(ValueError, match=f"run.yaml: .*{message}"):
        read_run_config(written(tmp_path), [override])


def test_deepspeeds_settings_without_deepspeed_are_refused(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "deepspeed", None)
    with pytest.raises(ValueError, match="trainer.deepspeed needs DeepSpeed, which is not installed"):
        read_run_config(written(tmp_path), ["trainer.deepspeed={zero_optimization: {stage: 2}}"])


def test_numbers_that_yaml_takes_for_text_are_numbers(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(SMALLEST).replace("max_steps: 10", "max_steps: 10\n  learning_rate: 1e-4"))
    assert yaml.safe_load(path.read_text())["trainer"]["learning_rate"] == "1e-4"
    assert read_run_config(path).trainer == {"max_steps": 10, "learning_rate": 1e-4}


def test_an_output_folder_that_can_not_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    for folder in ("file", "file/run"):
        with pytest.raises(ValueError, match=f"output_dir is .*{folder}, but .*file is a file; give a folder"):
            read_run_config(written(tmp_path, {"output_dir": str(tmp_path / folder)}))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("trainer.max_steps", "is not KEY=VALUE"),
        ("data.datasets.4.weight=1", "there is no such place"),
        ("output_dir.name=3", "there is no such place"),
    ],
)
def test_a_wrong_override_is_named(override, message, tmp_path):
    with pytest.raises(ValueError, match=f"--set {override}.* {message}"):
        read_run_config(written(tmp_path), [override])


@pytest.mark.parametrize(("content", "message"), [("a: [", "can't be read as YAML"), ("- 1", "must hold KEY: VALUE")])
def test_a_file_that_is_no_mapping_is_refused(content, message, tmp_path):
    (tmp_path / "run.yaml").write_text(content)
    with pytest.raises(ValueError, match=message):
        read_run_config(tmp_path / "run.yaml")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ValueError, match="none.yaml can't be read"):
        read_run_config(tmp_path / "none.yaml")
