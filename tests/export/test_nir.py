"""NIR: what is written can be read back and loses nothing; what is read runs as NIR's equations say."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import nir
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch.nn import functional

from sparsespike.backends.brian2 import Brian2Backend
from sparsespike.backends.native import NativeBackend
from sparsespike.backends.testing import assert_equal
from sparsespike.common.errors import ConfigError, GraphError, ModelError
from sparsespike.export.connections import Conv2dConnection, CSRConnection
from sparsespike.export.graph import Population, Projection, SpikingGraph
from sparsespike.export.nir.reading import read_nir
from sparsespike.export.nir.writing import to_nir, write_nir, write_nir_folder
from sparsespike.export.population import NEVER

STEPS = 12
Array = NDArray[Any]


def evaluate(node: Any, x: Array, state: dict[str, Array], name: str) -> Array:
    """One step of a node, from NIR's equations, in float64."""
    kind = type(node).__name__
    if kind in ("Input", "Output"):
        return x
    if kind == "IF":
        v = state.get(name, np.zeros(x.shape)) + node.r * x
        fired = v > node.v_threshold
        state[name] = np.where(fired, node.v_reset, v)
        return fired.astype(float)
    if kind in ("Linear", "Affine"):
        return np.asarray(node.weight.astype(float) @ x + getattr(node, "bias", 0.0))
    if kind == "Scale":
        return np.asarray(x * node.scale)
    if kind == "Flatten":
        return x.ravel()
    image = torch.from_numpy(x[None])
    if kind == "Conv2d":
        weight, bias = (torch.from_numpy(np.asarray(a, float)) for a in (node.weight, node.bias))
        padding = node.padding if isinstance(node.padding, str) else tuple(node.padding)
        y = functional.conv2d(image, weight, bias, tuple(node.stride), padding, tuple(node.dilation), node.groups)
    else:
        pooled = [tuple(int(n) for n in field) for field in (node.kernel_size, node.stride, node.padding)]
        area = pooled[0][0] * pooled[0][1]
        y = functional.avg_pool2d(image, *pooled) * (area if kind == "SumPool2d" else 1)
    return np.asarray(y[0].numpy())


def simulate(network: nir.NIRGraph, x: Array, steps: int) -> tuple[dict[str, Array], Array]:
    """Rasters of the IF nodes, (steps, N), and the running sum of what the output receives."""
    state: dict[str, Array] = {}
    rasters: dict[str, list[Array]] = {name: [] for name, node in network.nodes.items() if isinstance(node, nir.IF)}
    total, totals = 0.0, []
    for _ in range(steps):
        done: dict[str, Array] = {}
        while len(done) < len(network.nodes):
            for name, node in network.nodes.items():
                before = [pre for pre, post in network.edges if post == name]
                if name in done or any(pre not in done for pre in before):
                    continue
                arriving = x if isinstance(node, nir.Input) else np.sum([done[pre] for pre in before], axis=0)
                done[name] = evaluate(node, arriving, state, name)
                if name in rasters:
                    rasters[name].append(done[name].ravel())
                if isinstance(node, nir.Output):
                    total = total + done[name].ravel()
                    totals.append(total)
    return {name: np.array(raster) for name, raster in rasters.items()}, np.array(totals)


def assert_runs_as(network: nir.NIRGraph, graph: SpikingGraph, images: Array, steps: int = STEPS) -> int:
    """The graph on the native engine fires and adds up as the network does; gives the spikes seen."""
    result = NativeBackend().run(graph, images, steps, record=graph.spiking)
    spikes = 0
    for b, image in enumerate(images):
        rasters, readout = simulate(network, image.reshape(graph.input.shape).astype(float), steps)
        assert set(rasters) == set(graph.spiking)
        for name, raster in rasters.items():
            np.testing.assert_array_equal(result.rasters[name][b], raster, err_msg=name)
            spikes += int(raster.sum())
        np.testing.assert_array_equal(result.readout[b] * graph.readout.scale, readout)
    return spikes


def csr(rng: np.random.Generator, pre: int, post: int, density: float = 0.5) -> CSRConnection:
    return CSRConnection.from_scipy(rng.integers(-4, 7, (pre, post)) * (rng.random((pre, post)) < density))


