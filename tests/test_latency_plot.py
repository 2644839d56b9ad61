"""The picture of a latency record shows its numbers, and only what was measured."""

import copy

import pytest

from instructvla.evaluation.latency_plot import described, draw_latency

RECORD = {
    "model": "nano",
    "environment": {
        "device": "a GPU",
        "dtype": "bfloat16",
        "quantized": "int8",
        "parameters": 2_600_000_000,
        "compiled": True,
    },
    "rows": [
        {"setting": "with language", "p50_ms": 40.0, "hz": 25.0, "paper_a100_hz": 2.07},
        {"setting": "action only", "p50_ms": 20.0, "hz": 50.0, "paper_a100_hz": 3.5},
    ],
    "stages": [
        {"stage": "preprocessing", "ms": 3.0, "gflop": 0.0, "roofline_share": 0.0},
        {"stage": "images", "ms": 5.0, "gflop": 900.0, "roofline_share": 0.314},
        {"stage": "word", "ms": 12.0, "gflop": 6.0, "roofline_share": 0.5},
    ],
    "throughput": [
        {"rows": 1, "mode": "act", "p50_ms": 20.0, "chunks_per_s": 50.0},
        {"rows": 8, "mode": "act", "p50_ms": 80.0, "chunks_per_s": 100.0},
    ],
}


def texts(panel) -> list[str]:
    return [text.get_text() for text in [*panel.texts, *panel.get_yticklabels()]]


def test_rates_stand_beside_the_papers_and_stages_beside_the_roofline():
    settings, stages, throughput = draw_latency(RECORD).axes
    assert {"25.00", "2.07", "50.00", "3.50", "with language\np50 40.0 ms"} <= set(texts(settings))
    assert [bar.get_width() for bar in settings.patches] == [25, 50, 2.07, 3.5]
    assert {"3.0 ms", "5.0 ms, 31% of roofline", "12.0 ms, 50% of roofline", "one word"} <= set(texts(stages))
    (line,) = throughput.lines
    assert (list(line.get_xdata()), list(line.get_ydata()), line.get_label()) == ([1, 8], [50, 100], "act")


def test_without_a_throughput_there_is_no_panel_for_it():
    assert len(draw_latency(RECORD | {"throughput": []}).axes) == 2


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, "nano: 2,600.0 M parameters, int8 weights, bfloat16, compiled, a GPU"),
        ({"quantized": None, "compiled": False}, "nano: 2,600.0 M parameters, bfloat16, a GPU"),
    ],
)
def test_the_title_says_what_was_measured(environment, expected):
    record = copy.deepcopy(RECORD)
    record["environment"] |= environment
    assert described(record) == expected
    assert draw_latency(record).get_suptitle() == expected


def test_without_matplotlib_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    with pytest.raises(ValueError, match="pip install 'instructvla\\[eval\\]'"):
        draw_latency(RECORD)
