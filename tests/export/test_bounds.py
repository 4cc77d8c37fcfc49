"""Static bounds hold for what the reference reaches, and are reached."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings

from sparsespike.backends.testing import CASES, Case, reference
from sparsespike.backends.testing.strategies import convolutions, graphs
from sparsespike.export.bounds import Bound, bounds, emitted_range
from sparsespike.export.connections import CSRConnection
from sparsespike.export.graph import Population, Projection, SpikingGraph
from sparsespike.export.population import decayed


def assert_within_bounds(case: Case) -> None:
    result = reference(*case)
    found = bounds(case.graph, case.steps)
    assert found.keys() == {*case.graph.spiking, case.graph.readout.name}
    for name, bound in found.items():
        population = case.graph.population(name)
        before, after = result.integrated[name], result.membranes[name]
        assert max(np.abs(before).max(), np.abs(after).max(), np.abs(population.v_init).max()) <= bound.membrane
        start = np.broadcast_to(population.v_init, after[:, :1].shape)
        bias = np.zeros_like(after)
        bias[:, : case.steps if population.bias_mode == "every_step" else 1] = population.bias
        kept = np.concatenate([start, after[:, :-1]], axis=1)
        if population.kind == "lif":
            current = before - decayed(kept, population.decay_voltage) - bias
            assert np.abs(current).max() <= bound.membrane
            arriving = current - decayed(np.concatenate([0 * start, current[:, :-1]], axis=1), population.decay_current)
        else:
            arriving = before - kept - bias
        assert np.abs(arriving).max() <= bound.current


@given(graphs())
@settings(deadline=None, max_examples=100)
def test_bounds_hold_on_random_graphs(case: Case) -> None:
    assert_within_bounds(case)


@given(graphs())
@settings(deadline=None, max_examples=50)
def test_bounds_are_the_same_in_int64_and_in_integers_of_any_size(case: Case) -> None:
    found = bounds(case.graph, case.steps)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sparsespike.export.bounds._integers", lambda *_: object)
        assert bounds(case.graph, case.steps) == found


def test_bounds_beyond_int64_are_exact() -> None:
    network = graph(np.array([[2**31 - 1], [-(2**31 - 1)]]), 0, 2**31 - 1, bias=np.array([2**53]))
    assert bounds(network, 10**6)["y"].membrane == 10**6 * ((2**31 - 1) ** 2 + 2**53)


@given(convolutions())
@settings(deadline=None, max_examples=40)
def test_bounds_hold_on_random_convolutions(case: Case) -> None:
    assert_within_bounds(case)


@pytest.mark.parametrize("name", CASES)
def test_bounds_hold_on_every_case(name: str) -> None:
    assert_within_bounds(CASES[name]())


def graph(weights: np.ndarray, low: int, high: int, **readout: object) -> SpikingGraph:
    n_pre, n_post = weights.shape
    return SpikingGraph(
        [
            Population(name="x", shape=(n_pre,), kind="input", value_range=(low, high)),
            Population(name="y", shape=(n_post,), kind="readout", **readout),
        ],
        [Projection("x", "y", CSRConnection.from_scipy(weights))],
    )


def test_bounds_in_closed_form() -> None:
    """Neuron 0 takes 2 a - 3 b, neuron 1 takes 5 b; values are 0..10: currents lie in -30..20 and 0..50."""
    weights = np.array([[2, 0], [-3, 5]])
    assert bounds(graph(weights, 0, 10), 4) == {"y": Bound(current=50, membrane=200)}
    assert bounds(graph(weights, 0, 10, bias=[-40, 1], v_init=[-7, 9]), 4) == {"y": Bound(current=50, membrane=7 + 4 * 70)}
    assert bounds(graph(weights, 0, 10, bias=[-40, 1], bias_mode="once"), 4) == {"y": Bound(current=50, membrane=201)}
    assert bounds(graph(weights, -1, 10), 4) == {"y": Bound(current=50, membrane=200)}
    assert bounds(graph(weights, -10, 1), 4) == {"y": Bound(current=50, membrane=200)}


def test_bounds_are_reached() -> None:
    """A readout that only adds up attains its bound with the right image, so no smaller bound would hold."""
    weights = np.array([[2, 0], [-3, 5]])
    network = graph(weights, -4, 10, bias=[-1, 3], v_init=[-7, 9])
    images = np.array([[a, b] for a in (-4, 10) for b in (-4, 10)])
    assert np.abs(reference(network, images, 6).readout).max() == bounds(network, 6)["y"].membrane


def test_bounds_do_not_wrap() -> None:
    top = 2**31 - 1
    network = graph(np.full((5, 1), top), -top, top, bias=[2**53])
    assert bounds(network, 1000) == {"y": Bound(current=5 * top**2, membrane=1000 * (5 * top**2 + 2**53))}


def test_emitted_ranges() -> None:
    case = CASES["signed_memory"]()
    assert [emitted_range(case.graph.population(name)) for name in ("input", "early", "signed")] == [(0, 255), (0, 1), (-1, 1)]
    assert emitted_range(Population(name="x", shape=(1,), kind="input", value_range=(3, 9))) == (0, 9)  # silent in a gated step
    assert emitted_range(Population(name="x", shape=(1,), kind="input", value_range=(-9, -3))) == (-9, 0)


def test_weight_sums_of_a_convolution_cover_its_expanded_ones() -> None:
    network = CASES["convolution"]().graph
    for key in (("input", "conv1"), ("conv1", "conv2")):
        connection = network.projection(*key).connection
        positive, negative = connection.weight_sums
        exact_positive, exact_negative = connection.to_csr().weight_sums
        assert (positive >= exact_positive).all()
        assert (negative <= exact_negative).all()
        inner = connection.fan_in == connection.fan_in.max()
        assert (positive[inner] == exact_positive[inner]).any()


@pytest.mark.parametrize("name", [name for name in CASES if name.startswith("aec")])
def test_membranes_of_windows_stay_within_their_bound(name: str) -> None:
    """What arrives in a window is bounded by the largest payloads, once, however many slots it has."""
    network, inputs, slots = CASES[name]()
    result = reference(network, inputs, slots)
    for population, bound in bounds(network, slots).items():
        largest = max(np.abs(result.integrated[population]).max(), np.abs(result.membranes[population]).max())
        assert largest <= bound.membrane
    assert bounds(network, slots) == bounds(network, 1)