def convolutional(seed: int = 0) -> SpikingGraph:
    """A convolution, a grouped one with stride and an oblong kernel, a flat population, and skips."""
    rng = np.random.default_rng(seed)
    populations = [
        Population(name="input", shape=(2, 6, 6), kind="input", value_range=(0, 9)),
        Population(
            name="a.0",
            shape=(4, 6, 6),
            kind="if",
            reset="zero",
            threshold=2 * rng.integers(5, 30, 144),
            bias=np.repeat([1, -2, 3, 0], 36),
        ),
        Population(name="b", shape=(2, 3, 2), kind="if", reset="zero", threshold=2 * rng.integers(3, 9, 12)),
        Population(
            name="c", shape=(7,), kind="if", reset="zero", threshold=2 * rng.integers(2, 20, 7), bias=rng.integers(-2, 4, 7)
        ),
        Population(name="readout", shape=(3,), kind="readout", bias=[1, -2, 3]),
    ]
    first = Conv2dConnection(rng.integers(-3, 5, (4, 2, 3, 3)), (2, 6, 6), padding=(1, 1))
    second = Conv2dConnection(rng.integers(-3, 5, (2, 2, 2, 3)), (4, 6, 6), stride=(2, 3), padding=(0, 0), groups=2)
    projections = [
        Projection("input", "a.0", first),
        Projection("a.0", "b", second),
        Projection("a.0", "c", csr(rng, 144, 7, 0.1)),
        Projection("b", "c", csr(rng, 12, 7)),
        Projection("c", "readout", csr(rng, 7, 3)),
        Projection("b", "readout", csr(rng, 12, 3)),
    ]
    return SpikingGraph(populations, projections)


def test_a_written_convolutional_graph_runs_as_nir_says_and_reads_back_equal(tmp_path: Path) -> None:
    graph = convolutional()
    images = np.random.default_rng(1).integers(0, 10, (3, 72))
    write_nir(graph, tmp_path / "network.nir")
    written = nir.read(str(tmp_path / "network.nir"), type_check=False)
    assert assert_runs_as(written, graph, images) > 500
    found = read_nir(tmp_path / "network.nir", (0, 9))
    assert found.exact
    assert found.graph.digest() == graph.digest()
    assert read_nir(written, (0, 9)).graph.digest() == graph.digest()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32), st.lists(st.integers(1, 6), min_size=2, max_size=4))
def test_random_flat_graphs_keep_everything(seed: int, sizes: list[int]) -> None:
    rng = np.random.default_rng(seed)
    names = ["input", *(f"h{i}" for i in range(len(sizes) - 2)), "readout"]
    populations = [Population(name="input", shape=(sizes[0],), kind="input", value_range=(-5, 5))]
    for name, size in zip(names[1:-1], sizes[1:-1], strict=True):
        threshold = np.where(rng.random(size) < 0.2, NEVER, 2 * rng.integers(1, 2**40, size) >> int(rng.integers(0, 40)) << 1)
        bias = rng.integers(-9, 9, size)
        populations.append(
            Population(name=name, shape=(size,), kind="if", reset="zero", threshold=np.maximum(threshold, 2), bias=bias)
        )
    populations.append(
        Population(name="readout", shape=(sizes[-1],), kind="readout", bias=rng.integers(-(2**45), 2**45, sizes[-1]))
    )
    top = 2 ** int(rng.integers(2, 24))
    pairs = [(i, j) for i in range(len(sizes)) for j in range(i + 1, len(sizes)) if j == i + 1 or rng.random() < 0.5]
    projections = [
        Projection(names[i], names[j], CSRConnection.from_scipy(rng.integers(1 - top, top, (sizes[i], sizes[j]))))
        for i, j in pairs
    ]
    graph = SpikingGraph(populations, projections)
    found = read_nir(to_nir(graph), (-5, 5))
    assert found.exact
    assert found.graph.digest() == graph.digest()


def test_numbers_are_single_precision_only_where_that_holds_them() -> None:
    graph = convolutional()
    assert to_nir(graph).nodes["c"].v_threshold.dtype == np.float32
    fine = [replace(p, bias=np.array([2**24 + 1, 0, 0])) if p.name == "readout" else p for p in graph.populations]
    network = to_nir(SpikingGraph(fine, graph.projections))
    assert {node.weight.dtype for node in network.nodes.values() if hasattr(node, "weight")} == {np.dtype(np.float64)}
    assert any(np.array_equal(getattr(node, "bias", None), [2**24 + 1, 0, 0]) for node in network.nodes.values())


