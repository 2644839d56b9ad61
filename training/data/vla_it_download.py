"""`instructvla download vla-it`: the parts of the published VLA-IT data set that are asked for, checked (paper 4.1).

    instructvla download vla-it --annotations --dataset bridge --output data/vla_it

An interrupted download goes on where it stopped, inside a file too, when the command runs again; what is already there
and whole is kept. A file gets its name only once its content has been compared with the repository's checksum.
"""

import errno
import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated

import typer
from huggingface_hub import HfApi, hf_hub_url
from huggingface_hub.file_download import http_get  # the library's downloads of whole files no longer resume
from huggingface_hub.hf_api import RepoSibling
from huggingface_hub.utils import build_hf_headers

from instructvla.command_errors import errors_on_stderr
from instructvla.hub_source import HUB_ERRORS, hub_problem

REPOSITORY = "ShuaiYang03/VLA_Instruction_Tuning"  # the authors' data set
ANNOTATIONS = "annotation/"
HASH_CHUNK = 1 << 20  # bytes

app = typer.Typer(no_args_is_help=True, add_completion=False)


@dataclass(frozen=True)
class RemoteFile:
    """A file of the repository: its size in bytes, and the checksum that its content must have."""

    name: str
    size: int
    sha256: str | None
    git_id: str

    @classmethod
    def of(cls, sibling: RepoSibling) -> "RemoteFile":
        lfs = sibling.lfs
        return cls(sibling.rfilename, sibling.size or 0, lfs.sha256 if lfs else None, sibling.blob_id)

    def is_whole(self, path: Path) -> bool:
        """Whether the local file has the repository's content."""
        if not path.is_file() or path.stat().st_size != self.size:
            return False
        if self.sha256 is not None:
            return digest(path, hashlib.sha256()) == self.sha256
        return digest(path, hashlib.sha1(b"blob %d\0" % self.size)) == self.git_id

    def partial(self, output: Path) -> Path:
        """Where its content gathers; named by the checksum, so that another version is not continued with this one."""
        return output / f"{self.name}.{(self.sha256 or self.git_id)[:12]}.incomplete"


@dataclass(frozen=True)
class Download:
    """What a download gave: files in the folder, all checked, and how many bytes they hold."""

    folder: Path
    files: tuple[str, ...]
    size: int
    revision: str


def download_vla_it(
    output: Path,
    datasets: Sequence[str] = (),
    annotations: bool = False,
    parts: Sequence[str] = (),
    repository: str = REPOSITORY,
    revision: str | None = None,
) -> Download:
    """Downloads the asked files of a VLA-IT repository into a folder, and compares each with its checksum.

    Args:
        output: folder; files keep their names of the repository below it.
        datasets: beginnings of folder or annotation names, such as "bridge"; all by default.
        annotations: only the annotations, not the recordings.
        parts: patterns of file names, such as "bridge_dataset/*-0000?-of-*"; all by default.
        revision: branch, tag or commit.

    Raises:
        ValueError: nothing asked for or found, no Hub, no room, or files that do not have their checksums: these are
            removed, so that the same call fetches them again.
    """
    if output.exists() and not output.is_dir():
        raise ValueError(f"{output} is a file; give a folder.")
    files, commit = list_files(repository, revision)
    chosen = choose(files, datasets, annotations, parts)
    missing = [file for file in chosen if not file.is_whole(output / file.name)]
    require_room(output, missing)
    broken = []
    for file in missing:
        fetch(file, output, repository, commit)
        if file.is_whole(partial := file.partial(output)):
            partial.replace(output / file.name)
        else:
            partial.unlink()
            broken.append(file.name)
    if broken:
        named = ", ".join(broken[:5]) + (", …" if len(broken) > 5 else "")
        raise ValueError(
            f"{len(broken)} of {len(chosen)} files did not arrive with the content that the repository promises, and "
            f"were removed; run the same command again to fetch them: {named}"
        )
    return Download(output, tuple(file.name for file in chosen), sum(file.size for file in chosen), commit)


def fetch(file: RemoteFile, output: Path, repository: str, commit: str) -> None:
    """Downloads what is missing of a file's partial content.

    Raises:
        ValueError: if the Hub can't be read, or there is no room.
    """
    url = hf_hub_url(repository, file.name, repo_type="dataset", revision=commit)
    headers = build_hf_headers() | {"Accept-Encoding": "identity"}  # compressed text can't be continued in its middle
    partial = file.partial(output)
    partial.parent.mkdir(parents=True, exist_ok=True)
    with partial.open("ab") as content:
        if (present := content.tell()) >= file.size:
            return
        try:
            http_get(url, content, resume_size=present, headers=headers, expected_size=file.size)
        except HUB_ERRORS as error:
            if getattr(error, "errno", None) == errno.ENOSPC:
                raise no_room(output, file.size - present) from error
            raise unreadable(repository, error) from error


