"""Opens a dataset whatever its format: RLDS, LeRobot, or episodes that `instructvla prepare` wrote."""

import hashlib
import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from instructvla.hub_source import require_repository_name
from instructvla.training.data.episode_parquet import MANIFEST
from instructvla.training.data.episodes import EpisodeReader
from instructvla.training.data.field_mapping import FieldMapping, MappedEpisodes, read_mapping, shipped_mappings
from instructvla.training.data.parquet_reader import HubStorage, ParquetEpisodes
from instructvla.training.data.preparation_journal import FOLDER

if TYPE_CHECKING:
    from instructvla.training.data.lerobot_reader import LerobotReader
    from instructvla.training.data.rlds import RldsReader

LEROBOT_INFO = "meta/info.json"
RLDS_FEATURES = "features.json"
FORMATS = "RLDS (features.json), LeRobot (meta/info.json) or prepared episodes (manifest.json)"


def open_episodes(
    source: str | Path,
    mapping: str | Path | FieldMapping | None = None,
    split: str = "train",
    dataset: str | None = None,
    revision: str | None = None,
) -> EpisodeReader:
    """The episodes of a folder or of a Hub dataset, by number.

    Args:
        source: RLDS folder (with features.json, or one or two levels above it where it holds no other dataset),
            LeRobot folder or Hub dataset, or the folder or Hub dataset that `instructvla prepare` made.
        mapping: for RLDS and LeRobot: name of a shipped mapping, YAML file, or `FieldMapping`.
        split: of RLDS and prepared episodes.
        dataset: name for its statistics, instead of the mapping's.
        revision: of a Hub dataset.

    Raises:
        ValueError: no such source, format, split or mapping; a mapping missing, or given where there is one already.
    """
    kind = detect_format(source, revision)
    if kind == "prepared":
        if mapping is not None or dataset is not None:
            raise ValueError(f"{source} is prepared: its mapping and dataset name are fixed; leave them out.")
        return ParquetEpisodes(source, split, revision)
    if mapping is None:
        raise ValueError(
            f"{source} is a {kind} dataset, which does not say what its fields mean: give a mapping, "
            f"{', '.join(shipped_mappings())} or your own YAML file (`instructvla draft-mapping` writes a first one)."
        )
    meaning = read_mapping(mapping)
    if dataset is not None:
        meaning = meaning.with_dataset(dataset)
    raw = open_raw(source, kind, split, revision)
    names = {of_steps: [item.name for item in raw.fields if item.of_steps == of_steps] for of_steps in (True, False)}
    meaning.require_fields(str(source), steps=names[True], episode=names[False])
    if kind == "LeRobot":
        raw = raw.with_cameras(list(meaning.cameras.values()))
    folder = raw.folder if kind == "RLDS" else source  # whichever folder above it was given
    return MappedEpisodes(raw, meaning, partial(source_fingerprint, folder, split, revision))


def source_fingerprint(source: str | Path, split: str, revision: str | None = None) -> str:
    """Hash of a split's identity: names and sizes of a folder's files, or the commit of a Hub dataset."""
    if not Path(source).is_dir():
        identity = [str(source), HubStorage(str(source), revision).commit]
    else:
        files = sorted(path for path in Path(source).rglob("*") if path.is_file())
        identity = [[path.relative_to(source).as_posix(), path.stat().st_size] for path in files]
    return hashlib.sha256(json.dumps([split, identity]).encode()).hexdigest()


def open_raw(source: str | Path, kind: str, split: str, revision: str | None) -> "RldsReader | LerobotReader":
    """The raw reader of a format, which is imported here as it needs libraries that others don't."""
    if kind == "RLDS":
        from instructvla.training.data.rlds import RldsReader

        if not Path(source).is_dir():
            raise ValueError(f"{source}: RLDS is read from a folder; download it first, then give the folder.")
        return RldsReader(source, split)
    from instructvla.training.data.lerobot_reader import LerobotReader

    if split != "train":
        raise ValueError(f"{source} is a LeRobot dataset, all of which is split 'train'; {split!r} is none.")
    return LerobotReader(source, revision=revision)


def detect_format(source: str | Path, revision: str | None = None) -> str:
    """ "RLDS", "LeRobot" or "prepared", by the files that only this format has.

    Raises:
        ValueError: the source can't be read, or is none of them.
    """
    names = hub_names(source, revision) if not Path(source).is_dir() else telling_names(Path(source))
    if any(name == MANIFEST or name.startswith(f"{FOLDER}/") for name in names):
        return "prepared"
    if LEROBOT_INFO in names:
        return "LeRobot"
    if any(name.rpartition("/")[2] == RLDS_FEATURES for name in names):
        return "RLDS"
    raise ValueError(f"{source} holds no dataset of a known format: {FORMATS}.")


def telling_names(folder: Path) -> list[str]:
    """Those files of a folder that tell a format; a folder may hold a million others."""
    features = (RLDS_FEATURES, f"*/{RLDS_FEATURES}", f"*/*/{RLDS_FEATURES}")  # dataset/version/features.json
    patterns = (*features, LEROBOT_INFO, MANIFEST, f"{FOLDER}/*.jsonl")
    return [path.relative_to(folder).as_posix() for pattern in patterns for path in folder.glob(pattern)]


def hub_names(source: str | Path, revision: str | None) -> list[str]:
    require_repository_name(source)
    return list(HubStorage(str(source), revision).sizes)
