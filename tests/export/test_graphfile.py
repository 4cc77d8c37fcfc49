"""Graph files: what is written is read back, what is broken is refused with one clear message."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import save

from sparsespike.common.errors import ConfigError, GraphError, GraphFileError
from sparsespike.export.connections import CSRConnection
from sparsespike.export.container import DEPTH_LIMIT, HEADER_LIMIT
from sparsespike.export.graph import Population, Projection, SpikingGraph
from sparsespike.export.graphfile import checksum, load_graph, save_graph

GOLDEN = Path(__file__).parent / "data" / "every_kind_v1.safetensors"
GOLDEN_DIGEST = "2fbc59a817b82f74228975dd489ad5c9139b9714c20b0b3d9cb73596b76429be"

GOLDEN_AEC = GOLDEN.with_name("aec_v1.safetensors")
GOLDEN_AEC_DIGEST = "1c7d8cd945c455490b924bc1a8719e1594a03f06016c1f9743b5570ef9ee027c"

Tensors = dict[str, np.ndarray]
Change = Callable[[dict[str, Any], Tensors], None]


@pytest.fixture(scope="module")
def saved(every_kind: SpikingGraph, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("saved") / "graph.safetensors"
    save_graph(every_kind, path)
    return path.read_bytes()


@pytest.fixture(scope="module")
def coded(coded_in_time: SpikingGraph, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("coded") / "graph.safetensors"
    save_graph(coded_in_time, path)
    return path.read_bytes()


def parts(content: bytes) -> tuple[dict[str, Any], Tensors]:
    """The description and the tensors of a graph file, taken apart without our reader."""
    length = struct.unpack("<Q", content[:8])[0]
    header, data = json.loads(content[8 : 8 + length]), content[8 + length :]
    types = {"I64": "<i8", "I32": "<i4", "F64": "<f8"}
    tensors = {
        name: np.frombuffer(data[slice(*entry["data_offsets"])], types[entry["dtype"]]).reshape(entry["shape"])
        for name, entry in header.items()
        if name != "__metadata__"
    }
    return json.loads(header["__metadata__"]["sparsespike"]), tensors


def joined(description: Any, tensors: Tensors) -> bytes:
    """A file with a correct checksum, written by the safetensors package."""
    text = description if isinstance(description, str) else json.dumps(description)
    return save(tensors, {"sparsespike": text, "sparsespike_sha256": checksum(text, tensors)})


def raw(header: bytes | Any, data: bytes = b"") -> bytes:
    """A container with an arbitrary header."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def refused(tmp_path: Path, content: bytes, *expected: str) -> None:
    """Loading raises one GraphFileError that names the file and holds every expected part."""
    path = tmp_path / "broken.safetensors"
    path.write_bytes(content)
    with pytest.raises(GraphFileError) as caught:
        load_graph(path)
    message = str(caught.value)
    assert str(path) in message
    for part in expected:
        assert part in message
    assert "expected" in message
    assert len(message) < 500


def test_round_trip(every_kind: SpikingGraph, tmp_path: Path) -> None:
    path = tmp_path / "new" / "graph.safetensors"
    save_graph(every_kind, path)
    loaded = load_graph(path)
    assert loaded.digest() == every_kind.digest()
    assert loaded.provenance == every_kind.provenance
    assert loaded.order == every_kind.order
    assert [p.name for p in loaded.populations] == [p.name for p in every_kind.populations]
    assert [p.key for p in loaded.projections] == [p.key for p in every_kind.projections]
    for name in loaded.order:
        assert np.array_equal(loaded.population(name).scale, every_kind.population(name).scale)
        assert loaded.population(name).scale.shape == every_kind.population(name).scale.shape


def test_equal_graphs_give_equal_bytes(every_kind: SpikingGraph, saved: bytes, tmp_path: Path) -> None:
    path = tmp_path / "again.safetensors"
    save_graph(every_kind, path)
    assert path.read_bytes() == saved
    save_graph(load_graph(path), path)
    assert path.read_bytes() == saved


def test_the_container_is_safetensors(saved: bytes, tmp_path: Path) -> None:
    path = tmp_path / "graph.safetensors"
    path.write_bytes(saved)
    _, tensors = parts(saved)
    with safe_open(path, "np") as file:
        assert set(file.keys()) == set(tensors)
        assert all(np.array_equal(file.get_tensor(name), tensors[name]) for name in tensors)