def pooled() -> nir.NIRGraph:
    """Real weights that are fractions of powers of two, both pools, a scale, a resistance, and a reset that is not 0."""
    rng = np.random.default_rng(5)

    def neurons(shape: tuple[int, ...], r: float, reset: float) -> nir.IF:
        return nir.IF(r=np.full(shape, r), v_threshold=rng.choice([0.7, 1.0, 1.25, 2.0], shape), v_reset=np.full(shape, reset))

    def quarters(*shape: int) -> Array:
        return rng.integers(-4, 7, shape) / 4

    two, none = np.array([2, 2]), np.array([0, 0])
    nodes = {
        "in": nir.Input(input_type={"input": np.array([2, 8, 8])}),
        "unit": nir.Scale(scale=np.full((2, 8, 8), 1 / 8)),
        "conv": nir.Conv2d((8, 8), quarters(3, 2, 3, 3), 1, "same", 1, 1, quarters(3)),
        "one": neurons((3, 8, 8), 0.5, -0.5),
        "mean": nir.AvgPool2d(two, two, none),
        "conv2": nir.Conv2d((4, 4), quarters(4, 3, 3, 3), 1, 1, 1, 1, quarters(4)),
        "two": neurons((4, 4, 4), 1.0, 0.25),
        "sum": nir.SumPool2d(np.array([3, 3]), np.array([1, 1]), none),
        "flat": nir.Flatten(input_type={"input": np.array([4, 2, 2])}, start_dim=0),
        "dense": nir.Affine(quarters(6, 16), quarters(6)),
        "skip-flat": nir.Flatten(input_type={"input": np.array([3, 8, 8])}, start_dim=0),
        "skip": nir.Linear(quarters(6, 192)),
        "three": neurons((6,), 1.0, 0.0),
        "last": nir.Linear(quarters(3, 6)),
        "out": nir.Output(output_type={"output": np.array([3])}),
    }
    line = ["in", "unit", "conv", "one", "mean", "conv2", "two", "sum", "flat", "dense", "three", "last", "out"]
    edges = [*itertools.pairwise(line), ("one", "skip-flat"), ("skip-flat", "skip"), ("skip", "three")]
    return nir.NIRGraph(nodes, edges, type_check=False)


def test_a_network_of_every_node_runs_as_its_equations_say() -> None:
    network = pooled()
    found = read_nir(network, (0, 20))
    assert found.exact
    assert set(found.weight_error.values()) == {0.0}
    images = np.random.default_rng(6).integers(0, 21, (3, 128))
    assert assert_runs_as(network, found.graph, images) > 500
    assert [found.graph.population(name).shape for name in ("one", "two", "three")] == [(3, 8, 8), (4, 4, 4), (6,)]
    kinds = {type(p.connection) for p in found.graph.projections if p.post == "two"}
    assert kinds == {Conv2dConnection}  # the pool was composed into the convolution, not expanded


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 3), st.integers(1, 8))
def test_random_networks_run_as_their_equations_say(seed: int, exponent: int, size: int) -> None:
    """Weights, biases and resets in units of 2^-exponent; thresholds anywhere, ties included."""
    rng = np.random.default_rng(seed)
    unit = 2.0**-exponent

    def units(low: int, high: int, *shape: int) -> Array:
        return rng.integers(low, high, shape) * unit

    reset = units(-4, 5, size)
    threshold = reset + np.where(rng.random(size) < 0.5, units(1, 9, size), rng.uniform(0.01, 5, size))
    network = nir.NIRGraph.from_list(
        nir.Affine(units(-4, 7, size, 3), units(-3, 4, size)),
        nir.IF(r=rng.choice([0.5, 1.0, 2.0], size), v_threshold=threshold, v_reset=reset),
        nir.Linear(units(-4, 7, 2, size)),
    )
    found = read_nir(network, (-5, 5))
    assert found.exact
    assert_runs_as(network, found.graph, rng.integers(-5, 6, (3, 3)))


def test_a_network_of_another_framework_runs_on_brian2() -> None:
    network = pooled()
    graph = read_nir(network, (0, 20)).graph
    images = np.random.default_rng(6).integers(0, 21, (2, 128))
    assert_equal(Brian2Backend("numpy").run(graph, images, STEPS), NativeBackend().run(graph, images, STEPS))


@pytest.mark.parametrize(("v_threshold", "first"), [(1.0, 2), (0.99, 1), (1.5, 2), (2.0, 3), (2.75, 3)])
def test_a_tie_with_the_threshold_does_not_fire(v_threshold: float, first: int) -> None:
    """NIR fires above the threshold: with unit input the first spike is at the first step t with t > v_threshold."""
    one = np.ones((1, 1))
    neuron = nir.IF(r=np.ones(1), v_threshold=np.array([v_threshold]))
    network = nir.NIRGraph.from_list(nir.Linear(one), neuron, nir.Linear(one))
    graph = read_nir(network, (0, 1)).graph
    raster = NativeBackend().run(graph, np.array([[1]]), 6, record=graph.spiking).rasters["if"][0, :, 0]
    assert np.flatnonzero(raster)[0] == first - 1
    np.testing.assert_array_equal(raster, [int((t + 1) % first == 0) for t in range(6)])


