"""What `instructvla prepare` has finished so far: a line per shard, so that another run goes on where it stopped.

A shard is written under a name of its own, then its line is added to the journal: what has no line is written again.
"""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

FOLDER = ".prepare"
ABSENT = "–"
DIFFERENCES = 5  # that a message tells


class Journal:
    """The finished shards of one split, in `output`/.prepare.

    Args:
        output: folder of the prepared dataset.
        split: name of the split.
        settings: everything that the files' bytes depend on, as JSON values.

    Raises:
        ValueError: some of the split was finished with other settings; the message says which.
    """

    def __init__(self, output: Path, split: str, settings: Mapping[str, Any]):
        self.folder, self.split = output / FOLDER, split
        self.path = self.folder / f"{split}.jsonl"
        self.shards: list[dict[str, Any]] = []
        if self.path.is_file() and len(lines := whole_lines(self.path)) > 1:
            header, *self.shards = lines
            require_same(header["settings"], settings, f"{output} was begun")
        else:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.path.write_text("", encoding="utf-8")
            self._append({"settings": settings})

    @property
    def next_episode(self) -> int:
        """Number of the first episode that no finished shard holds or skips."""
        return self.shards[-1]["next_episode"] if self.shards else 0

    @property
    def files(self) -> list[dict[str, Any]]:
        """The shards that have a file: one in which every episode was skipped has none."""
        return [shard for shard in self.shards if shard["episodes"]]

    def staged(self, number: int) -> Path:
        """Where the file of a shard lies until all are finished."""
        return self.folder / f"{self.split}-{number:05d}.parquet"

    def add(self, shard: Mapping[str, Any]) -> None:
        """Note a shard whose file is whole and on the disk."""
        self._append(shard)
        self.shards.append(dict(shard))

    def remove(self) -> None:
        """Forget the split once its files have their final names."""
        for path in [*self.folder.glob(f"{self.split}-*"), self.path]:
            path.unlink(missing_ok=True)
        if self.folder.is_dir() and not any(self.folder.iterdir()):
            self.folder.rmdir()

    def _append(self, line: Mapping[str, Any]) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
            file.flush()
            os.fsync(file.fileno())


def whole_lines(path: Path) -> list[dict[str, Any]]:
    """The journal's lines, after cutting off one that was interrupted."""
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        os.truncate(path, len(whole))
    return [json.loads(line) for line in whole.splitlines()]


def require_same(before: Mapping[str, Any], now: Mapping[str, Any], what: str) -> None:
    """Raise `ValueError` unless the settings are equal; `what` begins the message, which names what differs."""
    old, new = dict(leaves(before)), dict(leaves(json.loads(json.dumps(now))))
    different = [path for path in sorted({*old, *new}) if old.get(path, ABSENT) != new.get(path, ABSENT)]
    if different:
        told = [f"{path} was {shown(old, path)}, is {shown(new, path)}" for path in different[:DIFFERENCES]]
        if len(different) > DIFFERENCES:
            told.append(f"and {len(different) - DIFFERENCES} others")
        raise ValueError(f"{what} with other settings: {'; '.join(told)}. Give the same ones, or another --output.")


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Path → value of all that JSON nests, such as "mapping.state.parts.0.scale"; an empty list or object is one."""
    if not (isinstance(value, (Mapping, list)) and (value or not path)):
        yield path, value
        return
    for key, item in value.items() if isinstance(value, Mapping) else enumerate(value):
        yield from leaves(item, f"{path}.{key}" if path else str(key))


def shown(values: Mapping[str, Any], path: str) -> str:
    """One of them for a person."""
    text = json.dumps(values[path], ensure_ascii=False) if path in values else ABSENT
    return text if len(text) <= 120 else f"{text[:117]}…"