def test_tensors_are_aligned(saved: bytes) -> None:
    length = struct.unpack("<Q", saved[:8])[0]
    assert length % 8 == 0
    header = json.loads(saved[8 : 8 + length])
    sizes = {"I64": 8, "F64": 8, "I32": 4}
    assert all(e["data_offsets"][0] % sizes[e["dtype"]] == 0 for name, e in header.items() if name != "__metadata__")


def test_a_file_by_the_safetensors_package_is_read(every_kind: SpikingGraph, saved: bytes, tmp_path: Path) -> None:
    path = tmp_path / "theirs.safetensors"
    path.write_bytes(joined(*parts(saved)))
    assert load_graph(path).digest() == every_kind.digest()


def test_golden_file_of_version_1(every_kind: SpikingGraph) -> None:
    loaded = load_graph(GOLDEN)
    assert loaded.digest() == GOLDEN_DIGEST == every_kind.digest()
    assert loaded.provenance == every_kind.provenance


def test_golden_file_of_kind_aec(coded_in_time: SpikingGraph) -> None:
    loaded = load_graph(GOLDEN_AEC)
    assert loaded.digest() == GOLDEN_AEC_DIGEST == coded_in_time.digest()
    assert loaded.slots == 3


def test_golden_files_are_what_is_written_today(saved: bytes, coded: bytes) -> None:
    assert saved == GOLDEN.read_bytes()
    assert coded == GOLDEN_AEC.read_bytes()


def test_golden_file_read_by_the_specification_alone() -> None:
    """docs/format.md, followed with json, struct and numpy only: checksum, shapes and weights."""
    content = GOLDEN.read_bytes()
    (length,) = struct.unpack_from("<Q", content)
    header = json.loads(content[8 : 8 + length].decode("utf-8"))
    metadata = header.pop("__metadata__")
    description = json.loads(metadata["sparsespike"])
    assert description["format_version"] == 1

    types = {"I64": "<i8", "I32": "<i4", "F64": "<f8"}
    start = 8 + length
    sha = hashlib.sha256(metadata["sparsespike"].encode("utf-8"))
    tensors = {}
    for name in sorted(header):
        begin, end = header[name]["data_offsets"]
        data = content[start + begin : start + end]
        sha.update(name.encode("utf-8") + b"\0" + data)
        tensors[name] = np.frombuffer(data, types[header[name]["dtype"]]).reshape(header[name]["shape"])
    assert sha.hexdigest() == metadata["sparsespike_sha256"]

    populations = {population["name"]: population for population in description["populations"]}
    assert [(p["name"], p["kind"], p["shape"]) for p in populations.values()] == [
        ("pixels", "input", [2, 4, 4]),
        ("net.0", "if", [3, 2, 2]),
        ("net-1", "signed_if", [5]),
        ("coded", "if", [4]),
        ("classes", "readout", [3]),
    ]
    assert populations["pixels"]["value_range"] == [0, 255]
    assert tensors["population/net.0/threshold"].tolist() == list(range(2, 26, 2))
    assert tensors["population/classes/scale"].shape == ()

    dense = np.zeros((12, 5), np.int64)
    pointers = tensors["projection/net.0/net-1/pointers_to_1"]
    for i in range(12):
        row = slice(pointers[i], pointers[i + 1])
        dense[i, tensors["projection/net.0/net-1/indices_1"][row]] = tensors["projection/net.0/net-1/values"][row]
    i, j = np.indices(dense.shape)
    assert np.array_equal(dense, np.where((i + j) % 3 == 0, 0, (5 * i + j) % 11 - 5))

    (convolution,) = (p for p in description["projections"] if p["kind"] == "conv2d")
    assert convolution == {
        "pre": "pixels", "post": "net.0", "kind": "conv2d", "stride": [2, 2], "padding": [1, 1], "dilation": [1, 1], "groups": 1
    }  # fmt: skip
    assert tensors["projection/pixels/net.0/kernel"].shape == (3, 2, 3, 3)


def test_an_interrupted_write_leaves_the_old_file(every_kind: SpikingGraph, saved: bytes, tmp_path: Path) -> None:
    path = tmp_path / "graph.safetensors"
    path.write_bytes(saved)
    every_kind = SpikingGraph(every_kind.populations, every_kind.projections, {"accuracy": float("nan")})
    with pytest.raises(GraphError, match=r"provenance: found a value that JSON cannot hold"):
        save_graph(every_kind, path)
    assert path.read_bytes() == saved
    assert [p.name for p in tmp_path.iterdir()] == ["graph.safetensors"]


