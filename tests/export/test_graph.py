"""The graph: its structure, its checks, its digest and its networkx views."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsespike.common.errors import GraphError
from sparsespike.export.connections import Conv2dConnection, CSRConnection
from sparsespike.export.graph import Population, Projection, SpikingGraph
from sparsespike.export.population import AEC_TABLES


def dense(n_pre: int, n_post: int) -> CSRConnection:
    return CSRConnection.from_scipy(np.arange(1, n_pre * n_post + 1).reshape(n_pre, n_post))


def given_input(name: str = "in", n: int = 3) -> Population:
    return Population(name=name, shape=(n,), kind="input", value_range=(-2, 7))


def spiking(name: str, n: int = 2) -> Population:
    return Population(name=name, shape=(n,), kind="if", threshold=np.full(n, 4))


def readout(name: str = "out", n: int = 2) -> Population:
    return Population(name=name, shape=(n,), kind="readout")


@pytest.fixture
def skip() -> SpikingGraph:
    """in -> a -> b -> out with a skip in -> b and a -> out; populations given out of order."""
    populations = [readout(), spiking("b"), given_input(), spiking("a")]
    pairs = [("in", "a"), ("a", "b"), ("in", "b"), ("b", "out"), ("a", "out")]
    sizes = {p.name: p.size for p in populations}
    return SpikingGraph(populations, [Projection(u, v, dense(sizes[u], sizes[v])) for u, v in pairs], {"seed": 1})


def test_structure(skip: SpikingGraph) -> None:
    assert skip.depth == {"in": 0, "a": 1, "b": 2, "out": 3}
    assert skip.order == ("in", "a", "b", "out")
    assert skip.spiking == ("a", "b")
    assert skip.input.name == "in"
    assert skip.readout.name == "out"
    assert skip.nnz == 6 + 4 + 6 + 4 + 4
    assert {p.key for p in skip.into("b")} == {("a", "b"), ("in", "b")}
    assert {p.key for p in skip.out_of("a")} == {("a", "b"), ("a", "out")}
    assert [skip.delay(*p.key) for p in skip.into("b")] == [1, 2]
    assert [p.name for p in skip.populations] == ["out", "b", "in", "a"]
    assert skip.population("a").name == "a"
    assert skip.projection("in", "b").connection.nnz == 6


def test_unknown_names(skip: SpikingGraph) -> None:
    with pytest.raises(GraphError, match=r"population 'x' does not exist; found 'out', 'b', 'in', 'a'"):
        skip.population("x")
    with pytest.raises(GraphError, match=r"projection 'out' -> 'in' does not exist"):
        skip.projection("out", "in")


@pytest.mark.parametrize(
    ("populations", "pairs", "message"),
    [
        ([given_input(), given_input(), readout()], [], "found two populations named 'in'"),
        ([given_input(), readout()], [("in", "x", 3, 2)], "population 'x' does not exist; found 'in', 'out'"),
        ([given_input(), readout()], [("in", "out", 3, 2)] * 2, "projection 'in' -> 'out': found twice"),
        ([given_input(), readout()], [("in", "out", 2, 2)], "found weights of shape (2, 2), expected (3, 2) = (neurons of 'in'"),
        (
            [given_input(), spiking("a"), spiking("b"), readout()],
            [("in", "a", 3, 2), ("a", "b", 2, 2), ("b", "a", 2, 2), ("b", "out", 2, 2)],
            "found the cycle a -> b -> ...",
        ),
        ([given_input(), spiking("a"), readout()], [("in", "a", 3, 2), ("a", "a", 2, 2), ("a", "out", 2, 2)], "cycle a -> ..."),
        ([readout()], [], "found 0 populations of kind 'input', expected exactly one"),
        ([given_input(), given_input("in2"), readout()], [("in", "out", 3, 2)], "found 2 populations of kind 'input'"),
        ([given_input(), spiking("a")], [("in", "a", 3, 2)], "found 0 populations of kind 'readout', expected exactly one"),
        ([], [], "found 0 populations of kind 'input'"),
        (
            [given_input(), readout(), spiking("a")],
            [("in", "out", 3, 2), ("out", "a", 2, 2)],
            "readout population 'out' has 1 projections out of it",
        ),
        ([given_input(), spiking("a"), readout()], [("a", "in", 2, 3), ("in", "out", 3, 2)], "'in' has 1 projections into it"),
        ([given_input(), spiking("a"), readout()], [("in", "out", 3, 2)], "population 'a' has no projection into it"),
        ([given_input(), readout()], [], "population 'out' has no projection into it"),
    ],
)
def test_graph_faults(populations: list[Population], pairs: list[tuple[Any, ...]], message: str) -> None:
    with pytest.raises(GraphError) as caught:
        SpikingGraph(populations, [Projection(pre, post, dense(m, n)) for pre, post, m, n in pairs])
    assert message in str(caught.value)


def test_a_convolution_must_fit_both_shapes() -> None:
    flat = Population(name="in", shape=(16,), kind="input", value_range=(0, 1))
    convolution = Conv2dConnection(np.ones((1, 1, 1, 1), np.int64), (1, 4, 4))
    with pytest.raises(GraphError, match=r"convolution from \(1, 4, 4\) to \(1, 4, 4\), expected from \(16,\) to \(16,\)"):
        SpikingGraph([flat, readout(n=16)], [Projection("in", "out", convolution)])


def test_inputs(skip: SpikingGraph) -> None:
    assert skip.check_inputs(np.array([[7, -2, 0]], np.int8)).dtype == np.int64
    assert skip.check_inputs(np.zeros((2, 3), np.uint8)).shape == (2, 3)
    assert skip.check_inputs(np.zeros((0, 3), int)).shape == (0, 3)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (np.zeros((1, 3)), "inputs: found dtype float64, expected integers"),
        (np.zeros(3, int), "inputs: found shape (3,), expected (images, 3)"),
        (5, "inputs: found shape (), expected (images, 3)"),
        (None, "inputs: found dtype object, expected integers"),
        ([[1, 2, 3], [1, 2]], "inputs: found what numpy makes no array of (setting an array element with a sequence."),
        (np.zeros((2, 1, 1, 3), int), "inputs: found shape (2, 1, 1, 3), expected (images, 3)"),
        (np.zeros((1, 4), int), "inputs: found shape (1, 4), expected (images, 3)"),
        (np.array([[0, 0, 8]]), "inputs: found values 0..8, expected -2..7 (value_range of 'in')"),
        (np.array([[0, 0, -3]]), "inputs: found values -3..0, expected -2..7"),
    ],
)
def test_input_faults(skip: SpikingGraph, inputs: np.ndarray, message: str) -> None:
    with pytest.raises(GraphError) as caught:
        skip.check_inputs(inputs)
    assert message in str(caught.value)


def test_images_have_the_shape_of_the_input_or_none_at_all() -> None:
    """Channels-last images have as many values, and are not the same ones once they are laid out flat."""
    images = Population(name="in", shape=(2, 6, 5), kind="input", value_range=(0, 255))
    graph = SpikingGraph([images, readout()], [Projection("in", "out", dense(60, 2))])
    values = np.arange(180).reshape(3, 2, 6, 5)
    assert np.array_equal(graph.check_inputs(values), np.arange(180).reshape(3, 60))
    assert np.array_equal(graph.check_inputs(values.reshape(3, 60)), np.arange(180).reshape(3, 60))
    for wrong in (values.transpose(0, 2, 3, 1), values.reshape(3, 2, 30), values[..., None], values[0]):
        with pytest.raises(GraphError) as caught:
            graph.check_inputs(wrong)
        assert str(caught.value) == f"inputs: found shape {wrong.shape}, expected (images, 60) or (images, 2, 6, 5)"


# --- digest -----------------------------------------------------------------------------------------------------------------


def variants(graph: SpikingGraph) -> list[tuple[str, SpikingGraph]]:
    """Graphs that differ from ``graph`` in one thing that a run or a report depends on."""

    def changed(name: str, **fields: Any) -> SpikingGraph:
        populations = [replace(p, **fields) if p.name == name else p for p in graph.populations]
        return SpikingGraph(populations, graph.projections, graph.provenance)

    def bumped(array: Any, by: int = 2) -> np.ndarray:
        copy = np.array(array)
        copy.flat[-1] += by
        return copy

    def rewired(pre: str, post: str, connection: Any) -> SpikingGraph:
        projections = [Projection(pre, post, connection) if p.key == (pre, post) else p for p in graph.projections]
        return SpikingGraph(graph.populations, projections, graph.provenance)

    result = [
        ("kind", changed("net-1", kind="if", threshold_neg=None)),
        ("value_range", changed("pixels", value_range=(0, 254))),
        ("threshold", changed("net.0", threshold=bumped(graph.population("net.0").threshold))),
        ("threshold_neg", changed("net-1", threshold_neg=bumped(graph.population("net-1").threshold_neg))),
        ("v_init", changed("net.0", v_init=bumped(graph.population("net.0").v_init))),
        ("bias", changed("classes", bias=bumped(graph.population("classes").bias))),
        ("bias_mode", changed("net-1", bias_mode="every_step")),
        ("reset", changed("net.0", reset="subtract")),
        ("scale", changed("classes", scale=0.002)),
    ]
    csr = graph.projection("net.0", "net-1").connection
    assert isinstance(csr, CSRConnection)
    result.append(("value", rewired("net.0", "net-1", replace(csr, values=bumped(csr.values, 100)))))
    moved = csr.to_scipy().toarray()[::-1]
    result.append(("rows", rewired("net.0", "net-1", CSRConnection.from_scipy(moved))))
    convolution = graph.projection("pixels", "net.0").connection
    assert isinstance(convolution, Conv2dConnection)
    result.append(("kernel", rewired("pixels", "net.0", replace(convolution, kernel=bumped(convolution.kernel)))))
    result.append(("expanded", rewired("pixels", "net.0", convolution.to_csr())))
    renamed = [replace(p, name="x") if p.name == "coded" else p for p in graph.populations]
    swap = {"coded": "x"}
    projections = [Projection(swap.get(p.pre, p.pre), swap.get(p.post, p.post), p.connection) for p in graph.projections]
    result.append(("name", SpikingGraph(renamed, projections)))
    fewer = [p for p in graph.projections if p.key != ("net.0", "classes")]
    result.append(("projection", SpikingGraph(graph.populations, fewer)))
    return result


def test_the_digest_changes_with_every_field(every_kind: SpikingGraph) -> None:
    digests = {"none": every_kind.digest()} | {what: graph.digest() for what, graph in variants(every_kind)}
    for (one, a), (other, b) in itertools.combinations(digests.items(), 2):
        assert a != b, f"{one} and {other} have one digest"


def test_the_digest_changes_with_every_table(coded_in_time: SpikingGraph) -> None:
    digests = [coded_in_time.digest()]
    tables = coded_in_time.population("deeper").tables
    for name in AEC_TABLES:
        bumped = replace(coded_in_time.population("deeper"), tables={**tables, name: tables[name] + [1, 0, 0]})
        populations = [bumped if p.name == "deeper" else p for p in coded_in_time.populations]
        digests.append(SpikingGraph(populations, coded_in_time.projections).digest())
    assert len(set(digests)) == 5


def test_windows_of_an_aec_graph(coded_in_time: SpikingGraph, skip: SpikingGraph) -> None:
    assert coded_in_time.slots == 3
    assert [coded_in_time.delay(*p.key) for p in coded_in_time.projections] == [0, 0, 3, 0]
    assert skip.slots is None


def test_faults_of_an_aec_graph(coded_in_time: SpikingGraph) -> None:
    deeper, classes = coded_in_time.population("deeper"), coded_in_time.readout
    shorter = {name: table[:2] for name, table in deeper.tables.items()}
    rate = Population(name="deeper", shape=(2,), kind="if", threshold=[2, 2], bias_mode="once")
    for other, message in (
        (replace(classes, bias_mode="every_step"), "found population 'classes' with bias_mode 'every_step' in an AEC graph"),
        (replace(deeper, tables=shorter), "tables of different lengths {'coded': 3, 'deeper': 2}, expected one number of slots"),
        (rate, "found population 'deeper' of kind 'if' beside kind 'aec', expected 'aec' alone"),
    ):
        populations = [other if p.name == other.name else p for p in coded_in_time.populations]
        with pytest.raises(GraphError, match=message):
            SpikingGraph(populations, coded_in_time.projections)


@pytest.mark.parametrize(
    "change",
    [{"stride": (3, 4)}, {"stride": (4, 3)}, {"padding": (0, 1)}, {"padding": (1, 0)}, {"dilation": (2, 1)}, {"groups": 2}],
)
def test_the_digest_tells_convolutions_apart(change: dict[str, Any]) -> None:
    """All of one output shape, so that nothing but the changed field differs."""

    def graph(**fields: Any) -> SpikingGraph:
        kernel = np.ones((2, 2 // fields.get("groups", 1), 3, 3), np.int64)
        convolution = Conv2dConnection(kernel, (2, 3, 3), **{"stride": (4, 4), "padding": (1, 1), **fields})
        populations = [
            Population(name="in", shape=(2, 3, 3), kind="input", value_range=(0, 1)),
            Population(name="out", shape=convolution.output_shape, kind="readout"),
        ]
        return SpikingGraph(populations, [Projection("in", "out", convolution)])

    assert graph().readout.shape == graph(**change).readout.shape
    assert graph().digest() != graph(**change).digest()


def test_the_digest_leaves_out_provenance_and_order(every_kind: SpikingGraph) -> None:
    other = SpikingGraph(every_kind.populations[::-1], every_kind.projections[::-1], {"other": 1})
    assert other.digest() == every_kind.digest()


def test_the_digest_does_not_depend_on_number_types() -> None:
    def graph(shape: Any) -> str:
        convolution = Conv2dConnection(np.ones((1, 1, 1, 1), np.int8), shape)
        populations = [
            Population(name="in", shape=shape, kind="input", value_range=(np.int64(0), np.int64(1))),
            Population(name="out", shape=convolution.output_shape, kind="readout"),
        ]
        return SpikingGraph(populations, [Projection("in", "out", convolution)]).digest()

    assert graph((1, 2, 2)) == graph(tuple(np.array([1, 2, 2])))


# --- networkx ---------------------------------------------------------------------------------------------------------------


def test_population_view(skip: SpikingGraph) -> None:
    view = skip.to_networkx()
    assert set(view.edges) == {p.key for p in skip.projections}
    view.remove_node("a")
    assert "a" in skip.nx


def test_unknown_level(skip: SpikingGraph) -> None:
    with pytest.raises(GraphError, match="found level 'layer', expected 'population' or 'neuron'"):
        skip.to_networkx("layer")


def test_neuron_view(every_kind: SpikingGraph) -> None:
    neurons = every_kind.to_networkx(level="neuron")
    assert neurons.number_of_nodes() == sum(p.size for p in every_kind.populations)
    assert neurons.number_of_edges() == every_kind.nnz
    assert nx.is_directed_acyclic_graph(neurons)
    for population in every_kind.populations:
        out = sum(p.connection.fan_out for p in every_kind.out_of(population.name))
        into = sum(p.connection.fan_in for p in every_kind.into(population.name))
        nodes = [(population.name, i) for i in range(population.size)]
        assert [neurons.out_degree(node) for node in nodes] == np.broadcast_to(out, population.size).tolist()
        assert [neurons.in_degree(node) for node in nodes] == np.broadcast_to(into, population.size).tolist()
        assert {neurons.nodes[node]["kind"] for node in nodes} == {population.kind}


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**16), sizes=st.lists(st.integers(1, 5), min_size=2, max_size=4))
def test_neuron_view_round_trip(seed: int, sizes: list[int]) -> None:
    rng = np.random.default_rng(seed)
    names = [f"p{i}" for i in range(len(sizes))]
    populations = [given_input("p0", sizes[0]), *(spiking(n, s) for n, s in zip(names[1:-1], sizes[1:-1], strict=True))]
    populations.append(readout(names[-1], sizes[-1]))
    projections = [
        Projection(a.name, b.name, CSRConnection.from_scipy(rng.integers(-2, 3, (a.size, b.size))))
        for a, b in itertools.pairwise(populations)
    ]
    graph = SpikingGraph(populations, projections)
    neurons = graph.to_networkx(level="neuron")
    for projection in projections:
        pre, post = graph.population(projection.pre), graph.population(projection.post)
        rebuilt = np.zeros((pre.size, post.size), np.int64)
        for i, j in np.ndindex(rebuilt.shape):
            rebuilt[i, j] = neurons.edges.get(((pre.name, i), (post.name, j)), {"weight": 0})["weight"]
        assert np.array_equal(rebuilt, projection.connection.to_csr().to_scipy().toarray())
