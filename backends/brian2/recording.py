"""From Brian2's monitors to exact integers, batch by batch."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsespike.backends.base import SpikeCounts
from sparsespike.backends.brian2.equations import EXACT, SIGNS
from sparsespike.backends.brian2.job import Job, Recording
from sparsespike.backends.brian2.lowering import Lowered, simulated
from sparsespike.common.errors import MembraneOverflowError
from sparsespike.export.graph import Population


def read(lowered: Lowered, job: Job, start: int) -> Recording:
    """What was recorded of the batch whose first image is ``start``.

    The simulation may have gone on to images that are no part of the job (a standalone binary always runs as many as it was
    built for): they are left out.

    Raises
    ------
    MembraneOverflowError
        If a membrane left the range in which float64 is exact.
    """
    graph, inputs = job.graph, job.inputs[start : start + job.batch]
    images, steps = len(inputs), job.steps
    _check_range(lowered, job, start, images)
    rasters = {name: _raster(lowered, graph.population(name), images, steps) for name in graph.spiking}
    emitted = dict(rasters)
    if job.input == "events":
        emitted[graph.input.name] = _raster(lowered, graph.input, images, steps)
    else:  # nothing was emitted in the simulation: the values are known
        emitted[graph.input.name] = np.zeros((images, steps, graph.input.size), np.int8)
        emitted[graph.input.name][:, : steps if graph.input.bias_mode == "every_step" else 1] = np.sign(inputs)[:, None]
    events = {projection.key: np.zeros((images, steps), np.int64) for projection in simulated(graph, job.input)}
    for key, monitor in lowered.received.items():
        events[key] = _states(monitor, images, steps).sum(axis=2)
    return Recording(
        readout=_states(lowered.membrane, images, steps),
        spikes={name: _count(raster, axis=1) for name, raster in emitted.items()},
        spikes_by_step={name: _count(raster, axis=2) for name, raster in emitted.items()},
        events_by_step=events,
        rasters={name: rasters[name] for name in job.record},
    )


def _check_range(lowered: Lowered, job: Job, start: int, images: int) -> None:
    for (name, event), monitor in lowered.fired.items():
        step = _ints(monitor.t_in_timesteps)
        if event == "overflow" and len(step) and step[0] < images * job.steps:
            raise MembraneOverflowError(
                f"Brian2: the membrane of neuron {_ints(monitor.i)[0]} in population {name!r} reached 2^{EXACT.bit_length() - 1} "
                f"at image {start + step[0] // job.steps}, step {step[0] % job.steps}; beyond it float64 is not proven exact: "
                "convert the network with fewer bits, or run it on the native backend"
            )


def _raster(lowered: Lowered, population: Population, images: int, steps: int) -> NDArray[np.int8]:
    """Spikes +1, 0, -1, shape (images, steps, N)."""
    raster = np.zeros((images * steps, population.size), np.int8)
    for event, sign in SIGNS.items():
        monitor = lowered.fired.get((population.name, event))
        if monitor is not None:
            step, neuron = _ints(monitor.t_in_timesteps), _ints(monitor.i)
            inside = step < len(raster)
            raster[step[inside], neuron[inside]] = sign
    return raster.reshape(images, steps, population.size)


def _count(raster: NDArray[np.int8], axis: int) -> SpikeCounts:
    positive, negative = ((raster == sign).sum(axis=axis, dtype=np.int64) for sign in SIGNS.values())
    return SpikeCounts(positive, negative)


def _states(monitor: Any, images: int, steps: int) -> NDArray[np.int64]:
    """A StateMonitor's only variable, shape (images, steps, N)."""
    (variable,) = monitor.record_variables
    states = np.asarray(monitor.variables[variable].get_value())[: images * steps]
    return states.astype(np.int64).reshape(images, steps, -1)


def _ints(values: Any) -> NDArray[np.int64]:
    return np.asarray(values[:], dtype=np.int64)