@pytest.mark.parametrize("value", [np.float64("inf"), {1, 2}, object(), b"x", "\ud800"])
def test_provenance_that_is_not_json_is_refused(every_kind: SpikingGraph, tmp_path: Path, value: Any) -> None:
    graph = SpikingGraph(every_kind.populations, every_kind.projections, {"x": value})
    with pytest.raises(GraphError, match=r"provenance: found"):
        save_graph(graph, tmp_path / "graph.safetensors")


def test_deep_provenance_is_refused_when_written(every_kind: SpikingGraph, tmp_path: Path) -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    graph = SpikingGraph(every_kind.populations, every_kind.projections, {"x": deep})
    with pytest.raises(GraphError, match=r"provenance: found"):
        save_graph(graph, tmp_path / "graph.safetensors")
    while deep:  # taken apart here: freeing it in one go would recurse
        deep = deep[0]


def test_a_large_provenance_is_refused_when_written(every_kind: SpikingGraph, tmp_path: Path) -> None:
    graph = SpikingGraph(every_kind.populations, every_kind.projections, {"x": "a" * HEADER_LIMIT})
    with pytest.raises(GraphError, match=r"header: found \d+ bytes, expected at most \d+; shorten the provenance"):
        save_graph(graph, tmp_path / "graph.safetensors")


def test_a_folder_that_cannot_be_made(every_kind: SpikingGraph, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot write"):
        save_graph(every_kind, tmp_path / "file" / "graph.safetensors")


# --- the container ----------------------------------------------------------------------------------------------------------


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(GraphFileError, match=r"nowhere\.safetensors.*No such file"):
        load_graph(tmp_path / "nowhere.safetensors")


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(GraphFileError, match="found a folder, pipe or device, expected a regular file"):
        load_graph(tmp_path)


def test_a_pipe_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(GraphFileError, match="expected a regular file"):
        load_graph(tmp_path / "pipe")


def test_truncated_everywhere(saved: bytes, tmp_path: Path) -> None:
    length = struct.unpack("<Q", saved[:8])[0]
    for size in (0, 1, 7, 8, 9, 8 + length // 2, 8 + length, 8 + length + 1, len(saved) - 1):
        refused(tmp_path, saved[:size], "found")


def test_bytes_after_the_end(saved: bytes, tmp_path: Path) -> None:
    refused(tmp_path, saved + b"\0", "data section: found")


@pytest.mark.parametrize("length", [HEADER_LIMIT + 1, 2**63, 2**64 - 1])
def test_header_length_beyond_the_limit(tmp_path: Path, length: int) -> None:
    refused(tmp_path, struct.pack("<Q", length) + b"{}", f"header length: found {length} bytes")


def test_header_longer_than_the_file(tmp_path: Path) -> None:
    refused(tmp_path, struct.pack("<Q", 1000) + b"{}", "header: found 2 bytes, expected 1000; the file is truncated")


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (b"\xff\xfe", "not UTF-8"),
        ("{}".encode("utf-16"), "not UTF-8"),
        (b"", "not strict JSON"),
        (b"{", "not strict JSON"),
        (b"[]", "found [], expected a JSON object"),
        (b'{"a": NaN}', "NaN is not a JSON number"),
        (b'{"a": -Infinity}', "-Infinity is not a JSON number"),
        (b'{"a": 1e999}', "too large for a float"),
        (b'{"a": ' + b"9" * 5000 + b"}", "not strict JSON"),
        (b'{"a": "\\ud800"}', "surrogate"),
        (b'{"\\ud800": 1}', "surrogate"),
        (b'{"a": 1, "a": 1}', "'a' is repeated"),
        (b"[" * 100_000, "not strict JSON"),
        (b"[" * 100_000 + b"]" * 100_000, "not strict JSON"),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "not strict JSON"),
        (b"[" * (DEPTH_LIMIT + 1) + b"]" * (DEPTH_LIMIT + 1), "nested deeper"),
        (b'{"__metadata__": 1}', "__metadata__: found 1, expected an object of strings"),
        (b'{"__metadata__": {"sparsespike": {}}}', "expected an object of strings"),
        (b"{}", "expected a key 'sparsespike', found none"),
    ],
)
def test_header_that_is_no_header(tmp_path: Path, header: bytes, message: str) -> None:
    refused(tmp_path, raw(header), message)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (1, "expected an object of dtype, shape and data_offsets"),
        ({"dtype": "I64", "shape": [1]}, "expected an object of dtype, shape and data_offsets"),
        ({"dtype": "I64", "shape": [1], "data_offsets": [0, 8], "x": 1}, "expected an object of"),
        ({"dtype": "F16", "shape": [4], "data_offsets": [0, 8]}, "dtype: found 'F16', expected one of I64, F64, I32"),
        ({"dtype": ["I64"], "shape": [1], "data_offsets": [0, 8]}, "dtype: found ['I64']"),
        ({"dtype": "I64", "shape": 1, "data_offsets": [0, 8]}, "shape: found 1"),
        ({"dtype": "I64", "shape": [True], "data_offsets": [0, 8]}, "shape: found [True]"),
        ({"dtype": "I64", "shape": [1.0], "data_offsets": [0, 8]}, "shape: found [1.0]"),
        ({"dtype": "I64", "shape": [-1, -1], "data_offsets": [0, 8]}, "shape: found [-1, -1]"),
        ({"dtype": "I64", "shape": [1] * 5, "data_offsets": [0, 8]}, "up to 4 integers"),
        ({"dtype": "I64", "shape": [2**64], "data_offsets": [0, 8]}, "shape: found"),
        ({"dtype": "I64", "shape": [2**62, 2**62], "data_offsets": [0, 8]}, "data_offsets: found [0, 8], expected begin and end"),
        ({"dtype": "I64", "shape": [1], "data_offsets": [8, 0]}, "data_offsets: found [8, 0]"),
        ({"dtype": "I64", "shape": [1], "data_offsets": [0, 8, 16]}, "data_offsets: found [0, 8, 16]"),
        ({"dtype": "I64", "shape": [1], "data_offsets": [8, 16]}, "found a begin of 8, expected 0"),
        ({"dtype": "I64", "shape": [2], "data_offsets": [0, 16]}, "data section: found 8 bytes, expected 16"),
        ({"dtype": "I64", "shape": [0], "data_offsets": [0, 0]}, "data section: found 8 bytes, expected 0"),
    ],
)
def test_tensor_entry_that_does_not_fit(tmp_path: Path, entry: Any, message: str) -> None:
    refused(tmp_path, raw({"t": entry}, b"\0" * 8), "t'" if message.startswith("data_offsets") else "", message)


