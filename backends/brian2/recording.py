"""From what Brian2's monitors hold to exact integers, batch by batch."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsespike.backends.base import SpikeCounts
from sparsespike.backends.brian2.equations import EXACT, RASTER
from sparsespike.backends.brian2.job import Fired, Job, Recording, Traces
from sparsespike.backends.brian2.plan import simulated
from sparsespike.backends.brian2.timing import Timing
from sparsespike.common.errors import MembraneOverflowError
from sparsespike.export.graph import Population

Located = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int32]]
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
    _check_range(traces, timing, (images, steps), start)
    spikes, spikes_by_step, rasters = {}, {}, {}
    for name in (graph.input.name, *graph.spiking):
        population, windows = graph.population(name), timing.fires(name)
        fired = {event: it for (owner, event), it in traces.fired.items() if owner == name and event in RASTER}
        if not fired:  # an input in mode "current" emitted nothing in the simulation: its values are known
            spikes[name], spikes_by_step[name] = _emitted(population, inputs, steps)
            continue
        spikes[name] = _signed({event: _differences(it.each)[windows + 1 :][:images] for event, it in fired.items()})
        by_step = {event: _part(_differences(it.so_far), images, steps, windows) for event, it in fired.items()}
        spikes_by_step[name] = _signed(by_step)
        if name in job.record:
            events = {event: _locate(it, images, steps, windows) for event, it in fired.items()}
            rasters[name] = _raster(events, (images, steps, population.size))
    events_by_step = {projection.key: np.zeros((images, steps), np.int64) for projection in simulated(graph, job.input)}
    for key, totals in traces.totals.items():
        events_by_step[key] = _part(_differences(totals).astype(np.int64).sum(axis=1), images, steps, timing.hears(key[1]))
    readout = _part(traces.membrane, images, steps, timing.fires(graph.readout.name))
    return Recording(readout, spikes, spikes_by_step, events_by_step, rasters)


def _differences(so_far: NDArray[Any]) -> NDArray[Any]:
    """What came to each row of a count; exact, though an int32 count may have begun again at 2^32."""
    return np.diff(so_far, axis=0, prepend=np.zeros_like(so_far[:1]))


def _locate(fired: Fired, images: int, steps: int, windows: int) -> Located:
    """Where listed events were; those of a pipeline that is filling or running out are left out."""
    assert fired.neurons is not None
    step = np.repeat(np.arange(len(fired.so_far)), _differences(fired.so_far))
    image, local = np.divmod(step - windows * steps, steps)
    inside = (image >= 0) & (image < images)
    return image[inside], local[inside], fired.neurons[inside]


def _check_range(traces: Traces, timing: Timing, shape: tuple[int, int], start: int) -> None:
    for (name, event), fired in traces.fired.items():
        if event != "overflow":
            continue
        image, step, neuron = _locate(fired, *shape, timing.fires(name))
        if len(image):
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


def _signed(counts: dict[str, NDArray[Any]]) -> SpikeCounts:
    """Positive and negative events; each event of kind ``aec`` is a positive one."""
    sums = [np.zeros(next(iter(counts.values())).shape, np.int64) for _ in range(2)]
    for event, count in counts.items():
        sums[RASTER[event] < 0] += count
    return SpikeCounts(*sums)


def _raster(events: dict[str, Located], shape: tuple[int, int, int]) -> NDArray[np.int8]:
    raster = np.zeros(shape, np.int8)
    for event, where in events.items():
        raster[where] += RASTER[event]
    return raster


def _part(states: NDArray[Any], images: int, steps: int, windows: int) -> NDArray[np.int64]:
    """The recorded images of something that was seen in every step: shape (images, steps, ...)."""
    part = states[windows * steps : (windows + images) * steps]
    return part.astype(np.int64).reshape(images, steps, *states.shape[1:])
