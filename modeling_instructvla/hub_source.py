"""Files of a local folder, or of a Hub repository."""

from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled


def source_files(source: str | Path, revision: str | None = None) -> list[str]:
    """Names of all files in a folder or in a Hub repository, with forward slashes.

    Raises:
        ValueError: as `local_folder`.
    """
    if Path(source).is_dir():
        paths = (path for path in Path(source).rglob("*") if path.is_file())
        return sorted(path.relative_to(source).as_posix() for path in paths)
    try:
        return sorted(HfApi().list_repo_files(str(source), revision=revision))
    except (HfHubHTTPError, HFValidationError, OfflineModeIsEnabled, OSError) as error:
        raise unreachable(source, error) from error


def local_folder(source: str | Path, patterns: Sequence[str], revision: str | None = None) -> Path:
    """A folder that holds the files matching `patterns`: `source` itself, or those of a Hub repository, downloaded.

    Raises:
        ValueError: if `source` is no folder, and no repository that can be reached.
    """
    if Path(source).is_dir():
        return Path(source)
    try:
        return Path(snapshot_download(str(source), revision=revision, allow_patterns=list(patterns)))
    except (HfHubHTTPError, HFValidationError, OfflineModeIsEnabled, OSError) as error:
        raise unreachable(source, error) from error


def unreachable(source: str | Path, error: Exception) -> ValueError:
    reason = " ".join(str(error).split())
    return ValueError(f"{source} is no folder here, and no Hub repository that can be read: {reason[:300]}")
