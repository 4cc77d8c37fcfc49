"""The native backend against the reference, by equality; its counts, threads, limits and messages."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsespike.backends.native import NativeBackend, engine
from sparsespike.backends.native.arrays import make_scratch
from sparsespike.backends.registry import get_backend
from sparsespike.backends.testing import CASES, Case, assert_equal, check_conformance, reference
from sparsespike.backends.testing.strategies import aec_graphs, convolutions, graphs
from sparsespike.common.errors import BackendError, GraphError, MembraneOverflowError
from sparsespike.export.connections import CSRConnection
from sparsespike.export.graph import Population, Projection, SpikingGraph


def layered(widths: list[int], density: float, images: int, *, seed: int = 0, steps: int = 8) -> Case:
    """Random layers with about a tenth of the neurons firing in each step, and images of which many pixels are zero."""
    rng = np.random.default_rng(seed)
    populations = [Population(name="input", shape=(widths[0],), kind="input", value_range=(0, 20))]
    projections = []
    for i, (n_pre, n_post) in enumerate(pairwise(widths)):
        threshold = 2 * rng.integers(200, 500, n_post)
        last = i == len(widths) - 2
        fields = {} if last else {"threshold": threshold, "v_init": threshold // 2}
        populations.append(Population(name=f"p{i}", shape=(n_post,), kind="readout" if last else "if", **fields))
        weights = rng.integers(-90, 127, (n_pre, n_post)) * (rng.random((n_pre, n_post)) < density)
        projections.append(Projection(populations[-2].name, f"p{i}", CSRConnection.from_scipy(weights)))
    inputs = rng.integers(0, 21, (images, widths[0])) * (rng.random((images, widths[0])) < 0.7)
    return Case(SpikingGraph(populations, projections), inputs, steps)


def test_conforms_on_every_case() -> None:
    assert check_conformance(NativeBackend()) == {}


@given(graphs(), st.sampled_from(("events", "current")))
@settings(deadline=None, max_examples=150)
def test_equals_the_reference_on_random_graphs(case: Case, mode: str) -> None:
    graph, inputs, steps = case
    result = NativeBackend(threads=2).run(graph, inputs, steps, record=graph.spiking, input=mode)
    assert_equal(result, reference(graph, inputs, steps, input=mode))


@given(aec_graphs(), st.sampled_from(("events", "current")))
@settings(deadline=None, max_examples=100)
def test_equals_the_reference_on_random_aec_graphs(case: Case, mode: str) -> None:
    graph, inputs, steps = case
    result = NativeBackend(threads=2).run(graph, inputs, steps, record=graph.spiking, input=mode)
    assert_equal(result, reference(graph, inputs, steps, input=mode))
    assert result.messages.keys() == {"input", *graph.spiking}
    for name in graph.spiking:
        assert (result.messages[name] == result.spikes[name].positive.sum(axis=1)).all()


@given(convolutions(), st.sampled_from(("events", "current")))
@settings(deadline=None, max_examples=60)
def test_equals_the_reference_on_random_convolutions(case: Case, mode: str) -> None:
    graph, inputs, steps = case
    assert_equal(NativeBackend().run(graph, inputs, steps, record=graph.spiking, input=mode), reference(*case, input=mode))


def test_equals_the_reference_on_layers_wider_than_a_word_and_more_images_than_a_chunk() -> None:
    case = layered([70, 203, 131, 10], 0.1, 75)
    expected = reference(*case)
    assert 0.02 < expected.spikes["p1"].events.mean() / case.steps < 0.5
    assert_equal(NativeBackend().run(*case, record=["p0", "p1"]), expected)


@pytest.mark.parametrize("threads", [2, 3, 7])
def test_results_do_not_depend_on_the_number_of_threads(threads: int) -> None:
    case = layered([40, 60, 10], 0.2, 150)
    one, many = (NativeBackend(threads=n).run(*case, record=["p0"]) for n in (1, threads))
    assert_equal(many, one)
    assert {key: value.tolist() for key, value in many.messages.items()} == {key: v.tolist() for key, v in one.messages.items()}


def drop_synapse(monkeypatch: pytest.MonkeyPatch, projection: int, row: int) -> None:
    """Make the engine lose the last synapse of one row of one projection, after lowering."""
    whole = engine.lower

    def lower(graph: SpikingGraph) -> engine.Plan:
        plan = whole(graph)
        end = plan.pointers[plan.first_row[projection] + row + 1]
        assert end > plan.pointers[plan.first_row[projection] + row]
        return plan._replace(
            pointers=np.where(
                np.arange(len(plan.pointers)) > plan.first_row[projection] + row,
                plan.pointers - (plan.pointers >= end),
                plan.pointers,
            ),
            indices=np.delete(plan.indices, end - 1),
            values=np.delete(plan.values, end - 1),
        )

    monkeypatch.setattr(engine, "lower", lower)


def test_a_synapse_dropped_inside_the_engine_is_missing_from_what_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measured - computed is minus the spikes of the neuron that lost its synapse, and zero everywhere else."""
    graph, inputs, steps = layered([40, 60, 50, 10], 0.3, 5)
    fan_out = graph.projection("p0", "p1").connection.fan_out
    whole = NativeBackend().run(graph, inputs, steps)
    assert (whole.events["p0", "p1"] == whole.spikes["p0"].events @ fan_out).all()
    source = int(whole.spikes["p0"].events.sum(axis=0).argmax())
    drop_synapse(monkeypatch, projection=1, row=source)
    result = NativeBackend().run(graph, inputs, steps)
    residual = result.events["p0", "p1"] - result.spikes["p0"].events @ fan_out
    assert residual.any()
    assert (residual == -result.spikes["p0"].events[:, source]).all()
    for pre, post in (("input", "p0"), ("p1", "p2")):
        computed = result.spikes[pre].events @ graph.projection(pre, post).connection.fan_out
        assert (result.events[pre, post] == computed).all()


