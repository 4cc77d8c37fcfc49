"""Where two backends first part, and what the neuron's membrane was there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sparsespike.backends.base import RunResult
from sparsespike.backends.reference import reference
from sparsespike.common.errors import BackendError
from sparsespike.export.graph import Population, SpikingGraph


@dataclass(frozen=True)
class Membrane:
    """A neuron's membrane in the step in which two backends decided differently about its spike.

    Recomputed exactly from the spikes before, on which both agree.

    Attributes
    ----------
    before : int
        After current and bias were added, before any spike; for kind ``aec`` at the begin of the slot.
    after : (int, int)
        After the spike that each backend decided on.
    threshold : int
        For kind ``aec`` the slot's primary threshold.
    threshold_neg : int or None
    expected : int
        The right spike: +1, 0 or -1; for kind ``aec`` bit 0 = primary, bit 1 = compensation.
    compensation : int or None
        For kind ``aec`` the slot's compensation threshold.
    """

    before: int
    after: tuple[int, int]
    threshold: int
    threshold_neg: int | None
    expected: int
    compensation: int | None = None

    def __str__(self) -> str:
        if self.compensation is not None:
            spikes = ("no spike", "a primary spike", "a compensation spike", "both spikes")[self.expected]
            return (
                f"membrane at the begin of the slot {self.before}, primary threshold {self.threshold}, compensation threshold "
                f"{self.compensation}: expected {spikes}; membrane at its end {self.after[0]} and {self.after[1]}"
            )
        negative = "" if self.threshold_neg is None else f", negative threshold -{self.threshold_neg}"
        return (
            f"membrane before firing {self.before}, threshold {self.threshold}{negative}: expected {self.expected:+d}; "
            f"membrane after firing {self.after[0]} and {self.after[1]}"
        )


@dataclass(frozen=True)
class Divergence:
    """The first difference between two results, causes before effects.

    Attributes
    ----------
    backends : (str, str)
    quantity : str
        What differs: ``raster``, ``positive spikes``, ``negative spikes``, ``events`` or ``membrane`` (of the readout).
    where : str
        Name of the population, or ``pre -> post`` of the projection.
    depth : int
        Depth of the population (of a projection: of the postsynaptic one).
    image : int
    step : int or None
        Local step; None where a total over steps differs.
    neuron : int or None
        None where a total over neurons differs.
    values : (int, int)
        What each backend holds there.
    membrane : Membrane or None
        For a raster, where the inputs were given.
    """

    backends: tuple[str, str]
    quantity: str
    where: str
    depth: int
    image: int
    step: int | None
    neuron: int | None
    values: tuple[int, int]
    membrane: Membrane | None = None

    def __str__(self) -> str:
        (a, b), (x, y) = self.backends, self.values
        image = f"image {self.image}"
        step = "all steps" if self.step is None else f"local step {self.step}"
        neuron = "" if self.neuron is None else f", neuron {self.neuron}"
        text = (
            f"{a} and {b} first differ in {self.quantity} of {self.where} (depth {self.depth}), {image}, {step}{neuron}: "
            f"{a} {x}, {b} {y}"
        )
        return text if self.membrane is None else f"{text}; {self.membrane}"


def first_divergence(graph: SpikingGraph, a: RunResult, b: RunResult, inputs: NDArray[Any] | None = None) -> Divergence | None:
    """The first difference between two results of the same images, or None if they are equal.

    Populations are compared in the order of depth, for each first the events that arrive and then its spikes (its membrane,
    for the readout); of all differences in one array, the earliest step counts, then the first image and neuron. So what is
    found is a cause and not an effect. Rasters are compared where both results hold them. Events are left out where one backend
    ran the first projection and the other injected its current: they count different things.

    Parameters
    ----------
    graph : SpikingGraph
    a, b : RunResult
    inputs : integer array, shape (B, N), optional
        What both ran; with them and the rasters of all populations, the membrane is recomputed.

    Raises
    ------
    BackendError
        If the results differ in steps, images, populations or projections, so that they cannot be of the same run.
    """
    _check_comparable(graph, a, b)
    for pair in _pairs(graph, a, b):
        if not np.array_equal(pair.left, pair.right):
            found = _earliest(pair, (a.backend, b.backend))
            if inputs is None or found.quantity != "raster":
                return found
            return replace(found, membrane=_membrane(graph, a, b, inputs, found))
    return None


def _check_comparable(graph: SpikingGraph, a: RunResult, b: RunResult) -> None:
    found = [(result.steps, result.readout.shape) for result in (a, b)]
    if found[0] != found[1]:
        raise BackendError(
            f"compare: found {a.backend!r} with {a.steps} steps and a readout of {a.readout.shape}, {b.backend!r} with {b.steps} "
            f"and {b.readout.shape}; run the same graph on the same images for the same steps"
        )
    populations, projections = {graph.input.name, *graph.spiking}, {projection.key for projection in graph.projections}
    for result in (a, b):
        if result.spikes.keys() != populations or result.events.keys() != projections:
            raise BackendError(
                f"compare: {result.backend!r} has spikes of {sorted(result.spikes)} and events of {sorted(result.events)}, "
                f"expected {sorted(populations)} and {sorted(projections)}; is it another graph's?"
            )


class _Pair(NamedTuple):
    """Two arrays to be equal; ``axes`` names theirs: i for images, t for steps, n for neurons."""

    quantity: str
    where: str
    depth: int
    axes: str
    left: NDArray[Any]
    right: NDArray[Any]


def _pairs(graph: SpikingGraph, a: RunResult, b: RunResult) -> Iterator[_Pair]:
    """All that is compared, causes before effects."""
    for name in graph.order:
        depth = graph.depth[name]
        for key in (projection.key for projection in graph.into(name)):
            if key[0] == graph.input.name and a.counting[key] != b.counting[key]:
                continue
            where = " -> ".join(key)
            yield _Pair("events", where, depth, "it", a.events_by_step[key], b.events_by_step[key])
            yield _Pair("events", where, depth, "i", a.events[key], b.events[key])
        if name == graph.readout.name:
            yield _Pair("membrane", name, depth, "itn", a.readout, b.readout)
            continue
        if name in a.rasters and name in b.rasters:
            yield _Pair("raster", name, depth, "itn", a.rasters[name], b.rasters[name])
        for axes, left, right in (
            ("it", a.spikes_by_step[name], b.spikes_by_step[name]),
            ("in", a.spikes[name], b.spikes[name]),
        ):
            yield _Pair("positive spikes", name, depth, axes, left.positive, right.positive)
            yield _Pair("negative spikes", name, depth, axes, left.negative, right.negative)


def _earliest(pair: _Pair, backends: tuple[str, str]) -> Divergence:
    """The entry of two unequal arrays that differs first, by step, then image, then neuron."""
    order = [pair.axes.index(axis) for axis in "tin" if axis in pair.axes]
    first = np.argwhere((pair.left != pair.right).transpose(order))[0].tolist()
    at = {pair.axes[axis]: index for axis, index in zip(order, first, strict=True)}
    place = tuple(at[axis] for axis in pair.axes)
    return Divergence(
        backends=backends,
        quantity=pair.quantity,
        where=pair.where,
        depth=pair.depth,
        image=at["i"],
        step=at.get("t"),
        neuron=at.get("n"),
        values=(int(pair.left[place]), int(pair.right[place])),
    )


def _membrane(graph: SpikingGraph, a: RunResult, b: RunResult, inputs: NDArray[Any], found: Divergence) -> Membrane | None:
    """The membrane where two rasters first differ; None where the reference or a raster of a population before is missing."""
    recorded = all(name in result.rasters for result in (a, b) for name in graph.spiking)
    if not recorded:
        return None
    population, image, step, neuron = graph.population(found.where), found.image, found.step, found.neuron
    only = slice(image, image + 1)
    runs = [
        reference(graph, inputs[only], a.steps, forced={name: r.rasters[name][only] for name in graph.spiking}) for r in (a, b)
    ]
    before = int(runs[0].integrated[population.name][0, step, neuron])
    assert step is not None  # a raster has steps
    earlier = a.rasters[population.name][image, :step, neuron]
    after = tuple(int(run.membranes[population.name][0, step, neuron]) for run in runs)
    if population.kind == "aec":
        return _coded(population, before, (after[0], after[1]), step, int(np.bitwise_or.reduce(earlier)))
    assert population.threshold is not None  # it fires
    threshold = int(population.threshold[neuron])
    threshold_neg = None if population.threshold_neg is None else int(population.threshold_neg[neuron])
    negative = threshold_neg is not None and before <= -threshold_neg and earlier.sum() > 0
    return Membrane(before, (after[0], after[1]), threshold, threshold_neg, int(before >= threshold) - int(negative))


def _coded(population: Population, before: int, after: tuple[int, int], slot: int, gone: int) -> Membrane:
    """The membrane of kind ``aec``; ``gone`` has the bits of the spikes of earlier slots."""
    first, second = (int(population.tables[f"{spike}_threshold"][slot]) for spike in ("primary", "compensation"))
    primary = not gone & 1 and before >= first
    compensation = (gone & 1 or primary) and not gone & 2 and before - first * primary >= second
    return Membrane(before, after, first, None, int(primary) + 2 * int(compensation), second)
