"""Claims about finding the records of a large JSON file."""

import json
import tracemalloc
from pathlib import Path

import pytest

from instructvla.training.data import json_records
from instructvla.training.data.json_records import scan_records

CONTENT = {"a/b": {"1": {"text": 'é "{,}" \\ 文'}, "2": {}}, "ü": {}, "c": {"x": {"list": [1, {"deep": [None, 2.5]}]}}}


@pytest.fixture(params=[1, 7, 1 << 20], ids="chunk{}".format)
def chunk(request, monkeypatch) -> int:
    monkeypatch.setattr(json_records, "CHUNK", request.param)
    return request.param


def write(tmp_path: Path, content: str | bytes) -> Path:
    path = tmp_path / "records.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize("style", [{}, {"indent": 2}, {"ensure_ascii": False}, {"separators": (",", ":")}], ids=str)
def test_each_place_holds_its_record(tmp_path, chunk, style):
    path = write(tmp_path, json.dumps(CONTENT, **style) + "\n ")
    found = [(outer, inner) for outer, inner, _, _ in scan_records(path, "{…}")]
    assert found == [(outer, inner) for outer, records in CONTENT.items() for inner in records]
    for outer, inner, offset, length in scan_records(path, "{…}"):
        assert json.loads(path.read_bytes()[offset : offset + length]) == CONTENT[outer][inner]


@pytest.mark.parametrize(
    ("content", "byte"),
    [
        ("", 0),
        ("[]", 0),
        ('{"a": 3}', 6),
        ('{"a": {"b": 3}}', 12),
        ('{"a": {"b": "{"}}', 12),
        ('{"a": {"b": {}}', 15),
        ('{"a": {"b": {"c": [1, 2', 23),
        ('{"a": {"b": {"c": 1,}}}', None),
        ('{"a": {"é": {"c" 1}}}', 18),
        ('{"a": {"b": {}} "c": {}}', 16),
        ('{"a": {"b": {}},}', 16),
        ("{a: 1}", 1),
        ('{"a": {}} {}', 10),
    ],
)
def test_a_cut_off_or_malformed_file_is_named_with_the_byte(tmp_path, chunk, content, byte):
    path = write(tmp_path, content)
    with pytest.raises(ValueError, match="records.json: byte .*of the form LAYOUT.*download it again") as caught:
        list(scan_records(path, "LAYOUT"))
    assert byte is None or f"byte {byte}:" in str(caught.value)


def test_text_that_is_no_utf8_is_refused(tmp_path, chunk):
    with pytest.raises(ValueError, match="not UTF-8"):
        list(scan_records(write(tmp_path, b'{"a": {"b\xff": {}}}'), "LAYOUT"))


def test_memory_does_not_grow_with_the_file(tmp_path):
    record = json.dumps({"text": "word " * 200})
    inner = ", ".join(f'"{number}": {record}' for number in range(100))
    path = write(tmp_path, "{" + ", ".join(f'"{number}": {{{inner}}}' for number in range(100)) + "}")
    assert path.stat().st_size > 10_000_000
    tracemalloc.start()
    count = sum(1 for _ in scan_records(path, "LAYOUT"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 10_000
    assert peak < 5_000_000  # a chunk of 1 MiB as bytes and as text, and what waits of the one before


def test_a_record_beyond_the_limit_stops_the_search(tmp_path, monkeypatch):
    monkeypatch.setattr(json_records, "CHUNK", 100)
    monkeypatch.setattr(json_records, "LARGEST_RECORD", 1000)
    path = write(tmp_path, '{"a": {"b": {"unclosed": "' + "x" * 100_000)
    with pytest.raises(ValueError, match="byte 25: Unterminated string"):
        list(scan_records(path, "LAYOUT"))
