"""The SpikingGraph: populations of integer neurons, joined by projections of integer weights.

The dynamics of integrate-and-fire neurons do not change when a population's weights, thresholds, biases and initial membranes
are scaled together. So a conversion scales each population, rounds once, and from then on the graph *is* integers: every
backend must give the same spikes step for step and the same event counts, by equality.

Local time: a population at depth d (longest path from the input) takes its local step t at global step t + d on a backend with
unit delays; a projection's delay there is ``depth(post) - depth(pre)``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import networkx as nx
import numpy as np
from numpy.typing import NDArray

from sparsespike.common.errors import GraphError
from sparsespike.export.connections import Connection, Conv2dConnection, CSRConnection
from sparsespike.export.population import KINDS, SPIKING_KINDS, Kind, Population

__all__ = ["ANN_FLOPS", "KINDS", "SPIKING_KINDS", "Key", "Kind", "Population", "Projection", "SpikingGraph"]

Key = tuple[str, str]
"""A projection's key: (name of the presynaptic population, name of the postsynaptic population)."""

ANN_FLOPS = "ann_flops"
"""Key of the provenance with FL_ANN of the layers that a pool was composed into, by the population that they lead to."""


@dataclass(frozen=True, eq=False)
class Projection:
    """Synapses from one population to another; at most one projection joins a pair."""

    pre: str
    post: str
    connection: Connection

    @property
    def key(self) -> Key:
        """(pre, post)."""
        return self.pre, self.post