def test_a_weight_dropped_from_a_kernel_is_missing_from_what_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    graph, inputs, steps = CASES["convolution"]()
    connection = graph.projection("conv1", "conv2").connection
    drop_synapse(monkeypatch, projection=1, row=0)
    result = NativeBackend().run(graph, inputs, steps)
    assert (result.events["conv1", "conv2"] < result.spikes["conv1"].events @ connection.fan_out).all()


def test_a_synapse_dropped_from_an_aec_graph_is_missing_from_what_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two spikes of one slot are two events: the residual is minus all spikes of the neuron that lost its synapse."""
    graph, inputs, steps = coded = next(case for name in CASES if (case := CASES[name]()).graph.slots is not None)
    whole = reference(*coded)
    (pre, post), source = next(
        (projection.key, int(row))
        for projection in graph.projections
        if projection.pre in graph.spiking
        for row in np.flatnonzero(projection.connection.fan_out * whole.spikes[projection.pre].positive.sum(axis=0))
    )
    projections = [projection.key for name in graph.order for projection in graph.into(name)]
    drop_synapse(monkeypatch, projection=projections.index((pre, post)), row=source)
    result = NativeBackend().run(graph, inputs, steps)
    residual = result.events[pre, post] - result.spikes[pre].events @ graph.projection(pre, post).connection.fan_out
    assert residual.any()
    assert (residual == -result.spikes[pre].events[:, source]).all()


def test_says_which_events_are_measured_and_which_computed() -> None:
    graph, inputs, steps = CASES["skips"]()
    measured = NativeBackend().run(graph, inputs, steps)
    assert set(measured.counting.values()) == {"measured"}
    assert measured.messages["input"].tolist() == (steps * (inputs != 0).sum(axis=1)).tolist()
    injected = NativeBackend().run(graph, inputs, steps, input="current")
    assert {key for key, counting in injected.counting.items() if counting == "computed"} == {
        ("input", post) for post in ("a", "b", "c", "readout")
    }
    assert injected.events["input", "c"].tolist() == [steps * graph.projection("input", "c").connection.nnz] * 4
    assert injected.messages["input"].tolist() == [0] * 4
    assert_equal(replace(injected, events=measured.events, events_by_step=measured.events_by_step), measured)


def test_keeps_the_rasters_of_the_named_populations_alone() -> None:
    graph, inputs, steps = CASES["skips"]()
    result = NativeBackend().run(graph, inputs, steps, record=["c", "a"])
    assert sorted(result.rasters) == ["a", "c"]
    assert (result.rasters["c"] == reference(graph, inputs, steps).rasters["c"]).all()
    assert NativeBackend().run(graph, inputs, steps).rasters == {}


@given(graphs(kinds=("if", "signed_if")), st.integers(2, 50), st.data())
@settings(deadline=None, max_examples=60)
def test_scaling_a_population_changes_nothing(case: Case, factor: int, data: st.DataObject) -> None:
    """Incoming weights, thresholds, bias and initial membrane of one population, times one factor."""
    graph, inputs, steps = case
    name = data.draw(st.sampled_from(sorted(set(graph.order) - {"input"})))

    def scaled(population: Population) -> Population:
        arrays = {field: getattr(population, field) for field in ("threshold", "threshold_neg", "v_init", "bias")}
        return replace(population, **{field: factor * array for field, array in arrays.items() if array is not None})

    populations = [scaled(p) if p.name == name else p for p in graph.populations]
    projections = [
        replace(p, connection=CSRConnection.from_scipy(p.connection.to_scipy() * (factor if p.post == name else 1)))
        for p in graph.projections
    ]
    before = NativeBackend().run(graph, inputs, steps, record=graph.spiking)
    after = NativeBackend().run(SpikingGraph(populations, projections), inputs, steps, record=graph.spiking)
    assert_equal(replace(after, readout=before.readout), before)
    assert (after.readout == before.readout * (factor if name == "readout" else 1)).all()


@given(graphs(), st.data())
@settings(deadline=None, max_examples=60)
def test_permuting_neurons_permutes_rasters(case: Case, data: st.DataObject) -> None:
    graph, inputs, steps = case
    orders = {p.name: np.array(data.draw(st.permutations(range(p.size)))) for p in graph.populations}

    def permuted(population: Population) -> Population:
        fields = ("threshold", "threshold_neg", "decay_current", "decay_voltage", "v_init", "bias")
        arrays = {field: getattr(population, field) for field in fields}
        return replace(
            population, **{field: array[orders[population.name]] for field, array in arrays.items() if array is not None}
        )

    projections = [
        replace(p, connection=CSRConnection.from_scipy(p.connection.to_scipy()[orders[p.pre]][:, orders[p.post]]))
        for p in graph.projections
    ]
    other = SpikingGraph([permuted(p) for p in graph.populations], projections)
    before = NativeBackend().run(graph, inputs, steps, record=graph.spiking)
    after = NativeBackend().run(other, inputs[:, orders["input"]], steps, record=graph.spiking)
    for name in graph.spiking:
        assert (after.rasters[name] == before.rasters[name][:, :, orders[name]]).all()
    assert (after.readout == before.readout[:, :, orders["readout"]]).all()
    assert {k: v.tolist() for k, v in after.events_by_step.items()} == {k: v.tolist() for k, v in before.events_by_step.items()}


def accumulator(weight: int, high: int = 2**31 - 1) -> SpikingGraph:
    """One input value, times one weight, added up in the readout."""
    return SpikingGraph(
        [
            Population(name="x", shape=(1,), kind="input", value_range=(-high, high)),
            Population(name="sum", shape=(1,), kind="readout"),
        ],
        [Projection("x", "sum", CSRConnection.from_scipy(np.array([[weight]])))],
    )


def test_a_membrane_that_leaves_the_exact_range_is_named() -> None:
    """Image 40 adds almost 2^61 in each step: 2^62 is left in the third."""
    inputs = np.zeros((60, 1), np.int64)
    inputs[40], inputs[50] = -(2**31 - 1), 2**31 - 1
    for threads in (1, 2):
        with pytest.raises(
            MembraneOverflowError, match=r"population 'sum', image 40, step 2: found a membrane of -69175290\d+, .*2\^62"
        ):
            NativeBackend(threads).run(accumulator(2**30 - 1), inputs, 8)


@pytest.mark.parametrize("mode", ["events", "current"])
def test_a_membrane_that_could_leave_the_range_but_does_not_is_exact(mode: str) -> None:
    inputs = np.array([[7], [-(2**29)], [0]])
    result = NativeBackend().run(accumulator(2**30 - 1), inputs, 7, input=mode)
    assert result.readout[:, :, 0].tolist() == [[(t + 1) * x * (2**30 - 1) for t in range(7)] for x in inputs[:, 0].tolist()]


def test_check_says_what_it_cannot_run() -> None:
    too_wide = accumulator(2**31 - 1)
    (reason,) = NativeBackend().check(too_wide)
    assert reason.startswith(f"the current of population 'sum' can reach {(2**31 - 1) ** 2}, expected less than 2^61; scale")
    with pytest.raises(BackendError, match="backend 'native' cannot run this graph: the current of population 'sum'"):
        NativeBackend().run(too_wide, np.array([[1]]), 1)


def test_refuses_wrong_arguments_with_one_message() -> None:
    graph, inputs, steps = CASES["single_neuron"]()
    backend = NativeBackend()
    with pytest.raises(BackendError, match="found steps = 0, expected at least 1"):
        backend.run(graph, inputs, 0)
    with pytest.raises(BackendError, match=r"cannot record \['nowhere'\]; spiking populations are \['hidden'\]"):
        backend.run(graph, inputs, steps, record=["nowhere"])
    with pytest.raises(BackendError, match="found input = 'rate', expected 'events' or 'current'"):
        backend.run(graph, inputs, steps, input="rate")
    with pytest.raises(BackendError, match="found no images"):
        backend.run(graph, inputs[:0], steps)
    with pytest.raises(GraphError, match="found dtype float64, expected integers"):
        backend.run(graph, inputs / 2, steps)
    with pytest.raises(GraphError, match=r"found values -1\.\.-1, expected 0\.\.8"):
        backend.run(graph, inputs[:1] - 1, steps)
    with pytest.raises(BackendError, match="found threads = 0, expected at least 1"):
        NativeBackend(threads=0)


def test_progress_adds_up_to_the_images() -> None:
    case = layered([10, 20, 5], 0.3, 150)
    seen: list[int] = []
    NativeBackend(threads=2).run(*case, progress=seen.append)
    assert sum(seen) == 150
    assert len(seen) > 1


def test_ctrl_c_drops_the_images_not_yet_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    case = layered([10, 20, 5], 0.3, 32 * 200, steps=100)
    begun: list[int] = []

    def counted(plan: engine.Plan, steps: int) -> object:
        begun.append(steps)
        return make_scratch(plan, steps)

    def interrupt(images: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(engine, "make_scratch", counted)
    with pytest.raises(KeyboardInterrupt):
        NativeBackend(threads=1).run(*case, progress=interrupt)
    assert 1 <= len(begun) < 200


def test_result_is_labelled() -> None:
    result = get_backend("native").run(*CASES["skips"]())
    assert (result.backend, result.dtype, result.steps, result.images) == ("native", "int64", 11, 4)
    assert result.version
    assert result.wall_seconds.keys() == {"build", "run"}
    assert (result.predictions == result.readout.argmax(axis=2)).all()


def test_a_second_process_starts_from_the_compiled_cache() -> None:
    """The kernel is in numba's cache after any run, and is loaded from it, not compiled."""
    NativeBackend().run(*CASES["one_step"]())
    program = (
        "from sparsespike.backends.native import NativeBackend, kernel\n"
        "from sparsespike.backends.testing import CASES\n"
        "NativeBackend().run(*CASES['one_step']())\n"
        "print(sum(kernel.simulate.stats.cache_hits.values()), sum(kernel.simulate.stats.cache_misses.values()))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.split() == ["1", "0"]
