"""Static bounds: no run leaves them, and they are never computed in numbers that wrap."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsespike.backends.reference import reference
from sparsespike.export.bounds import bounds, emitted_range
from sparsespike.export.connections import CSRConnection
from sparsespike.export.graph import Population, Projection, SpikingGraph
from sparsespike.export.population import AEC_TABLES


def chain(weights: np.ndarray, value_range: tuple[int, int], **fields: object) -> SpikingGraph:
    populations = [
        Population(name="in", shape=(weights.shape[0],), kind="input", value_range=value_range),
        Population(name="out", shape=(weights.shape[1],), kind="readout", **fields),
    ]
    return SpikingGraph(populations, [Projection("in", "out", CSRConnection.from_scipy(weights))])


def test_a_readout_in_closed_form() -> None:
    graph = chain(np.array([[3, -1], [-2, 5]]), (0, 10), bias=np.array([4, -7]), v_init=np.array([-1, 0]))
    found = bounds(graph, steps=6)["out"]
    assert found.current == 50  # 5 x 10
    assert found.membrane == max(0 + 6 * max(50 - 7, 10 + 7), 1 + 6 * max(30 + 4, 20 - 4))


def test_a_bias_that_is_added_once() -> None:
    graph = chain(np.array([[3]]), (-2, 1), bias=np.array([-100]), bias_mode="once")
    found = bounds(graph, steps=10)["out"]
    assert (found.current, found.membrane) == (6, 100 + 10 * 6)


def test_extreme_graphs_do_not_wrap() -> None:
    weights = np.full((4, 1), 2**31 - 1)
    graph = chain(weights, (-(2**31) + 1, 2**31 - 1), bias=np.array([2**53]), v_init=np.array([-(2**53)]))
    found = bounds(graph, steps=2**20)["out"]
    current = 4 * (2**31 - 1) ** 2
    assert current > 2**63
    assert found.current == current
    assert found.membrane == 2**53 + 2**20 * (current + 2**53)


def test_what_each_kind_emits() -> None:
    tables = {name: np.array([5, 3]) for name in AEC_TABLES}
    one = np.array([2])
    assert emitted_range(Population(name="p", shape=(1,), kind="input", value_range=(3, 9))) == (0, 9)
    assert emitted_range(Population(name="p", shape=(1,), kind="input", value_range=(-3, -1))) == (-3, 0)
    assert emitted_range(Population(name="p", shape=(1,), kind="if", threshold=one)) == (0, 1)
    assert emitted_range(Population(name="p", shape=(1,), kind="signed_if", threshold=one, threshold_neg=one)) == (-1, 1)
    assert emitted_range(Population(name="p", shape=(1,), kind="aec", tables=tables)) == (0, 10)


@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_no_run_leaves_the_bounds(data: st.DataObject) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 2**16)))
    steps = data.draw(st.integers(1, 8))
    signed = data.draw(st.booleans())
    mode = data.draw(st.sampled_from(["every_step", "once"]))
    populations = [Population(name="in", shape=(3,), kind="input", value_range=(-4, 6), bias_mode=mode)]
    populations += [
        Population(
            name=name,
            shape=(4,),
            kind="signed_if" if signed else "if",
            threshold=2 * rng.integers(1, 6, 4),
            threshold_neg=rng.integers(1, 6, 4) if signed else None,
            v_init=rng.integers(-5, 6, 4),
            bias=rng.integers(-5, 6, 4),
            bias_mode=mode,
        )
        for name in ("a", "b")
    ]
    populations.append(Population(name="out", shape=(2,), kind="readout", bias=rng.integers(-5, 6, 2)))
    size = {p.name: p.size for p in populations}
    pairs = [("in", "a"), ("a", "b"), ("in", "b"), ("b", "out"), ("a", "out")]
    projections = [
        Projection(pre, post, CSRConnection.from_scipy(rng.integers(-9, 10, (size[pre], size[post])))) for pre, post in pairs
    ]
    graph = SpikingGraph(populations, projections)
    result = reference(graph, rng.integers(-4, 7, (5, 3)), steps)
    for name, bound in bounds(graph, steps).items():
        assert np.abs(result.integrated[name]).max() <= bound.membrane
        assert np.abs(result.membranes[name]).max() <= bound.membrane


@settings(max_examples=50, deadline=None)
@given(weight=st.integers(-9, 9).filter(bool), bias=st.integers(-9, 9), steps=st.integers(1, 9))
def test_the_bound_of_one_driven_neuron_is_reached(weight: int, bias: int, steps: int) -> None:
    graph = chain(np.array([[weight]]), (-5, 5), bias=np.array([bias]))
    bound = bounds(graph, steps)["out"]
    reached = max(abs(int(reference(graph, np.array([[value]]), steps).membranes["out"][0, -1, 0])) for value in (-5, 5))
    assert reached == bound.membrane
