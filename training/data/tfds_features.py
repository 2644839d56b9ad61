"""`features.json` of TFDS: which fields a dataset's records have, and how each is stored in a `tf.train.Example`.

How TFDS flattens them: names are joined by "/"; the values of a sequence lie one after another; a sequence within a
sequence has its values under `ragged_flat_values` and its lengths, level by level, under `ragged_row_lengths_<level>`
(tensorflow_datasets/core/example_serializer.py).
"""

import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

Example = Mapping[str, np.ndarray | list[bytes]]
Column = np.ndarray | list

_ENCODINGS = {"none": None, "bytes": bytes, "zlib": zlib.decompress}


@dataclass(frozen=True)
class Feature:
    """One leaf of the tree in features.json.

    Args:
        name: path from the root, joined by "/", e.g. "steps/observation/image_0".
        kind: "number", "string" (a tensor of strings), "text" or "image".
        levels: how many sequences it lies in; the steps of an episode are one.
        dtype: of a number.
        shape: of one value; None is a length that differs.
        encoding: of a number: "none", "bytes" or "zlib".
        optional: a record may lack it.
        description: in words, as features.json has it.
    """

    name: str
    kind: str
    levels: int
    dtype: np.dtype | None = None
    shape: tuple[int | None, ...] = ()
    encoding: str = "none"
    optional: bool = False
    description: str = ""

    def decode(self, example: Example) -> Any:
        """The field's value in one record.

        Returns:
            In a sequence of n: an array (n, …), or a list of n texts, encoded pictures or, where their shapes differ,
            arrays. Otherwise one of these. None where the record lacks an optional field.

        Raises:
            ValueError: the record lacks the field, or holds other values than features.json says.
        """
        try:
            if self.optional and self._stored_names()[0] not in example:
                return None
            items = self._items(example)
            return _nested(items, self._row_lengths(example)) if self.levels else _single(items)
        except KeyError as error:
            raise ValueError(f"it lacks {error}, though features.json tells {self.name!r}") from error
        except (TypeError, ValueError, zlib.error) as error:
            raise ValueError(f"{self.name!r} is not as features.json tells: {error}") from error

    def _stored_names(self) -> list[str]:
        names = [f"{self.name}/value", f"{self.name}/shape"] if self._stores_shapes else [self.name]
        return [f"{name}/ragged_flat_values" for name in names] if self.levels > 1 else names

    @property
    def _stores_shapes(self) -> bool:
        return self.shape.count(None) > 1

    def _row_lengths(self, example: Example) -> list[np.ndarray]:
        """How many items each row has, from the outermost ragged level to the innermost."""
        stem = f"{self.name}/value" if self._stores_shapes else self.name
        return [np.asarray(example[f"{stem}/ragged_row_lengths_{level}"], int) for level in range(self.levels - 1)]

    def _items(self, example: Example) -> Column:
        """All values, whatever sequences they lie in, one after another."""
        values, *shapes = (example[name] for name in self._stored_names())
        as_numbers = self.kind == "number" and self.encoding == "none"
        if len(values) and isinstance(values, list) == as_numbers:
            raise ValueError("it holds byte strings" if as_numbers else f"it holds {values.dtype} numbers")
        if as_numbers:
            return self._numbers(np.asarray(values))
        if self.kind == "number":
            return self._decoded_numbers(values, np.reshape(shapes[0], (-1, len(self.shape))) if shapes else None)
        if self.kind == "image":
            return values
        return self._texts(values)

    def _numbers(self, values: np.ndarray) -> np.ndarray:
        if len(values) and values.dtype.kind == "f" and self.dtype.kind != "f":
            raise ValueError(f"it holds {values.dtype} numbers, not {self.dtype}")
        # tf.train.Example has no unsigned numbers: TFDS stores the bits of uint64 as int64.
        numbers = values.view(np.uint64) if self.dtype == np.uint64 and len(values) else values.astype(self.dtype)
        if None in self.shape:  # in no sequence, see `_checked`
            return numbers.reshape(1, *(-1 if size is None else size for size in self.shape))
        return numbers.reshape(-1, *self.shape)

    def _decoded_numbers(self, values: list[bytes], shapes: np.ndarray | None) -> Column:
        decompress = _ENCODINGS[self.encoding]
        one_shape = tuple(-1 if size is None else size for size in self.shape)
        arrays = [
            np.frombuffer(decompress(value), self.dtype).reshape(one_shape if shapes is None else shapes[index])
            for index, value in enumerate(values)
        ]
        return np.stack(arrays) if len({array.shape for array in arrays}) == 1 else arrays

    def _texts(self, values: list[bytes]) -> Column:
        try:
            texts: list = [value.decode("utf-8") for value in values]
        except UnicodeDecodeError:
            if self.kind == "text":
                raise
            texts = values  # a tensor of strings may hold any bytes, e.g. encoded pictures
        if not self.shape:
            return texts
        array = np.array(texts, object)
        return array.reshape(-1, *(-1 if size is None else size for size in self.shape))


