"""Graph files: a SpikingGraph as one ``.safetensors`` file that is checked completely before anything runs.

``docs/format.md`` specifies the format for readers and writers in other languages.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsespike.common.errors import GraphError, GraphFileError
from sparsespike.common.files import atomic_path
from sparsespike.export.connections import Connection, Conv2dConnection, CSRConnection
from sparsespike.export.container import Container, parse_json, read_container, shorten, write_container
from sparsespike.export.graph import Population, Projection, SpikingGraph
from sparsespike.export.population import AEC_TABLES, Kind
from sparsespike.export.schema import (
    FORMAT_VERSION,
    Conv2dHeader,
    CSRHeader,
    GraphHeader,
    PopulationHeader,
    ProjectionHeader,
    check_header,
)

METADATA_KEY = "sparsespike"
CHECKSUM_KEY = "sparsespike_sha256"
_CSR_TENSORS = {"pointers_to_1": "I64", "indices_1": "I32", "values": "I32"}


def save_graph(graph: SpikingGraph, path: str | os.PathLike[str]) -> None:
    """Write a graph to one file, atomically. Equal graphs give equal bytes.

    Parameters
    ----------
    graph : SpikingGraph
        Its ``provenance`` must be JSON: strings, finite numbers, booleans, None, lists and string-keyed mappings of these.
    path : path
        By convention ``*.safetensors``.

    Raises
    ------
    GraphError
        If the provenance is not JSON or the description is too large.
    ConfigError
        If the file cannot be written.
    """
    text = _description(graph)
    tensors = dict(_population_tensors(graph)) | dict(_projection_tensors(graph))
    metadata = {METADATA_KEY: text, CHECKSUM_KEY: checksum(text, tensors)}
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        write_container(file, tensors, metadata)


def load_graph(path: str | os.PathLike[str]) -> SpikingGraph:
    """Read a graph file. Nothing in it is trusted: every field is checked before a graph is made.

    Raises
    ------
    GraphFileError
        If the file cannot be read or breaks the format in any way; the message names the file, the field, what was found and
        what was expected.
    """
    try:
        return _load(Path(path))
    except GraphError as error:
        raise GraphFileError(f"graph file {os.fspath(path)!r}: {error}") from error


def checksum(text: str, tensors: Mapping[str, NDArray[Any]]) -> str:
    """SHA-256 over the description and, in order of their names, every tensor's name, a zero byte, and its bytes.

    It tells damage from a graph that is merely unusual; it proves nothing about who wrote the file.
    """
    sha = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        array = tensors[name]
        sha.update(name.encode() + b"\0")
        sha.update(np.asarray(array, array.dtype.newbyteorder("<"), order="C").data)
    return sha.hexdigest()


def _description(graph: SpikingGraph) -> str:
    fields = {
        "format_version": FORMAT_VERSION,
        "populations": [_population_header(population).model_dump() for population in graph.populations],
        "projections": [_projection_header(projection).model_dump() for projection in graph.projections],
        "provenance": graph.provenance,
    }
    try:
        text = json.dumps(fields, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError) as error:
        raise GraphError(
            f"provenance: found a value that JSON cannot hold ({error}), expected text, numbers, lists ..."
        ) from error
    parse_json(text, "provenance")  # what a reader would refuse is not written
    return text


def _population_header(population: Population) -> PopulationHeader:
    return PopulationHeader(
        name=population.name,
        kind=population.kind,
        shape=list(population.shape),
        bias_mode=population.bias_mode,
        reset=population.reset,
        value_range=None if population.value_range is None else list(population.value_range),
    )


def _projection_header(projection: Projection) -> ProjectionHeader:
    connection = projection.connection
    if isinstance(connection, CSRConnection):
        return CSRHeader(pre=projection.pre, post=projection.post, kind="csr")
    return Conv2dHeader(
        pre=projection.pre,
        post=projection.post,
        kind="conv2d",
        stride=list(connection.stride),
        padding=list(connection.padding),
        dilation=list(connection.dilation),
        groups=connection.groups,
    )


def _population_tensors(graph: SpikingGraph) -> Iterable[tuple[str, NDArray[Any]]]:
    for population in graph.populations:
        fields = {
            "v_init": population.v_init,
            "bias": population.bias,
            "scale": population.scale,
            "threshold": population.threshold,
            "threshold_neg": population.threshold_neg,
            "decay_current": population.decay_current,
            "decay_voltage": population.decay_voltage,
            **population.tables,
        }
        yield from ((f"population/{population.name}/{field}", array) for field, array in fields.items() if array is not None)


def _projection_tensors(graph: SpikingGraph) -> Iterable[tuple[str, NDArray[Any]]]:
    for projection in graph.projections:
        prefix, connection = f"projection/{projection.pre}/{projection.post}", projection.connection
        if isinstance(connection, CSRConnection):
            yield f"{prefix}/pointers_to_1", connection.pointers
            yield f"{prefix}/indices_1", connection.indices
            yield f"{prefix}/values", connection.values
        else:
            yield f"{prefix}/kernel", connection.kernel


def _load(path: Path) -> SpikingGraph:
    container = read_container(path)
    text = container.metadata.get(METADATA_KEY)
    if text is None:
        raise GraphError(
            f"header, __metadata__: expected a key {METADATA_KEY!r}, found none; this is a safetensors file but not a graph"
        )
    header = check_header(parse_json(text, f"metadata {METADATA_KEY!r}"))
    _check_names(header, container)
    _check_checksum(text, container)
    shapes = {population.name: tuple(population.shape) for population in header.populations}
    return SpikingGraph(
        [_population(population, container) for population in header.populations],
        [_projection(projection, shapes, container) for projection in header.projections],
        header.provenance,
    )


def _expected_dtypes(header: GraphHeader) -> dict[str, str]:
    """Every tensor that the description calls for, with its dtype."""
    expected = {}
    for population in header.populations:
        for field in _population_fields(population.kind):
            expected[f"population/{population.name}/{field}"] = "F64" if field == "scale" else "I64"
    for projection in header.projections:
        fields = _CSR_TENSORS if projection.kind == "csr" else {"kernel": "I32"}
        expected |= {f"projection/{projection.pre}/{projection.post}/{field}": dtype for field, dtype in fields.items()}
    return expected


def _population_fields(kind: Kind) -> tuple[str, ...]:
    """Tensors of a population, by its kind."""
    extra = {
        "if": ("threshold",),
        "signed_if": ("threshold", "threshold_neg"),
        "lif": ("threshold", "decay_current", "decay_voltage"),
        "aec": AEC_TABLES,
    }
    return ("v_init", "bias", "scale", *extra.get(kind, ()))


def _check_names(header: GraphHeader, container: Container) -> None:
    """The tensors are the ones that the description calls for, neither less nor more, of the right types."""
    expected = _expected_dtypes(header)
    missing = sorted(set(expected) - set(container.entries))
    if missing:
        raise GraphError(f"tensor {missing[0]!r}: missing, expected {expected[missing[0]]}; {len(missing)} tensors are missing")
    superfluous = sorted(set(container.entries) - set(expected))
    if superfluous:
        raise GraphError(
            f"tensor {shorten(superfluous[0])}: superfluous, expected {len(expected)} tensors, found {len(container.entries)}"
        )
    for name, dtype in expected.items():
        if container.entries[name].dtype != dtype:
            raise GraphError(f"tensor {name!r}, dtype: found {container.entries[name].dtype}, expected {dtype}")


def _check_checksum(text: str, container: Container) -> None:
    found = container.metadata.get(CHECKSUM_KEY)
    actual = checksum(text, {name: container.tensor(name) for name in container.entries})
    if found != actual:
        raise GraphError(
            f"metadata {CHECKSUM_KEY!r}: found {shorten(found)}, expected {actual} for this content; the file is damaged: "
            "copy or export it again"
        )


def _population(header: PopulationHeader, container: Container) -> Population:
    names = {field: f"population/{header.name}/{field}" for field in _population_fields(header.kind)}
    size = math.prod(header.shape)
    for field in ("v_init", "bias"):  # ties the shape to the file's size, before anything of that size is made
        if container.entries[names[field]].shape != (size,):
            found = container.entries[names[field]].shape
            raise GraphError(
                f"tensor {names[field]!r}, shape: found {found}, expected ({size},) for neurons of shape {header.shape}"
            )
    arrays = {field: container.tensor(name) for field, name in names.items()}
    tables = {field: arrays.pop(field) for field in AEC_TABLES if field in arrays}
    return Population(
        name=header.name,
        shape=tuple(header.shape),
        kind=header.kind,
        bias_mode=header.bias_mode,
        reset=header.reset,
        value_range=None if header.value_range is None else (header.value_range[0], header.value_range[1]),
        tables=tables,
        **arrays,
    )


def _projection(header: ProjectionHeader, shapes: Mapping[str, tuple[int, ...]], container: Container) -> Projection:
    prefix = f"projection/{header.pre}/{header.post}"
    for end in (header.pre, header.post):
        if end not in shapes:
            raise GraphError(
                f"projection {header.pre!r} -> {header.post!r}: found no population {end!r}, expected one in the description"
            )
    try:
        return Projection(header.pre, header.post, _connection(header, prefix, shapes, container))
    except GraphError as error:
        raise GraphError(f"{prefix}: {error}") from error


def _connection(header: ProjectionHeader, prefix: str, shapes: Mapping[str, tuple[int, ...]], container: Container) -> Connection:
    pre, post = shapes[header.pre], shapes[header.post]
    if isinstance(header, CSRHeader):
        pointers, indices, values = (container.tensor(f"{prefix}/{field}") for field in _CSR_TENSORS)
        return CSRConnection(pointers, indices, values, math.prod(post))
    if len(pre) != 3:
        raise GraphError(f"found a convolution from a population of shape {pre}, expected (C, y, x)")
    return Conv2dConnection(
        container.tensor(f"{prefix}/kernel"),
        (pre[0], pre[1], pre[2]),
        stride=(header.stride[0], header.stride[1]),
        padding=(header.padding[0], header.padding[1]),
        dilation=(header.dilation[0], header.dilation[1]),
        groups=header.groups,
    )