def list_files(repository: str, revision: str | None) -> tuple[list[RemoteFile], str]:
    """All files of a data set repository, and the commit that they are of.

    Raises:
        ValueError: if it can't be read.
    """
    try:
        info = HfApi().dataset_info(repository, revision=revision, files_metadata=True)
    except HUB_ERRORS as error:
        raise unreadable(repository, error) from error
    return sorted((RemoteFile.of(sibling) for sibling in info.siblings or []), key=lambda file: file.name), info.sha


def choose(
    files: Sequence[RemoteFile], datasets: Sequence[str], annotations: bool, parts: Sequence[str]
) -> list[RemoteFile]:
    """The files that all given conditions ask for.

    Raises:
        ValueError: if there is no condition, or one that no file meets; the message says what there is.
    """
    if not (datasets or annotations or parts):
        raise ValueError(
            f"The repository holds {contents(files)}. Ask for some of it: --annotations, --dataset NAME or "
            "--part PATTERN ('*' is everything)."
        )
    for dataset in datasets:
        if not any(belongs_to(file.name, dataset) for file in files):
            raise ValueError(f"No part of the repository is called {dataset}…; it holds {contents(files)}.")
    chosen = list(files)
    if datasets:
        chosen = [file for file in chosen if any(belongs_to(file.name, dataset) for dataset in datasets)]
    if annotations:
        chosen = [file for file in chosen if file.name.startswith(ANNOTATIONS)]
    for pattern in parts:
        if not any(fnmatchcase(file.name, pattern) for file in chosen):
            asked = ", ".join(file.name for file in chosen[:3])
            raise ValueError(f"--part {pattern} is the name of no file among those asked for, such as {asked}.")
    if parts:
        chosen = [file for file in chosen if any(fnmatchcase(file.name, pattern) for pattern in parts)]
    if not chosen:
        raise ValueError(f"No file is asked for by all conditions; the repository holds {contents(files)}.")
    return chosen


def belongs_to(name: str, dataset: str) -> bool:
    """Whether a file is in a folder, or is an annotation, whose name begins with the data set's."""
    return "/" in name and name.removeprefix(ANNOTATIONS).startswith(dataset)


def contents(files: Sequence[RemoteFile]) -> str:
    """Folders, and annotations one by one, with their sizes."""
    sizes: dict[str, int] = {}
    for file in files:
        folder, slash, _ = file.name.partition("/")
        name = file.name if file.name.startswith(ANNOTATIONS) else folder + slash
        if not name.startswith("."):
            sizes[name] = sizes.get(name, 0) + file.size
    return ", ".join(f"{name} ({readable(size)})" for name, size in sizes.items()) or "nothing"


def require_room(output: Path, files: Sequence[RemoteFile]) -> None:
    existing = next(folder for folder in (output.absolute(), *output.absolute().parents) if folder.exists())
    partials = ((file, file.partial(output)) for file in files)
    needed = sum(file.size - (partial.stat().st_size if partial.exists() else 0) for file, partial in partials)
    if needed > shutil.disk_usage(existing).free:
        raise no_room(output, needed)


def no_room(output: Path, needed: int) -> ValueError:
    return ValueError(
        f"There is no room for {readable(needed)} in {output}; make room, ask for fewer --part, or give another "
        "--output. What has arrived stays."
    )


def digest(path: Path, running: "hashlib._Hash") -> str:
    with path.open("rb") as file:
        while chunk := file.read(HASH_CHUNK):
            running.update(chunk)
    return running.hexdigest()


def readable(size: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:,.3g} TB"


def unreadable(repository: str, error: Exception) -> ValueError:
    return ValueError(f"The data set {repository!r} can't be read from the Hub: {hub_problem(error)}")


@app.callback()
def main() -> None:
    """Data sets from the Hub, checked."""


@app.command("vla-it")
def vla_it(
    output: Annotated[Path, typer.Option(help="Folder to fill.", show_default=False)],
    annotations: Annotated[bool, typer.Option("--annotations", help="Only the annotations.")] = False,
    dataset: Annotated[list[str] | None, typer.Option(help="bridge or fractal; repeatable.")] = None,
    part: Annotated[list[str] | None, typer.Option(help="Pattern of file names; repeatable.")] = None,
    repo: Annotated[str, typer.Option(help="Data set repository.")] = REPOSITORY,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit.")] = None,
) -> None:
    """Download recordings and annotations of VLA-IT, only the parts asked for."""
    with errors_on_stderr():
        done = download_vla_it(output, dataset or (), annotations, part or (), repo, revision)
    number = f"{len(done.files)} file{'s' if len(done.files) > 1 else ''}"
    typer.echo(f"{done.folder}: {number}, {readable(done.size)}, checked, of revision {done.revision[:12]}")
