"""InstructVLA: a vision-language-action model that answers in words and drives a robot (arXiv 2507.17520).

The names below are imported when they are first used. transformers' Auto classes know them as soon as transformers is
imported; nothing else depends on that.
"""

import logging
from importlib import import_module
from typing import TYPE_CHECKING, Any

from instructvla.auto_registration import register_with_transformers

if TYPE_CHECKING:
    from instructvla.configuration_instructvla import InstructVLAConfig
    from instructvla.generation_instructvla import ActionContext, InstructVLAActionOutput
    from instructvla.modeling_instructvla import InstructVLAForConditionalGeneration, InstructVLAOutput
    from instructvla.processing.processing_instructvla import InstructVLAProcessor

MODULE_OF = {
    "ActionContext": "generation_instructvla",
    "InstructVLAActionOutput": "generation_instructvla",
    "InstructVLAConfig": "configuration_instructvla",
    "InstructVLAForConditionalGeneration": "modeling_instructvla",
    "InstructVLAOutput": "modeling_instructvla",
    "InstructVLAProcessor": "processing.processing_instructvla",
}

__all__ = [
    "ActionContext",
    "InstructVLAActionOutput",
    "InstructVLAConfig",
    "InstructVLAForConditionalGeneration",
    "InstructVLAOutput",
    "InstructVLAProcessor",
]

# Where torchao 0.18 is installed, torch 2.15 warns about its enums at every import of transformers.
logging.getLogger("torch.utils._pytree").addFilter(lambda record: "register_constant" not in record.getMessage())


def __getattr__(name: str) -> Any:
    if name not in MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{MODULE_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


register_with_transformers()
