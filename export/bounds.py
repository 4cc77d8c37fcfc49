"""Static bounds on membranes and currents: proof that a backend's number range is never left."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsespike.export.graph import Population, SpikingGraph
from sparsespike.export.population import DECAY_UNIT


@dataclass(frozen=True)
class Bound:
    """Largest magnitudes that a population can reach in a run, in its integer unit."""

    current: int
    """Largest \\|sum of arriving weights x emitted values\\| of a neuron in one step (bias not included)."""
    membrane: int
    """Largest \\|membrane\\| of a neuron over all steps, before or after a spike; of kind ``lif``, its current u is no larger."""


def emitted_range(population: Population) -> tuple[int, int]:
    """Smallest and largest value that one neuron of a population can emit in one step."""
    if population.kind == "input":
        low, high = population.value_range or (0, 0)
        return min(low, 0), max(high, 0)
    if population.kind == "aec":
        return 0, int(population.tables["primary_payload"].max() + population.tables["compensation_payload"].max())
    return (-1 if population.kind == "signed_if" else 0), 1


def bounds(graph: SpikingGraph, steps: int) -> dict[str, Bound]:
    """Bounds for every population that receives, over ``steps`` local steps.

    A membrane is bounded by its start plus ``steps`` times the largest current, as if it never fired: a reset by subtraction
    moves it toward zero only, so the bound holds with any spikes. In an AEC graph every neuron emits its largest value at most
    once, whatever the steps.

    Where the membrane decays, it is bounded by the geometric series ``1 + k + ... = 4096 / decay``, k = 1 - decay / 4096, too,
    times the largest current: one that starts below that limit never passes it, and rounding toward zero only takes away. The
    current u of kind ``lif`` has the same series, with its own decay.
    """
    arrivals = steps if graph.slots is None else 1
    result = {}
    for name in graph.order:
        population = graph.population(name)
        if population.kind == "input":
            continue
        arriving = [(emitted_range(graph.population(p.pre)), p.connection.weight_sums) for p in graph.into(name)]
        wide: Any = _integers(population, arriving, arrivals)
        high: NDArray[Any] = np.zeros(population.size, dtype=wide)
        low = high
        for (least, most), sums in arriving:
            positive, negative = (values.astype(wide) for values in sums)
            high = high + positive * most + negative * least
            low = low + negative * most + positive * least
        bias = population.bias.astype(wide)
        every_step = bias if population.bias_mode == "every_step" else 0 * bias
        start, once = np.abs(population.v_init.astype(wide)), np.abs(bias - every_step)
        reach = np.maximum(np.maximum(high + every_step, 0), np.maximum(-(low + every_step), 0))
        membrane = start + arrivals * reach
        if population.decay_current is not None and population.decay_voltage is not None:
            current = np.maximum(high, -low)
            reach = np.minimum(arrivals * current, _series(current, population.decay_current)) + np.abs(every_step)
            membrane = np.minimum(start + arrivals * reach, np.maximum(start, _series(reach, population.decay_voltage)))
        result[name] = Bound(current=int(np.maximum(high, -low).max()), membrane=int((membrane + once).max()))
    return result


def _integers(
    population: Population, arriving: list[tuple[tuple[int, int], tuple[NDArray[np.int64], NDArray[np.int64]]]], arrivals: int
) -> Any:
    """int64 where nothing on the way can leave it, which is fast; else object, Python's own integers."""
    most = sum(
        (high - low) * int(positive.max(initial=0) - negative.min(initial=0)) for (low, high), (positive, negative) in arriving
    )
    most += int(np.abs(population.bias).max()) + int(np.abs(population.v_init).max())
    return np.int64 if (arrivals + 1) * most < 2**62 and population.decay_voltage is None else object


def _series(values: NDArray[Any], decay: NDArray[np.int64]) -> NDArray[Any]:
    """What values, added in every step, add up to in the end, if ``decay`` 4096ths are lost in each; infinity if none is."""
    return np.array(
        [value * DECAY_UNIT // lost if lost else np.inf for value, lost in zip(values.tolist(), decay.tolist(), strict=True)],
        dtype=object,
    )
