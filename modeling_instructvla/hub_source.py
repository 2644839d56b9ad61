"""Files of a local folder, or of a Hub repository."""

from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import HfApi, hf_hub_download, snapshot_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
)

HUB_ERRORS = (HTTPError, HfHubHTTPError, HFValidationError, OfflineModeIsEnabled, OSError)


def source_files(source: str | Path, revision: str | None = None, repo_type: str = "model") -> list[str]:
    """Names of all files in a folder or in a Hub repository (`repo_type` "model" or "dataset"), with forward slashes.

    Raises:
        ValueError: as `local_folder`.
    """
    if Path(source).is_dir():
        paths = (path for path in Path(source).rglob("*") if path.is_file())
        return sorted(path.relative_to(source).as_posix() for path in paths)
    require_no_file(source)
    try:  # one request, where list_repo_files repeats it for half a minute when there is no network
        siblings = HfApi().repo_info(str(source), revision=revision, repo_type=repo_type).siblings
    except HUB_ERRORS as error:
        raise unreachable(source, error) from error
    return sorted(sibling.rfilename for sibling in siblings or [])


def local_folder(
    source: str | Path, patterns: Sequence[str], revision: str | None = None, repo_type: str = "model"
) -> Path:
    """A folder that holds the files matching `patterns`: `source` itself, or those of a Hub repository, downloaded.

    Raises:
        ValueError: if `source` is no folder, and no repository that can be reached.
    """
    if Path(source).is_dir():
        return Path(source)
    require_no_file(source)
    try:
        folder = snapshot_download(str(source), revision=revision, allow_patterns=list(patterns), repo_type=repo_type)
    except HUB_ERRORS as error:
        raise unreachable(source, error) from error
    return Path(folder)


def local_file(source: str | Path, name: str, revision: str | None = None, repo_type: str = "model") -> Path:
    """The file `name` of a folder, or of a Hub repository, downloaded.

    Raises:
        FileNotFoundError: if the source can be read, but has no such file.
        ValueError: as `local_folder`.
    """
    if Path(source).is_dir():
        path = Path(source, name)
        if not path.is_file():
            raise FileNotFoundError(path)
        return path
    require_no_file(source)
    try:
        return Path(hf_hub_download(str(source), name, revision=revision, repo_type=repo_type))
    except LocalEntryNotFoundError as error:  # the Hub was not asked: no word on whether the file exists
        raise unreachable(source, error) from error
    except EntryNotFoundError as error:
        raise FileNotFoundError(f"{source} has no {name}") from error
    except HUB_ERRORS as error:
        raise unreachable(source, error) from error


def require_no_file(source: str | Path) -> None:
    if Path(source).is_file():
        raise ValueError(f"{str(source)!r} is a file; give the folder that holds it.")


def unreachable(source: str | Path, error: Exception) -> ValueError:
    reason = " ".join(str(error).split())
    return ValueError(f"{str(source)!r} is no folder here, and no Hub repository that can be read: {reason[:300]}")
