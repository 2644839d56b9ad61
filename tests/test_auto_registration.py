"""Claims about what importing the package loads and registers; each in a process of its own."""

import subprocess
import sys

import pytest

KNOWN = """
from transformers import AutoConfig, AutoModel
config = AutoConfig.for_model("instructvla")
from instructvla.configuration_instructvla import InstructVLAConfig
from instructvla.modeling_instructvla import InstructVLAForConditionalGeneration
assert type(config) is InstructVLAConfig
assert AutoModel._model_mapping[InstructVLAConfig] is InstructVLAForConditionalGeneration
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING
assert PROCESSOR_MAPPING[InstructVLAConfig].__name__ == "InstructVLAProcessor"
import sys
assert not [finder for finder in sys.meta_path if "Watch" in type(finder).__name__]
"""


def in_a_new_process(code: str) -> None:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_importing_the_package_or_its_commands_loads_neither_torch_nor_transformers():
    in_a_new_process(
        "import sys, instructvla, instructvla.cli, instructvla.evaluation.serve\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)\n"
        "assert 'InstructVLAConfig' in dir(instructvla)"
    )


@pytest.mark.parametrize(
    "first",
    [
        pytest.param("import instructvla", marks=pytest.mark.slow),
        "import instructvla.flow_matching",  # a part of the model, which is incomplete while transformers is imported
        pytest.param("import transformers, instructvla", marks=pytest.mark.slow),
        pytest.param("from instructvla import ActionContext", marks=pytest.mark.slow),
    ],
)
def test_the_auto_classes_know_the_model_whatever_is_imported_first(first):
    in_a_new_process(first + KNOWN)


def test_without_torch_transformers_can_be_imported_and_the_model_says_what_is_missing():
    in_a_new_process(
        "import sys\nsys.modules['torch'] = None\n"
        "import instructvla, transformers\n"
        "try:\n    from instructvla import InstructVLAConfig\n    from instructvla import ActionContext\n"
        "except ImportError as error:\n    assert 'torch' in str(error)\n"
        "else:\n    raise AssertionError('no error')"
    )


def test_an_unknown_name_is_an_attribute_error():
    import instructvla

    with pytest.raises(AttributeError, match="no attribute 'InstructVLAModel'"):
        _ = instructvla.InstructVLAModel