def test_overlapping_tensors(tmp_path: Path) -> None:
    one = {"dtype": "I64", "shape": [2], "data_offsets": [0, 16]}
    other = {"dtype": "I64", "shape": [2], "data_offsets": [8, 24]}
    refused(tmp_path, raw({"a": one, "b": other}, b"\0" * 24), "tensor 'b', data_offsets: found a begin of 8, expected 16")


# --- the description --------------------------------------------------------------------------------------------------------


def population(description: dict[str, Any], name: str) -> dict[str, Any]:
    return next(p for p in description["populations"] if p["name"] == name)


def projection(description: dict[str, Any], pre: str, post: str) -> dict[str, Any]:
    return next(p for p in description["projections"] if (p["pre"], p["post"]) == (pre, post))


def at(path: str, value: Any) -> Change:
    """Sets a field of the description; ``path`` counts list positions."""

    def change(description: dict[str, Any], _: Tensors) -> None:
        *parents, last = path.split(".")
        target: Any = description
        for key in parents:
            target = target[int(key) if isinstance(target, list) else key]
        if value is DELETED:
            del target[last]
        else:
            target[int(last) if isinstance(target, list) else last] = value

    return change


def tensor(name: str, value: Any) -> Change:
    """Replaces a tensor, or with a function of it."""

    def change(_: dict[str, Any], tensors: Tensors) -> None:
        if value is DELETED:
            del tensors[name]
        else:
            tensors[name] = value(np.array(tensors[name])) if callable(value) else value

    return change


DELETED = object()


def put(position: Any, value: Any) -> Callable[[np.ndarray], np.ndarray]:
    """A copy of an array with one entry changed."""

    def change(array: np.ndarray) -> np.ndarray:
        array[position] = value
        return array

    return change


