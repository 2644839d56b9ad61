"""Prepared episodes, read from a folder or streamed from a Hub dataset: a file's footer, then a row group each."""

import bisect
import copy
import hashlib
import itertools
import json
import os
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Protocol, Self

import pyarrow.parquet as pq
from huggingface_hub import HfApi, HfFileSystem
from huggingface_hub.errors import HTTPError, OfflineModeIsEnabled

from instructvla.hub_source import HUB_ERRORS, require_repository_name, unreachable
from instructvla.training.data.dataset_description import DatasetDescription
from instructvla.training.data.episode_parquet import (
    DAMAGED,
    FORMAT,
    FORMAT_VERSION,
    IMAGES,
    MANIFEST,
    episode_from_table,
)
from instructvla.training.data.episodes import BadEpisodeError, Episode

OPEN_FILES = 8  # footers of a 500 MB file take a few MB
UNREACHABLE = (HTTPError, OfflineModeIsEnabled)
REMEDY = "copy the file again, or prepare the dataset again"


class Storage(Protocol):
    """Where the files of a dataset are."""

    name: str

    def size(self, path: str) -> int: ...

    def open(self, path: str) -> BinaryIO: ...

    def sha256(self, path: str) -> str:
        """Of the file's content."""
        ...


class FolderStorage:
    """Files of a local folder."""

    def __init__(self, folder: Path):
        self.name, self.folder = str(folder), folder

    def size(self, path: str) -> int:
        return (self.folder / path).stat().st_size

    def open(self, path: str) -> BinaryIO:
        return (self.folder / path).open("rb")

    def sha256(self, path: str) -> str:
        return content_sha256(self, path)


class HubStorage:
    """Files of one commit of a Hub dataset, of which only the parts that are read are transferred."""

    def __init__(self, repo: str, revision: str | None):
        try:
            info = HfApi().dataset_info(repo, revision=revision, files_metadata=True)
        except HUB_ERRORS as error:
            raise unreachable(repo, error) from error
        self.name, self.repo, self.commit = repo, repo, info.sha
        self.sizes = {file.rfilename: file.size for file in info.siblings or []}
        self._checksums = {file.rfilename: file.lfs.sha256 for file in info.siblings or [] if file.lfs}

    def size(self, path: str) -> int:
        if path not in self.sizes:
            raise FileNotFoundError(path)
        return self.sizes[path]

    def open(self, path: str) -> BinaryIO:
        self.size(path)
        # pyarrow asks for exactly the ranges it needs; a cache would transfer more
        return HfFileSystem().open(f"datasets/{self.repo}@{self.commit}/{path}", "rb", cache_type="none")

    def sha256(self, path: str) -> str:
        """The Hub's own of a large file, so that nothing is transferred."""
        return self._checksums.get(path) or content_sha256(self, path)


