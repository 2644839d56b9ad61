"""Claims about the time per action; nothing here depends on how long it takes."""

import json
from math import isclose

import pytest
from typer.testing import CliRunner

from instructvla.evaluation import latency, roofline
from instructvla.evaluation.latency import SETTINGS, Latency, app, latency_table, measure_latency
from tests.tabletop_policies import shared_model


class Counting:
    """A model that remembers how it was called."""

    def __init__(self):
        self.model, self.calls = shared_model(), []
        self.processor = self.model.processor

    def generate_action(self, images, text, **options):
        self.calls.append(options)
        return self.model.generate_action(images, text, **options)


def modes(setting: str, steps: int) -> list[tuple]:
    model = Counting()
    found = measure_latency(model, setting, warm_up=0, steps=steps, max_new_tokens=2)
    assert len(found.milliseconds) == steps
    return [(one["think"], one["context"] is not None, one["reuse_latent"]) for one in model.calls]


def test_with_language_it_answers_every_twenty_steps_and_acts_on_the_answer_between():
    assert modes("with language", 21) == [(True, False, False), *[(None, True, False)] * 19, (True, False, False)]


def test_action_only_never_speaks_and_caching_runs_the_vlm_every_other_step():
    assert modes("action only", 3) == [(False, False, False)] * 3
    assert modes("latent action caching", 4) == [(False, False, False), (False, True, True)] * 2


def test_rates_are_over_all_measured_steps():
    one = Latency("action only", (10.0, 10.0, 10.0, 70.0), ())
    assert isclose(one.hertz, 40) and one.percentile(50) == 10
    assert one.record()["p99_ms"] > 60 and one.record()["tokens_per_answer"] is None
    row = latency_table([one], horizon=16).splitlines()[1].split()
    assert row == ["action", "only", "10.0", "68.2", "40.00", "3.50", "640.0", "–"]


def test_the_command_prints_and_writes_all_settings(tmp_path, monkeypatch):
    monkeypatch.setattr(latency, "load_for_inference", lambda *_: shared_model())
    monkeypatch.setattr(roofline, "MATMUL_SIDES", {"cpu": (64,)})
    monkeypatch.setattr(roofline, "COPY_BYTES", {"cpu": 2**20})
    output = tmp_path / "latency.json"
    options = ["--warm-up", "1", "--steps", "2", "--max-new-tokens", "2", "--device", "cpu", "--stage-repeats", "1"]
    options += ["--batches", "1,2", "--batch-repeats", "1", "--output", str(output)]
    options += ["--plot", str(tmp_path / "latency.png")]
    result = CliRunner().invoke(app, ["nano", *options])
    assert result.exit_code == 0, result.output
    record = json.loads(output.read_text())
    assert [row["setting"] for row in record["rows"]] == list(SETTINGS) and record["environment"]["dtype"] == "float32"
    kinds = [(row["rows"], row["mode"]) for row in record["throughput"]]
    assert kinds == [(1, "act"), (2, "act"), (1, "think"), (2, "think"), (2, "mixed")]
    assert all(row["p50_ms"] > 0 and row["chunks_per_s"] > 0 for row in record["throughput"])
    stages = [row["stage"] for row in record["stages"]]
    assert stages[-1] == "action expert" and all(row["gflop"] > 0 for row in record["stages"][1:])
    assert all(name in result.stdout for name in [*SETTINGS, *stages, "measured peaks", "mixed: p50, ms"])
    assert (tmp_path / "latency.png").read_bytes().startswith(b"\x89PNG")
    assert "1 steps of warm-up and 2 measured" in result.stdout


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--precision", "int3", "--device", "cpu"], "must be one of fp32, bf16, fp16, int8"),
        (["--plot", "latency.doc"], "--plot latency.doc ends in none of the known picture formats"),
        (["--batches", "0"], "--batches 0 must be numbers from 1 to 1024"),
        (["--output", "/no/where.json"], "can't be written"),
        (["--output", "/"], "can't be written"),
    ],
)
def test_bad_input_is_one_line(options, message):
    result = CliRunner().invoke(app, ["nano", *options])
    assert result.exit_code == 2 and result.stderr.startswith("error: ") and message in result.stderr
