"""Claims about published annotations, with the real client against a local Hub."""

import json

import pytest
from huggingface_hub import DatasetCard

from instructvla.training.annotation.annotation_card import annotation_card, publish
from instructvla.training.annotation.annotation_journal import PaidReply
from instructvla.training.annotation.annotation_output import OutputSettings, write_output
from tests.annotation_answers import annotation_answer, open_journal
from tests.hub_server import HubServer
from tests.memory_episodes import bridge_episodes

REPOSITORY = "org/my_annotations"


@pytest.fixture
def hub(monkeypatch):
    with HubServer(token="secret") as server:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", server.endpoint)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("HF_TOKEN", "secret")
        yield server


def run(folder, parquet=True):
    with open_journal(folder) as journal:
        for episode in range(2):
            text = json.dumps(annotation_answer(episode))
            journal.add(PaidReply(episode, f"put object {episode} on the plate", text, 1000, 100, 0.01, "strong-vlm-2"))
        journal.exclude(2, "no instruction")
        return write_output(bridge_episodes(4), journal, OutputSettings(parquet=parquet))


def test_the_card_tells_what_there_is_and_how_it_was_made(tmp_path):
    report = run(tmp_path)
    text = annotation_card(report, REPOSITORY, "cc-by-4.0", {"train": {}})
    card = DatasetCard(text)
    assert card.data.license == "cc-by-4.0" and "robotics" in card.data.task_categories
    assert card.data.configs[0]["data_files"] == [{"split": "train", "path": "data/train-*.parquet"}]
    for line in (
        "| episodes | 4 |",
        "| … annotated | 2 |",
        "| … without an instruction, left out | 1 |",
        "| created contexts | 2 |",
        "| model | strong-vlm (answered as strong-vlm-2) |",
        "| prompt version | 1 |",
        "| tokens | 2,000 in, 200 out |",
        "| cost | $0.02 |",
    ):
        assert line in text
    assert "configs" not in annotation_card(report, REPOSITORY, "mit", {})


def test_everything_but_the_journal_is_published_and_an_older_version_replaced(tmp_path, hub):
    report = run(tmp_path)
    for _ in range(2):
        assert REPOSITORY in publish(tmp_path, report, REPOSITORY, "cc-by-4.0")
    repo = hub.repos["datasets", REPOSITORY]
    files = repo.resolve("main").files
    assert sorted(files) == [
        ".gitattributes",
        "README.md",
        "data/train-00000-of-00001.parquet",
        "manifest.json",
        "rejections.jsonl",
        "report.json",
        "vla_it.json",
    ]
    assert files["vla_it.json"].content == (tmp_path / "vla_it.json").read_bytes()
    assert not repo.private


def test_a_refusal_is_told_in_one_line(tmp_path, hub, monkeypatch):
    report = run(tmp_path, parquet=False)
    monkeypatch.setenv("HF_TOKEN", "wrong")
    with pytest.raises(ValueError, match=rf"'{REPOSITORY}' can't be written on the Hub: .*Invalid credentials"):
        publish(tmp_path, report, REPOSITORY, "cc-by-4.0")
    with pytest.raises(ValueError, match="no Hub repository can have that name"):
        publish(tmp_path, report, "not a name", "cc-by-4.0")
