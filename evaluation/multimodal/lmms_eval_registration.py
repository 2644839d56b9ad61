"""What lmms-eval finds under the entry point `lmms_eval.models`: where the model `instructvla` is."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # lmms-eval loads this module; nothing else does
    from lmms_eval.models.registry_v2 import ModelManifest

MODEL_CLASS = "instructvla.evaluation.multimodal.lmms_eval_model.InstructVLA"


def manifest() -> "ModelManifest":
    """lmms-eval's record of the model."""
    from lmms_eval.models.registry_v2 import ModelManifest

    return ModelManifest(
        "instructvla", simple_class_path="instructvla.evaluation.multimodal.lmms_eval_model.InstructVLA"
    )
