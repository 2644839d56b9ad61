"""The tables of a run: what it recorded and nothing else, in the checkpoint's folder and on its card."""

import json
from pathlib import Path

import pytest
from transformers import AutoModel

from instructvla.nano import untrained_nano
from instructvla.training.run_card import DatasetFacts, RunFacts, run_tables, training_report

LOG = [
    {"loss": 3.0, "lm_loss": 2.0, "flow_loss": 1.0, "step": 10, "epoch": 0.1},
    {"eval_action_error": 0.4, "eval_action_error/x": 0.4, "eval_action_mae/x": 0.04, "step": 10},
    {"loss": 2.0, "lm_loss": 1.5, "flow_loss": 0.5, "chat_loss": 2.5, "step": 20},
    {
        "eval_action_error": 0.25,
        "eval_action_error/x": 0.125,
        "eval_action_error/gripper": 0.375,
        "eval_action_mae/x": 0.0123456,
        "eval_action_mae/gripper": 0.375,
        "eval_action_mae/still": 0.0,
        "step": 20,
    },
    {"eval_retention/text_loss": 1.2, "eval_retention/base_text_loss": 1.0, "step": 20},
    {"train_runtime": 1.0, "step": 20},
]
FACTS = RunFacts(
    stage="1, action pre-training",
    settings={
        "trainer": {"learning_rate": 5e-5, "max_steps": 20_000, "bf16": True, "hub_token": "hf_secret", "seed": None},
        "data": {"statistics": "/home/somebody/data/stats.json", "shares": {"action": 0.8, "motion": 0.2}},
        "train": ["action_expert", "query_rows"],
        "datasets": [{"source": "/scratch/bridge", "weight": 1.0}],
    },
    datasets=[DatasetFacts("bridge", 1.0, 53_192, 1_893_026), DatasetFacts("chat | v2", None, None, 600)],
    parameters={"action_expert": (650_000, 650_000), "language_model": (0, 1_780_000)},
    action_names=["x", "gripper", "still"],
    action_units=["m", "open fraction", "rad"],
    gripper_dims=[1],
)


def rows_of(markdown: str) -> list[str]:
    return [line for line in markdown.splitlines() if line.startswith("|")]


def test_settings_are_those_that_were_used_without_secrets_and_paths():
    text = run_tables(LOG, FACTS)
    for row in (
        "| stage | 1, action pre-training |",
        "| trainer.learning_rate | 5e-05 |",
        "| trainer.max_steps | 20,000 |",
        "| trainer.bf16 | true |",
        "| data.shares.motion | 0.2 |",
        "| data.statistics | stats.json |",
        "| train | action_expert, query_rows |",
        "| datasets | source bridge, weight 1.0 |",
    ):
        assert row in rows_of(text)
    for absent in ("hf_secret", "somebody", "scratch", "seed", "started from"):
        assert absent not in text


def test_data_and_trained_parameters_are_counted():
    rows = rows_of(run_tables(LOG, FACTS))
    assert "| bridge | 1 | 53,192 | 1,893,026 |" in rows
    assert r"| chat \| v2 | – | – | 600 |" in rows
    assert "| language_model | 0 | 1,780,000 |" in rows
    assert "| together | 650,000 | 2,430,000 |" in rows


def test_losses_are_the_first_the_last_and_some_between_them():
    assert "| 20 | 2 | 1.5 | 0.5 | 2.5 |" in rows_of(run_tables(LOG, FACTS))
    long = [{"loss": 1.0, "step": step} for step in range(1, 1001)]
    (table,) = [table for table in training_report(long, FACTS)["tables"] if table["title"] == "Losses"]
    steps = [row[0] for row in table["rows"]]
    assert (steps[0], steps[-1], len(steps)) == (1, 1000, 8)
    assert max(after - before for before, after in zip(steps, steps[1:], strict=False)) <= 144
    assert table["header"] == ["step", "loss"]


def test_errors_are_those_of_the_last_evaluation_with_units():
    text = run_tables(LOG, FACTS)
    assert "### Open-loop action error on held-out episodes, step 20" in text
    rows = rows_of(text)
    assert "| x | 0.01235 | m | 12.5% | of q99 − q01 |" in rows
    assert "| gripper | 0.375 | open fraction | 37.5% | wrong open or closed |" in rows
    assert "| still | 0 | rad | – | of q99 − q01 |" in rows
    assert "| mean | – | – | 25.0% | – |" in rows


