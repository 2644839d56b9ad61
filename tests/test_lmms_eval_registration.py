"""lmms-eval finds the model: through the entry point, and by the kit's own rules for a simple model."""

import tomllib
from importlib import import_module
from pathlib import Path

import pytest

from instructvla.evaluation.multimodal.lmms_eval_registration import MODEL_CLASS, manifest


def test_the_entry_point_names_the_manifest():
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    module, name = project["entry-points"]["lmms_eval.models"]["instructvla"].split(":")
    assert getattr(import_module(module), name) is manifest


def test_the_kits_registry_takes_the_model():
    registry_v2 = pytest.importorskip("lmms_eval.models.registry_v2", reason="needs the kit: pip install lmms-eval")
    registry = registry_v2.ModelRegistryV2()
    registry.register_manifest(manifest())
    model_class = registry.get_model_class("instructvla")
    assert f"{model_class.__module__}.{model_class.__name__}" == MODEL_CLASS
