"""Claims about the throughput curve; nothing here depends on how long a call takes."""

from math import isclose
from types import SimpleNamespace

import torch

from instructvla.evaluation.throughput import (
    WARM_UP,
    Throughput,
    batch_arguments,
    curve_points,
    measure_throughput,
    throughput_table,
)
from instructvla.nano import untrained_nano


class Counting:
    """Remembers which rows of each call thought, and their seeds."""

    processor = SimpleNamespace(cameras=["primary"], state_dim=None, statistics={"made": {}})

    def __init__(self):
        self.thinks, self.seeds = [], []

    def generate_action(self, images, text, think, generator, **options):
        assert len(images) == len(text) == len(think)
        self.thinks.append(think)
        self.seeds.append([one.initial_seed() for one in generator])
        return SimpleNamespace(actions=torch.zeros(len(think), 16, 7))


def test_each_size_and_mode_is_called_after_a_warm_up_and_the_warm_up_does_not_count():
    model = Counting()
    found = measure_throughput(model, [1, 3], repeats=2, max_new_tokens=2)
    assert [(one.rows, one.mode) for one in found] == curve_points([1, 3])
    assert all(len(one.milliseconds) == 2 for one in found)
    kinds = [[False], [False] * 3, [True], [True] * 3, [True, False, True]]
    assert model.thinks == [think for think in kinds for _ in range(WARM_UP + 2)]
    assert all(len(set(seeds)) == len(seeds) for seeds in model.seeds)


def test_a_single_row_is_not_mixed():
    assert curve_points([1, 2]) == [(1, "act"), (2, "act"), (1, "think"), (2, "think"), (2, "mixed")]


def test_rates_count_every_chunk_of_every_call():
    one = Throughput(4, "act", (10.0, 10.0, 30.0, 30.0, 20.0))
    assert isclose(one.chunks_per_s, 200) and one.p50_ms == 20
    assert one.record() == {"rows": 4, "mode": "act", "p50_ms": 20, "chunks_per_s": one.chunks_per_s}


def test_the_table_has_a_line_per_size_and_a_dash_for_what_was_not_measured():
    lines = throughput_table(
        [Throughput(1, "act", (10.0,)), Throughput(2, "act", (20.0,)), Throughput(2, "mixed", (50.0,))]
    )
    header, first, second = (line.split() for line in lines.splitlines())
    assert header[0] == "rows" and first == ["1", "10.0", "100.0", "–", "–"] and second[-2:] == ["50.0", "40.0"]


def test_a_model_with_state_and_cameras_gets_both():
    arguments = batch_arguments(untrained_nano(state_dim=3, cameras=["primary", "wrist"]), 2)
    assert arguments["state"].shape == (2, 3) and list(arguments["images"][1]) == ["primary", "wrist"]