DESCRIPTION_FAULTS: list[tuple[Change, str]] = [
    (
        at("format_version", 2),
        "format_version: found 2, expected at most 1; the file was written by a newer sparsespike",
    ),
    (at("format_version", 10**30), "upgrade"),
    (at("format_version", 0), "format_version: found 0"),
    (at("format_version", True), "format_version: found True"),
    (at("format_version", 1.0), "format_version: found 1.0"),
    (at("format_version", "1"), "format_version: found '1'"),
    (at("format_version", DELETED), "format_version: found None"),
    (at("populations", DELETED), "populations: found nothing"),
    (at("populations", {}), "populations: found {}"),
    (at("populations", []), "population"),
    (at("projections", 1), "projections: found 1"),
    (at("provenance", []), "provenance: found []"),
    (at("extra", 1), "extra: found 1"),
    (at("populations.0", 7), "populations.0: found 7"),
    (at("populations.0.name", 7), "populations.0.name: found 7"),
    (at("populations.0.name", "../etc"), "populations.0.name: found '../etc'"),
    (at("populations.0.name", "a/b"), "populations.0.name: found 'a/b'"),
    (at("populations.0.name", ".."), "populations.0.name: found '..'"),
    (at("populations.0.name", "pixels\n"), "populations.0.name: found 'pixels\\n'"),
    (at("populations.0.name", ""), "populations.0.name: found ''"),
    (at("populations.0.name", "a" * 101), "populations.0.name: found"),
    (at("populations.0.name", "others"), "tensor 'population/others/bias': missing"),
    (at("populations.1.kind", "izhikevich"), "populations.1.kind: found 'izhikevich'"),
    (at("populations.1.kind", "readout"), "superfluous"),
    (at("populations.1.kind", "signed_if"), "tensor 'population/net.0/threshold_neg': missing"),
    (at("populations.4.kind", "if"), "tensor 'population/classes/threshold': missing"),
    (at("populations.1.shape", [12]), "found a convolution from (2, 4, 4) to (3, 2, 2), expected from (2, 4, 4) to (12,)"),
    (at("populations.1.shape", [3, 4]), "found shape (3, 4), expected (N,) or (C, y, x)"),
    (at("populations.1.shape", []), "populations.1.shape: found []"),
    (at("populations.1.shape", "12"), "populations.1.shape: found '12'"),
    (at("populations.1.shape", [3, 2, 0]), "populations.1.shape.2: found 0"),
    (at("populations.1.shape", [3, 2, 2.0]), "populations.1.shape.2: found 2.0"),
    (at("populations.1.shape", [3, 2, True]), "populations.1.shape.2: found True"),
    (at("populations.1.shape", [2**31 - 1] * 3), "tensor 'population/net.0/v_init', shape: found (12,), expected ("),
    (at("populations.1.shape", [2**31]), "populations.1.shape.0: found 2147483648"),
    (at("populations.1.bias_mode", "never"), "populations.1.bias_mode: found 'never'"),
    (at("populations.1.reset", None), "populations.1.reset: found None"),
    (at("populations.0.value_range", None), "value_range None for kind 'input'"),
    (at("populations.0.value_range", [0]), "populations.0.value_range: found [0]"),
    (at("populations.0.value_range", [5, 1]), "value_range (5, 1)"),
    (at("populations.0.value_range", [0, 2**40]), "value_range (0, 1099511627776)"),
    (at("populations.0.value_range", [0, 1.5]), "populations.0.value_range.1: found 1.5"),
    (at("populations.1.value_range", [0, 1]), "value_range (0, 1) for kind 'if'"),
    (at("populations.1.extra", 0), "populations.1.extra: found 0"),
    (at("projections.0.kind", "dense"), "projections.0: found"),
    (at("projections.0.kind", DELETED), "projections.0: found"),
    (at("projections.1.pre", "nobody"), "tensor 'projection/nobody/net-1/indices_1': missing"),
    (at("projections.1.pre", "../x"), "projections.1.csr.pre: found '../x'"),
    (at("projections.0.stride", [0, 1]), "projections.0.conv2d.stride.0: found 0"),
    (at("projections.0.stride", [1]), "projections.0.conv2d.stride: found [1]"),
    (at("projections.0.stride", [1, 1]), "projection 'pixels' -> 'net.0': found weights of shape (32, 48), expected (32, 12)"),
    (at("projections.0.padding", [-1, 0]), "projections.0.conv2d.padding.0: found -1"),
    (at("projections.0.padding", [2**31 - 1] * 2), "projection 'pixels' -> 'net.0': found weights of shape"),
    (at("projections.0.dilation", [2**31 - 1] * 2), "projection/pixels/net.0: conv2d: found output shape"),
    (at("projections.0.groups", 2), "conv2d: found kernel (3, 2, 3, 3) with groups 2"),
    (at("projections.0.groups", True), "projections.0.conv2d.groups: found True"),
]


@pytest.mark.parametrize(("change", "message"), DESCRIPTION_FAULTS)
def test_description_that_breaks_the_format(saved: bytes, tmp_path: Path, change: Change, message: str) -> None:
    description, tensors = parts(saved)
    change(description, tensors)
    refused(tmp_path, joined(description, tensors), message)


