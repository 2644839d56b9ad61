"""InstructVLA: a vision-language-action model that answers in words and drives a robot (arXiv 2507.17520).

Importing the package registers its classes with transformers' Auto classes; nothing else depends on that.
"""

from transformers import AutoConfig, AutoModel, AutoModelForImageTextToText, AutoProcessor

from instructvla.configuration_instructvla import InstructVLAConfig
from instructvla.generation_instructvla import ActionContext, InstructVLAActionOutput
from instructvla.modeling_instructvla import InstructVLAForConditionalGeneration, InstructVLAOutput
from instructvla.processing.processing_instructvla import InstructVLAProcessor

AutoConfig.register("instructvla", InstructVLAConfig, exist_ok=True)
AutoModel.register(InstructVLAConfig, InstructVLAForConditionalGeneration, exist_ok=True)
AutoModelForImageTextToText.register(InstructVLAConfig, InstructVLAForConditionalGeneration, exist_ok=True)
AutoProcessor.register(InstructVLAConfig, InstructVLAProcessor, exist_ok=True)

__all__ = [
    "ActionContext",
    "InstructVLAActionOutput",
    "InstructVLAConfig",
    "InstructVLAForConditionalGeneration",
    "InstructVLAOutput",
    "InstructVLAProcessor",
]
