"""What an action may cost, held on shapes alone: kernels of each stage, memory, and no waiting for the device."""

from dataclasses import replace

import pytest
import torch

from instructvla.configuration_instructvla import InstructVLAConfig
from instructvla.decoding_session import FixedSession
from instructvla.evaluation.stage_latency import size_of
from instructvla.modeling_instructvla import InstructVLAForConditionalGeneration
from instructvla.nano import untrained_nano
from tests.action_stages import PROMPT, stages
from tests.dispatch_counters import FusedAttention, KernelCounter, LiveBytes

LAYERS = 3  # of each tower: every layer starts as many kernels, and no stage keeps more than one layer's activations
PADDED, LENGTH = -(-PROMPT // 8) * 8, 448  # tokens: of the prompt, and of the caches that `compile_for_inference` takes

# Operations of the eager model at LAYERS layers: each starts a kernel, which takes time on the host where stages are no
# CUDA graphs, and some between kernels where they are. As counted; lower a number when its stage starts fewer.
KERNELS = {
    "images": 49,  # 13 a layer
    "prompt": 395,  # 116 a layer: two passes, of which the adapted one has three products for a projection
    "words": 387,  # one word, chosen twice
    "queries": 398,
    "action expert": 1664,  # 467 a layer: ten flow steps, the prefix once, and a block of the tower
}
FUSED = KERNELS | {"prompt": 341, "words": 321, "queries": 344}  # as `compile_for_inference` leaves the projections
# At once, one row. The language model's 368 tokens of 8,960 values in its MLP take most, the picture's 1,024 of 4,304
# in SigLIP's nearly as much.
ACTIVATION_MB = 34


def released_width(layers: int | None = None) -> InstructVLAForConditionalGeneration:
    """The released sizes in bfloat16 without any memory, with so many layers in each tower (default: all)."""
    config = InstructVLAConfig()
    if layers is not None:
        config.vision_config.num_hidden_layers = config.text_config.num_hidden_layers = layers
        config.text_config.layer_types = config.text_config.layer_types[:layers]
        tower = config.action_vision_config
        config.action_vision_config = replace(tower, depth=layers + 1, feature_layer=layers - 1)
        config.action_expert_config = replace(config.action_expert_config, num_hidden_layers=layers)
    with torch.device("meta"):
        return InstructVLAForConditionalGeneration(config).to(torch.bfloat16)


@pytest.fixture(scope="module")
def shallow():
    return released_width(LAYERS)


@pytest.mark.parametrize("budget", [KERNELS, FUSED])
def test_each_stage_starts_as_many_kernels_as_its_budget(budget):
    shallow = released_width(LAYERS)
    if budget is FUSED:
        shallow.language_model.fuse_linears()

    def kernels(work) -> int:
        with torch.no_grad(), FusedAttention(), KernelCounter() as counter:
            work()
        return counter.found.total()

    session = FixedSession(shallow.language_model, 1, LENGTH)
    found = stages(shallow, PADDED, 1, session, kernels)
    assert found == budget


def test_a_full_size_action_takes_little_more_memory_than_its_weights(shallow):
    def peak(work) -> int:
        with torch.no_grad(), FusedAttention(), LiveBytes() as counter:
            work()
        return counter.peak

    session = FixedSession(shallow.language_model, 1, LENGTH)
    activations = max(stages(shallow, PADDED, None, session, peak).values())
    assert activations <= ACTIVATION_MB * 1e6
    model = released_width()
    with LiveBytes() as caches:
        kept = FixedSession(model.language_model, 1, LENGTH)
    assert kept.mask.shape == (1, LENGTH)
    assert activations + caches.live < 0.02 * size_of(model)


def test_kernels_are_what_computes_and_views_are_none():
    x = torch.zeros(4, 6)
    with KernelCounter() as counter:
        y = x.view(2, 12).t()[1:].unsqueeze(0) + 1
        y.add_(1)
        torch.zeros(3)
        y.reshape(-1)
    assert counter.found == {"add": 1, "add_": 1, "zeros": 1, "clone": 1}


def test_bytes_count_while_their_tensor_lives():
    with LiveBytes() as counter:
        x = torch.zeros(1000, dtype=torch.uint8)
        y = x[:10] + 1
        assert (counter.live, counter.peak) == (1010, 1010)
        del x
        assert counter.live == 10
        y = torch.zeros(500, dtype=torch.uint8)
    assert (counter.live, counter.peak) == (500, 1010) and len(y) == 500


@pytest.mark.gpu
def test_no_stage_waits_for_the_device():
    """Inputs are there already: bringing them over, and taking words and actions back, is what a caller waits for."""
    model = untrained_nano().to("cuda", torch.bfloat16)

    def unsynchronised(work) -> int:
        torch.cuda.set_sync_debug_mode("error")
        try:
            with torch.no_grad():
                work()
        finally:
            torch.cuda.set_sync_debug_mode("default")
        return 0

    for _ in range(2):  # the first one also loads libraries
        found = stages(model, 64, 2, FixedSession(model.language_model, 1, 256), unsynchronised)
    assert list(found) == list(KERNELS)
