"""Claims about the comparison of precisions; nothing here depends on how long it takes."""

import json

import pytest
import torch
from typer.testing import CliRunner

from instructvla.evaluation.precisions import PrecisionRun, app, precision_table, run_precisions
from instructvla.nano import untrained_nano


def run(precision: str, actions: torch.Tensor, *responses: str) -> PrecisionRun:
    return PrecisionRun(precision, (10.0, 30.0, 20.0), (40.0,), 2_000_000, actions, responses)


def test_errors_are_shares_of_the_range_against_the_reference():
    reference = run("bf16", torch.zeros(1, 2, 2), "a", "b")
    other = run("int8", torch.tensor([[[0.1, 0.0], [0.0, -0.3]]]), "a", "c")
    record = other.record(reference)
    assert record["error_mean"] == pytest.approx(0.05) and record["error_max"] == pytest.approx(0.15)
    assert (record["same_words"], record["act_p50_ms"], record["weights_mb"]) == (1, 20.0, 2.0)
    assert reference.record(reference)["error_max"] == 0
    row = precision_table([reference.record(reference), record], 2).splitlines()[2].split()
    assert row == ["int8", "20.0", "40.0", "2.0", "5.000%", "15.00%", "1", "/", "2"]


def test_samples_are_the_same_for_every_precision():
    model = untrained_nano()
    first, again = run_precisions({"fp32": model, "the same": model}, samples=2, max_new_tokens=2)
    assert torch.equal(first.actions, again.actions) and first.responses == again.responses
    assert first.actions.shape == (2, 16, 7) and len(first.act_ms) == len(first.think_ms) == 2
    assert not torch.equal(first.actions[0], first.actions[1])


def test_the_command_prints_and_writes_each_precision_beside_bf16(tmp_path):
    output = tmp_path / "precisions.json"
    options = ["--precision", "int8", "--samples", "1", "--max-new-tokens", "2", "--device", "cpu"]
    result = CliRunner().invoke(app, ["nano", *options, "--output", str(output)])
    assert result.exit_code == 0, result.output
    record = json.loads(output.read_text())
    bf16, int8 = record["rows"]
    assert (bf16["precision"], bf16["error_max"], int8["precision"]) == ("bf16", 0, "int8")
    assert 0 < int8["error_mean"] < int8["error_max"] < 0.01  # an untrained expert hardly looks at the latent action
    assert "errors against bf16" in result.stdout and "int8" in result.stdout


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--precision", "fp8"], "precision is 'fp8', but on a CPU device it must be one of fp32, bf16, fp16, int8"),
        (["--output", "/no/where.json"], "can't be written"),
        (["--output", "/"], "can't be written"),
        (["--device", "gpu"], "--device gpu can't be used"),
    ],
)
def test_bad_input_is_one_line(options, message):
    result = CliRunner().invoke(app, ["nano", "--device", "cpu", *options])
    assert result.exit_code == 2 and result.stderr.startswith("error: ") and message in result.stderr