@pytest.mark.parametrize("text", ["", "[]", "1", "null", '{"format_version": 1, "format_version": 1}', "[" * 100_000, "NaN"])
def test_description_that_is_no_object(saved: bytes, tmp_path: Path, text: str) -> None:
    refused(tmp_path, joined(text, parts(saved)[1]), "found")


def test_two_populations_of_one_name(saved: bytes, tmp_path: Path) -> None:
    description, tensors = parts(saved)
    description["populations"].append(population(description, "net.0"))
    refused(tmp_path, joined(description, tensors), "two populations named 'net.0'")


def test_two_projections_of_one_pair(saved: bytes, tmp_path: Path) -> None:
    description, tensors = parts(saved)
    description["projections"].append(projection(description, "net.0", "net-1"))
    refused(tmp_path, joined(description, tensors), "projection 'net.0' -> 'net-1': found twice")


def moved(tensors: Tensors, old: str, new: str) -> None:
    for name in [name for name in tensors if name.startswith(f"projection/{old}/")]:
        tensors[name.replace(f"projection/{old}/", f"projection/{new}/")] = tensors.pop(name)


def test_a_cycle(saved: bytes, tmp_path: Path) -> None:
    description, tensors = parts(saved)
    description["projections"].append({"pre": "coded", "post": "net-1", "kind": "csr"})
    back = CSRConnection.from_scipy(np.ones((4, 5), np.int64))
    for field, array in (("pointers_to_1", back.pointers), ("indices_1", back.indices), ("values", back.values)):
        tensors[f"projection/coded/net-1/{field}"] = array
    refused(tmp_path, joined(description, tensors), "found the cycle")


def test_a_projection_from_nowhere(saved: bytes, tmp_path: Path) -> None:
    description, tensors = parts(saved)
    projection(description, "net-1", "coded")["pre"] = "nobody"
    moved(tensors, "net-1/coded", "nobody/coded")
    refused(tmp_path, joined(description, tensors), "projection 'nobody' -> 'coded'", "found no population 'nobody'")


def test_a_convolution_from_a_flat_population(saved: bytes, tmp_path: Path) -> None:
    description, tensors = parts(saved)
    population(description, "pixels")["shape"] = [32]
    tensors["population/pixels/scale"] = np.array(1.0)
    refused(tmp_path, joined(description, tensors), "found a convolution from a population of shape (32,), expected (C, y, x)")


def test_population_without_a_way_to_it(saved: bytes, tmp_path: Path) -> None:
    description, tensors = parts(saved)
    description["projections"] = [p for p in description["projections"] if p["post"] != "coded"]
    for name in [name for name in tensors if name.startswith("projection/net-1/coded/")]:
        del tensors[name]
    refused(tmp_path, joined(description, tensors), "population 'coded' has no projection into it")


# --- the tensors ------------------------------------------------------------------------------------------------------------

