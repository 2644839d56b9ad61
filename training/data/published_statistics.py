"""Statistics that others published for a dataset, beside our own: a wrong unit, sign or dimension shows at once.

Read are files as Octo, Open X-Embodiment, OpenVLA and LeRobot write them, and our own: `{"action": {mean, std, …},
"proprio": …}`, alone or under a dataset's key. Their names differ: p01 and p99 or q01 and q99; proprio, state or
observation.state.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from instructvla.configuration_sections import is_number
from instructvla.processing.action_normalization import nearest
from instructvla.training.data.dataset_description import DatasetDescription

PARTS = {"action": ("action",), "state": ("state", "proprio", "observation.state")}
COLUMNS = {"mean": ("mean",), "std": ("std",), "q01": ("q01", "p01"), "q99": ("q99", "p99")}
COLUMNS |= {"min": ("min",), "max": ("max",)}

Published = dict[str, dict[str, list[float]]]  # "action" or "state" → column → a number per dimension


def read_published(path: str | Path, key: str | None = None, dataset: str | None = None) -> Published:
    """Published statistics of one dataset, under our names.

    Args:
        path: JSON file.
        key: of the dataset, in a file with several; by default the only one, or `dataset`.
        dataset: our name of it.

    Raises:
        ValueError: no such file or key, no statistics in it, or columns of different lengths.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"--compare {path} is no JSON file that can be read: {error}.") from error
    if not isinstance(content, Mapping):
        raise ValueError(f"--compare {path} holds no statistics: it must be an object of parts or of datasets.")
    parts = content if "action" in content else chosen(content, path, key, dataset)
    published = {part: columns for part, names in PARTS.items() if (columns := read_columns(parts, names))}
    if "action" not in published:
        raise ValueError(f"--compare {path} holds no statistics of an action: it has {', '.join(parts) or 'nothing'}.")
    for part, columns in published.items():
        if len(sizes := {len(values) for values in columns.values()}) > 1:
            raise ValueError(f"--compare {path}: the columns of its {part} have different lengths: {sorted(sizes)}.")
    return published


def chosen(content: Mapping[str, Any], path: str | Path, key: str | None, dataset: str | None) -> Mapping[str, Any]:
    """The statistics of one dataset in a file of several."""
    keys = [name for name, parts in content.items() if isinstance(parts, Mapping) and "action" in parts]
    if key is None:
        key = dataset if dataset in keys else keys[0] if len(keys) == 1 else None
    if not keys:
        raise ValueError(f"--compare {path} holds no statistics: it has {', '.join(content) or 'nothing'}.")
    if key is None:
        raise ValueError(f"--compare {path} holds several datasets, {', '.join(keys)}: choose with --compare-key.")
    if key not in keys:
        raise ValueError(
            f"--compare {path} has no {key!r}, only {', '.join(keys)}; the nearest is {nearest(key, keys)!r}."
        )
    return content[key]


def read_columns(parts: Mapping[str, Any], names: Sequence[str]) -> dict[str, list[float]]:
    """The columns of the first of these parts that is there."""
    given = next((parts[name] for name in names if isinstance(parts.get(name), Mapping)), {})
    found = {column: next((given[name] for name in known if name in given), None) for column, known in COLUMNS.items()}
    return {
        column: [float(value) for value in values]
        for column, values in found.items()
        if isinstance(values, list) and all(map(is_number, values))
    }


def fitting_dims(published: Published, description: DatasetDescription) -> dict[str, list[int]]:
    """Our dimensions that the published ones are of; a state's padding is left out where theirs has none.

    Raises:
        ValueError: sizes that differ.
    """
    names = {"action": description.action_names, "state": description.state_names}
    dims = {}
    for part, columns in published.items():
        size, ours = len(next(iter(columns.values()))), list(range(len(names[part])))
        if not ours:  # we have no state
            continue
        if size != len(ours) and part == "state":
            ours = [dim for dim in ours if dim not in description.state_padding]
        if size != len(ours):
            raise ValueError(
                f"--compare: the published {part} has {size} dimensions, that of {description.dataset} has "
                f"{len(names[part])} ({', '.join(names[part])}): it is of another dataset, or of another mapping."
            )
        dims[part] = ours
    return dims


def comparison(summary: Mapping[str, Any], published: Published, description: DatasetDescription) -> Iterator[str]:
    """Lines of a table: ours, the published number, and their difference as a share of the published q99 − q01."""
    dims = fitting_dims(published, description)
    for part, ours in dims.items():
        names = getattr(description, f"{part}_names")
        yield ""
        yield f"  {part:<24}{'':>6}{'ours':>12}{'published':>12}{'difference':>13}  (share of the published q99 − q01)"
        for place, dim in enumerate(ours):
            for number, (column, theirs) in enumerate(published[part].items()):
                own, other = summary[part][column][dim], theirs[place]
                share = difference(own, other, span(published[part], place))
                yield f"  {'' if number else names[dim]:<24}{column:>6}{own:>12.4g}{other:>12.4g}{share:>13}"


def span(columns: Mapping[str, list[float]], place: int) -> float:
    """q99 − q01 of a dimension; 0 where they are not published."""
    return columns["q99"][place] - columns["q01"][place] if {"q01", "q99"} <= set(columns) else 0.0


def difference(own: float, other: float, unit: float) -> str:
    return f"{100 * (own - other) / unit:+.1f} %" if unit > 0 else "–"
