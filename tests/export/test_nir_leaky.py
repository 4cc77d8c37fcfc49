"""Neurons of NIR that leak, read and written."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import nir
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from sparsespike.backends.brian2 import Brian2Backend
from sparsespike.backends.compare import first_divergence
from sparsespike.backends.native import NativeBackend
from sparsespike.backends.testing import reference
from sparsespike.backends.testing.lif_cases import lif_population
from sparsespike.common.errors import ConfigError, GraphError, ModelError
from sparsespike.export.connections import CSRConnection
from sparsespike.export.graph import Population, Projection, SpikingGraph
from sparsespike.export.nir.reading import NirNetwork, read_nir
from sparsespike.export.nir.writing import to_nir, write_nir

DT = 2.0**-10
Array = NDArray[Any]


def simulate(node: Any, weight: Array, bias: Array, x: Array, steps: int, dt: float) -> tuple[Array, Array]:
    """NIR's equations by Euler's method in float64: spikes and membranes before the reset, both (steps, N)."""
    v, i = np.array(node.v_leak, float), np.zeros(len(bias))
    spikes, membranes = [], []
    for _ in range(steps):
        drive = weight @ x + bias
        if isinstance(node, nir.CubaLIF):
            i = i + dt / node.tau_syn * (node.w_in * drive - i)
            v = v + dt / node.tau_mem * (node.v_leak - v + node.r * i)
        else:
            v = v + dt / node.tau * (node.v_leak - v + node.r * drive)
        spikes.append(v > node.v_threshold)
        membranes.append(v)
        v = np.where(spikes[-1], node.v_reset, v)
    return np.array(spikes), np.array(membranes)


def network(node: Any, weight: Array, bias: Array | None = None) -> nir.NIRGraph:
    linear = nir.Linear(weight) if bias is None else nir.Affine(weight, bias)
    return nir.NIRGraph.from_list(linear, node, nir.Linear(np.eye(len(weight))))


def leaky(tau: Array, **fields: Any) -> nir.LIF:
    ones = np.ones(len(tau))
    return nir.LIF(**{"tau": tau, "r": ones, "v_leak": 0 * ones, "v_threshold": ones, "v_reset": 0 * ones, **fields})


def current_based(tau_syn: Array, tau_mem: Array, **fields: Any) -> nir.CubaLIF:
    ones = np.ones(len(tau_syn))
    given = {"r": ones, "v_leak": 0 * ones, "v_threshold": ones, "v_reset": 0 * ones, "w_in": ones}
    return nir.CubaLIF(tau_syn=tau_syn, tau_mem=tau_mem, **{**given, **fields})


def rasters(found: NirNetwork, x: Array, steps: int) -> Array:
    (name,) = found.graph.spiking
    return NativeBackend().run(found.graph, x[None], steps, record=[name]).rasters[name][0]


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**32))
def test_halving_membranes_are_exact_until_their_bits_are_used_up(seed: int) -> None:
    """With tau = 2 dt every number is a multiple of a power of two: equality, ties included, while there are bits left."""
    rng = np.random.default_rng(seed)
    n, steps = 7, 10
    weight, bias = rng.integers(-9, 14, (n, 4)).astype(float), rng.integers(-4, 5, n).astype(float)
    threshold, reset, leak = rng.integers(6, 30, n) / 2.0, rng.integers(-3, 3, n) / 1.0, rng.integers(-3, 3, n) / 1.0
    node = leaky(np.full(n, 2 * DT), v_threshold=threshold, v_reset=reset, v_leak=leak, r=np.full(n, 2.0))
    x = rng.integers(0, 4, 4)
    expected, _ = simulate(node, weight, bias, x, steps, DT)
    found = read_nir(network(node, weight, bias), (0, 3), dt=DT)
    assert found.decay_error == {"lif": 0.0, "readout": 0.0}
    assert found.weight_error["lif"] == 0
    assert not found.exact
    np.testing.assert_array_equal(rasters(found, x, steps), expected)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**32))
def test_currents_with_memory_are_exact_until_their_bits_are_used_up(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n, steps = 6, 6
    weight = rng.integers(-9, 14, (n, 3)).astype(float)
    node = current_based(
        np.full(n, 2 * DT), np.full(n, 4 * DT), v_threshold=rng.integers(1, 9, n) / 4.0, w_in=np.full(n, 2.0), r=np.full(n, 0.5)
    )
    x = rng.integers(0, 4, 3)
    expected, _ = simulate(node, weight, np.zeros(n), x, steps, DT)
    found = read_nir(network(node, weight), (0, 3), dt=DT)
    assert found.graph.population("cubalif").decay_current.tolist() == [2048] * n
    np.testing.assert_array_equal(rasters(found, x, steps), expected)


def test_real_numbers_are_rounded_and_fire_as_nir_says_where_no_membrane_is_close_to_its_threshold() -> None:
    """A decay of a 4096th and weights of 24 bits: what rounding can move a membrane by is a bound, and none is as near."""
    rng = np.random.default_rng(8)
    n, steps = 30, 60
    weight, bias = rng.normal(size=(n, 5)), rng.normal(size=n) / 5
    tau = DT * 4096 / rng.integers(40, 900, n)  # any 4096th: no error
    node = leaky(tau, v_leak=rng.normal(size=n) / 9, v_reset=rng.normal(size=n) / 9, r=rng.uniform(0.5, 3, n))
    x = rng.integers(0, 9, 5)
    expected, membranes = simulate(node, weight, bias, x, steps, DT)
    assert 100 < expected.sum() < 0.5 * expected.size
    assert np.abs(membranes - node.v_threshold).min() > 1e-5 > 4096 / 40 * 2.0**-22 * np.abs(weight).sum(axis=1).max() * 1e-3
    found = read_nir(network(node, weight, bias), (0, 8), dt=DT)
    assert found.decay_error["lif"] < 1e-12
    assert 0 < found.weight_error["lif"] < 2**-22
    np.testing.assert_array_equal(rasters(found, x, steps), expected)


def test_the_error_of_a_decay_is_given() -> None:
    found = read_nir(network(leaky(np.array([10e-3, 8e-3])), np.eye(2)), (0, 1), dt=1e-3)
    assert found.graph.population("lif").decay_voltage.tolist() == [410, 512]
    assert found.decay_error["lif"] == pytest.approx(0.4 / 409.6)
    assert found.graph.provenance["decay_error"] == found.decay_error
    assert found.graph.provenance["dt"] == 1e-3


def test_it_runs_on_brian2_which_nir_lacks() -> None:
    rng = np.random.default_rng(3)
    node = current_based(rng.uniform(2, 9, 8) * DT, rng.uniform(2, 30, 8) * DT, v_threshold=np.full(8, 0.4))
    graph = read_nir(network(node, rng.normal(size=(8, 3))), (0, 5), dt=DT).graph
    images = rng.integers(0, 6, (2, 3))
    expected = reference(graph, images, 15)
    assert expected.spikes["cubalif"].positive.sum() > 10
    assert first_divergence(graph, expected, Brian2Backend().run(graph, images, 15, record=graph.spiking)) is None


def line(**nodes: Any) -> nir.NIRGraph:
    ends = nir.Input({"input": np.array([2])}), nir.Output({"output": np.array([2])})
    names = ["source", *nodes, "end"]
    return nir.NIRGraph({"source": ends[0], **nodes, "end": ends[1]}, list(itertools.pairwise(names)), type_check=False)


TWO = np.full(2, 2 * DT)
REFUSED = {
    r"node 'n': found neurons that leak, and NIR says nothing of time steps; give dt": (leaky(TWO), None),
    r"node 'n', tau: found 0.001 at neuron 0, expected at least dt = 0.002": (leaky(np.full(2, 1e-3)), 2e-3),
    r"node 'n', tau: found a time constant of 10000 steps at neuron 0, expected at most 8192: the leak": (
        leaky(DT * 10000 * np.ones(2)),
        DT,
    ),
    r"node 'n', tau_syn: found a time constant of 8200 steps": (current_based(8200 * DT * np.ones(2), TWO), DT),
    r"node 'n', r: found shape \(3,\)": (leaky(np.ones(3)), DT),
    r"found v_threshold 1.0 and v_reset 2.0 at neuron 0": (leaky(TWO, v_reset=np.full(2, 2.0)), DT),
    r"node 'n': found LI, which leaks and does not spike": (nir.LI(np.ones(2), np.ones(2), np.ones(2)), DT),
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_a_graph_cannot_hold_is_refused(message: str) -> None:
    node, dt = REFUSED[message]
    with pytest.raises(ModelError, match=message):
        read_nir(line(n=node), (0, 1), dt=dt)


def test_a_bias_through_a_current_with_memory_is_refused() -> None:
    net = network(current_based(TWO, TWO), np.eye(2), np.array([0.0, 1.0]))
    with pytest.raises(ModelError, match="'cubalif': found a bias in the current of neuron 1, which has memory"):
        read_nir(net, (0, 1), dt=DT)
    assert read_nir(network(current_based(TWO / 2, TWO), np.eye(2), np.ones(2)), (0, 1), dt=DT).graph.spiking == ("cubalif",)


@pytest.mark.parametrize("dt", [0.0, -1.0, np.inf, np.nan])
def test_a_step_without_time_is_refused(dt: float) -> None:
    with pytest.raises(ConfigError, match="dt: found"):
        read_nir(line(n=leaky(TWO)), (0, 1), dt=dt)
    with pytest.raises(ConfigError, match="dt: found"):
        to_nir(written_graph(4096), dt=dt)


def written_graph(decay_current: int, **fields: Any) -> SpikingGraph:
    rng = np.random.default_rng(1)
    hidden = lif_population("hidden", 2**10 * rng.integers(12, 40, 6), 2048, decay_current, **fields)
    populations = [
        Population(name="input", shape=(4,), kind="input", value_range=(0, 3)),
        hidden,
        Population(name="readout", shape=(2,), kind="readout"),
    ]
    weights = rng.integers(-2, 5, (4, 6)) << 10, rng.integers(-3, 4, (6, 2))
    pairs = zip(populations[:-1], populations[1:], weights, strict=True)
    return SpikingGraph(populations, [Projection(a.name, b.name, CSRConnection.from_scipy(w)) for a, b, w in pairs])


@pytest.mark.parametrize("decay_current", [4096, 2048])
def test_a_written_graph_fires_as_nir_says_while_nothing_is_rounded(decay_current: int, tmp_path: Path) -> None:
    """Weights are multiples of 2^10: ten halvings are exact."""
    graph = written_graph(decay_current)
    write_nir(graph, tmp_path / "network.nir", dt=1e-3)
    node = (found := nir.read(tmp_path / "network.nir")).nodes["hidden"]
    assert isinstance(node, nir.LIF if decay_current == 4096 else nir.CubaLIF)
    x = np.array([3, 1, 2, 3])
    weight = found.nodes["input.to.hidden"].weight.astype(float)
    expected, _ = simulate(node, weight, np.zeros(6), x, 9, 1e-3)
    result = reference(graph, x[None], 9)
    np.testing.assert_array_equal(result.rasters["hidden"][0], expected)
    assert 5 < expected.sum() < 54
    again = read_nir(tmp_path / "network.nir", (0, 3), dt=1e-3)
    assert again.graph.population("hidden").decay_current.tolist() == [decay_current] * 6
    np.testing.assert_array_equal(rasters_of(again, x), expected)


def rasters_of(found: NirNetwork, x: Array) -> Array:
    return reference(found.graph, x[None], 9).rasters["hidden"][0]


LOST = {
    "found kind 'lif', whose currents and membranes are rounded toward zero": (written_graph(4096), None),
    "found decay_current 0 at neuron 0, but a time constant of NIR is finite": (written_graph(0), DT),
    "found biases of neurons whose current has memory": (written_graph(2048, bias=1), DT),
    "found the reset by subtraction, but a neuron of NIR": (written_graph(4096, reset="subtract"), DT),
    "found initial membranes v_init": (written_graph(4096, v_init=1), DT),
}


@pytest.mark.parametrize("message", LOST)
def test_a_property_that_would_be_lost_is_refused(message: str) -> None:
    graph, dt = LOST[message]
    with pytest.raises(GraphError, match=f"population 'hidden': {message}"):
        to_nir(graph, dt=dt)