LINK = "projection/net.0/net-1"
TENSOR_FAULTS: list[tuple[Change, str]] = [
    (tensor(f"{LINK}/values", DELETED), f"tensor '{LINK}/values': missing, expected I32"),
    (tensor(f"{LINK}/more", np.zeros(1)), f"tensor '{LINK}/more': superfluous"),
    (tensor("population/net.0/threshold_neg", np.ones(12, np.int64)), "superfluous"),
    (tensor(f"{LINK}/values", lambda a: a.astype(np.int64)), f"tensor '{LINK}/values', dtype: found I64, expected I32"),
    (tensor("population/net.0/bias", lambda a: a.astype(float)), "dtype: found F64, expected I64"),
    (tensor("population/net.0/scale", lambda a: a.astype(int)), "dtype: found I64, expected F64"),
    (
        tensor("population/net.0/bias", np.zeros(11, np.int64)),
        "population/net.0/bias', shape: found (11,), expected (12,)",
    ),
    (tensor("population/net.0/bias", np.zeros((12, 1), np.int64)), "shape: found (12, 1), expected (12,)"),
    (tensor("population/net.0/threshold", np.full(11, 2)), "population 'net.0', threshold: found shape (11,), expected (12,)"),
    (tensor("population/net.0/threshold", put(3, 0)), "threshold: found 0 at neuron 3, expected > 0"),
    (tensor("population/net.0/threshold", put(3, -2)), "threshold: found -2 at neuron 3, expected > 0"),
    (tensor("population/net.0/threshold", put(3, 7)), "found the odd value 7 at neuron 3"),
    (tensor("population/net.0/threshold", put(3, 2**62)), "expected magnitudes up to 2^53"),
    (tensor("population/net-1/threshold_neg", put(1, 0)), "threshold_neg: found 0 at neuron 1"),
    (tensor("population/net.0/v_init", put(0, -(2**63))), "expected magnitudes up to 2^53"),
    (tensor("population/net.0/scale", put(0, np.nan)), "'net.0', scale"),
    (tensor("population/net.0/scale", put(0, np.inf)), "'net.0', scale"),
    (tensor("population/net.0/scale", put(0, 0.0)), "'net.0', scale"),
    (tensor("population/net.0/scale", put(0, -1.0)), "'net.0', scale"),
    (tensor("population/net.0/scale", np.ones(5)), "scale: found shape (5,)"),
    (tensor("population/pixels/bias", put(0, 1)), "'pixels': found a bias or initial membrane"),
    (tensor(f"{LINK}/pointers_to_1", put(0, 1)), "csr pointers"),
    (tensor(f"{LINK}/pointers_to_1", put(2, 0)), "csr pointers"),
    (tensor(f"{LINK}/pointers_to_1", put(-1, 10**6)), "csr lengths"),
    (tensor(f"{LINK}/pointers_to_1", lambda a: put(5, -(2**63))(put(4, 2**63 - 1)(a))), "csr pointers"),
    (tensor(f"{LINK}/pointers_to_1", lambda a: a[:-2]), "csr lengths"),
    (tensor(f"{LINK}/pointers_to_1", lambda a: np.append(a, a[-1])), "found weights of shape (13, 5), expected (12, 5)"),
    (tensor(f"{LINK}/pointers_to_1", np.zeros(0, np.int64)), "csr pointers"),
    (tensor(f"{LINK}/pointers_to_1", lambda a: a[None]), "csr pointers: found 2 dimensions, expected 1"),
    (tensor(f"{LINK}/indices_1", put(0, 5)), "csr indices: found 0..5, expected 0..4"),
    (tensor(f"{LINK}/indices_1", put(0, -1)), "csr indices: found -1..4, expected 0..4"),
    (tensor(f"{LINK}/indices_1", put([0, 1], [2, 1])), "found unsorted or repeated indices"),
    (tensor(f"{LINK}/indices_1", put([0, 1], [2, 2])), "found unsorted or repeated indices"),
    (tensor(f"{LINK}/values", put(4, 0)), "csr values: found 1 explicit zeros, expected none"),
    (tensor(f"{LINK}/values", lambda a: a[:-1]), "csr lengths"),
    (tensor("projection/pixels/net.0/kernel", lambda a: a.reshape(3, 2, 9)), "conv2d kernel: found 3 dimensions, expected 4"),
    (tensor("projection/pixels/net.0/kernel", lambda a: a[:2]), "found weights of shape (32, 8), expected (32, 12)"),
    (tensor("projection/pixels/net.0/kernel", np.zeros((3, 2, 0, 3), np.int32)), "expected a kernel that is not empty"),
]


@pytest.mark.parametrize(("change", "message"), TENSOR_FAULTS)
def test_tensor_that_breaks_the_format(saved: bytes, tmp_path: Path, change: Change, message: str) -> None:
    description, tensors = parts(saved)
    change(description, tensors)
    refused(tmp_path, joined(description, tensors), message)


@pytest.mark.parametrize("value", [None, "", "0" * 64])
def test_a_wrong_checksum(saved: bytes, tmp_path: Path, value: str | None) -> None:
    description, tensors = parts(saved)
    metadata = {"sparsespike": json.dumps(description)} | ({} if value is None else {"sparsespike_sha256": value})
    refused(tmp_path, save(tensors, metadata), "metadata 'sparsespike_sha256': found", "the file is damaged")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (tensor("population/coded/primary_payload", np.ones(2, np.int64)), "'coded': expected tables of one equal length"),
        (tensor("population/coded/primary_payload", put(1, 0)), "'coded', primary: found threshold 20 and payload 0 in slot 1"),
        (tensor("population/coded/compensation_payload", put(2, 1)), "found threshold 9007199254740992 and payload 1 in slot 2"),
        (tensor("population/deeper/compensation_threshold", put(0, -1)), "'deeper', compensation: found threshold -1"),
        (tensor("population/deeper/primary_payload", put(0, 2**31)), "a payload from 1 to 2^31 - 1"),
    ],
)
def test_tables_that_break_the_format(coded: bytes, tmp_path: Path, change: Change, message: str) -> None:
    description, tensors = parts(coded)
    change(description, tensors)
    refused(tmp_path, joined(description, tensors), message)


