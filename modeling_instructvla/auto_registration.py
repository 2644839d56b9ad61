"""Registers the package's classes with transformers' Auto classes when transformers is imported, and not before.

So `import instructvla` is quick, and its parts that need no model, such as the policy client, run without torch.
"""

import logging
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

TRANSFORMERS = "transformers"
OWN_PREFIX = f"{__package__}."

logger = logging.getLogger(__name__)


def register_auto_classes() -> None:
    """AutoConfig, AutoModel, AutoModelForImageTextToText and AutoProcessor know this package's classes from now on."""
    from transformers import AutoConfig, AutoModel, AutoModelForImageTextToText, AutoProcessor

    from instructvla.configuration_instructvla import InstructVLAConfig
    from instructvla.modeling_instructvla import InstructVLAForConditionalGeneration
    from instructvla.processing.processing_instructvla import InstructVLAProcessor

    AutoConfig.register("instructvla", InstructVLAConfig, exist_ok=True)
    AutoModel.register(InstructVLAConfig, InstructVLAForConditionalGeneration, exist_ok=True)
    AutoModelForImageTextToText.register(InstructVLAConfig, InstructVLAForConditionalGeneration, exist_ok=True)
    AutoProcessor.register(InstructVLAConfig, InstructVLAProcessor, exist_ok=True)


def register_with_transformers() -> None:
    """Register once transformers has been imported: now, if it has been already."""
    if TRANSFORMERS in sys.modules:
        register_if_possible()
    else:
        sys.meta_path.insert(0, _TransformersWatch())


def register_if_possible() -> None:
    """Register, unless torch is missing or transformers is of another time: a simulator may have such, and only needs
    the policy client. Whoever needs the model gets the error from `from instructvla import …`."""
    try:
        register_auto_classes()
    except (ImportError, RuntimeError) as error:  # transformers wraps import errors of its lazy modules in the latter
        logger.info("transformers' Auto classes do not know InstructVLA: %s", error)


class _TransformersWatch(MetaPathFinder):
    """Registers after the import that brought transformers.

    One of this package's modules may be what imports transformers; registration needs that module complete. So both
    are watched, and the outermost import that ends with transformers there registers and ends the watch.
    """

    def __init__(self) -> None:
        self.depth = 0

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != TRANSFORMERS and not fullname.startswith(OWN_PREFIX):
            return None
        others = [finder for finder in sys.meta_path if finder is not self and hasattr(finder, "find_spec")]
        found = (finder.find_spec(fullname, path, target) for finder in others)
        spec = next((spec for spec in found if spec is not None), None)
        if spec is not None and spec.loader is not None:
            spec.loader = _Watched(spec.loader, self)
        return spec

    def end_if_done(self) -> None:
        if self.depth == 0 and TRANSFORMERS in sys.modules and self in sys.meta_path:
            sys.meta_path.remove(self)
            register_if_possible()


class _Watched(Loader):
    """A module's own loader, and a word to the watch when the module is complete."""

    def __init__(self, loader: Any, watch: _TransformersWatch):
        self._loader, self._watch = loader, watch

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__.loader = module.__loader__ = self._loader
        self._watch.depth += 1
        try:
            self._loader.exec_module(module)
        finally:
            self._watch.depth -= 1
        self._watch.end_if_done()
