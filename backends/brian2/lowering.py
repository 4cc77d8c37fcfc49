"""A SpikingGraph as a Brian2 network.

All images run one after the other in one continuous simulation: image b has the steps [b T, (b + 1) T). The schedule gives
each population its own slots, in topological order, so that a spike arrives in the step in which it is fired: a step is every
population's local step, skips need no delay, and nothing is in flight when an image ends. Steps are counted in integers
(``t_in_timesteps``); no time is compared as a float.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsespike.backends.base import InputMode
from sparsespike.backends.brian2.equations import (
    EXACT,
    SIGNS,
    Equations,
    gate,
    input_equations,
    neuron_equations,
    transmission,
)
from sparsespike.backends.brian2.job import Job
from sparsespike.export.bounds import bounds
from sparsespike.export.graph import Key, Population, Projection, SpikingGraph

SLOTS = ("count", "drive", "fire", "reset", "send")
"""A population's slots: counters are read, membranes driven, thresholds tested, spikes taken off the membrane, spikes sent."""


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


class Lowered:
    """A job's graph as a Brian2 network for one batch of images.

    Parameters
    ----------
    b2 : module
        The package brian2.
    job : Job
    inputs : int64 array, shape (images, N)

    Attributes
    ----------
    network : brian2.Network
    duration : brian2.Quantity
        Simulated time of all images.
    injected : dict of str to brian2.TimedArray
        The ``drives``, one row an image; the standalone device gives them new values for each batch.
    membrane : brian2.StateMonitor
        The readout's membrane after every step.
    fired : dict of (str, str) to brian2.EventMonitor
        By population and event: neuron ``i`` and ``t_in_timesteps`` of every spike; event ``overflow`` of a population whose
        membrane is not proven to stay exact.
    received : dict of Key to brian2.StateMonitor
        By projection: how many synaptic events each postsynaptic neuron received in every step.
    """

    def __init__(self, b2: Any, job: Job, inputs: NDArray[np.int64]) -> None:
        self._b2 = b2
        self._job = job
        self._number = {name: k for k, name in enumerate(job.graph.order)}
        self._clock = b2.Clock(dt=b2.ms, name="steps")
        self._bounds = bounds(job.graph, job.steps)
        self._groups: dict[str, Any] = {}
        self.duration = len(inputs) * job.steps * b2.ms
        self.injected = {
            name: b2.TimedArray(values, dt=b2.second, name=f"injected{self._number[name]}")
            for name, values in drives(job.graph, inputs, job.input).items()
        }
        self.fired: dict[tuple[str, str], Any] = {}
        self.received: dict[Key, Any] = {}
        self.network = b2.Network()
        self.network.schedule = [
            "start",
            *(f"{slot}{k}" for k in self._number.values() for slot in SLOTS),
            *("groups", "thresholds", "synapses", "resets", "end"),  # Brian2 wants its own slots to stay
        ]
        projections = [p for p in simulated(job.graph, job.input) if p.connection.nnz]
        for population in map(job.graph.population, job.graph.order):
            if population.kind == "input" and job.input == "current":
                continue
            counters = [self._counter(p) for p in projections if p.post == population.name]
            self._add_group(population, self._equations(population, counters))
        for projection in projections:
            self._add_synapses(projection)
        readout = job.graph.readout.name
        self.membrane = self._monitor_state(readout, "v", "fire", "membrane")

    def _counter(self, projection: Projection) -> str:
        return f"received{self._number[projection.pre]}"

    def _injection(self, name: str) -> str:
        """Expression for what is injected into a population; a TimedArray's row is the image, as a whole number of seconds."""
        row = f"(t_in_timesteps // {self._job.steps})*second"
        return f"{self.injected[name].name}({row}, i)*{gate(self._job.graph.input)}"

    def _equations(self, population: Population, counters: list[str]) -> Equations:
        name, steps = population.name, self._job.steps
        if population.kind == "input":
            return input_equations(population, steps, self._injection(name))
        injected = self._injection(name) if name in self.injected else None
        watched = self._bounds[name].membrane >= EXACT
        return neuron_equations(population, steps, counters=counters, injected=injected, watched=watched)

    def _add_group(self, population: Population, equations: Equations) -> None:
        k = self._number[population.name]
        namespace = {ta.name: ta for name, ta in self.injected.items() if name == population.name}
        group = self._b2.NeuronGroup(
            population.size,
            equations.declarations,
            events=dict(equations.events),
            clock=self._clock,
            name=f"population{k}",
            namespace=namespace,
        )
        for constant, values in equations.constants.items():
            setattr(group, constant, values)
        group.run_regularly(equations.drive, clock=self._clock, when=f"drive{k}", name=f"drive{k}")
        for event in equations.events:
            group.thresholder[event].when = f"fire{k}"
            monitor = self._b2.EventMonitor(
                group, event, ("i", "t_in_timesteps"), record=False, when=f"fire{k}", order=1, name=f"fired_{event}{k}"
            )
            self.network.add(monitor)
            self.fired[population.name, event] = monitor
        for event, code in equations.resets.items():
            group.run_on_event(event, code, when=f"reset{k}")
        self.network.add(group)
        self._groups[population.name] = group

    def _add_synapses(self, projection: Projection) -> None:
        pre, post = (self._groups[name] for name in projection.key)
        k = f"{self._number[projection.pre]}_{self._number[projection.post]}"
        counter = self._counter(projection)
        graded = projection.pre == self._job.graph.input.name
        events = {f"on_{event}": event for event in SIGNS if event in pre.events}
        synaptic = self._b2.Synapses(
            pre,
            post,
            "w : 1 (constant)",
            on_pre={path: transmission(event, counter, graded=graded) for path, event in events.items()},
            on_event=events,
            delay=dict.fromkeys(events, 0 * self._b2.ms),
            clock=self._clock,
            name=f"synapses{k}",
            namespace={},
        )
        i, j, w = synapses(projection)
        synaptic.connect(i=i, j=j)
        synaptic.w = w
        for path in events:
            getattr(synaptic, path).when = f"send{self._number[projection.pre]}"
        self.network.add(synaptic)
        self.received[projection.key] = self._monitor_state(projection.post, counter, "count", f"events{k}")

    def _monitor_state(self, population: str, variable: str, slot: str, name: str) -> Any:
        when = f"{slot}{self._number[population]}"
        monitor = self._b2.StateMonitor(self._groups[population], variable, record=True, when=when, name=name)
        self.network.add(monitor)
        return monitor
