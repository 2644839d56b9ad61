import json

import pytest
from typer.testing import CliRunner

from instructvla.training.annotation.analyse_command import NUMBERS, PAGE, app
from instructvla.training.annotation.categories import Category
from instructvla.training.annotation.category_rules import instruction_category, question_category
from instructvla.training.data.vla_it import native_turns
from tests.annotated_texts import ANNOTATION, labelled
from tests.chat_server import ChatServer

runner = CliRunner()


@pytest.fixture
def source(tmp_path):
    kinds = {"CR": ANNOTATION.rewritten, "CC": ANNOTATION.contexts, "QA": ANNOTATION.questions}
    turns = {kind: native_turns(given) for kind, given in kinds.items()}
    records = {"0": {"alt_instruction": {"Caption": ANNOTATION.caption, **turns}}, "1": {"alt_instruction": 7}}
    file = tmp_path / "toys_instruction.json"
    file.write_text(json.dumps({"a/out.npy": records}))
    return file


def test_page_numbers_and_plots_are_written(source, tmp_path):
    result = runner.invoke(app, [str(source), "--output", str(tmp_path / "out"), "--skip-bad"])
    assert result.exit_code == 0, result.output
    names = {f"{plot}.{kind}" for plot in ("categories", "verbs_and_nouns", "vocabulary") for kind in ("png", "svg")}
    assert {path.name for path in (tmp_path / "out").iterdir()} == {PAGE, NUMBERS, *names}
    page = (tmp_path / "out" / PAGE).read_text()
    assert "Annotations of" in page and "1 episodes could not be read" in page and str(tmp_path) not in page
    assert json.loads((tmp_path / "out" / NUMBERS).read_text())["annotated"] == 1
    assert "no original instructions" in result.output


def test_a_model_judges_and_the_agreement_is_printed(source, tmp_path):
    def behave(body, _number):
        is_question = "How many" in body["messages"][1]["content"]
        given = (Category.QUANTITATIVE_IDENTIFICATION,) * 2 if is_question else (Category.NOVEL_ACTION_REFERENCING,) * 2
        return labelled(*given)

    with ChatServer(behave) as server:
        options = ["--judge-endpoint", server.url, "--judge", "strong-vlm", "--skip-bad"]
        result = runner.invoke(app, [str(source), "--output", str(tmp_path / "out"), *options])
    assert result.exit_code == 0, result.output
    original = "pick up the mug"
    rules = [instruction_category(turn.question, original) for turn in (*ANNOTATION.rewritten, *ANNOTATION.contexts)]
    rules += [question_category(turn.question) for turn in ANNOTATION.questions]
    assert len(set(rules)) == 4
    assert "rules against strong-vlm: 2 of 4 agree, 50.0 %" in result.output and "Cohen's kappa 0.33" in result.output
    assert json.loads((tmp_path / "out" / NUMBERS).read_text())["agreement"]["kappa"] == pytest.approx(1 / 3)
    assert "2 of 4 agree" in (tmp_path / "out" / PAGE).read_text()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "--skip-bad goes on without"),
        (["--skip-bad", "--judge", "m"], "go together"),
        (["--mapping", "bridge"], "leave out --mapping"),
    ],
)
def test_bad_input_is_one_line(source, tmp_path, options, message):
    result = runner.invoke(app, [str(source), "--output", str(tmp_path / "out"), *options])
    assert result.exit_code == 2
    assert message in result.output and result.output.count("error:") == 1


def test_a_source_without_annotations_is_refused(tmp_path):
    file = tmp_path / "empty.json"
    file.write_text(json.dumps({"a/out.npy": {"0": {"alt_instruction": None}}}))
    result = runner.invoke(app, [str(file), "--output", str(tmp_path / "out")])
    assert result.exit_code == 2 and "has no annotated episode among 1" in result.output
