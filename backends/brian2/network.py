"""A plan as objects of Brian2."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsespike.backends.brian2 import plan as parts
from sparsespike.backends.brian2.plan import Group, Plan, Synaptic


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

    Attributes
    ----------
    network : brian2.Network
    duration : brian2.Quantity
        Simulated time until the last image has left the last population.
    namespace : dict
        What names in the code stand for.
    membrane : brian2.StateMonitor
        The readout's membrane ``v`` after every step.
    fired : dict of (str, str) to brian2.EventMonitor
        By population and event: neuron ``i`` and ``t_in_timesteps`` of every one.
    totals : dict of str to brian2.Variable
        By ``Synaptic.total``: synaptic events up to every step, in parts: an array of shape (simulated steps, LANES).
    """

    def __init__(self, b2: Any, plan: Plan, drives: dict[str, NDArray[np.int64]], images: int) -> None:
        assert plan.steps is not None
        self._b2, self._plan, self._window = b2, plan, plan.steps * b2.second
        self._steps = b2.Clock(dt=b2.second, name="step_clock")
        self._images = b2.Clock(dt=self._window, name="image_clock")
        self._groups: dict[str, Any] = {}
        self.duration = plan.timing.windows(images) * self._window
        self.namespace: dict[str, Any] = {"steps": plan.steps}
        for name, function in plan.injected.items():
            self.namespace[function] = b2.TimedArray(drives[name], dt=self._window, name=function)
        for function, values in plan.tables.items():
            self.namespace[function] = b2.TimedArray(values, dt=b2.second, name=function)
        self.fired: dict[tuple[str, str], Any] = {}
        self.network = b2.Network()
        self.network.schedule = plan.timing.schedule
        for group in plan.groups:
            self._add_group(group)
        for synaptic in plan.synaptic:
            self._add_synapses(synaptic)
        readout = plan.group(plan.graph.readout.name)
        self.membrane = self._monitor(readout.name, ["v"], plan.slot("look", readout), "membrane")
        self.totals: dict[str, Any] = self._add_total() if plan.synaptic else {}

    def _add_group(self, plan: Group) -> None:
        equations, slot = plan.equations, self._plan.slot
        group = self._b2.NeuronGroup(
            plan.population.size,
            "\n".join(equations.declarations),
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
            monitor = self._b2.EventMonitor(
                group,
                event,
                ("i", "t_in_timesteps"),
                record=False,
                when=slot(f"test{rank}", plan),
                order=1,
                name=f"{event}_{plan.name}",
            )
            self.network.add(monitor)
            self.fired[plan.population.name, event] = monitor

    def _add_synapses(self, plan: Synaptic) -> None:
        paths = {f"on_{pathway.event}": pathway for pathway in plan.pathways}
        synaptic = self._b2.Synapses(
            self._groups[plan.pre],
            self._groups[plan.post],
            "w : 1 (constant)",
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

    def _add_total(self) -> dict[str, Any]:
        names = [plan.total for plan in self._plan.synaptic]
        total = self._b2.NeuronGroup(parts.LANES, "\n".join(f"{name} : 1" for name in names), clock=self._steps, name="total")
        self._groups[total.name] = total
        self.network.add(total)
        for plan in self._plan.synaptic:
            counters = self._groups[plan.post]
            code = f"{plan.total}_post = {plan.counter}_pre : 1 (summed)"
            adder = self._b2.Synapses(counters, total, code, clock=self._steps, name=f"sum_{plan.total}")
            neurons = np.arange(len(counters))
            adder.connect(i=neurons, j=neurons % parts.LANES)
            adder.summed_updaters[f"{plan.total}_post"].when = "end"
            self.network.add(adder)
        monitor = self._monitor(total.name, names, "end", "totals")
        return {name: monitor.variables[name] for name in names}

    def _monitor(self, group: str, variables: list[str], when: str, name: str) -> Any:
        monitor = self._b2.StateMonitor(self._groups[group], variables, record=True, clock=self._steps, when=when, name=name)
        self.network.add(monitor)
        return monitor
