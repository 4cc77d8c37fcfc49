"""The reference simulator: plain numpy and scipy in int64, written to be read, not to be fast.

It works in local time, one population after the other: when all T steps of the populations before it are known, a population
needs nothing else. Every other backend is held to its results by equality.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsespike.backends.base import Counting, InputMode, RunResult, SpikeCounts, check_steps, updates
from sparsespike.common.errors import MembraneOverflowError
from sparsespike.export.bounds import bounds
from sparsespike.export.graph import Key, Population, Projection, SpikingGraph
from sparsespike.export.population import decayed

Int64Array = NDArray[np.int64]


@dataclass(frozen=True, eq=False, kw_only=True)
class ReferenceResult(RunResult):
    """A RunResult with the rasters of all spiking populations, and the membranes.

    Attributes
    ----------
    integrated : mapping of population to int64 array, shape (B, steps, N)
        Membrane after current and bias were added, before a spike took its part away; for kind ``aec`` at the begin of a slot.
    membranes : mapping of population to int64 array, shape (B, steps, N)
        Membrane at the end of each local step.
    """

    integrated: Mapping[str, Int64Array]
    membranes: Mapping[str, Int64Array]


def reference(
    graph: SpikingGraph,
    inputs: NDArray[Any],
    steps: int,
    *,
    input: InputMode = "events",
    forced: Mapping[str, NDArray[np.int8]] | None = None,
) -> ReferenceResult:
    """Run B images for ``steps`` local steps, exactly.

    Parameters
    ----------
    graph : SpikingGraph
    inputs : integer array, shape (B, N) or (B, C, y, x)
    steps : int
        Local steps T >= 1; of an AEC graph, ``graph.slots``.
    input : {"events", "current"}
        How the first projections' events are counted: one for each synapse of a value that is not zero and each step, or
        steps x nnz (a constant current needs every synapse once, and is charged at every step).
    forced : mapping of population to int8 array, shape (B, steps, N), optional
        Spikes that these populations emit, whatever their membrane says. With a backend's rasters, the membranes are those
        that the backend must have had.

    Raises
    ------
    BackendError
        If the graph cannot run for ``steps``, or (MembraneOverflowError) int64 is not proven wide enough.
    GraphError
        If the inputs do not fit the graph.
    """
    values = graph.check_inputs(inputs)
    _check(graph, steps)
    rasters: dict[str, NDArray[np.int8]] = {}
    integrated: dict[str, Int64Array] = {}
    membranes: dict[str, Int64Array] = {}
    sent: dict[str, list[Int64Array]] = {}
    for name in graph.order:
        population = graph.population(name)
        if population.kind == "input":
            sent[name] = [_gate(population, values, steps)]
            continue
        drive = np.zeros((len(values), steps, population.size), np.int64)
        for projection in graph.into(name):
            drive = drive + sum(_propagate(projection, emitted) for emitted in sent[projection.pre])
        if population.decay_current is not None:
            drive = _accumulate(drive, population.decay_current)
        drive = drive + _gate(population, np.tile(population.bias, (len(values), 1)), steps)
        fire = _encode if population.kind == "aec" else _integrate
        integrated[name], membranes[name], spikes = fire(population, drive, (forced or {}).get(name))
        if name in graph.spiking:
            rasters[name] = spikes.astype(np.int8)
            sent[name] = _payloads(population, spikes)
    events_by_step = {p.key: _count_events(graph, p, sent[p.pre], steps, input) for p in graph.projections}
    neuron_updates, bias_additions = updates(graph, len(values), steps)
    counting: dict[Key, Counting] = dict.fromkeys(events_by_step, "computed")
    return ReferenceResult(
        backend="reference",
        version=np.__version__,
        dtype="int64",
        steps=steps,
        readout=membranes[graph.readout.name],
        spikes={name: _count_spikes(x, axis=1) for name, x in sent.items()},
        spikes_by_step={name: _count_spikes(x, axis=2) for name, x in sent.items()},
        events={key: counts.sum(axis=1) for key, counts in events_by_step.items()},
        events_by_step=events_by_step,
        counting=counting,
        neuron_updates=neuron_updates,
        bias_additions=bias_additions,
        messages={name: _count_spikes(x, axis=(1, 2)).events for name, x in sent.items()},
        rasters=rasters,
        integrated=integrated,
        membranes=membranes,
    )


def _check(graph: SpikingGraph, steps: int) -> None:
    check_steps("reference", graph, steps)
    for name, bound in bounds(graph, steps).items():
        if bound.membrane >= 2**63:
            raise MembraneOverflowError(
                f"reference: the membrane of population {name!r} can reach {bound.membrane}, expected less than 2^63; "
                "use fewer steps or smaller weights"
            )


def _gate(population: Population, values: Int64Array, steps: int) -> Int64Array:
    """Values of shape (B, N) at every step, or at step 0 alone, as ``bias_mode`` says: shape (B, steps, N)."""
    gated = np.zeros((len(values), steps, population.size), np.int64)
    gated[:, : steps if population.bias_mode == "every_step" else 1] = values[:, None]
    return gated


def _propagate(projection: Projection, emitted: Int64Array) -> Int64Array:
    """Currents of shape (B, steps, n_post) from emitted values of shape (B, steps, n_pre)."""
    images, steps, n_pre = emitted.shape
    weights = projection.connection.to_csr().to_scipy()
    current: Int64Array = (emitted.reshape(images * steps, n_pre) @ weights).reshape(images, steps, weights.shape[1])
    return current


def _accumulate(arriving: Int64Array, decay: NDArray[np.int64]) -> Int64Array:
    """The current u of kind ``lif`` at each step, from what arrives, both of shape (B, steps, N)."""
    current, u = np.zeros_like(arriving), np.zeros_like(arriving[:, 0])
    for t in range(arriving.shape[1]):
        u = decayed(u, decay) + arriving[:, t]
        current[:, t] = u
    return current


def _integrate(
    population: Population, drive: Int64Array, forced: NDArray[np.int8] | None
) -> tuple[Int64Array, Int64Array, Int64Array]:
    """Membranes before and after firing, and spikes (+1, 0, -1), each of shape (B, steps, N)."""
    integrated, membranes, spikes = np.zeros_like(drive), np.zeros_like(drive), np.zeros_like(drive)
    images, steps, neurons = drive.shape
    v = np.tile(population.v_init, (images, 1))
    net_count = np.zeros((images, neurons), np.int64)
    for t in range(steps):
        v = (v if population.decay_voltage is None else decayed(v, population.decay_voltage)) + drive[:, t]
        integrated[:, t] = v
        positive, negative = _decide(population, v, net_count)
        if forced is not None:
            positive, negative = forced[:, t] > 0, forced[:, t] < 0
        if population.threshold is not None:
            v = np.where(positive, v - population.threshold if population.reset == "subtract" else 0, v)
        if population.threshold_neg is not None:
            v = np.where(negative, v + population.threshold_neg, v)
        spikes[:, t] = positive.astype(np.int64) - negative
        net_count += spikes[:, t]
        membranes[:, t] = v
    return integrated, membranes, spikes


def _decide(population: Population, v: Int64Array, net_count: Int64Array) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which neurons spike +1 and which -1, from their membrane and their net spike count so far."""
    never = np.zeros(v.shape, bool)
    positive = never if population.threshold is None else v >= population.threshold
    negative = never if population.threshold_neg is None else (v <= -population.threshold_neg) & (net_count > 0)
    return positive, negative


