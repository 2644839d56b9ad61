"""Files of a local folder, or of a Hub repository."""

import errno
from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import HfApi, constants, hf_hub_download, snapshot_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
)
from huggingface_hub.utils import validate_repo_id

LOCAL_ERRNOS = (errno.EACCES, errno.EPERM, errno.ENOSPC, errno.EDQUOT, errno.EROFS)
HUB_ERRORS = (HTTPError, HfHubHTTPError, HFValidationError, OfflineModeIsEnabled, OSError)


def source_files(source: str | Path, revision: str | None = None, repo_type: str = "model") -> list[str]:
    """Names of all files in a folder or in a Hub repository (`repo_type` "model" or "dataset"), with forward slashes.

    Raises:
        ValueError: as `local_folder`.
    """
    if Path(source).is_dir():
        paths = (path for path in Path(source).rglob("*") if path.is_file())
        return sorted(path.relative_to(source).as_posix() for path in paths)
    require_repository_name(source)
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
    require_repository_name(source)
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
    require_repository_name(source)
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


def require_repository_name(source: str | Path) -> None:
    """Refuse what is neither a folder nor could be a repository before the Hub is asked (ValueError)."""
    require_no_file(source)
    try:
        validate_repo_id(str(source))
    except HFValidationError as error:
        raise ValueError(
            f"{str(source)!r} is no folder here, and no Hub repository can have that name; give a folder that exists, "
            "or a repository as owner/name."
        ) from error


def unreachable(source: str | Path, error: Exception) -> ValueError:
    """The error of a command that can't read its source."""
    problem = hub_problem(error, instead=", or give a local folder")
    return ValueError(f"{str(source)!r} is no folder here, and no Hub repository that can be read: {problem}")


def hub_problem(error: Exception, instead: str = "") -> str:
    """Why something could not be had from the Hub, and the remedy; `instead` is another one."""
    causes = chain_of(error)
    reason, root = (" ".join(str(cause).split())[:300] for cause in (error, causes[-1]))
    if any(isinstance(cause, HFValidationError) or is_refusal(cause) for cause in causes):
        reason = reason.partition(" Please ")[0].rstrip(".")  # there follow remedies for users of the library
        return f"{reason}. Check its name and revision, log in (`hf auth login`) if it is private{instead}."
    if getattr(causes[-1], "errno", None) in LOCAL_ERRNOS:
        return f"{root}. Make room, or see to the permissions{instead}."
    if constants.HF_HUB_OFFLINE:
        return f"the Hub is not asked, as HF_HUB_OFFLINE is set. Unset it{instead}."
    return (
        f"the Hub at {constants.ENDPOINT} can't be reached ({root}). Check the connection or HF_ENDPOINT{instead}; "
        "what was downloaded is kept, run the command again to resume."
    )


def chain_of(error: BaseException) -> list[BaseException]:
    """The error and what led to it."""
    chain = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None:
        chain.append(cause)
    return chain


def is_refusal(error: BaseException) -> bool:
    """Whether the Hub answered, and that it will not give this."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    return status is not None and 400 <= status < 500
