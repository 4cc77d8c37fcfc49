"""The safetensors container: a JSON header that lists tensors, then their raw little-endian bytes.

Written and read here rather than through the safetensors package, because a reader that trusts nothing has to say which entry
is wrong and what was expected there, and has to refuse repeated keys, deep nesting and numbers that JSON does not have.
"""

from __future__ import annotations

import json
import math
import os
import reprlib
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from sparsespike.common.errors import GraphError

HEADER_LIMIT = 16 * 2**20
"""Largest JSON header in bytes; a graph of ten thousand populations stays below."""
DEPTH_LIMIT = 32
"""Deepest nesting of JSON objects and arrays."""
DTYPES: dict[str, np.dtype[Any]] = {"I64": np.dtype("<i8"), "F64": np.dtype("<f8"), "I32": np.dtype("<i4")}
"""The number types of a graph file; wide ones come first, so that every tensor is aligned."""
_NAMES = {dtype: name for name, dtype in DTYPES.items()}


@dataclass(frozen=True)
class TensorEntry:
    """Where a tensor lies: its dtype's safetensors name, its shape, and its bytes within the data section."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


@dataclass(frozen=True, eq=False)
class Container:
    """An open container: its metadata, the entries of its tensors, and its data section, mapped into memory."""

    metadata: Mapping[str, str]
    entries: Mapping[str, TensorEntry]
    data: NDArray[np.uint8]

    def tensor(self, name: str) -> NDArray[Any]:
        """A tensor as a read-only view of the mapped file."""
        entry = self.entries[name]
        return self.data[entry.begin : entry.end].view(DTYPES[entry.dtype]).reshape(entry.shape)


def write_container(file: BinaryIO, tensors: Mapping[str, NDArray[Any]], metadata: Mapping[str, str]) -> None:
    """Write tensors of the types in ``DTYPES``; equal arguments give equal bytes.

    Raises
    ------
    GraphError
        If the header grows beyond ``HEADER_LIMIT``.
    """
    little = {name: np.asarray(array, array.dtype.newbyteorder("<"), order="C") for name, array in tensors.items()}
    order = sorted(little, key=lambda name: (-little[name].itemsize, name))
    header: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))}
    begin = 0
    for name in order:
        array = little[name]
        end = begin + array.nbytes
        header[name] = {"dtype": _NAMES[array.dtype], "shape": list(array.shape), "data_offsets": [begin, end]}
        begin = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    if len(text) > HEADER_LIMIT:
        raise GraphError(f"header: found {len(text)} bytes, expected at most {HEADER_LIMIT}; shorten the provenance")
    file.write(len(text).to_bytes(8, "little") + text)
    for name in order:
        file.write(little[name].data)


def read_container(path: Path) -> Container:
    """Open a container and check its whole header against the file, before any tensor is touched.

    Raises
    ------
    GraphError
        If the file cannot be read or breaks the format.
    """
    try:
        # A named pipe would block for ever on opening, and a mapped device has no size.
        if not stat.S_ISREG(path.stat().st_mode):
            raise GraphError("found a folder, pipe or device, expected a regular file")
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            length = int.from_bytes(_read(file, 8, "header length"), "little")
            if length > HEADER_LIMIT:
                raise GraphError(f"header length: found {length} bytes, expected at most {HEADER_LIMIT}; is this a graph file?")
            text = _read(file, length, "header")
            data_length = size - 8 - length
            # A zero-length section cannot be mapped.
            data = np.memmap(file, np.uint8, "r", 8 + length) if data_length else np.zeros(0, np.uint8)
    except OSError as error:
        raise GraphError(f"cannot be read: {error.strerror or error}") from error
    metadata, entries = _parse_header(text)
    _check_layout(entries, data_length)
    return Container(metadata, entries, data)


def _read(file: BinaryIO, length: int, label: str) -> bytes:
    found = file.read(length)
    if len(found) < length:
        raise GraphError(f"{label}: found {len(found)} bytes, expected {length}; the file is truncated")
    return found


def _parse_header(text: bytes) -> tuple[dict[str, str], dict[str, TensorEntry]]:
    try:
        header = parse_json(text.decode(), "header")
    except UnicodeDecodeError as error:
        raise GraphError(f"header: found bytes that are not UTF-8 ({error}), expected a JSON object") from error
    if not isinstance(header, dict):
        raise GraphError(f"header: found {shorten(header)}, expected a JSON object")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise GraphError(f"header, __metadata__: found {shorten(metadata)}, expected an object of strings")
    return metadata, {name: _parse_entry(name, entry) for name, entry in header.items()}


def _parse_entry(name: str, entry: Any) -> TensorEntry:
    where = f"tensor {shorten(name)}"
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise GraphError(f"{where}: found {shorten(entry)}, expected an object of dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise GraphError(f"{where}, dtype: found {shorten(dtype)}, expected one of {', '.join(DTYPES)}")
    for label, numbers in (("shape", shape), ("data_offsets", offsets)):
        # `type(n) is int` and not isinstance: JSON's true would pass for 1.
        if not isinstance(numbers, list) or len(numbers) > 4 or not all(type(n) is int and 0 <= n < 2**63 for n in numbers):
            raise GraphError(f"{where}, {label}: found {shorten(numbers)}, expected an array of up to 4 integers >= 0")
    expected = math.prod(shape) * DTYPES[dtype].itemsize
    if len(offsets) != 2 or offsets[1] - offsets[0] != expected:
        raise GraphError(
            f"{where}, data_offsets: found {shorten(offsets)}, expected begin and end {expected} bytes apart "
            f"({dtype} of shape {shorten(shape)})"
        )
    return TensorEntry(dtype, tuple(shape), offsets[0], offsets[1])


def _check_layout(entries: Mapping[str, TensorEntry], data_length: int) -> None:
    """Tensors must cover the data section without gap or overlap."""
    position = 0
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].begin, item[1].end)):
        if entry.begin != position:
            raise GraphError(
                f"tensor {shorten(name)}, data_offsets: found a begin of {entry.begin}, expected {position} "
                "(tensors follow each other without gap or overlap)"
            )
        position = entry.end
    if position != data_length:
        raise GraphError(f"data section: found {data_length} bytes, expected {position} (end of the last tensor)")


def parse_json(text: str, where: str) -> Any:
    """Parse strict JSON: unique keys, finite numbers, Unicode strings, at most ``DEPTH_LIMIT`` levels.

    Raises
    ------
    GraphError
        If the text is anything else.
    """
    try:
        parsed = json.loads(text, object_pairs_hook=_unique_keys, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise GraphError(f"{where}: found text that is not strict JSON ({error}), expected a JSON object") from error
    for value, depth in _walk(parsed):
        if depth > DEPTH_LIMIT:
            raise GraphError(f"{where}: found JSON nested deeper than {DEPTH_LIMIT} levels, expected a flat description")
        if isinstance(value, float) and not math.isfinite(value):
            raise GraphError(f"{where}: found a number too large for a float, expected finite numbers")
        if isinstance(value, str) and not _is_unicode(value):
            raise GraphError(f"{where}: found half a surrogate pair in {shorten(value)}, expected Unicode text")
    return parsed


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in pairs:
        if key in result:
            raise ValueError(f"key {shorten(key)} is repeated")
        result[key] = value
    return result


def _refuse_constant(constant: str) -> float:
    raise ValueError(f"{constant} is not a JSON number")


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _walk(parsed: Any) -> Iterator[tuple[Any, int]]:
    """Every value and key below ``parsed`` with its nesting depth, without recursion."""
    stack = [(parsed, 1)]
    while stack:
        value, depth = stack.pop()
        yield value, depth
        if isinstance(value, dict):
            stack.extend((inner, depth + 1) for pair in value.items() for inner in pair)
        elif isinstance(value, list):
            stack.extend((inner, depth + 1) for inner in value)


def shorten(value: Any) -> str:
    """A value for an error message, cut to a readable length."""
    text = reprlib.repr(value)
    return text if len(text) <= 100 else f"{text[:97]}..."
