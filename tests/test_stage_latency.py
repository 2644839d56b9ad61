"""Stages of an action: each one's FLOPs and weights, and the share of the roofline that its time is."""

import pytest
import torch

from instructvla.evaluation.action_flops import action_flops, word_flops
from instructvla.evaluation.roofline import Peaks
from instructvla.evaluation.stage_latency import (
    INSTRUCTION,
    WORD,
    StageCost,
    StagedAction,
    measure_stages,
    size_of,
    stage_table,
)
from instructvla.nano import untrained_nano

PEAKS = Peaks(flops=1e9, bytes=1e8)


@pytest.fixture(scope="module", params=[1, 2])
def model(request):
    return untrained_nano(adapter_config={"experts": request.param})


@pytest.fixture(scope="module")
def costs(model):
    return {cost.name: cost for cost in measure_stages(model, repeats=1, warm_up=0)}


def test_stages_have_the_flops_that_their_shapes_need(model, costs):
    inputs = model.processor.prompt_inputs(StagedAction(model).images, INSTRUCTION)
    prompt = inputs["input_ids"].shape[1]
    expected = action_flops(model.config, prompt) | {"prompt": action_flops(model.config, prompt, 0)["prompt"]}
    for name, flops in expected.items():
        assert costs[name].flops == pytest.approx(flops, rel=0.1), name  # the expert's top layer is not trimmed
    assert costs["preprocessing"].flops == 0
    assert costs[WORD].flops == pytest.approx(word_flops(model.config, prompt + 4), rel=0.05)


def test_a_mixture_reads_the_base_twice_and_its_adapters_once(model, costs):
    layers = size_of(model.language_model.layers)
    adapters = size_of(model.language_model.layers, lambda name: "lora_" in name)
    assert 0 < adapters < layers
    head = model.language_model.scale_head
    again = 0 if head is None else layers - adapters + size_of(head)
    assert costs["prompt"].weights == costs["queries"].weights == layers + again
    assert costs[WORD].weights == layers + again + size_of(model.language_model.lm_head)


def test_fixed_shapes_have_the_same_stages_and_leave_the_model_compiled():
    model = untrained_nano(adapter_config={"experts": 1})
    model.compile_for_inference(modes=("act",), instruction_tokens=8, progress=False)
    compiled = model.compiled
    names = [cost.name for cost in measure_stages(model, repeats=1, warm_up=0)]
    assert names == ["preprocessing", "images", "prompt and queries", "prompt", WORD, "queries", "action expert"]
    assert model.compiled is compiled


def test_the_share_of_the_roofline_is_the_least_time_over_the_measured_one():
    computing = StageCost("images", seconds=0.5, flops=int(1e8), weights=10)
    reading = StageCost("word", seconds=0.5, flops=10, weights=int(1e7))
    assert computing.roofline_share(PEAKS) == reading.roofline_share(PEAKS) == pytest.approx(0.2)
    table = stage_table([computing, reading], PEAKS)
    assert table.count("20.0%") == 2 and "0.1 GB/s of copying" in table
    assert reading.record(PEAKS) == {
        "stage": "word",
        "ms": 500.0,
        "gflop": 1e-8,
        "weights_mb": 10.0,
        "roofline_share": pytest.approx(0.2),
    }


def test_no_module_has_no_size():
    assert size_of(None) == 0
    assert size_of(torch.nn.Linear(2, 3)) == 4 * 9