def test_an_output_of_spikes_counts_them_and_an_integrator_is_the_sum() -> None:
    neuron = nir.IF(r=np.ones(2), v_threshold=np.array([1.5, 3.5]))
    line = [nir.Linear(np.array([[1.0, 0.0], [1.0, 2.0]])), neuron]
    images = np.array([[1, 2], [3, 0]])
    for end in ([], [nir.I(r=np.ones(2))]):
        graph = read_nir(nir.NIRGraph.from_list(*line, *end), (0, 3)).graph
        result = NativeBackend().run(graph, images, STEPS)
        assert result.spikes["if"].positive.sum() > 0
        np.testing.assert_array_equal(result.readout[:, -1] * graph.readout.scale, result.spikes["if"].positive)


def test_other_weights_are_rounded_and_the_error_is_given() -> None:
    rng = np.random.default_rng(2)
    network = nir.NIRGraph.from_list(
        nir.Affine(rng.normal(size=(5, 4)), rng.normal(size=5)),
        nir.IF(r=np.ones(5), v_threshold=np.full(5, 1.3), v_reset=np.full(5, -0.1)),
        nir.Linear(rng.normal(size=(3, 5))),
    )
    errors = {}
    for bits in (8, 24):
        found = read_nir(network, (0, 5), bits=bits)
        assert not found.exact
        assert found.graph.provenance["weight_error"] == found.weight_error
        population = found.graph.population("if")
        assert population.threshold is not None
        np.testing.assert_allclose(population.threshold * population.scale, 1.4, rtol=found.threshold_error["if"])
        np.testing.assert_allclose(population.v_init * population.scale, 0.1, atol=population.scale.max())
        into = found.graph.projection("input", "if").connection.to_csr().to_scipy().toarray().T
        weight = network.nodes["affine"].weight
        largest = np.abs(weight).max(axis=1, keepdims=True)
        off = np.abs(into * population.scale[:, None] - weight) / largest
        errors[bits] = found.weight_error["if"]
        assert 0 < off.max() <= errors[bits] * (1 + 1e-6)
    assert errors[24] < errors[8] / 2**15
    assert assert_runs_as(network, replace_exact(network), rng.integers(0, 6, (2, 4))) > 0


def replace_exact(network: nir.NIRGraph) -> SpikingGraph:
    """Make a network exact in place (its numbers as eighths) and read it."""
    for node in network.nodes.values():
        for field in ("weight", "bias", "v_reset"):
            if hasattr(node, field):
                setattr(node, field, np.rint(getattr(node, field) * 8) / 8)
    found = read_nir(network, (0, 5))
    assert found.exact
    return found.graph


