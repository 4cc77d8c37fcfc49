"""From what Brian2's monitors hold to exact integers, batch by batch."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sparsespike.backends.base import SpikeCounts
from sparsespike.backends.brian2.equations import EXACT, RASTER
from sparsespike.backends.brian2.job import Job, Recording, Traces
from sparsespike.backends.brian2.plan import simulated
from sparsespike.backends.brian2.timing import Timing
from sparsespike.common.errors import MembraneOverflowError
from sparsespike.export.graph import Population

Located = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]
"""Image, step within the image and neuron of every event of one kind."""


def read(traces: Traces, job: Job, start: int, inputs: NDArray[np.int64]) -> Recording:
    """What was recorded of one batch, ``inputs``, whose first image is image ``start`` of the job.

    Raises
    ------
    MembraneOverflowError
        If a membrane left the range in which float64 is exact.
    """
    graph, images, steps = job.graph, len(inputs), job.steps
    timing = Timing(graph)
    located = {key: _locate(*found, images, steps, timing.fires(key[0])) for key, found in traces.fired.items()}
    _check_range(located, start)
    spikes, spikes_by_step, rasters = {}, {}, {}
    for name in (graph.input.name, *graph.spiking):
        population = graph.population(name)
        events = {event: where for (owner, event), where in located.items() if owner == name and event in RASTER}
        if not events:  # an input in mode "current" emitted nothing in the simulation: its values are known
            spikes[name], spikes_by_step[name] = _emitted(population, inputs, steps)
            continue
        spikes[name] = _count(events, (images, population.size), by=2)
        spikes_by_step[name] = _count(events, (images, steps), by=1)
        if name in job.record:
            rasters[name] = _raster(events, (images, steps, population.size))
    events_by_step = {projection.key: np.zeros((images, steps), np.int64) for projection in simulated(graph, job.input)}
    for key, totals in traces.totals.items():
        in_every_step = np.diff(totals.sum(axis=1), prepend=0)
        events_by_step[key] = _part(in_every_step, images, steps, timing.hears(key[1]))
    readout = _part(traces.membrane, images, steps, timing.fires(graph.readout.name))
    return Recording(readout, spikes, spikes_by_step, events_by_step, rasters)


def _locate(step: NDArray[np.int64], neuron: NDArray[np.int64], images: int, steps: int, windows: int) -> Located:
    """Where events were; those of a pipeline that is filling or running out are left out."""
    image, local = np.divmod(step - windows * steps, steps)
    inside = (image >= 0) & (image < images)
    return image[inside], local[inside], neuron[inside]


def _check_range(located: dict[tuple[str, str], Located], start: int) -> None:
    for (name, event), (image, step, neuron) in located.items():
        if event == "overflow" and len(image):
            raise MembraneOverflowError(
                f"Brian2: the membrane of neuron {neuron[0]} in population {name!r} reached 2^{EXACT.bit_length() - 1} "
                f"at image {start + image[0]}, step {step[0]}; beyond it float64 is not proven exact: "
                "convert the network with fewer bits, or run it on the native backend"
            )


def _emitted(population: Population, inputs: NDArray[np.int64], steps: int) -> tuple[SpikeCounts, SpikeCounts]:
    """Values that an input population emits, by neuron and by step."""
    times = steps if population.bias_mode == "every_step" else 1
    positive, negative = ((sign * inputs > 0).astype(np.int64) for sign in (1, -1))
    by_step = [np.zeros((len(inputs), steps), np.int64) for _ in range(2)]
    for counts, values in zip(by_step, (positive, negative), strict=True):
        counts[:, :times] = values.sum(axis=1, keepdims=True)
    return SpikeCounts(times * positive, times * negative), SpikeCounts(*by_step)


def _count(events: dict[str, Located], shape: tuple[int, int], by: int) -> SpikeCounts:
    """Positive and negative events by image and another coordinate; each event of kind ``aec`` is a positive one."""
    counts = [np.zeros(shape, np.int64) for _ in range(2)]
    for event, where in events.items():
        flat = where[0] * shape[1] + where[by]
        counts[RASTER[event] < 0] += np.bincount(flat, minlength=shape[0] * shape[1]).reshape(shape)
    return SpikeCounts(*counts)


def _raster(events: dict[str, Located], shape: tuple[int, int, int]) -> NDArray[np.int8]:
    raster = np.zeros(shape, np.int8)
    for event, where in events.items():
        raster[where] += RASTER[event]
    return raster


def _part(states: NDArray[np.float64], images: int, steps: int, windows: int) -> NDArray[np.int64]:
    """The recorded images of something that was seen in every step: shape (images, steps, ...)."""
    part = states[windows * steps : (windows + images) * steps]
    return part.astype(np.int64).reshape(images, steps, *states.shape[1:])