class SpikingGraph:
    """A directed acyclic graph of populations with one input and one readout.

    Parameters
    ----------
    populations : iterable of Population
    projections : iterable of Projection
    provenance : mapping of str to JSON values, optional
        Where the graph came from: method, T, bits, seed, data set, versions, accuracy of the ANN ...

    Attributes
    ----------
    nx : networkx.DiGraph
        Nodes are population names (attribute ``population``), edges are projections (attribute ``projection``).
    depth : dict of str to int
        Longest path from the input, in projections.
    order : tuple of str
        Population names by (depth, position in ``populations``).
    slots : int or None
        For graphs of kind ``aec``: slots of a window, the one number of steps that they run for.

    Raises
    ------
    GraphError
        If names repeat, shapes do not fit, a cycle exists, or the input or readout is not unique or not connected.
    """

    def __init__(
        self,
        populations: Iterable[Population],
        projections: Iterable[Projection],
        provenance: Mapping[str, Any] | None = None,
    ) -> None:
        self.nx: nx.DiGraph[str] = nx.DiGraph()
        self.provenance: dict[str, Any] = dict(provenance or {})
        for population in populations:
            if population.name in self.nx:
                raise GraphError(f"graph: found two populations named {population.name!r}, expected unique names")
            self.nx.add_node(population.name, population=population)
        for projection in projections:
            self._add_projection(projection)
        if not nx.is_directed_acyclic_graph(self.nx):
            cycle = " -> ".join(edge[0] for edge in nx.find_cycle(self.nx))
            raise GraphError(f"graph: found the cycle {cycle} -> ..., expected a directed acyclic graph")
        self.input = self._the_only("input")
        self.readout = self._the_only("readout")
        self.depth = self._depths()
        self.slots = self._slots()
        position = {name: i for i, name in enumerate(self.nx)}
        self.order: tuple[str, ...] = tuple(sorted(self.nx, key=lambda name: (self.depth[name], position[name])))

    def _add_projection(self, projection: Projection) -> None:
        where = f"projection {projection.pre!r} -> {projection.post!r}"
        for end in projection.key:
            if end not in self.nx:
                raise GraphError(f"{where}: population {end!r} does not exist; found {', '.join(map(repr, self.nx))}")
        if self.nx.has_edge(*projection.key):
            raise GraphError(f"{where}: found twice, expected one projection a pair; add the weights up in one connection")
        pre, post = (self.nx.nodes[end]["population"] for end in projection.key)
        connection = projection.connection
        if connection.shape != (pre.size, post.size):
            raise GraphError(
                f"{where}: found weights of shape {connection.shape}, expected ({pre.size}, {post.size}) = (neurons of "
                f"{pre.name!r}, neurons of {post.name!r})"
            )
        if isinstance(connection, Conv2dConnection) and (connection.input_shape, connection.output_shape) != (
            pre.shape,
            post.shape,
        ):
            raise GraphError(
                f"{where}: found a convolution from {connection.input_shape} to {connection.output_shape}, "
                f"expected from {pre.shape} to {post.shape}"
            )
        self.nx.add_edge(*projection.key, projection=projection)

    def _the_only(self, kind: Kind) -> Population:
        found = [population for population in self.populations if population.kind == kind]
        if len(found) != 1:
            raise GraphError(f"graph: found {len(found)} populations of kind {kind!r}, expected exactly one")
        degree = self.nx.in_degree(found[0].name) if kind == "input" else self.nx.out_degree(found[0].name)
        if degree:
            raise GraphError(
                f"graph: the {kind} population {found[0].name!r} has {degree} projections "
                f"{'into' if kind == 'input' else 'out of'} it, expected none"
            )
        return found[0]

    def _depths(self) -> dict[str, int]:
        depth: dict[str, int] = {}
        for name in nx.topological_sort(self.nx):
            before = [depth[pre] for pre in self.nx.predecessors(name)]
            if not before and name != self.input.name:
                raise GraphError(
                    f"graph: population {name!r} has no projection into it, expected a path from the input to every population"
                )
            depth[name] = 1 + max(before) if before else 0
        return depth

    def _slots(self) -> int | None:
        """Length of the tables; all spiking populations of a graph are of kind aec, with tables of one length, or none is."""
        lengths = {p.name: len(p.tables["primary_threshold"]) for p in self.populations if p.kind == "aec"}
        if not lengths:
            return None
        for p in self.populations:
            if p.kind in SPIKING_KINDS and p.kind != "aec":
                raise GraphError(f"graph: found population {p.name!r} of kind {p.kind!r} beside kind 'aec', expected 'aec' alone")
            if p.bias_mode != "once":
                raise GraphError(
                    f"graph: found population {p.name!r} with bias_mode 'every_step' in an AEC graph, expected 'once'"
                )
        if len(set(lengths.values())) > 1:
            raise GraphError(f"graph: found tables of different lengths {lengths}, expected one number of slots")
        return next(iter(lengths.values()))

    @property
    def populations(self) -> tuple[Population, ...]:
        """All populations, in the order given."""
        return tuple(data["population"] for _, data in self.nx.nodes(data=True))

    @property
    def projections(self) -> tuple[Projection, ...]:
        """All projections, by the presynaptic population's position."""
        return tuple(data["projection"] for _, _, data in self.nx.edges(data=True))

    @property
    def spiking(self) -> tuple[str, ...]:
        """Names of the populations that fire (kinds if, signed_if, lif, aec), in ``order``."""
        return tuple(name for name in self.order if self.population(name).kind in SPIKING_KINDS)

    @property
    def nnz(self) -> int:
        """Synapses of the whole graph."""
        return sum(projection.connection.nnz for projection in self.projections)

    def population(self, name: str) -> Population:
        """The population called ``name``.

        Raises
        ------
        GraphError
            If there is none.
        """
        if name not in self.nx:
            raise GraphError(f"graph: population {name!r} does not exist; found {', '.join(map(repr, self.nx))}")
        population: Population = self.nx.nodes[name]["population"]
        return population

    def projection(self, pre: str, post: str) -> Projection:
        """The projection from ``pre`` to ``post``.

        Raises
        ------
        GraphError
            If there is none.
        """
        if not self.nx.has_edge(pre, post):
            raise GraphError(f"graph: projection {pre!r} -> {post!r} does not exist")
        projection: Projection = self.nx.edges[pre, post]["projection"]
        return projection

    def into(self, name: str) -> tuple[Projection, ...]:
        """Projections that arrive at a population."""
        return tuple(self.projection(pre, name) for pre in self.nx.predecessors(name))

    def out_of(self, name: str) -> tuple[Projection, ...]:
        """Projections that leave a population."""
        return tuple(self.projection(name, post) for post in self.nx.successors(name))

    def delay(self, pre: str, post: str) -> int:
        """Global steps from a spike of ``pre`` to its arrival, on a backend with unit delays: depth(post) - depth(pre) >= 1.

        In an AEC graph a depth is a window, and what a population fires in its encode window arrives, without a delay, in the
        decode window of a population one deeper: (depth(post) - depth(pre) - 1) * slots.
        """
        depths = self.depth[post] - self.depth[pre]
        return depths if self.slots is None else (depths - 1) * self.slots

    @property
    def input_shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shapes that an image may have: (N,), and that of the input population."""
        return tuple(dict.fromkeys([(self.input.size,), self.input.shape]))

    @property
    def expected_inputs(self) -> str:
        """Shapes of inputs in words, such as "(images, 64) or (images, 1, 8, 8)"."""
        return " or ".join(f"(images, {', '.join(map(str, shape))})" for shape in self.input_shapes)

    def check_inputs(self, inputs: NDArray[Any]) -> NDArray[np.int64]:
        """As ``flat_inputs``, as an int64 array."""
        return np.ascontiguousarray(self.flat_inputs(inputs), dtype=np.int64)

    def flat_inputs(self, inputs: NDArray[Any]) -> NDArray[Any]:
        """Inputs as an array of shape (B, N), of the type they came in, after checking them against the input population.

        Other shapes of as many values are refused: channels-last images, say, would be read in another order.

        Parameters
        ----------
        inputs : integer array, shape (B, N) or (B, C, y, x)

        Raises
        ------
        GraphError
            If they are not integers, have the wrong shape or leave ``value_range``.
        """
        try:
            array = np.asarray(inputs)
        except ValueError as error:
            raise GraphError(
                f"inputs: found what numpy makes no array of ({error}), expected integers of shape {self.expected_inputs}"
            ) from error
        if array.dtype.kind not in "iu":
            raise GraphError(f"inputs: found dtype {array.dtype}, expected integers (pixels or quantised features)")
        if array.ndim == 0 or array.shape[1:] not in self.input_shapes:
            raise GraphError(f"inputs: found shape {array.shape}, expected {self.expected_inputs}")
        flat = array.reshape(len(array), self.input.size)
        low, high = self.input.value_range or (0, 0)
        if flat.size and (flat.min() < low or flat.max() > high):
            raise GraphError(
                f"inputs: found values {flat.min()}..{flat.max()}, expected {low}..{high} (value_range of {self.input.name!r})"
            )
        return flat

    def digest(self) -> str:
        """SHA-256 over everything that a run depends on (names, fields, weights), as hexadecimal; provenance is left out."""
        sha = hashlib.sha256()

        def add(*parts: Any) -> None:
            for part in parts:
                data = part.tobytes() if isinstance(part, np.ndarray) else repr(part).encode()
                sha.update(len(data).to_bytes(8, "little") + data)

        for name in sorted(self.nx):
            p = self.population(name)
            add(name, p.shape, p.kind, p.bias_mode, p.reset, p.value_range, p.v_init, p.bias, p.scale)
            add(p.threshold, p.threshold_neg, *(item for pair in p.tables.items() for item in pair))
            if p.kind == "lif":
                add(p.decay_current, p.decay_voltage)
        for pre, post in sorted(self.nx.edges):
            c = self.projection(pre, post).connection
            add(pre, post)
            if isinstance(c, CSRConnection):
                add("csr", c.pointers, c.indices, c.values)
            else:
                add("conv2d", c.kernel.shape, c.kernel, c.input_shape, c.stride, c.padding, c.dilation, c.groups)
        return sha.hexdigest()

    def to_networkx(self, level: Literal["population", "neuron"] = "population") -> nx.DiGraph[Any]:
        """A networkx copy: populations and projections, or single neurons ``(population, index)`` and synapses with ``weight``.

        The neuron level has one Python object a synapse: meant for networks of up to a few million.
        """
        if level == "population":
            return self.nx.copy()
        if level != "neuron":
            raise GraphError(f"to_networkx: found level {level!r}, expected 'population' or 'neuron'")
        neurons: nx.DiGraph[Any] = nx.DiGraph()
        for population in self.populations:
            neurons.add_nodes_from(((population.name, i) for i in range(population.size)), kind=population.kind)
        for projection in self.projections:
            csr = projection.connection.to_csr()
            sources = np.repeat(np.arange(csr.shape[0]), csr.fan_out).tolist()
            neurons.add_weighted_edges_from(
                ((projection.pre, i), (projection.post, j), w)
                for i, j, w in zip(sources, csr.indices.tolist(), csr.values.tolist(), strict=True)
            )
        return neurons