LOSSES = {
    "reset by subtraction": lambda p: replace(p, reset="subtract"),
    "initial membranes": lambda p: replace(p, v_init=p.threshold // 2),
    "signed spikes": lambda p: replace(p, kind="signed_if", threshold_neg=p.threshold),
    "bias_mode 'once'": lambda p: replace(p, bias_mode="once"),
    r"differ within a channel": lambda p: replace(p, bias=np.arange(p.size)),
    r"the threshold 9007199254740990, expected at most 2\^52": lambda p: replace(p, threshold=p.threshold * 0 + 2**53 - 2),
}


@pytest.mark.parametrize("message", LOSSES)
def test_a_property_that_would_be_lost_is_refused(message: str) -> None:
    graph = convolutional()
    populations = [LOSSES[message](p) if p.name == "a.0" else p for p in graph.populations]
    with pytest.raises(GraphError, match=rf"'a\.0'.*{message}"):
        to_nir(SpikingGraph(populations, graph.projections))


def test_dense_matrices_have_a_limit() -> None:
    with pytest.raises(GraphError, match=r"projection 'a\.0' -> 'c': found 144 x 7 weights.*at most 1,007; raise largest_dense"):
        to_nir(convolutional(), largest_dense=1007)
    to_nir(convolutional(), largest_dense=1008)


def test_single_synapses_into_a_volume_are_refused() -> None:
    graph = convolutional()
    links = [p if p.key != ("a.0", "b") else Projection(*p.key, p.connection.to_csr()) for p in graph.projections]
    with pytest.raises(GraphError, match=r"'a\.0' -> 'b': found single synapses into a population of shape \(2, 3, 2\)"):
        to_nir(SpikingGraph(graph.populations, links))


def test_a_name_of_a_node_in_between_is_refused() -> None:
    populations = [
        Population(name="input", shape=(1,), kind="input", value_range=(0, 1)),
        Population(name="input.to.readout", shape=(1,), kind="if", reset="zero", threshold=[2]),
        Population(name="readout", shape=(1,), kind="readout"),
    ]
    one = CSRConnection.from_scipy(np.ones((1, 1), np.int64))
    pairs = [("input", "input.to.readout"), ("input.to.readout", "readout"), ("input", "readout")]
    with pytest.raises(GraphError, match="found populations named like the nodes between them"):
        to_nir(SpikingGraph(populations, [Projection(*pair, one) for pair in pairs]))


def line(**nodes: Any) -> nir.NIRGraph:
    names = list(nodes)
    return nir.NIRGraph(dict(nodes), list(itertools.pairwise(names)), type_check=False)


SOURCE = {"source": nir.Input(input_type={"input": np.array([2])})}
END = {"end": nir.Output(output_type={"output": np.array([2])})}
ONES = np.ones(2)
FIRES = nir.IF(r=ONES, v_threshold=ONES)
DENSE = nir.Linear(np.eye(2))
BAD = {
    r"node 'n': found Delay, expected one of": line(**SOURCE, n=nir.Delay(ONES), **END),
    r"node 'n': found NIRGraph.*put its nodes": line(**SOURCE, n=nir.NIRGraph.from_list(DENSE), **END),
    r"node 'n': found I inside": line(**SOURCE, n=nir.I(ONES), w=DENSE, **END),
    r"node 'n': found v_threshold 0.0 and v_reset 0.0 at neuron 1": line(**SOURCE, n=nir.IF(ONES, np.array([1.0, 0.0])), **END),
    r"node 'n', r: found shape \(3,\)": line(**SOURCE, n=nir.IF(np.ones(3), np.ones(3)), **END),
    r"node 'n', weight: found 1 of 4 values that are NaN": line(**SOURCE, n=nir.Linear(np.array([[1, np.nan], [1, 1]])), **END),
    r"node 'n': found an input of shape \(2,\), expected \(3,\)": line(**SOURCE, n=nir.Linear(np.ones((2, 3))), **END),
    r"node 'n': found a factor of 0": line(**SOURCE, n=nir.Scale(np.array([1.0, 0.0])), **END),
    r"node 'readout': this name is taken": line(**SOURCE, readout=FIRES, w=DENSE, **END),
    r"found 0 nodes of type Output": line(**SOURCE, n=DENSE),
    r"found the cycle": nir.NIRGraph(
        {**SOURCE, "n": FIRES, "w": DENSE, **END},
        [("source", "n"), ("n", "w"), ("w", "n"), ("n", "end")],
        type_check=False,
    ),
    r"node 'w': expected a path from 'source' through it to 'end'": nir.NIRGraph(
        {**SOURCE, "n": FIRES, "w": DENSE, **END}, [("source", "n"), ("n", "w"), ("n", "end")], type_check=False
    ),
    r"edge 'source' -> 'm': node 'm' does not exist": nir.NIRGraph({**SOURCE, **END}, [("source", "m")], type_check=False),
}


@pytest.mark.parametrize("message", BAD)
def test_a_network_that_no_graph_can_hold_is_refused(message: str) -> None:
    with pytest.raises(ModelError, match=message):
        read_nir(BAD[message], (0, 1))


def test_files_that_cannot_be_read_or_written_are_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="found no file there"):
        read_nir(tmp_path / "absent.nir", (0, 1))
    (tmp_path / "text.nir").write_text("not HDF5")
    with pytest.raises(ConfigError, match=r"text\.nir: cannot be read as a \.nir file"):
        read_nir(tmp_path / "text.nir", (0, 1))
    with pytest.raises(ConfigError, match="cannot be written"):
        write_nir(convolutional(), tmp_path / "absent" / "network.nir")
    with pytest.raises(ConfigError, match="bits: found 25"):
        read_nir(pooled(), (0, 1), bits=25)
    with pytest.raises(ConfigError, match="cannot be made"):
        write_nir_folder(convolutional(), tmp_path / "text.nir")
    assert write_nir_folder(convolutional(), tmp_path / "new") == [tmp_path / "new" / "network.nir"]
