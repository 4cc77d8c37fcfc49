"""Layer-wise truth: spike counts equal the quantised activation, to the bit; end to end the difference is measured."""

from __future__ import annotations

import itertools
from dataclasses import replace
from fractions import Fraction
from math import floor
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsespike.backends.native import NativeBackend
from sparsespike.backends.reference import reference
from sparsespike.common.errors import GraphError
from sparsespike.export.build import Conversion
from sparsespike.export.connections import CSRConnection
from sparsespike.export.fidelity import (
    LayerDifference,
    constant_current_graph,
    exact_product,
    integer_levels,
    layer_differences,
    layer_levels,
)
from sparsespike.export.graph import Population, Projection, SpikingGraph
from sparsespike.export.network import qcfs_levels
from sparsespike.export.qcfs import convert_qcfs


@pytest.fixture(scope="module")
def converted(trained: Any) -> Conversion:
    return convert_qcfs(trained.model, trained.encoding)


def integer_network(seed: int, widths: tuple[int, ...]) -> SpikingGraph:
    """A random chain as QCFS conversion makes them."""
    rng = np.random.default_rng(seed)
    populations = [Population(name="p0", shape=(widths[0],), kind="input", value_range=(0, 9))]
    for i, n in enumerate(widths[1:-1], 1):
        half = rng.integers(1, 40, n)
        bias = rng.integers(-30, 31, n)
        populations.append(Population(name=f"p{i}", shape=(n,), kind="if", threshold=2 * half, v_init=half, bias=bias))
    bias = rng.integers(-30, 31, widths[-1])
    populations.append(Population(name="out", shape=(widths[-1],), kind="readout", bias=bias))
    projections = [
        Projection(a.name, b.name, CSRConnection.from_scipy(rng.integers(-20, 21, (a.size, b.size))))
        for a, b in itertools.pairwise(populations)
    ]
    return SpikingGraph(populations, projections)


# --- one layer --------------------------------------------------------------------------------------------------------------


@settings(max_examples=300, deadline=None)
@given(
    drive=st.integers(-(10**12), 10**12) | st.integers(-100, 100),
    half=st.integers(1, 50) | st.integers(1, 2**40),
    levels=st.integers(1, 64),
)
def test_layer_levels_are_the_rounded_quotient(drive: int, half: int, levels: int) -> None:
    expected = min(max(floor(Fraction(drive, 2 * half) + Fraction(1, 2)), 0), levels)
    assert layer_levels(np.array([[drive]]), np.array([2 * half]), levels).tolist() == [[expected]]


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 2**20), levels=st.integers(1, 17))
def test_constant_current_gives_the_levels_exactly(seed: int, levels: int) -> None:
    """T = L steps of integrate-and-fire on the previous levels fire exactly the next levels, ties included."""
    graph = integer_network(seed, (4, 6, 5, 3))
    inputs = np.random.default_rng(seed).integers(0, 10, (8, 4))
    expected = integer_levels(graph, inputs, levels)
    for name, before in (("p1", "p0"), ("p2", "p1")):
        probe = constant_current_graph(graph, name, levels)
        counts = reference(probe, expected[before], steps=levels).spikes[name].positive
        assert np.array_equal(counts, expected[name])


@pytest.mark.parametrize("name", ["hidden1", "hidden2", "hidden3"])
def test_every_layer_of_a_converted_network_is_exact(trained: Any, converted: Conversion, name: str) -> None:
    """The native engine on a trained network: no neuron of any image is off by a spike."""
    levels = integer_levels(converted.graph, trained.pixels[:100], 8)
    (projection,) = converted.graph.into(name)
    probe = constant_current_graph(converted.graph, name, 8)
    counts = NativeBackend().run(probe, levels[projection.pre], steps=8).spikes[name].positive
    assert np.array_equal(counts, levels[name])
    assert len(np.unique(counts)) > 4


def test_another_number_of_steps_is_not_exact(trained: Any, converted: Conversion) -> None:
    """The equality above is one of T = L: with T = L - 1 it fails."""
    levels = integer_levels(converted.graph, trained.pixels[:20], 8)
    probe = constant_current_graph(converted.graph, "hidden2", 8)
    counts = reference(probe, levels["hidden1"], steps=7).spikes["hidden2"].positive
    assert not np.array_equal(counts, levels["hidden2"])


@pytest.mark.parametrize("levels", [1, 2, 4, 8])
@pytest.mark.parametrize("lam", [0.5, 1.0, 4.0])
def test_float64_activation_equals_integrate_and_fire(levels: int, lam: float) -> None:
    """On binary fractions float64 is exact: the mean output of T = L steps is QCFS (Bu et al. 2022), ties included."""
    x = np.arange(-2 * 64, 3 * 64 + 1) / 64 * lam
    v, count = np.full(x.shape, lam / 2), np.zeros(x.shape, np.int64)
    for _ in range(levels):
        v = v + x
        spike = v >= lam
        v = v - lam * spike
        count += spike
    assert np.array_equal(count, qcfs_levels(x, lam, levels))