def _nested(items: Column, row_lengths: list[np.ndarray]) -> Column:
    """Cuts `items` into rows, these into rows of rows, and so on; rows of one length stay an array."""
    for lengths in reversed(row_lengths):
        if lengths.sum() != len(items):
            raise ValueError(f"its rows count {lengths.sum()} values, there are {len(items)}")
        if isinstance(items, np.ndarray) and len(set(lengths.tolist())) == 1:
            items = items.reshape(len(lengths), lengths[0], *items.shape[1:])
        else:
            ends = np.cumsum(lengths)
            items = [items[end - length : end] for length, end in zip(lengths, ends, strict=True)]
    return items


def _single(items: Column) -> Any:
    if len(items) != 1:
        raise ValueError(f"it has {len(items)} values, not 1")
    item = items[0]
    return item.item() if isinstance(item, np.generic) else item


def read_features(path: Path) -> list[Feature]:
    """The leaves of features.json, in its order.

    Raises:
        ValueError: it is no JSON, is older than TFDS 4.5, or has a feature of a kind that can't be read.
    """
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}; download it again") from error
    if not isinstance(tree, dict) or "featuresDict" not in tree:
        raise ValueError(
            f"{path} has no `featuresDict`: it is no features.json, or one from before TFDS 4.5; write the dataset "
            "again with a newer TFDS"
        )
    try:
        return list(_leaves(tree, "", 0))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error


def _leaves(node: Mapping[str, Any], name: str, levels: int) -> Iterator[Feature]:
    """Told apart by their content as TFDS's own reader does, not by class name: own subclasses work, too."""
    note = str(node.get("description", ""))
    if "featuresDict" in node:
        for key, child in node["featuresDict"].get("features", {}).items():
            yield from _leaves(child, f"{name}/{key}" if name else key, levels)
    elif "sequence" in node:
        yield from _leaves(node["sequence"]["feature"], name, levels + 1)
    elif "translation" in node:
        for language in node["translation"]["languages"]:
            yield Feature(f"{name}/{language}", "text", levels)
    elif "tensor" in node:
        yield replace(_tensor(node["tensor"], name, levels), description=note)
    elif "text" in node:
        yield Feature(name, "text", levels, description=note)
    elif "image" in node or "video" in node:
        yield Feature(name, "image", levels + ("video" in node), description=note)
    elif "classLabel" in node:
        yield Feature(name, "number", levels, np.dtype(np.int64))
    elif "boundingBox" in node:
        yield Feature(name, "number", levels, np.dtype(np.float32), (4,))
    else:
        raise ValueError(
            f"feature {name!r} is a {node.get('pythonClassName', 'feature without a class name')}; readable "
            "are FeaturesDict, Sequence, Dataset, Tensor, Scalar, Text, Translation, Image, Video, ClassLabel, BBox"
        )


def _tensor(content: Mapping[str, Any], name: str, levels: int) -> Feature:
    sizes = [int(size) for size in content.get("shape", {}).get("dimensions", [])]
    shape = tuple(None if size < 0 else size for size in sizes)
    encoding, dtype = content.get("encoding", "none").lower(), content["dtype"]
    if encoding not in _ENCODINGS:
        raise ValueError(f"feature {name!r} has encoding {encoding!r}; readable are {', '.join(_ENCODINGS)}")
    unknown = shape.count(None) + (levels == 1)
    if encoding == "none" and None in shape and (levels or unknown > 1):
        raise ValueError(f"feature {name!r} has several unknown lengths, which TFDS can read only from encoded tensors")
    optional = content.get("optional", False)
    if dtype in ("string", "object"):
        return Feature(name, "string", levels, None, shape, encoding, optional)
    return Feature(name, "number", levels, _number_type(dtype, name, encoding), shape, encoding, optional)


def _number_type(dtype: str, name: str, encoding: str) -> np.dtype:
    if dtype == "bfloat16" and encoding == "none":  # stored as float32, and unknown to NumPy
        return np.dtype(np.float32)
    try:
        number_type = np.dtype(dtype)
    except TypeError:
        number_type = None
    if number_type is None or number_type.kind not in "biuf":
        raise ValueError(f"feature {name!r} has dtype {dtype!r}; readable are numbers, bool and string")
    return number_type
