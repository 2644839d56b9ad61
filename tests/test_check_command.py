"""Claims about `instructvla check-annotations`."""

import json

import pytest
from typer.testing import CliRunner

from instructvla.training.annotation import check_command
from instructvla.training.annotation.chat_endpoint import FailedRequestError
from instructvla.training.annotation.check_command import app
from instructvla.training.data.parquet_reader import ParquetEpisodes
from tests.annotated_episodes import REASONS, annotated_dataset
from tests.test_annotation_judge import Judge, faulty


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return annotated_dataset(tmp_path_factory.mktemp("annotated") / "dataset")


def run(*arguments: object):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def lines(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_rejections_report_sheet_and_what_is_left_are_written(dataset, tmp_path):
    result = run(
        dataset, "--output", tmp_path / "checked", "--rejections", tmp_path / "rejections.jsonl",
        "--report", tmp_path / "report.json", "--sheet", tmp_path / "sheet.html", "--sample", 1,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "3 of 4 episodes are annotated" in result.output and "| rejected |" in result.output
    found = {
        (one["episode"], one["kind"], one["number"]): one["reason"] for one in lines(tmp_path / "rejections.jsonl")
    }
    assert found == REASONS
    assert json.loads((tmp_path / "report.json").read_text())["settings"]["languages"] == ["en"]
    kept = [episode.annotation for episode in ParquetEpisodes(tmp_path / "checked")]
    assert kept[1] is None and len(kept[0].rewritten) == 1
    assert (tmp_path / "sheet.html").read_text().count('<section class="sample"') == 1


class ClosedJudge(Judge):
    async def close(self) -> None:
        self.closed = True


def test_a_judge_rejects_more_and_is_not_asked_twice(dataset, tmp_path, monkeypatch):
    judge = ClosedJudge(faulty)
    monkeypatch.setattr(check_command, "judging_endpoint", lambda *_: judge)
    options = ("--judge", "m", "--judge-endpoint", "http://localhost", "--verdicts", tmp_path / "verdicts")
    for _ in range(2):
        result = run(dataset, *options, "--rejections", tmp_path / "rejections.jsonl")
        assert result.exit_code == 0, result.output
    assert len(judge.asked) == 2 and judge.closed
    assert "The judge's marks on 2 episodes, for 200 tokens in and 20 out" in result.output
    assert [one["evidence"] for one in lines(tmp_path / "rejections.jsonl") if one["reason"] == "judged wrong"] == [
        "Ignore Vision Context: there is no dinner"
    ] * 2


def test_episodes_on_which_the_judge_gives_no_answer_are_told(dataset, tmp_path, monkeypatch):
    class Failing:
        async def ask(self, messages, schema=None):
            raise FailedRequestError("the judge sleeps")

        async def close(self) -> None:
            pass

    monkeypatch.setattr(check_command, "judging_endpoint", lambda *_: Failing())
    result = run(dataset, "--judge", "m", "--verdicts", tmp_path / "verdicts")
    assert "2 got no answer (the judge sleeps), run again to ask again" in result.output


def test_another_judge_needs_another_folder(dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(check_command, "judging_endpoint", lambda *_: ClosedJudge(faulty))
    options = ("--judge-endpoint", "http://localhost", "--verdicts", tmp_path / "verdicts", "--judge")
    assert run(dataset, *options, "one").exit_code == 0
    result = run(dataset, *options, "two")
    assert result.exit_code == 2 and "model was 'one', is 'two'" in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--judge", "m"), "--judge and --judge-endpoint go together"),
        (("--judge", "m", "--judge-endpoint", "https://api.example"), "needs a key: set OPENAI_API_KEY"),
        (("--language", "klingon"), "'klingon' is no language"),
        (("--most-copies", "0"), "most_copies is 0"),
        (("--sheet", "."), "--sheet . is a folder; give the file to write"),
    ],
)
def test_options_that_can_not_be_are_refused(dataset, arguments, message, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    result = run(dataset, *arguments)
    assert result.exit_code == 2 and message in result.output


def test_a_source_without_annotations_is_refused(tmp_path):
    (tmp_path / "vla_it.json").write_text('{"/a": {"0": {"features": {}}}}')
    result = run(tmp_path / "vla_it.json")
    assert result.exit_code == 2 and "none of the 1 episodes has an annotation that can be read" in result.output