def test_retention_compares_with_the_base_model():
    text = run_tables(LOG, FACTS)
    assert "| text loss on held-out conversations | 1 | 1.2 |" in rows_of(text)
    assert "answers about pictures" not in text


def test_what_was_not_recorded_has_no_table():
    titles = [table["title"] for table in training_report([], RunFacts("1"))["tables"]]
    assert titles == ["Settings"]


def test_a_loss_that_is_no_number_is_written_as_a_word():
    report = training_report([{"loss": float("nan"), "step": 1}], FACTS)
    assert "| 1 | nan |" in run_tables([{"loss": float("nan"), "step": 1}], FACTS)
    json.dumps(report, allow_nan=False)


# In a checkpoint


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A checkpoint as a run saves it."""
    model = untrained_nano()
    model.training_report = training_report(LOG, FACTS)
    folder = tmp_path_factory.mktemp("run") / "checkpoint-20"
    model.save_pretrained(folder)
    return folder


@pytest.fixture
def published(monkeypatch) -> dict[str, str]:
    """The small files of the upload that the test makes; nothing leaves the machine."""
    files: dict[str, str] = {}

    class Hub:
        def __init__(self, token=None):
            self.commit_url = self.repo_id = "org/robot"

        def create_repo(self, *_, **__):
            return self

        def upload_folder(self, folder_path, **_):
            files.update({path.name: path.read_text() for path in Path(folder_path).glob("*") if path.suffix in TEXTS})
            return self

    monkeypatch.setattr("instructvla.checkpoint_instructvla.HfApi", Hub)
    return files


TEXTS = (".md", ".json")


def test_the_checkpoint_holds_the_report_and_its_card_the_tables(trained):
    assert json.loads((trained / "training_report.json").read_text()) == training_report(LOG, FACTS)
    assert run_tables(LOG, FACTS) in (trained / "README.md").read_text()


@pytest.mark.parametrize("loaded_anew", [False, True])
def test_publishing_a_trained_checkpoint_keeps_its_tables(trained, published, loaded_anew):
    model = AutoModel.from_pretrained(trained) if loaded_anew else untrained_nano()
    if not loaded_anew:
        model.training_report = training_report(LOG, FACTS)
    model.push_to_hub("org/robot", evaluation={"Tabletop": "12 of 20 episodes"})
    assert json.loads(published["training_report.json"]) == training_report(LOG, FACTS)
    assert run_tables(LOG, FACTS) in published["README.md"]
    assert "| Tabletop | 12 of 20 episodes |" in published["README.md"]
    assert 'from_pretrained("org/robot"' in published["README.md"]


def test_a_loaded_model_saved_elsewhere_claims_no_training(trained, tmp_path, published):
    model = AutoModel.from_pretrained(trained)
    assert model.training_report is None
    model.save_pretrained(tmp_path / "changed")
    assert not (tmp_path / "changed" / "training_report.json").exists()
    assert "No training run is recorded" in (tmp_path / "changed" / "README.md").read_text()
    AutoModel.from_pretrained(tmp_path / "changed").push_to_hub("org/robot")
    assert "training_report.json" not in published


def test_an_untrained_model_overwrites_the_report_of_a_trained_one(tmp_path):
    model = untrained_nano()
    model.training_report = training_report(LOG, FACTS)
    model.save_pretrained(tmp_path / "robot")
    untrained_nano().save_pretrained(tmp_path / "robot")
    assert not (tmp_path / "robot" / "training_report.json").exists()


def test_a_damaged_report_is_named_when_publishing(trained, tmp_path, published):
    model = untrained_nano()
    model.save_pretrained(tmp_path / "robot")
    (tmp_path / "robot" / "training_report.json").write_text("[1")
    with pytest.raises(ValueError, match="training_report.json is no training report .*copy it again, or remove it"):
        AutoModel.from_pretrained(tmp_path / "robot").push_to_hub("org/robot")
    assert not published
