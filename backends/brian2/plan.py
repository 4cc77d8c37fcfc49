"""A SpikingGraph as the parts of a Brian2 network: plain data, made into objects by ``network`` and into text by ``script``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from sparsespike.backends.base import InputMode
from sparsespike.backends.brian2.equations import (
    EXACT,
    RASTER,
    Equations,
    addition,
    aec_equations,
    aec_readout_equations,
    input_equations,
    leaky_equations,
    rate_equations,
)
from sparsespike.backends.brian2.timing import Timing
from sparsespike.common.errors import MembraneOverflowError
from sparsespike.export.bounds import bounds
from sparsespike.export.graph import Population, Projection, SpikingGraph

LANES = 8
"""Neurons of the group ``total``: additions to one number wait for each other, those to several do not."""


def synapses(projection: Projection) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int32]]:
    """Presynaptic neuron, postsynaptic neuron and weight of every synapse: three arrays of shape (nnz,), row by row."""
    csr = projection.connection.to_csr()
    return np.repeat(np.arange(csr.shape[0]), csr.fan_out), csr.indices, csr.values


def drives(graph: SpikingGraph, inputs: NDArray[np.int64], mode: InputMode) -> dict[str, NDArray[np.int64]]:
    """What is injected from outside: by population, an array of shape (B, N).

    In mode ``events`` the values that the input population emits; in mode ``current`` what they add up to in the populations
    behind it.
    """
    if mode == "events":
        return {graph.input.name: inputs}
    behind = graph.out_of(graph.input.name)
    return {p.post: np.asarray(inputs @ p.connection.to_csr().to_scipy(), np.int64) for p in behind}


def simulated(graph: SpikingGraph, mode: InputMode) -> tuple[Projection, ...]:
    """The projections that run inside the simulation: all, but in mode ``current`` those that leave the input."""
    return tuple(p for p in graph.projections if mode == "events" or p.pre != graph.input.name)


def check_currents(graph: SpikingGraph) -> None:
    """Refuse what could leave the exact range within a single step; membranes are watched while they run.

    Those of AEC graphs are proven to stay in it, once and for all.

    Raises
    ------
    MembraneOverflowError
        Naming the population.
    """
    if graph.slots is not None:
        return
    for name, bound in bounds(graph, 1).items():
        population = graph.population(name)
        bias, v_init = (int(abs(values.astype(object)).max()) for values in (population.bias, population.v_init))
        largest = max(bound.current + bias, v_init)
        if largest >= EXACT:
            raise MembraneOverflowError(
                f"Brian2: current and bias (or initial membrane) of population {name!r} can reach {largest} in one step, "
                f"expected less than 2^{EXACT.bit_length() - 1}, where float64 is exact; convert the network with fewer bits"
            )


@dataclass(frozen=True, eq=False)
class Group:
    """A NeuronGroup: its name in Brian2, its population, its code, the declarations of all its variables."""

    name: str
    population: Population
    equations: Equations
    declarations: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Pathway:
    """What the synapses of a projection do for one event of their presynaptic neurons."""

    event: str
    code: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Synaptic:
    """A Synapses object: names in Brian2, the projection, windows of delay, the counter of its events, its pathways."""

    name: str
    pre: str
    post: str
    projection: Projection
    windows: int
    counter: str
    total: str
    pathways: tuple[Pathway, ...]


class Plan:
    """How a graph is simulated in Brian2.

    Every synaptic event is counted where it happens: ``on_pre`` code adds a weight to a neuron and 1 to that neuron's counter;
    after every step the counters of a population are summed up, by projection, in the few neurons of the group ``total``. What
    is counted adds up from the beginning of the simulation.

    Parameters
    ----------
    graph : SpikingGraph
    steps : int or None
        Steps of an image; in the code of Brian2, the name ``steps``. None if it is not known yet.
    mode : {"events", "current"}
    compiled : bool
        Whether Brian2's code will be compiled, or run by numpy.

    Attributes
    ----------
    integer : str
        Brian2's type of weights and counters. In compiled code it is a 32-bit integer, half the memory to read, and a counter
        begins again at 2^32. Numpy adds at repeated indices (``numpy.add.at``) thirty times faster where both sides have the
        same type, and the currents are float64.
    groups : tuple of Group
    synaptic : tuple of Synaptic
        Projections without a synapse have none.
    tables : mapping of str to array, shape (slots,)
        Functions of the slot, for kind ``aec``.
    injected : mapping of str to str
        By population, the function that holds its ``drives``.
    """

    def __init__(self, graph: SpikingGraph, steps: int | None, mode: InputMode, *, compiled: bool) -> None:
        self.graph, self.steps = graph, steps
        self.integer, self._one = ("integer", "1") if compiled else ("1", "1.0")
        self.timing = Timing(graph)
        self.number = {name: k for k, name in enumerate(graph.order)}
        receivers = [p.post for p in graph.out_of(graph.input.name)] if mode == "current" else [graph.input.name]
        self.injected: Mapping[str, str] = {name: f"injected{self.number[name]}" for name in receivers}
        self.tables = {
            function: graph.population(name).tables[table]
            for name in graph.spiking
            for table, function in self._table_names(name).items()
        }
        self._projections = tuple(p for p in simulated(graph, mode) if p.connection.nnz)
        names = (name for name in graph.order if mode == "events" or name != graph.input.name)
        self.groups = tuple(self._group(graph.population(name)) for name in names)
        self.synaptic = tuple(map(self._synaptic, self._projections))

    def group(self, population: str) -> Group:
        """The group of a population."""
        return next(group for group in self.groups if group.population.name == population)

    def slot(self, stage: str, group: Group) -> str:
        """Where in a step a group does something."""
        return self.timing.slot(stage, group.population.name)

    @cached_property
    def watched(self) -> frozenset[str]:
        """Populations whose membrane is not proven to stay exact; those of AEC graphs are."""
        if self.graph.slots is not None:
            return frozenset()
        if self.steps is None:
            return frozenset(self.graph.order)
        return frozenset(name for name, bound in bounds(self.graph, self.steps).items() if bound.membrane >= EXACT)

    def _table_names(self, name: str) -> dict[str, str]:
        return {table: f"{table}{self.number[name]}" for table in self.graph.population(name).tables}

    def _counter(self, projection: Projection) -> str:
        return f"received{self.number[projection.pre]}"

    def _injection(self, function: str, windows: int) -> str:
        """What is injected, of the image that arrived that many windows ago."""
        return f"{function}(t - {windows}*steps*second, i)" if windows else f"{function}(t, i)"

    def _group(self, population: Population) -> Group:
        name, equations = population.name, self._equations(population)
        counters = (f"{self._counter(p)} : {self.integer}" for p in self._projections if p.post == name)
        return Group(f"population{self.number[name]}", population, equations, (*equations.declarations, *counters))

    def _equations(self, population: Population) -> Equations:
        name, graph = population.name, self.graph
        if population.kind == "input":
            windows = sorted({0, *(self.timing.delay(p) for p in self._projections if p.pre == name)})
            return input_equations(population, {w: self._injection(self.injected[name], w) for w in windows})
        injected = self._injection(self.injected[name], self.timing.fires(name)) if name in self.injected else None
        if population.kind == "aec":
            return aec_equations(population, injected=injected, tables=self._table_names(name))
        if graph.slots is not None:
            return aec_readout_equations(population, injected=injected)
        gated = graph.input.bias_mode == "once"
        integrate = leaky_equations if population.kind == "lif" else rate_equations
        return integrate(population, injected=injected, gated=gated, watched=name in self.watched)

    def _synaptic(self, projection: Projection) -> Synaptic:
        pre, post = (self.group(name) for name in projection.key)
        ends = f"{self.number[projection.pre]}_{self.number[projection.post]}"
        counter, windows = self._counter(projection), self.timing.delay(projection)
        pathways = tuple(
            Pathway(
                event,
                (
                    f"{post.equations.target}_post {addition(pre.population, event, windows)}",
                    f"{counter}_post += {self._one}",
                ),
            )
            for event in pre.equations.events
            if event in RASTER
        )
        return Synaptic(f"synapses{ends}", pre.name, post.name, projection, windows, counter, f"events{ends}", pathways)
