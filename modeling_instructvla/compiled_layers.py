"""torch.compile, layer by layer: every tower repeats one block, so few graphs are compiled and shared."""

from collections.abc import Iterator

import torch
from torch import nn

# Per tower: with and without gradient, first layer or later one, one row or several; and every layer of transformers
# shares one code object, whose graphs dynamo counts together. Beyond its limit it silently runs eagerly for good.
GRAPHS = 64


def compile_layers(model: nn.Module, **options) -> None:
    """Compile each layer of the four towers in place; names of parameters and checkpoints stay as they are.

    What lies between the layers depends on the data (which tokens are labelled, where pictures go) and stays eager.
    Sequence lengths are dynamic from the start, so that each new length costs no compilation. To train, call it after
    `gradient_checkpointing_enable`, if at all, and before the model is wrapped or sharded; to act in between, as an
    evaluation does, use `torch.compiler.set_stance("force_eager")`: caches that grow would compile anew. It raises
    dynamo's recompile limit in this process to `GRAPHS`.

    Args:
        options: of `torch.compile`, e.g. mode="max-autotune-no-cudagraphs".
    """
    torch._dynamo.config.recompile_limit = max(GRAPHS, torch._dynamo.config.recompile_limit)
    for layer in layers_of(model):
        layer.compile(**({"dynamic": True} | options))


def leave_layers_eager(model: nn.Module) -> None:
    """Undo `compile_layers`."""
    for layer in layers_of(model):
        layer._compiled_call_impl = None


def layers_of(model: nn.Module) -> Iterator[nn.Module]:
    """The repeated blocks of SigLIP, the language model, DINOv2, if there is one, and the action expert."""
    expert = model.action_expert
    yield from model.vision_model.encoder.layers
    yield from model.language_model.layers
    if expert.vision is not None:
        yield from expert.vision.blocks
    yield from expert.transformer.layers