def content_sha256(storage: Storage, path: str) -> str:
    with storage.open(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class ParquetEpisodes:
    """An `EpisodeReader` of what `instructvla prepare` wrote, in the order it was written.

    Args:
        source: folder, or Hub dataset.
        split: "train" or another one that was prepared.
        revision: of the Hub dataset; the commit found at opening is kept.

    Raises:
        ValueError: no such source or split, no manifest, or a file that the manifest names is missing.
    """

    def __init__(self, source: str | Path, split: str = "train", revision: str | None = None):
        if Path(source).is_dir():
            self.storage: Storage = FolderStorage(Path(source))
        else:
            require_repository_name(source)
            self.storage = HubStorage(str(source), revision)
        self.manifest = read_manifest(self.storage)
        self.split = split
        self.description = DatasetDescription.from_dict(self.manifest["description"])
        self.files: list[dict[str, Any]] = self._split_manifest()["files"]
        self.ends = list(itertools.accumulate(file["episodes"] for file in self.files))
        self._require_files()
        self.numbers_only = False
        self._opened: OrderedDict[int, pq.ParquetFile] = OrderedDict()
        self._process = os.getpid()

    def without_pictures(self) -> Self:
        """The same episodes without cameras: nothing of the pictures is read or transferred."""
        reader = copy.copy(self)
        reader.numbers_only, reader._opened = True, OrderedDict()
        return reader

    @staticmethod
    def _numbers_of(file: pq.ParquetFile) -> list[str]:
        return [name for name in file.schema_arrow.names if not name.startswith(IMAGES)]

    def _split_manifest(self) -> dict[str, Any]:
        splits = self.manifest["splits"]
        if self.split not in splits:
            raise ValueError(f"{self.storage.name} has no split {self.split!r}; it has {', '.join(splits)}.")
        return splits[self.split]

    def _require_files(self) -> None:
        for file in self.files:
            try:
                self.storage.size(file["path"])
            except FileNotFoundError as error:
                raise ValueError(
                    f"{self.storage.name} lacks {file['path']}, which its manifest names; {REMEDY}."
                ) from error

    def __len__(self) -> int:
        return self.ends[-1] if self.ends else 0

    def __getitem__(self, index: int) -> Episode:
        """An episode.

        Raises:
            BadEpisodeError: the file or the row group is damaged; the message names both.
            IndexError: beyond the last.
            ValueError: the Hub can't be reached any more.
        """
        if not -len(self) <= index < len(self):
            raise IndexError(f"episode {index} of {len(self)}")
        index %= len(self)
        number = bisect.bisect_right(self.ends, index)
        group = index - (self.ends[number - 1] if number else 0)
        place = f"{self.storage.name}/{self.files[number]['path']}"
        try:
            file = self._file(number, place)
            columns = self._numbers_of(file) if self.numbers_only else None
            table = file.read_row_group(group, columns, use_threads=False)
        except UNREACHABLE as error:  # not a bad episode: skipping it would skip all others too
            raise unreachable(self.storage.name, error) from error
        except DAMAGED as error:
            self._opened.pop(number, None)
            reason = " ".join(str(error).split())
            message = f"{place}: row group {group} can't be read ({reason[:200]}); {REMEDY}"
            raise BadEpisodeError(message, place) from error
        return episode_from_table(table, f"{place}: row group {group}")

    def _file(self, number: int, place: str) -> pq.ParquetFile:
        if self._process != os.getpid():  # a forked process would share the place in files that are open
            self._opened, self._process = OrderedDict(), os.getpid()
        if number not in self._opened:
            path, size = self.files[number]["path"], self.files[number]["bytes"]
            found = self.storage.size(path)
            if found != size:
                raise BadEpisodeError(f"{place} has {found:,} of {size:,} bytes; {REMEDY}", place)
            while len(self._opened) >= OPEN_FILES:
                self._opened.popitem(last=False)[1].close()
            self._opened[number] = pq.ParquetFile(
                self.storage.open(path), pre_buffer=True, page_checksum_verification=True
            )
        self._opened.move_to_end(number)
        return self._opened[number]

    def changed_files(self, count: int | None = None) -> Iterator[str]:
        """Files whose content is not what was prepared, a message for each.

        Every byte is read, or compared by the Hub's checksums. Files of another size are left out, as reading their
        episodes tells.

        Args:
            count: look only at the files of the first episodes, as many.

        Raises:
            ValueError: the Hub can't be reached.
        """
        for start, end, file in zip([0, *self.ends], self.ends, self.files, strict=False):
            path = file["path"]
            if (count is not None and start >= count) or self.storage.size(path) != file["bytes"]:
                continue
            try:
                found = self.storage.sha256(path)
            except UNREACHABLE as error:
                raise unreachable(self.storage.name, error) from error
            if found != file["sha256"]:
                place = f"{self.storage.name}/{path}"
                yield f"{place} (episodes {start} to {end - 1}) is not what was prepared; {REMEDY}"

    @property
    def has_checksums(self) -> bool:
        """Whether the manifest tells those of the files; earlier versions noted none."""
        return all("sha256" in file for file in self.files)

    @property
    def fingerprint(self) -> str:
        """Hash of the split's part of the manifest: format, columns, sources and files."""
        identity = [self.manifest["format_version"], self.manifest["description"], self._split_manifest()]
        return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()

    @property
    def provenance(self) -> dict[str, Any]:
        """Where the episodes come from, for statistics and for a dataset that is prepared from this one.

        That the prepared files changed has one of the other parts as its cause, unless they were prepared from nothing
        known.
        """
        split = dict(self._split_manifest())
        settings = dict(split.pop("settings"))
        known = {name: settings.pop(name) for name in ("source_fingerprint", "mapping") if name in settings}
        files = hashlib.sha256(json.dumps([self.manifest["description"], split], sort_keys=True).encode()).hexdigest()
        return known | {"preparation": settings, "prepared_files": files}

    def __getstate__(self) -> dict[str, Any]:
        """Without open files, for worker processes."""
        return self.__dict__ | {"_opened": OrderedDict()}


def read_manifest(storage: Storage) -> dict[str, Any]:
    """The manifest of a prepared dataset.

    Raises:
        ValueError: there is none, it is damaged, or another version wrote it.
    """
    try:
        with storage.open(MANIFEST) as file:
            manifest = json.loads(file.read())
    except FileNotFoundError as error:
        raise ValueError(f"{storage.name} has no {MANIFEST}; finish `instructvla prepare`, which writes it.") from error
    except HUB_ERRORS as error:
        raise unreachable(storage.name, error) from error
    except ValueError as error:
        raise ValueError(f"{storage.name}/{MANIFEST} is damaged ({error}); {REMEDY}.") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise ValueError(f"{storage.name}/{MANIFEST} is not that of `instructvla prepare`.")
    if manifest.get("format_version") != FORMAT_VERSION:
        version = manifest.get("format_version")
        raise ValueError(
            f"{storage.name} has format version {version}, this package reads {FORMAT_VERSION}; prepare it again."
        )
    return manifest