def _encode(
    population: Population, drive: Int64Array, forced: NDArray[np.int8] | None
) -> tuple[Int64Array, Int64Array, Int64Array]:
    """Membranes before and after each slot of the encode window, and spikes (bit 0 = primary, bit 1 = compensation)."""
    integrated, membranes, spikes = np.zeros_like(drive), np.zeros_like(drive), np.zeros_like(drive)
    v = population.v_init + drive.sum(axis=1)  # the decode window
    gone = np.zeros((2, *v.shape), bool)
    for t in range(drive.shape[1]):
        integrated[:, t] = v
        for bit, name in enumerate(("primary_threshold", "compensation_threshold")):
            threshold = population.tables[name][t]
            may = ~gone[bit] if bit == 0 else gone[0] & ~gone[bit]
            fires = may & (v >= threshold) if forced is None else forced[:, t] & (1 << bit) != 0
            v = np.where(fires, v - threshold, v)
            gone[bit] |= fires
            spikes[:, t] |= fires.astype(np.int64) << bit
        membranes[:, t] = v
    return integrated, membranes, spikes


def _payloads(population: Population, spikes: Int64Array) -> list[Int64Array]:
    """What each of a population's spikes carries, arrays of shape (B, steps, N): of kind ``aec`` two may go at once."""
    if population.kind != "aec":
        return [spikes]
    names = ("primary_payload", "compensation_payload")
    return [(spikes >> bit & 1) * population.tables[name][:, None] for bit, name in enumerate(names)]


def _count_spikes(emitted: Sequence[Int64Array], axis: int | tuple[int, int]) -> SpikeCounts:
    positive, negative = (sum(np.count_nonzero(sign * x > 0, axis=axis) for x in emitted) for sign in (1, -1))
    return SpikeCounts(np.asarray(positive, np.int64), np.asarray(negative, np.int64))


def _count_events(
    graph: SpikingGraph, projection: Projection, emitted: Sequence[Int64Array], steps: int, input: InputMode
) -> Int64Array:
    """Synaptic events of a projection by the step of its presynaptic population, shape (B, steps)."""
    fan_out = projection.connection.to_csr().fan_out
    if input == "current" and projection.pre == graph.input.name:
        counts = np.full((len(emitted[0]), len(fan_out)), 1, np.int64)
        emitted = [_gate(graph.input, counts, steps)]
    return np.asarray(sum((x != 0) @ fan_out for x in emitted), np.int64)
