"""The roofline: the larger of computing and reading, from peaks that are measured."""

import torch

from instructvla.evaluation import roofline
from instructvla.evaluation.roofline import MatmulPeak, Peaks, copy_peak, timed

CPU = torch.device("cpu")


def test_the_least_time_is_the_larger_of_computing_and_reading():
    peaks = Peaks(flops=100.0, bytes=10.0)
    assert peaks.seconds(flops=200, weights=5) == 2.0
    assert peaks.seconds(flops=50, weights=30) == 3.0


def test_peaks_count_operations_and_bytes_over_seconds(monkeypatch):
    monkeypatch.setattr(roofline, "MATMUL_SIDES", {"cpu": (8, 16)})
    monkeypatch.setattr(roofline, "COPY_BYTES", {"cpu": 1000})
    monkeypatch.setattr(roofline, "timed", lambda work, device: work() is None or 0.5)
    assert MatmulPeak(CPU).measure() == 2 * 16**3 / 0.5
    assert copy_peak(CPU) == 2 * 1000 / 0.5
    assert Peaks.measured(CPU, torch.bfloat16) == Peaks(2 * 16**3 / 0.5, 2 * 1000 / 0.5)


def test_the_yardstick_has_the_precision_asked_for(monkeypatch):
    monkeypatch.setattr(roofline, "MATMUL_SIDES", {"cpu": (8,)})
    assert MatmulPeak(CPU).matrices[0].dtype == torch.float32
    assert MatmulPeak(CPU, torch.bfloat16).matrices[0].dtype == torch.bfloat16


def test_work_is_timed_once():
    calls = []
    assert timed(lambda: calls.append(1), CPU) >= 0
    assert calls == [1]
