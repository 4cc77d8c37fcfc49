"""What is kept of a block of images side by side: everything (a RunResult's arrays), or sums (a BulkResult)."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsespike.backends.base import InputMode, SpikeCounts, updates
from sparsespike.backends.bulk import BulkResult
from sparsespike.backends.native.activity import Activity, Words
from sparsespike.backends.native.arrays import Outputs
from sparsespike.backends.native.blocks import Course
from sparsespike.backends.native.plan import Plan
from sparsespike.export.graph import Key, Population

VERSION = version("sparsespike")


def run_whole(course: Course, plan: Plan, values: NDArray[np.int64], record: NDArray[np.int64], out: Outputs) -> None:
    """Run one block and fill its part of the arrays of a RunResult.

    Parameters
    ----------
    course : Course
    plan : Plan
    values : int64 array, shape (images, N)
        Of at most 64 images.
    record : int64 array, shape (P,)
        Where a population begins in ``out.rasters``, or -1.
    out : Outputs
        Of these images.
    """
    graph, images = course.graph, len(values)
    ways = [projection for name in graph.order for projection in graph.into(name)]

    def keep(population: Population, activity: Activity) -> None:
        p = graph.order.index(population.name)
        span = slice(plan.offset[p], plan.offset[p + 1])
        ones = np.ones(population.size, np.int64)
        out.positive[:, span] = activity.positive_counts[:, :images].T
        if activity.negative_counts is not None:
            out.negative[:, span] = activity.negative_counts[:, :images].T
        if population.kind == "input":
            return
        out.positive_by_step[:, p] = course.sums.sum_spikes(activity.positive, ones)[:, :images].T
        out.negative_by_step[:, p] = course.sums.sum_spikes(activity.negative, ones)[:, :images].T
        for r, projection in enumerate(ways):
            if projection.pre == population.name:
                fan_out = np.ascontiguousarray(projection.connection.fan_out)
                out.events[:, r] = course.sums.sum_spikes(activity.positive + activity.negative, fan_out)[:, :images].T
        if record[p] >= 0:
            out.rasters[:, :, record[p] : record[p] + population.size] = _raster(population, activity, images, course.steps)

    readout = course.run(values, keep)
    out.readout[:] = readout[:, :, :images].transpose(2, 0, 1)
    emissions = course.emissions
    out.positive_by_step[:, 0, :emissions] = (values > 0).sum(axis=1)[:, None]
    out.negative_by_step[:, 0, :emissions] = (values < 0).sum(axis=1)[:, None]
    for r, projection in enumerate(ways):
        if projection.pre == graph.input.name:
            out.events[:, r, :emissions] = ((values != 0) @ projection.connection.fan_out)[:, None]


def run_reduced(course: Course, values: NDArray[np.int64], input: InputMode) -> BulkResult:
    """Run one block of at most 64 images, of shape (images, N), and keep sums."""
    graph, steps, images = course.graph, course.steps, len(values)
    spikes: dict[str, SpikeCounts] = {}
    by_image: dict[str, SpikeCounts] = {}
    by_step: dict[str, SpikeCounts] = {}
    events: dict[Key, NDArray[np.int64]] = {}
    events_by_step: dict[Key, NDArray[np.int64]] = {}

    def keep(population: Population, activity: Activity) -> None:
        name, counts = population.name, (activity.positive_counts, activity.negative_counts)
        sums = [course.sums.sum_counts(population, each)[:, :images] for each in counts]
        spikes[name] = SpikeCounts(*(course.sums.sum_images(each, population.size, images) for each in counts))
        by_image[name] = SpikeCounts(*(each[0] for each in sums))
        by_step[name] = SpikeCounts(activity.positive_by_step[None], activity.negative_by_step[None])
        for k, projection in enumerate(graph.out_of(name), start=1):
            events[projection.key] = sums[0][k] + sums[1][k]
            events_by_step[projection.key] = activity.events[projection.key][None]

    readout = course.run(values, keep)
    name, emissions = graph.input.name, course.emissions
    positive, negative = by_image[name].positive.sum(), by_image[name].negative.sum()
    by_step[name] = SpikeCounts(*(_at_first(each // emissions, emissions, steps) for each in (positive, negative)))
    for projection in graph.out_of(name):
        if input == "current":
            events[projection.key] = np.full(images, emissions * projection.connection.nnz)
        events_by_step[projection.key] = _at_first(events[projection.key].sum() // emissions, emissions, steps)
    neuron_updates, bias_additions = updates(graph, images, steps)
    fires = (name, *graph.spiking)
    keys = [projection.key for each in graph.order for projection in graph.into(each)]
    messages = {each: by_image[each].events for each in fires}
    if input == "current":
        messages[name] = np.zeros(images, np.int64)
    return BulkResult(
        backend="native",
        version=VERSION,
        dtype="int64",
        steps=steps,
        images=images,
        predictions=course.sums.classes(readout)[:, :images].T.copy(),
        spikes={each: spikes[each] for each in fires},
        spikes_by_image={each: by_image[each] for each in fires},
        spikes_by_step={each: by_step[each] for each in fires},
        events={key: events[key] for key in keys},
        events_by_step={key: events_by_step[key] for key in keys},
        counting=dict.fromkeys(keys, "computed"),
        neuron_updates=neuron_updates,
        bias_additions=bias_additions,
        messages=messages,
        wall_seconds={"build": 0.0, "run": 0.0},
    )


def _at_first(count: Any, emissions: int, steps: int) -> NDArray[np.int64]:
    """A count in each step in which the input emits, shape (1, steps)."""
    counts = np.zeros((1, steps), np.int64)
    counts[:, :emissions] = count
    return counts


def _raster(population: Population, activity: Activity, images: int, steps: int) -> NDArray[np.int8]:
    """Spikes of a population, shape (images, steps, N), as in RunResult."""
    positive, negative = ([_bits(plane, images, steps) for plane in planes] for planes in (activity.positive, activity.negative))
    if population.kind == "aec":
        return np.asarray(positive[0] | positive[1] << 1, np.int8)
    return np.asarray(positive[0] - sum(negative), np.int8)


def _bits(words: Words, images: int, steps: int) -> NDArray[np.int8]:
    """Bits of shape (tiles, N, 8) words as an array (images, steps, N)."""
    octets = words.astype("<u8").view(np.uint8).reshape(*words.shape, 8)
    bits = np.unpackbits(octets, axis=3, bitorder="little")
    tiles, neurons, each, lanes = bits.shape
    return bits.transpose(3, 0, 2, 1).reshape(lanes, tiles * each, neurons)[:images, :steps].astype(np.int8)
