"""The bench: it compares what it times, and prints every stage and reuse."""

import json

import pytest
import torch
from typer.testing import CliRunner

from instructvla.evaluation.bench import (
    ACTION_ONLY,
    COMPILED,
    ENCODED_ONCE,
    WHOLE_ACTIONS,
    WITH_WORDS,
    Bench,
    app,
    mid_size,
)
from instructvla.modeling_instructvla import InstructVLAForConditionalGeneration
from instructvla.nano import untrained_nano

STAGES = ["SigLIP and projector", "prefill", "thinking, per token", "queries", "FiLM-ViT", "flow steps, all"]


def test_nano_bench_prints_and_saves_every_stage_and_reuse(tmp_path):
    threads = torch.get_num_threads()
    arguments = ["--size", "nano", "--repeats", "1", "--tokens", "4", "--threads", str(threads)]
    result = CliRunner().invoke(app, [*arguments, "--output", str(tmp_path / "bench.json")])
    assert result.exit_code == 0, result.output
    numbers = json.loads((tmp_path / "bench.json").read_text())
    assert list(numbers["stages"]) == STAGES
    assert all(seconds > 0 for seconds in numbers["stages"].values())
    assert len(numbers["reuses"]) == 10
    for name in [*STAGES, *numbers["reuses"]]:
        assert name in result.output
    for pair in numbers["flops"].values():
        assert pair["without"] > 2 * pair["with"] > 0
    for whole in (ACTION_ONLY, WITH_WORDS):
        assert numbers["flops"][whole]["without"] > numbers["flops"][whole + ENCODED_ONCE]["without"]


def test_results_with_and_without_reuse_are_compared_before_they_are_timed():
    with torch.no_grad():
        bench = Bench(untrained_nano(), max_tokens=3)
        bench.think_again = lambda recompute, keep_image: torch.zeros(1, 16, 192)
        with pytest.raises(AssertionError, match="not close"):
            bench.reuses(repeats=1)


def test_compiled_stages_are_compared_and_timed_beside_the_straightforward_path():
    """Prepared with eager kernels here; inductor takes minutes."""
    compiled, prepare = untrained_nano(), InstructVLAForConditionalGeneration.compile_for_inference
    asked = []
    compiled.compile_for_inference = lambda **options: (
        asked.append(options["kernels"]) or prepare(compiled, **options | {"kernels": "eager", "progress": False})
    )
    with torch.no_grad():
        reuses = Bench(untrained_nano(), max_tokens=2, compiled=compiled).reuses(repeats=1)
    assert asked == ["inductor"]
    assert [name.removesuffix(COMPILED) for name in reuses if name.endswith(COMPILED)] == [
        name for name, _, _ in WHOLE_ACTIONS
    ]


def test_unknown_size_is_refused():
    result = CliRunner().invoke(app, ["--size", "huge"])
    assert result.exit_code == 2
    assert "'huge' is unknown; choose nano or mid" in result.output.replace("\n", " ")


def test_an_output_that_can_not_be_written_is_refused_before_anything_is_measured(tmp_path, monkeypatch):
    monkeypatch.setattr("instructvla.evaluation.bench.Bench", None)  # would fail if called
    for output in (tmp_path / "absent" / "bench.json", tmp_path):
        result = CliRunner().invoke(app, ["--size", "nano", "--output", str(output)])
        assert result.exit_code == 2, result.output
        assert "--output" in result.output


def test_mid_size_has_the_papers_sequence_lengths():
    config = mid_size().config
    assert (config.num_image_tokens, config.action_vision_config.num_patches, config.horizon) == (256, 256, 16)
