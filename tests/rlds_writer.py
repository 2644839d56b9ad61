"""Writes small RLDS datasets as TFDS does: features.json, dataset_info.json and TFRecord shards.

It shares no code with the readers: it encodes the protocol-buffer wire format itself.
"""

import io
import json
import struct
from pathlib import Path

import google_crc32c
import numpy as np
from PIL import Image

CLASSES = "tensorflow_datasets.core.features"


def tensor(dtype: str, *shape: int | None, **content) -> dict:
    """A Tensor; None in `shape` is a length that differs, `content` e.g. encoding="zlib" or optional=True."""
    dimensions = {"dimensions": [str(-1 if size is None else size) for size in shape]} if shape else {}
    content = {"shape": dimensions, "dtype": dtype, "encoding": "none"} | content
    return {"pythonClassName": f"{CLASSES}.tensor_feature.Tensor", "tensor": content}


def text() -> dict:
    return {"pythonClassName": f"{CLASSES}.text_feature.Text", "text": {}}


def image(*shape: int | None) -> dict:
    dimensions = [str(-1 if size is None else size) for size in shape or (None, None, 3)]
    content = {"shape": {"dimensions": dimensions}, "dtype": "uint8", "encodingFormat": "jpeg"}
    return {"pythonClassName": f"{CLASSES}.image_feature.Image", "image": content}


def sequence(feature: dict, length: int = -1) -> dict:
    name = f"{CLASSES}.dataset_feature.Dataset"
    return {"pythonClassName": name, "sequence": {"feature": feature, "length": str(length)}}


def features_dict(**features: dict) -> dict:
    name = f"{CLASSES}.features_dict.FeaturesDict"
    return {"pythonClassName": name, "featuresDict": {"features": features}}


BRIDGE = features_dict(
    steps=sequence(
        features_dict(
            observation=features_dict(image_0=image(64, 64, 3), state=tensor("float32", 7)),
            action=tensor("float32", 7),
            language_instruction=text(),
            is_first=tensor("bool"),
            is_last=tensor("bool"),
        )
    ),
    episode_metadata=features_dict(file_path=text(), episode_id=tensor("int32")),
)


def bridge_record(number: int, steps: int = 4) -> dict:
    """A record of `BRIDGE`: keys and values as they are stored, all of them told apart by `number`."""
    generator = np.random.default_rng(number)
    return {
        "steps/observation/image_0": [jpeg(generator) for _ in range(steps)],
        "steps/observation/state": generator.normal(size=(steps, 7)).astype(np.float32),
        "steps/action": generator.normal(size=(steps, 7)).astype(np.float32),
        "steps/language_instruction": [f"put object {number} into the sink"] * steps,
        "steps/is_first": np.arange(steps) == 0,
        "steps/is_last": np.arange(steps) == steps - 1,
        "episode_metadata/file_path": [f"/data/{number}/out.npy"],
        "episode_metadata/episode_id": [number],
    }


def jpeg(generator: np.random.Generator, size: int = 64) -> bytes:
    """A picture of one random colour per quarter."""
    colours = generator.integers(0, 256, (2, 2, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(colours).resize((size, size), Image.Resampling.NEAREST).save(file, "JPEG", quality=90)
    return file.getvalue()


def write_rlds(
    folder: Path,
    records: list[dict],
    features: dict = BRIDGE,
    *,
    split: str = "train",
    shards: int = 1,
    name: str = "bridge_dataset",
) -> Path:
    """Writes one split into `folder`, which may hold others, and returns `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "features.json").write_text(json.dumps(features))
    chunks = [[records[index] for index in part] for part in np.array_split(np.arange(len(records)), shards)]
    for index, chunk in enumerate(chunks):
        path = folder / f"{name}-{split}.tfrecord-{index:05d}-of-{shards:05d}"
        path.write_bytes(b"".join(frame(example(record)) for record in chunk))
    info_path = folder / "dataset_info.json"
    info = json.loads(info_path.read_text()) if info_path.is_file() else {"name": name, "splits": []}
    info["fileFormat"] = "tfrecord"
    info["splits"].append({"name": split, "shardLengths": [str(len(chunk)) for chunk in chunks]})
    info_path.write_text(json.dumps(info))
    return folder


def frame(data: bytes) -> bytes:
    """A TFRecord record."""
    length = struct.pack("<Q", len(data))
    return length + checksum(length) + data + checksum(data)


def checksum(data: bytes) -> bytes:
    crc = google_crc32c.value(data)
    rotated = (crc >> 15) | (crc << 17) & 0xFFFFFFFF
    return struct.pack("<I", (rotated + 0xA282EAD8) % 2**32)


def example(record: dict) -> bytes:
    """A tf.train.Example: floats in a FloatList, whole numbers in an Int64List, texts and bytes in a BytesList."""
    entries = [field(1, field(1, key.encode()) + field(2, feature(values))) for key, values in record.items()]
    return field(1, b"".join(entries))


def feature(values) -> bytes:
    if isinstance(values, list) and values and isinstance(values[0], (str, bytes)):
        return field(1, b"".join(field(1, value.encode() if isinstance(value, str) else value) for value in values))
    array = np.asarray(values).reshape(-1)
    if array.dtype.kind == "f":
        return field(2, field(1, array.astype("<f4").tobytes()))
    signed = array.view(np.int64) if array.dtype == np.uint64 else array.astype(np.int64)
    return field(3, field(1, b"".join(varint(value % 2**64) for value in signed.tolist())))


def field(number: int, data: bytes) -> bytes:
    """A length-delimited field."""
    return varint(number << 3 | 2) + varint(len(data)) + data


def varint(value: int) -> bytes:
    groups = []
    while value > 127:
        groups.append(value & 127 | 128)
        value >>= 7
    return bytes([*groups, value])
