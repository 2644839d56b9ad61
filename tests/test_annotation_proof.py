import json

import pytest
from typer.testing import CliRunner

from instructvla.evaluation.tabletop.annotation_proof import ANNOTATED, LOG, app, false_alarms, findings
from instructvla.evaluation.tabletop.planted_errors import BROKEN
from instructvla.training.annotation.annotation_output import EPISODES
from instructvla.training.data.readers import open_episodes


def written(path, lines):
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture
def found(tmp_path):
    error = {"kind": "cr", "number": 1, "reason": "chained actions"}
    broken = {"kind": BROKEN, "number": 0, "reason": BROKEN}
    log = [
        {"episode": 0, "ask": 1, "planted": [broken]},
        {
            "episode": 0,
            "ask": 2,
            "planted": [error, {"kind": "cc", "number": 0, "reason": "chained actions", "text": "g | h"}],
        },
        {"episode": 1, "ask": 1, "planted": []},
    ]
    rejections = [
        {"episode": 0, "kind": "cr", "number": 1, "reason": "language", "text": "a\nb", "evidence": "c"},
        {"episode": 1, "kind": "qa", "number": 0, "reason": "language", "text": "d\ne", "evidence": "f"},
    ]
    file = written(tmp_path / "rejections.jsonl", rejections)
    return findings(written(tmp_path / "log.jsonl", log), file), rejections


def test_recall_is_of_what_was_planted_and_precision_of_what_was_rejected(found):
    findings, _ = found
    recall, precision = findings.recall("chained actions"), findings.precision("language")
    assert (recall.successes, recall.trials) == (1, 2) and (precision.successes, precision.trials) == (1, 2)
    assert [(rate.successes, rate.trials) for rate in findings.total] == [(1, 2), (1, 2)]
    assert (findings.broken, findings.repeated) == (1, 1)


def test_what_was_missed_and_true_entries_that_were_rejected_are_told(found):
    findings, rejections = found
    assert findings.missed() == ["  chained actions: g | h"]
    assert list(false_alarms(rejections, findings)) == ["  language (f): d | e"]


def test_a_row_for_each_reason(found):
    rows = [line.split("  ")[0] for line in found[0].lines()]
    assert rows == ["", "chained actions", "language", "all entries", BROKEN]


def test_the_whole_pipeline_finds_errors_and_gives_stage_2_its_data(tmp_path):
    output = tmp_path / "proof"
    result = CliRunner().invoke(app, ["--output", str(output), "--episodes", "2", "--noise", "0.4", "--seed", "2"])
    assert result.exit_code == 0, result.output
    assert "2 episodes," in result.output and "stage 2 draws from what was kept:" in result.output
    assert "500 frames: 500 samples" in result.output
    found = findings(output / LOG, output / ANNOTATED / "rejections.jsonl")
    precision, recall = found.total
    assert found.planted and recall.value > 0.7 and precision.value > 0.7
    kept = open_episodes(output / ANNOTATED / EPISODES)
    assert len(kept) == 2 and all(kept[number].annotation is not None for number in range(2))


def test_bad_input_is_one_line(tmp_path):
    (tmp_path / "mine").write_text("")
    result = CliRunner().invoke(app, ["--output", str(tmp_path)])
    assert result.exit_code == 2 and "holds something; give a new folder" in result.stderr
    result = CliRunner().invoke(app, ["--output", str(tmp_path / "new"), "--episodes", "1", "--noise", "2"])
    assert result.exit_code == 2 and "must be a probability" in result.stderr
