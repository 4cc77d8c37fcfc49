"""Lowering for 64 images side by side: types as narrow as the bounds prove wide enough, weights by postsynaptic neuron."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsespike.backends.native.library import Arrival, Departure, address
from sparsespike.backends.native.plan import geometry, rows, starts
from sparsespike.export.bounds import Bound, emitted_range
from sparsespike.export.connections import Connection, Conv2dConnection
from sparsespike.export.graph import Key, Population, Projection, SpikingGraph
from sparsespike.export.population import decayed

CURRENTS = (np.int16, np.int32, np.int64)
MEMBRANES = (np.int32, np.int64)
SCATTER_ROOM = 2**26
"""Most bytes that scattered currents of one tile may take; wider populations gather, whatever the activity."""
GATHER_NS = ((6.6, 10.5, 75), (2.6, 5.0, 9.7), (0.7, 2.1, 4.2))
"""Time to gather one synapse for 64 images in one step, by instruction set, with currents of 16, 32 and 64 bits."""
SCATTER_NS = (0.7, 0.85, 1.4)
"""Time to scatter one event, with such currents. All are measured (one core of an AMD EPYC) and decide about speed alone."""
ROOM_EVENTS = 25
"""What it takes to keep scattered currents of 64 images, for one neuron and step, in events."""


@dataclass(frozen=True, eq=False)
class Way:
    """A projection: its weights by postsynaptic neuron, to be gathered, and by presynaptic neuron, to be scattered.

    Of a convolution the weights are those of the kernel, by output channel and by input channel and position in the kernel.
    """

    key: Key
    nnz: int
    fan_out: NDArray[np.int64]
    pointers: NDArray[np.int64]
    sources: NDArray[np.int32]
    offsets: NDArray[np.int32] | None
    weights: NDArray[Any]
    sizes: tuple[int, ...]
    out: tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int32]]
    """Pointers, targets and weights by presynaptic neuron."""
    n_post: int

    def arrival(self) -> tuple[Arrival, tuple[NDArray[Any], ...]]:
        """What the kernel gathers from, and the arrays of one thread that must live as long."""
        room = int(np.diff(self.pointers).max(initial=0)) if self.offsets is not None else 0
        rooms = np.empty(room, np.int32), np.empty(room, self.weights.dtype)
        g = self.sizes
        return Arrival(
            pointers=address(self.pointers),
            sources=address(self.sources),
            offsets=address(self.offsets),
            weights=address(self.weights),
            geometry=(*g[:2], *g[4:6], *g[10:12]),
            room_sources=address(rooms[0]),
            room_weights=address(rooms[1]),
            n_pre=len(self.fan_out),
        ), rooms

    def departure(self) -> tuple[Departure, tuple[NDArray[Any], ...]]:
        """What the kernel scatters, and the arrays of one thread that must live as long."""
        pointers, targets, weights = self.out
        room = int(self.fan_out.max(initial=0)) if self.offsets is not None else 0
        rooms = np.empty(room, np.int32), np.empty(room, np.int32)
        return Departure(
            pointers=address(pointers),
            targets=address(targets),
            weights=address(weights),
            geometry=self.sizes,
            n_pre=len(self.fan_out),
            n_post=self.n_post,
            room_targets=address(rooms[0]),
            room_weights=address(rooms[1]),
        ), rooms


@dataclass(frozen=True, eq=False)
class Layer:
    """A population and the projections into it, from the input and from those that fire."""

    population: Population
    injected: tuple[Way, ...]
    ways: tuple[Way, ...]
    currents: int
    """Index in ``CURRENTS``."""
    membranes: int
    """Index in ``MEMBRANES``."""
    start: NDArray[Any]
    """Membranes before the first step, with a bias that comes in it alone; of kind ``lif`` as they are once they have decayed."""
    always: NDArray[Any]
    """The bias that joins the current in every step, or zeros."""
    threshold: NDArray[Any] | None
    threshold_neg: NDArray[Any] | None
    bias: NDArray[Any] | None
    """Of kind ``lif``, as the two below: what joins the membrane in each step, and the decays; None for other kinds."""
    decay_current: NDArray[Any] | None
    decay_voltage: NDArray[Any] | None


def lower_lanes(graph: SpikingGraph, reach: Mapping[str, Bound]) -> tuple[Layer, ...]:
    """Every population but the input, in the graph's order.

    Parameters
    ----------
    graph : SpikingGraph
    reach : mapping of population name to Bound
        Of the run. Membranes must be proven to stay within int64: images side by side are not checked step by step.
    """
    layers = []
    for name in graph.order[1:]:
        population = graph.population(name)
        firing = [projection for projection in graph.into(name) if projection.pre != graph.input.name]
        arriving = [projection for projection in graph.into(name) if projection.pre == graph.input.name]
        currents = _current_type(graph, firing)
        membranes = int(reach[name].membrane >= 2**31 - 1 or CURRENTS[currents] is np.int64 or graph.slots is not None)
        leaky, every_step = population.decay_voltage is not None, population.bias_mode == "every_step"
        start = population.v_init if population.decay_voltage is None else decayed(population.v_init, population.decay_voltage)
        none = np.zeros_like(population.bias)
        dtype = np.int32 if graph.slots is not None else CURRENTS[currents]
        layers.append(
            Layer(
                population=population,
                injected=tuple(_way(projection, np.int32) for projection in arriving),
                ways=tuple(_way(projection, dtype) for projection in firing),
                currents=currents,
                membranes=membranes,
                start=(start + (none if every_step else population.bias)).astype(MEMBRANES[membranes]),
                always=(population.bias if every_step and not leaky else none).astype(MEMBRANES[membranes]),
                threshold=_within(population.threshold, MEMBRANES[membranes]),
                threshold_neg=_within(population.threshold_neg, MEMBRANES[membranes]),
                bias=_within(population.bias if every_step and leaky else None, MEMBRANES[membranes]),
                decay_current=_within(population.decay_current, MEMBRANES[membranes]),
                decay_voltage=_within(population.decay_voltage, MEMBRANES[membranes]),
            )
        )
    return tuple(layers)


def _current_type(graph: SpikingGraph, firing: list[Projection]) -> int:
    """The narrowest type of ``CURRENTS`` that holds any sum of weights that can arrive in one step from spikes."""
    high: Any = 0
    low: Any = 0
    for projection in firing:
        least, _ = emitted_range(graph.population(projection.pre))
        positive, negative = projection.connection.weight_sums
        high = high + positive - (negative if least < 0 else 0)
        low = low + negative - (positive if least < 0 else 0)
    reach = int(np.max(np.maximum(high, -low), initial=0))
    return int(np.searchsorted([2**15 - 1, 2**31 - 1], reach))


def _within(values: NDArray[np.int64] | None, dtype: Any) -> NDArray[Any] | None:
    """Values in a type that holds every membrane: a threshold beyond it is never reached, as is the largest value of the type."""
    return None if values is None else np.minimum(values, np.iinfo(dtype).max).astype(dtype)


def _way(projection: Projection, dtype: Any) -> Way:
    connection = projection.connection
    pointers, sources, offsets, weights = _columns(connection)
    out_pointers, targets, out_weights = rows(connection)
    return Way(
        key=projection.key,
        nnz=connection.nnz,
        fan_out=np.ascontiguousarray(connection.fan_out, np.int64),
        pointers=pointers,
        sources=sources.astype(np.int32),
        offsets=offsets,
        weights=np.ascontiguousarray(weights, dtype),
        sizes=geometry(connection),
        out=(out_pointers, np.ascontiguousarray(targets, np.int32), np.ascontiguousarray(out_weights, np.int32)),
        n_post=connection.shape[1],
    )


def _columns(connection: Connection) -> tuple[NDArray[np.int64], NDArray[Any], NDArray[np.int32] | None, NDArray[Any]]:
    """Pointers, sources, offsets and weights by postsynaptic neuron or, of a convolution, by output channel."""
    if not isinstance(connection, Conv2dConnection):
        columns = connection.to_scipy().tocsc()
        return columns.indptr.astype(np.int64), columns.indices, None, columns.data
    c = connection
    c_out, c_per_group = c.kernel.shape[:2]
    o, i, y, x = np.nonzero(c.kernel)  # in the order of output channels
    channel = i + o // (c_out // c.groups) * c_per_group
    offsets = np.stack([y * c.dilation[0] - c.padding[0], x * c.dilation[1] - c.padding[1]], axis=1)
    pixels = c.input_shape[1] * c.input_shape[2]
    return starts(np.bincount(o, minlength=c_out)), channel * pixels, offsets.astype(np.int32), c.kernel[o, i, y, x]
