"""A plan as objects of Brian2."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsespike.backends.brian2 import plan as parts
from sparsespike.backends.brian2.plan import Group, Plan, Synaptic


@dataclass(frozen=True, eq=False)
class Events:
    """Variables of Brian2 that hold what was seen of one kind of event; as in ``job.Fired``.

    Attributes
    ----------
    so_far : brian2.Variable, shape (simulated steps, 1)
    before : brian2.Variable, shape (windows, N)
        Events of each neuron before every window.
    count : brian2.Variable, shape (N,)
        The same at the end.
    neurons : brian2.Variable, shape (events,), or None
    """

    so_far: Any
    before: Any
    count: Any
    neurons: Any


class Network:
    """The network of a plan, for a number of images.

    Parameters
    ----------
    b2 : module
        The package brian2.
    plan : Plan
        Of a known number of steps.
    drives : mapping of str to array, shape (images, N)
        What is injected, by population.
    images : int
    record : collection of str
        Populations of whose events every one is recorded, and not only how many there are.

    Attributes
    ----------
    network : brian2.Network
    duration : brian2.Quantity
        Simulated time until the last image has left the last population.
    namespace : dict
        What names in the code stand for.
    membrane : brian2.StateMonitor
        The readout's membrane ``v`` after every step.
    fired : dict of (str, str) to Events
        By population and event.
    totals : dict of str to brian2.Variable
        By ``Synaptic.total``: synaptic events up to every step, in parts: an array of shape (simulated steps, LANES).
    """

    def __init__(
        self, b2: Any, plan: Plan, drives: dict[str, NDArray[np.int64]], images: int, record: Collection[str] = ()
    ) -> None:
        assert plan.steps is not None
        self._b2, self._plan, self._window = b2, plan, plan.steps * b2.second
        self._record = record
        self._steps = b2.Clock(dt=b2.second, name="step_clock")
        self._images = b2.Clock(dt=self._window, name="image_clock")
        self._groups: dict[str, Any] = {}
        self._monitors: dict[tuple[str, str], Any] = {}
        self.duration = plan.timing.windows(images) * self._window
        self.namespace: dict[str, Any] = {"steps": plan.steps}
        for name, function in plan.injected.items():
            self.namespace[function] = b2.TimedArray(drives[name], dt=self._window, name=function)
        for function, values in plan.tables.items():
            self.namespace[function] = b2.TimedArray(values, dt=b2.second, name=function)
        self.network = b2.Network()
        self.network.schedule = plan.timing.schedule
        for group in plan.groups:
            self._add_group(group)
        for synaptic in plan.synaptic:
            self._add_synapses(synaptic)
        readout = plan.group(plan.graph.readout.name)
        self.membrane = self._monitor(readout.name, ["v"], "membrane", when=plan.slot("look", readout))
        self.totals, self.fired = self._add_total() if plan.synaptic or self._monitors else ({}, {})

    def _add_group(self, plan: Group) -> None:
        equations, slot = plan.equations, self._plan.slot
        counts = [f"n_{event} : integer (linked)" for event in equations.events]
        group = self._b2.NeuronGroup(
            plan.population.size,
            "\n".join([*plan.declarations, *counts]),
            events={event: it.condition for event, it in equations.events.items()},
            clock=self._steps,
            name=plan.name,
        )
        self.network.add(group)
        self._groups[plan.name] = group
        for constant, values in equations.constants.items():
            setattr(group, constant, values)
        group.run_regularly("\n".join(equations.begin), clock=self._images, when="begin", name=f"begin_{plan.name}")
        if equations.drive:
            drive = "\n".join(equations.drive)
            group.run_regularly(drive, clock=self._steps, when=slot("drive", plan), name=f"drive_{plan.name}")
        for rank, (event, it) in enumerate(equations.events.items()):
            group.set_event_schedule(event, when=slot(f"test{rank}", plan), order=0)
            if it.reset:
                group.run_on_event(event, it.reset, when=slot(f"apply{rank}", plan), order=0)
            # It counts the events of each neuron and of all; a list of them is needed for rasters and messages alone.
            listed = event == "overflow" or plan.population.name in self._record
            monitor = self._b2.EventMonitor(
                group,
                event,
                ("i",) if listed else (),
                record=False,
                when=slot(f"test{rank}", plan),
                order=1,
                name=f"{event}_{plan.name}",
            )
            self.network.add(monitor)
            self._monitors[plan.population.name, event] = monitor
            setattr(group, f"n_{event}", self._b2.linked_var(monitor, "count"))

    def _add_synapses(self, plan: Synaptic) -> None:
        paths = {f"on_{pathway.event}": pathway for pathway in plan.pathways}
        synaptic = self._b2.Synapses(
            self._groups[plan.pre],
            self._groups[plan.post],
            f"w : {self._plan.integer} (constant)",
            on_pre={path: "\n".join(pathway.code) for path, pathway in paths.items()},
            on_event={path: pathway.event for path, pathway in paths.items()},
            delay=dict.fromkeys(paths, plan.windows * self._window),
            clock=self._steps,
            name=plan.name,
        )
        self.network.add(synaptic)
        i, j, w = parts.synapses(plan.projection)
        synaptic.connect(i=i, j=j)
        synaptic.w = w
        for path in paths:
            getattr(synaptic, path).when = self._plan.timing.slot("send", plan.projection.pre)

    def _add_total(self) -> tuple[dict[str, Any], dict[tuple[str, str], Events]]:
        """Sum up what is counted, in every step; ``totals`` and ``fired``."""
        names = [plan.total for plan in self._plan.synaptic]
        monitors = {key: f"n_{monitor.name}" for key, monitor in self._monitors.items()}
        declarations = [
            *(f"{name} : {self._plan.integer}" for name in names),
            *(f"{name} : integer (linked)" for name in monitors.values()),
        ]
        total = self._b2.NeuronGroup(parts.LANES, "\n".join(declarations), clock=self._steps, name="total")
        self._groups[total.name] = total
        self.network.add(total)
        for plan in self._plan.synaptic:
            counters = self._groups[plan.post]
            code = f"{plan.total}_post = {plan.counter}_pre : {self._plan.integer} (summed)"
            adder = self._b2.Synapses(counters, total, code, clock=self._steps, name=f"sum_{plan.total}")
            neurons = np.arange(len(counters))
            adder.connect(i=neurons, j=neurons % parts.LANES)
            adder.summed_updaters[f"{plan.total}_post"].when = "end"
            self.network.add(adder)
        totals, fired = {}, {}
        if names:
            monitor = self._monitor(total.name, names, "totals")
            totals = {name: monitor.variables[name] for name in names}
        if monitors:
            for key, name in monitors.items():
                setattr(total, name, self._b2.linked_var(self._monitors[key], "N"))
            so_far = self._monitor(total.name, list(monitors.values()), "so_far", record=[0])
            fired = {key: self._events(key, so_far.variables[name]) for key, name in monitors.items()}
        return totals, fired

    def _events(self, key: tuple[str, str], so_far: Any) -> Events:
        """The variables of a monitor of events."""
        monitor, count = self._monitors[key], f"n_{key[1]}"
        before = self._monitor(
            monitor.source.name, [count], f"before_{monitor.name}", when="start", clock=self._images
        ).variables[count]
        return Events(so_far, before, monitor.variables["count"], monitor.variables.get("i"))

    def _monitor(self, group: str, variables: list[str], name: str, **settings: Any) -> Any:
        settings = {"record": True, "clock": self._steps, "when": "end", **settings}
        monitor = self._b2.StateMonitor(self._groups[group], variables, name=name, **settings)
        self.network.add(monitor)
        return monitor
