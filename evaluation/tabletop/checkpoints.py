"""Checkpoints by their name on the command line."""

from pathlib import Path
from typing import Any

from instructvla.evaluation.doctor import choose_device
from instructvla.evaluation.one_picture import load_model

CHECKPOINTS = Path("checkpoints")
LOCAL = (CHECKPOINTS, Path("outputs"))  # no owners of repositories, even where the folders don't exist yet
DEFAULT_CHECKPOINT = CHECKPOINTS / "tabletop-nano"


def load_checkpoint(name: str) -> Any:
    """A model in evaluation mode, through `AutoModel`; on CUDA where there is one, in float32 on a CPU.

    Args:
        name: folder, or Hub repository.

    Raises:
        ValueError: no such checkpoint; those that are here are listed.
    """
    folder = Path(name)
    if not folder.is_dir() and not may_be_repository(folder):
        found = ", ".join(map(str, checkpoints_near(folder))) or "none"
        raise ValueError(
            f"there is no checkpoint {name}; found here: {found}. Give a folder that training wrote, or "
            "`make train-tabletop`."
        )
    device = choose_device(None)
    model = load_model(name).to(device)
    return model.float() if device.type == "cpu" else model


def may_be_repository(place: Path) -> bool:
    """Whether a name has the form OWNER/NAME, where OWNER is no folder of checkpoints."""
    return len(place.parts) == 2 and place.parent not in LOCAL and not place.parent.is_dir()


def checkpoints_near(folder: Path) -> list[Path]:
    """Folders with a model beside a folder and among `CHECKPOINTS`."""
    configs = {config for place in (CHECKPOINTS, folder.parent) for config in place.glob("*/config.json")}
    return sorted(config.parent for config in configs)
