"""Small files and long lists, as messages need them."""

import json
import os
from collections.abc import Collection
from pathlib import Path
from typing import Any


def read_json(path: str | Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        ValueError: a file that is missing, no JSON, or holds something else than an object.
    """
    path = Path(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ValueError(f"{str(path.parent)!r} has no {path.name}.") from error
    except (OSError, ValueError) as error:
        raise ValueError(f"{str(path)!r} can't be read as JSON ({error}); copy it again.") from error
    if not isinstance(content, dict):
        raise ValueError(f"{str(path)!r} must hold a JSON object, not {type(content).__name__}.")
    return content


def listed(names: Collection[str], most: int = 8) -> str:
    """`a, b and 3 more`."""
    shown = list(names)[:most]
    return ", ".join(shown) + (f" and {len(names) - most} more" if len(names) > most else "")


def check_output_file(file: Path | None, option: str = "--output") -> None:
    """Refuse a file that can't be written, before anything is measured for it (ValueError); None is no file."""
    if file is not None and (file.is_dir() or not os.access(file.absolute().parent, os.W_OK)):
        raise ValueError(f"{option} {file} can't be written; give a file in a folder that exists.")
