"""Lowering: a SpikingGraph becomes a few flat arrays that one compiled kernel can run, whatever the graph."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sparsespike.export.connections import Connection, Conv2dConnection
from sparsespike.export.graph import Population, SpikingGraph

INPUT, IF, SIGNED_IF, LIF, AEC, READOUT = range(6)
_CODES = {"input": INPUT, "if": IF, "signed_if": SIGNED_IF, "lif": LIF, "aec": AEC, "readout": READOUT}
_NO_GEOMETRY = (0,) * 12


class Plan(NamedTuple):
    """Populations p = 0..P-1 in the graph's order, projections r = 0..R-1 grouped by postsynaptic population.

    Neurons of all populations are numbered in one line; ``offset[p]:offset[p + 1]`` are those of population p.
    """

    kind: NDArray[np.int64]
    """(P,) kind codes."""
    offset: NDArray[np.int64]
    """(P + 1,) first neuron of each population."""
    every_step: NDArray[np.bool_]
    """(P,) whether the bias (for the input: the value) comes in every step, or in the first alone."""
    zero_reset: NDArray[np.bool_]
    """(P,) whether a spike sets the membrane to zero."""
    threshold: NDArray[np.int64]
    """(neurons,), as the five below; zero where a kind has none."""
    threshold_neg: NDArray[np.int64]
    decay_current: NDArray[np.int64]
    decay_voltage: NDArray[np.int64]
    v_init: NDArray[np.int64]
    bias: NDArray[np.int64]
    tables: NDArray[np.int64]
    """(P, 4, slots) primary threshold and payload, compensation threshold and payload; zeros but for kind ``aec``."""
    into: NDArray[np.int64]
    """(P + 1,) projections ``into[p]:into[p + 1]`` arrive at population p."""
    pre: NDArray[np.int64]
    """(R,) presynaptic population of each projection."""
    first_row: NDArray[np.int64]
    """(R,) where a projection's pointers begin."""
    geometry: NDArray[np.int64]
    """(R, 12) of a convolution: input y, x, kernel y, x, stride y, x, padding y, x, dilation y, x, output y, x; else zeros."""
    pointers: NDArray[np.int64]
    """Row i of projection r occupies ``pointers[first_row[r] + i]:pointers[first_row[r] + i + 1]`` of the two below."""
    indices: NDArray[np.uint32]
    """Postsynaptic neuron of each weight; for a convolution, the first neuron of the output channel."""
    values: NDArray[np.int32]
    """Weights."""


def lower(graph: SpikingGraph) -> Plan:
    """Flatten a graph."""
    populations = [graph.population(name) for name in graph.order]
    projections = [projection for name in graph.order for projection in graph.into(name)]
    parts = [rows(projection.connection) for projection in projections]
    lengths = np.array([len(pointers) for pointers, _, _ in parts])
    synapses = np.array([len(values) for _, _, values in parts])

    def line(field: str) -> NDArray[np.int64]:
        arrays = [getattr(p, field) if getattr(p, field) is not None else np.zeros(p.size, np.int64) for p in populations]
        return np.concatenate(arrays)

    return Plan(
        kind=np.array([_CODES[p.kind] for p in populations]),
        offset=starts(np.array([p.size for p in populations])),
        every_step=np.array([p.bias_mode == "every_step" for p in populations]),
        zero_reset=np.array([p.reset == "zero" for p in populations]),
        threshold=line("threshold"),
        threshold_neg=line("threshold_neg"),
        decay_current=line("decay_current"),
        decay_voltage=line("decay_voltage"),
        v_init=line("v_init"),
        bias=line("bias"),
        tables=np.array([_tables(p, graph.slots or 0) for p in populations]),
        into=starts(np.array([len(graph.into(name)) for name in graph.order])),
        pre=np.array([graph.order.index(projection.pre) for projection in projections]),
        first_row=starts(lengths)[:-1],
        geometry=np.array([geometry(projection.connection) for projection in projections]),
        pointers=np.concatenate([part[0] + start for part, start in zip(parts, starts(synapses), strict=False)]),
        indices=np.concatenate([part[1] for part in parts]).astype(np.uint32),
        values=np.concatenate([part[2] for part in parts]),
    )


def _tables(population: Population, slots: int) -> NDArray[np.int64]:
    if population.kind != "aec":
        return np.zeros((4, slots), np.int64)
    spikes, fields = ("primary", "compensation"), ("threshold", "payload")
    return np.stack([population.tables[f"{spike}_{field}"] for spike in spikes for field in fields])


def starts(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where parts of these lengths begin, laid end to end, and where the last ends."""
    return np.concatenate(([0], np.cumsum(lengths)))


def rows(connection: Connection) -> tuple[NDArray[np.int64], NDArray[Any], NDArray[np.int32]]:
    """Pointers, indices and values of what one spike gathers.

    CSR: one row a presynaptic neuron. Convolution: one row a (input channel, kernel y, kernel x), that is the weights to the
    output channels; where they land follows from the spike's position, so nothing is expanded.
    """
    if not isinstance(connection, Conv2dConnection):
        return connection.pointers, connection.indices, connection.values
    c_out, c_per_group, ky, kx = connection.kernel.shape
    o, i, y, x = np.nonzero(connection.kernel)
    channel = i + o // (c_out // connection.groups) * c_per_group
    row = (channel * ky + y) * kx + x
    order = np.lexsort((o, row))
    pointers = starts(np.bincount(row, minlength=connection.input_shape[0] * ky * kx))
    positions = int(np.prod(connection.output_shape[1:]))
    return pointers, o[order] * positions, connection.kernel[o, i, y, x][order]


def geometry(connection: Connection) -> tuple[int, ...]:
    """Sizes of a convolution as in ``Plan.geometry``; zeros for CSR."""
    if not isinstance(connection, Conv2dConnection):
        return _NO_GEOMETRY
    c = connection
    return (*c.input_shape[1:], *c.kernel.shape[2:], *c.stride, *c.padding, *c.dilation, *c.output_shape[1:])
