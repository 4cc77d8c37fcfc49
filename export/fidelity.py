"""How faithful a converted graph is: the quantised ANN in integers, held against what spiking neurons do.

Layer by layer the two are equal: fed the ANN's levels as a constant current, a population fires exactly the next levels in
T = L steps. End to end they need not be, because spikes arrive unevenly: a neuron may fire early on input that later turns
negative, and cannot take the spike back. That difference is measured here, per layer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from sparsespike.common.errors import GraphError
from sparsespike.export.connections import CSRConnection
from sparsespike.export.graph import Population, Projection, SpikingGraph

IntArray = NDArray[np.int64]
_FLOAT64_EXACT = 2**53
_DENSE_ABOVE = 0.1  # density from which a BLAS product is faster than a sparse one


def layer_levels(drive: IntArray, threshold: IntArray, levels: int) -> IntArray:
    """QCFS in integers: ``n = clip(floor(drive / (L theta) * L + 1/2), 0, L)``.

    Parameters
    ----------
    drive : int64 array, shape (B, N)
        Summed input of L steps: ``sum_j w_j n_j + L bias``, with the levels n_j of the presynaptic neurons.
    threshold : int64 array, shape (N,)
        theta, positive.
    levels : int
        L.

    Returns
    -------
    int64 array, shape (B, N)
        Levels 0..L: ``clip(floor(drive / theta + 1/2), 0, L)``, without any division of reals.
    """
    return np.clip((2 * drive + threshold) // (2 * threshold), 0, levels)


def integer_levels(graph: SpikingGraph, inputs: NDArray[Any], levels: int) -> dict[str, IntArray]:
    """Evaluate the quantised ANN that a QCFS graph came from, in exact integers and without time.

    Parameters
    ----------
    graph : SpikingGraph
        From QCFS conversion: ``if`` populations that start at half their threshold.
    inputs : integer array, shape (B, N) or (B, C, y, x)
    levels : int
        L of the conversion (``graph.provenance["T"]``).

    Returns
    -------
    dict of population to int64 array, shape (B, N)
        Levels 0..L of every ``if`` population, L times the value of the input, and the readout's membrane after L steps if every
        neuron fired exactly its levels.

    Raises
    ------
    GraphError
        If the graph is not of that form, the inputs do not fit, or sums leave 64 bits.
    """
    values = {graph.input.name: levels * graph.check_inputs(inputs)}
    for name in graph.order[1:]:
        population = graph.population(name)
        _check_qcfs(population)
        drive = levels * population.bias + sum(
            exact_product(values[projection.pre], projection.connection.to_csr()) for projection in graph.into(name)
        )
        if population.kind == "readout" or population.threshold is None:
            values[name] = drive
        else:
            values[name] = layer_levels(drive, population.threshold, levels)
    return values


def _check_qcfs(population: Population) -> None:
    fits = population.bias_mode == "every_step" and population.kind in ("if", "readout")
    if fits and population.threshold is not None:
        fits = population.reset == "subtract" and np.array_equal(2 * population.v_init, population.threshold)
    if not fits:
        raise GraphError(
            f"population {population.name!r}: found kind {population.kind!r}, reset {population.reset!r} and bias_mode "
            f"{population.bias_mode!r}, expected an 'if' or 'readout' population of a QCFS conversion (reset by subtraction, "
            "v_init = threshold / 2, bias every step)"
        )


def exact_product(values: IntArray, connection: CSRConnection) -> IntArray:
    """``values @ weights`` in exact integers, shapes (B, n_pre) x (n_pre, n_post); in float64 where that is exact, for speed.

    Raises
    ------
    GraphError
        If a sum may leave 64 bits.
    """
    reach = np.zeros(connection.n_post, np.int64)
    np.add.at(reach, connection.indices, np.abs(connection.values.astype(np.int64)))
    largest = int(np.abs(values).max(initial=0)) * int(reach.max(initial=0))
    weights = connection.to_scipy()
    if largest < _FLOAT64_EXACT:  # no partial sum, in any order, has a larger magnitude
        dense_enough = connection.nnz > _DENSE_ABOVE * values.shape[1] * connection.n_post
        matrix = weights.astype(np.float64)
        product = values.astype(np.float64) @ (matrix.toarray() if dense_enough else matrix)
        return np.asarray(product).astype(np.int64)
    if largest >= 2**63:
        raise GraphError(f"product: found sums of up to {largest}, expected less than 2^63; convert with fewer bits")
    return np.asarray(values @ weights)


def constant_current_graph(graph: SpikingGraph, name: str, levels: int) -> SpikingGraph:
    """A graph that feeds one ``if`` population the levels of those before it as a constant current, for any backend to run.

    Everything of the population is multiplied by L, so that a level n, emitted at every step, weighs n / L of a spike: current
    ``sum_j w_j n_j + L bias``, threshold ``L theta``, initial membrane ``L theta / 2``. In T = L steps each neuron then
    fires exactly ``layer_levels`` times.

    Parameters
    ----------
    graph : SpikingGraph
        From QCFS conversion.
    name : str
        The ``if`` population.
    levels : int
        L.

    Returns
    -------
    SpikingGraph
        Input: the presynaptic values of ``integer_levels`` side by side, in the order of ``graph.into(name)``. The population
        keeps its name; the readout is unconnected.
    """
    population = graph.population(name)
    _check_qcfs(population)
    if population.threshold is None:
        raise GraphError(f"population {name!r}: found kind {population.kind!r}, expected 'if'; a readout has no levels")
    before = graph.into(name)
    ranges = [graph.population(projection.pre).value_range or (0, 1) for projection in before]
    weights = CSRConnection.from_scipy(sp.vstack([projection.connection.to_csr().to_scipy() for projection in before]))
    given = Population(
        name="levels",
        shape=(weights.shape[0],),
        kind="input",
        value_range=(levels * min(low for low, _ in ranges), levels * max(high for _, high in ranges)),
    )
    scaled = replace(
        population,
        threshold=levels * population.threshold,
        v_init=levels * population.v_init,
        bias=levels * population.bias,
        scale=population.scale / levels,
    )
    unread = CSRConnection.from_scipy(np.zeros((population.size, 1), np.int64))
    return SpikingGraph(
        [given, scaled, Population(name="unread", shape=(1,), kind="readout")],
        [Projection("levels", name, weights), Projection(name, "unread", unread)],
    )


@dataclass(frozen=True)
class LayerDifference:
    """Spike counts of a population beside the quantised ANN's levels, over all images and neurons.

    Attributes
    ----------
    name : str
    fraction : float
        Fraction of (image, neuron) pairs whose count is not the level.
    mean : float
        Mean of \\|count - level\\|.
    max : int
        Largest \\|count - level\\|.
    """

    name: str
    fraction: float
    mean: float
    max: int


def layer_differences(levels: Mapping[str, IntArray], counts: Mapping[str, IntArray]) -> tuple[LayerDifference, ...]:
    """Differences between spike counts of a run with T = L and the ANN's levels.

    Parameters
    ----------
    levels : mapping of population to int array, shape (B, N)
        From :func:`integer_levels`.
    counts : mapping of population to int array, shape (B, N)
        Spikes of the populations to compare, for example ``{name: result.spikes[name].positive for name in graph.spiking}``.

    Raises
    ------
    GraphError
        If a population has no levels, or shapes differ.
    """
    differences = []
    for name, count in counts.items():
        if name not in levels or levels[name].shape != np.shape(count):
            found = levels[name].shape if name in levels else "none"
            raise GraphError(f"population {name!r}: found levels of shape {found}, expected the counts' shape {np.shape(count)}")
        off = np.abs(np.asarray(count, np.int64) - levels[name])
        differences.append(LayerDifference(name, float(np.mean(off != 0)), float(off.mean()), int(off.max(initial=0))))
    return tuple(differences)