def test_a_graph_with_two_sources() -> None:
    """Both presynaptic populations stand side by side in the probe, in the order of ``into``."""
    chain = integer_network(5, (4, 6, 5, 3))
    skip = Projection("p0", "p2", CSRConnection.from_scipy(np.random.default_rng(9).integers(-9, 10, (4, 5))))
    graph = SpikingGraph(chain.populations, [*chain.projections, skip])
    expected = integer_levels(graph, np.random.default_rng(1).integers(0, 10, (20, 4)), 6)
    probe = constant_current_graph(graph, "p2", 6)
    inputs = np.hstack([expected[projection.pre] for projection in graph.into("p2")])
    assert np.array_equal(reference(probe, inputs, 6).spikes["p2"].positive, expected["p2"])
    assert not np.array_equal(expected["p2"], integer_levels(chain, np.random.default_rng(1).integers(0, 10, (20, 4)), 6)["p2"])


# --- end to end -------------------------------------------------------------------------------------------------------------


def test_end_to_end_difference_is_measured(trained: Any, converted: Conversion) -> None:
    """The first layer hears a constant current and is exact; deeper ones hear uneven spikes and are not."""
    levels = integer_levels(converted.graph, trained.pixels[:200], 8)
    result = NativeBackend().run(converted.graph, trained.pixels[:200], steps=8)
    counts = {name: result.spikes[name].positive for name in converted.graph.spiking}
    first, second, third = layer_differences(levels, counts)
    assert first == LayerDifference("hidden1", 0.0, 0.0, 0)
    assert 0 < second.fraction < 0.5
    assert 0 < third.fraction < 0.5
    for difference in (second, third):
        off = np.abs(counts[difference.name] - levels[difference.name])
        assert difference.max == off.max() >= 1
        assert difference.mean == off.mean() >= difference.fraction


def test_layer_differences_by_hand() -> None:
    levels = {"a": np.array([[0, 4, 2, 2]]), "b": np.array([[1]])}
    assert layer_differences(levels, {"a": np.array([[0, 1, 3, 2]])}) == (LayerDifference("a", 0.5, 1.0, 3),)


def test_layer_differences_that_do_not_fit() -> None:
    with pytest.raises(GraphError, match=r"population 'x': found levels of shape none, expected the counts' shape \(1, 2\)"):
        layer_differences({}, {"x": np.zeros((1, 2), int)})
    with pytest.raises(GraphError, match=r"found levels of shape \(1, 3\), expected the counts' shape \(1, 2\)"):
        layer_differences({"x": np.zeros((1, 3), int)}, {"x": np.zeros((1, 2), int)})


def test_the_readout_after_exact_levels(trained: Any, converted: Conversion) -> None:
    """L steps of the last levels as constant rates: the readout is sum_j w_j n_j + L b."""
    levels = integer_levels(converted.graph, trained.pixels[:5], 8)
    weights = converted.graph.projection("hidden3", "readout").connection.to_csr().to_scipy()
    assert np.array_equal(levels["readout"], levels["hidden3"] @ weights + 8 * converted.graph.readout.bias)
    assert np.array_equal(levels["input"], 8 * trained.pixels[:5])


@pytest.mark.parametrize(
    "change",
    [
        {"reset": "zero"},
        {"bias_mode": "once"},
        {"v_init": np.zeros(6, int)},
        {"kind": "signed_if", "threshold_neg": np.ones(6, int)},
    ],
)
def test_graphs_of_another_form(change: dict[str, Any]) -> None:
    chain = integer_network(0, (4, 6, 3))
    populations = [replace(p, **change) if p.name == "p1" else p for p in chain.populations]
    graph = SpikingGraph(populations, chain.projections)
    with pytest.raises(GraphError, match=r"population 'p1': found kind .* expected an 'if' or 'readout' population of a QCFS"):
        integer_levels(graph, np.zeros((1, 4), int), 4)


def test_a_readout_has_no_levels() -> None:
    with pytest.raises(GraphError, match=r"population 'out': found kind 'readout', expected 'if'"):
        constant_current_graph(integer_network(0, (4, 6, 3)), "out", 4)


# --- exact arithmetic -------------------------------------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 2**20), magnitude=st.sampled_from([2, 2**10, 2**20, 2**30]), density=st.sampled_from([0.05, 0.9]))
def test_products_are_exact(seed: int, magnitude: int, density: float) -> None:
    """Below and above 2^53, sparse and dense, held against Python's integers."""
    rng = np.random.default_rng(seed)
    weights = rng.integers(-magnitude, magnitude, (6, 4)) * (rng.random((6, 4)) < density)
    values = rng.integers(-magnitude, magnitude, (3, 6))
    expected = values.astype(object) @ weights.astype(object)
    assert exact_product(values, CSRConnection.from_scipy(weights)).tolist() == expected.tolist()


def test_a_product_that_may_overflow_is_refused() -> None:
    with pytest.raises(GraphError, match=r"found sums of up to \d+, expected less than 2\^63"):
        exact_product(np.array([[2**40, 1]]), CSRConnection.from_scipy(np.array([[2**30], [1]])))


def test_an_empty_batch() -> None:
    graph = integer_network(0, (4, 6, 3))
    assert integer_levels(graph, np.zeros((0, 4), int), 4)["out"].shape == (0, 3)
