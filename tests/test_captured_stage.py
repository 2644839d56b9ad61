"""Captured stages: a recording per shape, inputs copied into it, and said when a shape is new."""

import pytest
import torch

from instructvla.captured_stage import CapturedStage, Recording, record


class Replayed:
    """Stands for a CUDA graph: computes its function on the recording's own inputs, into its own output."""

    def __init__(self, function, inputs, fixed):
        self.function, self.inputs, self.fixed = function, inputs, fixed
        self.output = function(*inputs, **fixed)

    def replay(self):
        self.output.copy_(self.function(*self.inputs, **self.fixed))


def stand_in(function, given, **fixed) -> Recording:
    inputs = tuple(None if tensor is None else tensor.clone() for tensor in given)
    graph = Replayed(function, inputs, fixed)
    return Recording(graph, inputs, graph.output)


def scaled(x, offset, factor):
    return factor * x if offset is None else factor * x + offset


@pytest.mark.parametrize("recorder", [None, stand_in])
def test_each_shape_and_setting_is_prepared_once(recorder):
    new = []
    stage = CapturedStage(scaled, "scaling", lambda name, shapes: new.append((name, shapes)), recorder)
    for _ in range(2):
        for size in (2, 3):
            x = torch.randn(size)
            torch.testing.assert_close(stage(x, None, factor=2), 2 * x)
            torch.testing.assert_close(stage(x, x, factor=2), 3 * x)
        torch.testing.assert_close(stage(x, None, factor=5), 5 * x)
    assert [name for name, _ in new] == 5 * ["scaling"]
    assert new[0][1] == (((2,), torch.float32), None)


def test_a_replay_does_not_touch_what_it_was_given():
    stage = CapturedStage(scaled, "scaling", lambda *_: None, stand_in)
    first, second = torch.ones(2), torch.zeros(2)
    stage(first, None, factor=2)
    stage(second, None, factor=2)
    assert first.tolist() == [1, 1] and second.tolist() == [0, 0]


@pytest.mark.gpu
def test_a_cuda_graph_replays_the_function():
    weight = torch.randn(64, 64, device="cuda")
    stage = CapturedStage(lambda x: (x @ weight).relu(), "product", lambda *_: None, record)
    for seed in range(3):
        x = torch.randn(8, 64, device="cuda", generator=torch.Generator("cuda").manual_seed(seed))
        torch.testing.assert_close(stage(x).clone(), (x @ weight).relu())
    assert len(stage.recordings) == 1