def test_one_changed_weight_is_noticed(saved: bytes, tmp_path: Path) -> None:
    at_byte = len(saved) - 2
    refused(tmp_path, saved[:at_byte] + bytes([saved[at_byte] ^ 1]) + saved[at_byte + 1 :], "the file is damaged")


# --- anything at all --------------------------------------------------------------------------------------------------------


def loaded_or_refused(path: Path) -> SpikingGraph | None:
    """The graph, or None if the file was refused with a GraphFileError; anything else fails the test."""
    try:
        return load_graph(path)
    except GraphFileError:
        return None


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damage_gives_an_equal_graph_or_a_graph_file_error(
    every_kind: SpikingGraph, saved: bytes, tmp_path: Path, data: st.DataObject
) -> None:
    content = bytearray(saved)
    length = struct.unpack("<Q", saved[:8])[0]
    end = data.draw(st.sampled_from([len(saved), 8 + length + 64, 8]), label="where")
    for _ in range(data.draw(st.integers(0, 4), label="changes")):
        position = data.draw(st.integers(0, min(end, len(content)) - 1))
        action = data.draw(st.sampled_from(["flip", "set", "delete", "insert", "truncate"]))
        if action == "flip":
            content[position] ^= 1 << data.draw(st.integers(0, 7))
        elif action == "set":
            content[position] = data.draw(st.integers(0, 255))
        elif action == "delete":
            del content[position]
        elif action == "insert":
            content.insert(position, data.draw(st.integers(0, 255)))
        else:
            del content[position:]
        if not content:
            break
    path = tmp_path / "damaged.safetensors"
    path.write_bytes(content)
    loaded = loaded_or_refused(path)
    if loaded is not None:
        assert loaded.digest() == every_kind.digest()
        assert loaded.provenance == every_kind.provenance


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=json_values, data=st.data())
def test_any_value_in_any_field_of_the_description(saved: bytes, tmp_path: Path, value: Any, data: st.DataObject) -> None:
    description, tensors = parts(saved)
    target: Any = description
    while isinstance(target, (dict, list)) and target:
        key = data.draw(st.sampled_from(sorted(target) if isinstance(target, dict) else range(len(target))))
        if not isinstance(target[key], (dict, list)) or not target[key] or data.draw(st.booleans()):
            break
        target = target[key]
    target[key] = value
    path = tmp_path / "odd.safetensors"
    path.write_bytes(joined(description, tensors))
    loaded_or_refused(path)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_random_graphs_round_trip(tmp_path: Path, data: st.DataObject) -> None:
    sizes = data.draw(st.lists(st.integers(1, 5), min_size=2, max_size=4))
    seed = data.draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    populations = [Population(name="p0", shape=(sizes[0],), kind="input", value_range=(-3, 9))]
    for i, n in enumerate(sizes[1:-1], 1):
        populations.append(Population(name=f"p{i}", shape=(n,), kind="if", threshold=2 * rng.integers(1, 2**52, n)))
    populations.append(Population(name="out", shape=(sizes[-1],), kind="readout", bias=rng.integers(-(2**53), 2**53, sizes[-1])))
    projections = []
    for before, after in itertools.pairwise(populations):
        weights = rng.integers(-(2**31) + 1, 2**31, (before.size, after.size)) * (rng.random((before.size, after.size)) < 0.6)
        projections.append(Projection(before.name, after.name, CSRConnection.from_scipy(weights)))
    graph = SpikingGraph(populations, projections, {"seed": seed})
    path = tmp_path / "random.safetensors"
    save_graph(graph, path)
    assert load_graph(path).digest() == graph.digest()


def test_the_reader_in_the_specification_works(every_kind: SpikingGraph) -> None:
    text = (Path(__file__).parents[2] / "docs" / "format.md").read_text(encoding="utf-8")
    code = text.split("```python\n")[1].split("```")[0].replace('Path("graph.safetensors").read_bytes()', "CONTENT")
    names: dict[str, Any] = {"CONTENT": GOLDEN.read_bytes()}
    exec(code, names)
    assert names["description"]["provenance"] == every_kind.provenance
    csr = every_kind.projection("net.0", "net-1").connection.to_csr()
    assert np.array_equal(names["tensors"]["projection/net.0/net-1/values"], csr.values)
