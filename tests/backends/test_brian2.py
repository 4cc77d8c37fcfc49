"""Brian2 against the reference simulator, by equality, and its counters against spikes x fan-out."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings

from sparsespike.backends.brian2 import Brian2Backend, plan
from sparsespike.backends.brian2.package import load_brian2
from sparsespike.backends.brian2.recording import _differences
from sparsespike.backends.testing import CASES, Case, assert_equal, check_conformance, reference
from sparsespike.backends.testing.aec_cases import aec_input, aec_population, aec_readout
from sparsespike.backends.testing.strategies import aec_graphs, graphs
from sparsespike.common.errors import BackendError, ConfigError, GraphError, MembraneOverflowError, MissingExtraError
from sparsespike.export.connections import CSRConnection
from sparsespike.export.graph import Population, Projection, SpikingGraph


@pytest.mark.parametrize("name", CASES)
def test_directed_case(name: str) -> None:
    assert check_conformance(Brian2Backend(), {name: CASES[name]}) == {}


@settings(max_examples=12, deadline=None)
@given(graphs())
def test_random_graphs_equal_the_reference(case: Case) -> None:
    graph, inputs, steps = case
    result = Brian2Backend().run(graph, inputs, steps, record=graph.spiking)
    assert_equal(result, reference(graph, inputs, steps))


@settings(max_examples=12, deadline=None)
@given(aec_graphs())
def test_random_aec_graphs_equal_the_reference(case: Case) -> None:
    graph, inputs, steps = case
    result = Brian2Backend().run(graph, inputs, steps, record=graph.spiking)
    assert_equal(result, reference(graph, inputs, steps))


def sparse_network(images: int = 5) -> Case:
    """Three hidden layers of some hundred neurons at 10 %, with hubs, both kinds and a skip."""
    rng = np.random.default_rng(3)
    sizes = {"input": 40, "a": 150, "b": 120, "c": 80, "readout": 7}

    def connection(pre: str, post: str) -> CSRConnection:
        shape = sizes[pre], sizes[post]
        hubs = rng.random((shape[0], 1)) ** 3 * 0.4
        return CSRConnection.from_scipy(rng.integers(-90, 128, shape) * (rng.random(shape) < hubs))

    def hidden(name: str, level: int) -> Population:
        threshold = 2 * rng.integers(level, 2 * level, sizes[name])
        signed = {"kind": "signed_if", "threshold_neg": threshold // 8} if name == "b" else {"kind": "if"}
        bias = rng.integers(-level // 4, level // 4, sizes[name])
        return Population(name=name, shape=(sizes[name],), threshold=threshold, v_init=threshold // 2, bias=bias, **signed)

    populations = [
        Population(name="input", shape=(40,), kind="input", value_range=(-8, 8)),
        *(hidden("a", 400), hidden("b", 200), hidden("c", 100)),
        Population(name="readout", shape=(7,), kind="readout", bias=rng.integers(-9, 9, 7)),
    ]
    ends = [("input", "a"), ("a", "b"), ("b", "c"), ("a", "c"), ("c", "readout"), ("b", "readout")]
    graph = SpikingGraph(populations, [Projection(pre, post, connection(pre, post)) for pre, post in ends])
    return Case(graph, rng.integers(-8, 9, (images, 40)) * (rng.random((images, 40)) < 0.7), 20)


def residuals(result, graph: SpikingGraph) -> dict:
    """Measured events minus spikes x fan-out, per projection, summed over images."""
    return {
        p.key: int((result.events[p.key] - result.spikes[p.pre].events @ p.connection.to_csr().fan_out).sum())
        for p in graph.projections
    }


def test_measured_events_are_spikes_times_fan_out_and_a_dropped_synapse_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    graph, inputs, steps = sparse_network()
    whole = Brian2Backend().run(graph, inputs, steps, record=graph.spiking)
    assert_equal(whole, reference(graph, inputs, steps))
    assert set(whole.counting.values()) == {"measured"}
    assert all(count.events.sum() > 100 for count in whole.spikes.values())
    assert whole.spikes["b"].negative.sum() > 0
    assert set(residuals(whole, graph).values()) == {0}

    def with_one_dropped(projection: Projection):
        i, j, w = all_synapses(projection)
        if projection.key != ("b", "c"):
            return i, j, w
        spikes = whole.spikes["b"].events.sum(axis=0)
        drop = int(np.argmax(spikes[i]))
        return np.delete(i, drop), np.delete(j, drop), np.delete(w, drop)

    all_synapses = plan.synapses
    monkeypatch.setattr(plan, "synapses", with_one_dropped)
    broken = Brian2Backend().run(graph, inputs, steps)
    found = residuals(broken, graph)
    assert found.pop(("b", "c")) == -int(broken.spikes["b"].events.sum(axis=0).max())
    assert set(found.values()) == {0}


def test_batches_and_their_size_change_nothing() -> None:
    graph, inputs, steps = sparse_network(images=3)
    whole = Brian2Backend().run(graph, inputs, steps, record=["b"])
    parts = Brian2Backend(batch=2).run(graph, inputs, steps, record=["b"])
    assert_equal(parts, whole)
    assert list(parts.rasters) == ["b"]


def test_current_mode_reports_its_first_projection_as_computed() -> None:
    graph, inputs, steps = sparse_network(images=2)
    result = Brian2Backend().run(graph, inputs, steps, input="current")
    assert_equal(result, reference(graph, inputs, steps, input="current"))
    assert {key for key, how in result.counting.items() if how == "computed"} == {("input", "a")}
    assert result.events["input", "a"].tolist() == [steps * graph.projection("input", "a").connection.nnz] * 2
    assert result.messages["input"].tolist() == [0, 0]
    assert result.messages["a"].tolist() == result.spikes["a"].events.sum(axis=1).tolist()


def test_the_guide_shows_the_code_of_a_synapse_and_the_bound_that_are() -> None:
    guide = (Path(__file__).parents[2] / "docs" / "howto" / "brian2.md").read_text(encoding="utf-8")
    made = plan.Plan(sparse_network()[0], 4, "events", compiled=True)
    between = next(synaptic for synaptic in made.synaptic if synaptic.projection.key == ("a", "b"))
    assert f"```text\n{chr(10).join(between.pathways[0].code)}\n```" in guide
    assert {synaptic.windows for synaptic in made.synaptic} == {0}, "all delays are 0, those of skips too"
    assert f"a bound below 2^{plan.EXACT.bit_length() - 1} is proven first" in guide


def test_result_says_what_made_it() -> None:
    graph, inputs, steps = CASES["single_neuron"]()
    result = Brian2Backend().run(graph, inputs, steps)
    assert (result.backend, result.dtype, result.steps) == ("brian2", "float64", steps)
    assert result.version == load_brian2().__version__
    assert result.wall_seconds.keys() == {"build", "run"}
    assert min(result.wall_seconds.values()) > 0
    assert result.rasters == {}


def amplifier(low: int, high: int) -> SpikingGraph:
    """One readout neuron that adds up input x (2^31 - 1)."""
    weight = CSRConnection.from_scipy(np.array([[2**31 - 1]]))
    return SpikingGraph(
        [
            Population(name="input", shape=(1,), kind="input", value_range=(low, high)),
            Population(name="sum", shape=(1,), kind="readout"),
        ],
        [Projection("input", "sum", weight)],
    )


@pytest.mark.parametrize("mode", ["events", "current"])
@pytest.mark.parametrize("value", [2**20, -(2**20)])
def test_membrane_beyond_the_exact_range_is_an_error(mode: str, value: int) -> None:
    # A step adds 2^51 - 2^20: the fourth image is the first that moves, its third step the first beyond 2^52.
    inputs = np.array([[0], [1], [0], [value], [value]])
    with pytest.raises(MembraneOverflowError, match=r"neuron 0 in population 'sum' reached 2\^52 at image 3, step 2;"):
        Brian2Backend(batch=2).run(amplifier(-(2**20), 2**20), inputs, 4, input=mode)


def test_membrane_that_could_but_does_not_leave_the_exact_range_is_exact() -> None:
    graph, inputs = amplifier(0, 2**20), np.array([[2**17 - 1], [2**18]])
    result = Brian2Backend().run(graph, inputs, 6)
    assert_equal(result, reference(graph, inputs, 6))
    assert result.readout.max() == 6 * 2**18 * (2**31 - 1)


def test_current_beyond_the_exact_range_is_refused() -> None:
    with pytest.raises(
        MembraneOverflowError, match=rf"'sum' can reach {2**22 * (2**31 - 1)} in one step, expected less than 2\^52"
    ):
        Brian2Backend().run(amplifier(0, 2**22), np.array([[1]]), 1)


def test_both_spikes_of_aec_are_counted_where_they_arrive(monkeypatch: pytest.MonkeyPatch) -> None:
    graph, inputs, steps = CASES["aec_skips"]()
    whole = Brian2Backend(batch=2).run(graph, inputs, steps, record=graph.spiking)
    assert_equal(whole, reference(graph, inputs, steps))
    assert set(whole.counting.values()) == {"measured"}
    assert set(residuals(whole, graph).values()) == {0}
    assert all((raster & bit).any() for raster in whole.rasters.values() for bit in (1, 2))
    for name, count in whole.spikes.items():
        assert whole.messages[name].tolist() == count.events.sum(axis=1).tolist()

    # From the last neuron of "a", over two windows, to the readout.
    all_synapses = plan.synapses
    monkeypatch.setattr(plan, "synapses", lambda it: [a[: -1 if it.key == ("a", "readout") else None] for a in all_synapses(it)])
    broken = Brian2Backend().run(graph, inputs, steps)
    found = residuals(broken, graph)
    assert found.pop(("a", "readout")) == -int(broken.spikes["a"].events[:, 1].sum()) < 0
    assert set(found.values()) == {0}


def test_aec_membrane_just_below_a_disabled_threshold_is_exact() -> None:
    weight, value = 2**31 - 1, 2**22
    assert 2**52 < weight * value < 2**53
    populations = [
        aec_input(1, 0, value),
        aec_population("coded", 1, [(2**53, 0), (3, 2)], [(2**53, 0), (weight * value - 3, 5)]),
        aec_readout(1),
    ]
    one, heavy = (CSRConnection.from_scipy(np.array([[w]])) for w in (1, weight))
    graph = SpikingGraph(populations, [Projection("input", "coded", heavy), Projection("coded", "readout", one)])
    inputs = np.array([[value], [value - 1]])
    result = Brian2Backend().run(graph, inputs, 2, record=["coded"])
    assert_equal(result, reference(graph, inputs, 2))
    assert result.rasters["coded"].ravel().tolist() == [0, 3, 0, 1]


def test_expanded_convolutions_count_against_the_limit() -> None:
    graph, inputs, steps = CASES["convolution"]()
    assert Brian2Backend(max_synapses=graph.nnz).check(graph) == []
    with pytest.raises(BackendError, match=rf"found {graph.nnz:,} synapses .* at most max_synapses = {graph.nnz - 1:,}: raise"):
        Brian2Backend(max_synapses=graph.nnz - 1).run(graph, inputs, steps)


def test_bad_settings_are_refused() -> None:
    with pytest.raises(ConfigError, match="found mode 'genn', expected one of 'numpy', 'cython', 'cpp'"):
        Brian2Backend("genn")
    with pytest.raises(ConfigError, match="found max_synapses = 0"):
        Brian2Backend(max_synapses=0)
    with pytest.raises(ConfigError, match="batch = 0"):
        Brian2Backend(batch=0)
    with pytest.raises(ConfigError, match="processes = 0, expected at least 1"):
        Brian2Backend("cpp", processes=0)
    with pytest.raises(ConfigError, match=r"time_limit = 0, expected seconds > 0, or None"):
        Brian2Backend("cpp", time_limit=0)


def test_bad_inputs_are_refused() -> None:
    graph, inputs, steps = CASES["single_neuron"]()
    with pytest.raises(GraphError, match=r"found values 0\.\.9"):
        Brian2Backend().run(graph, inputs + inputs // 8, steps)
    with pytest.raises(BackendError, match="found steps = 0"):
        Brian2Backend().run(graph, inputs, 0)


def test_missing_package_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "brian2", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'sparsespike\[brian2\]'"):
        Brian2Backend()


def test_preferences_of_the_program_are_neither_used_nor_changed() -> None:
    b2 = load_brian2()
    before = b2.prefs.core.default_float_dtype, b2.prefs.codegen.target
    b2.prefs.core.default_float_dtype, b2.prefs.codegen.target = np.float32, "cython"
    try:
        graph, inputs, steps = CASES["wide_weights"]()
        assert_equal(Brian2Backend().run(graph, inputs, steps), reference(graph, inputs, steps))
        assert (b2.prefs.core.default_float_dtype, b2.prefs.codegen.target) == (np.float32, "cython")
    finally:
        b2.prefs.core.default_float_dtype, b2.prefs.codegen.target = before


def test_cython_without_a_compiler_is_one_clear_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    b2 = load_brian2()
    for variable in ("CC", "CXX"):
        monkeypatch.setenv(variable, "false")
    before = b2.prefs.codegen.runtime.cython.cache_dir
    b2.prefs.codegen.runtime.cython.cache_dir = str(tmp_path)
    try:
        with pytest.raises(BackendError, match=r"'brian2-cython': Brian2 failed \((.|\n)*'false'(.|\n)*it needs a C\+\+"):
            Brian2Backend("cython").run(*CASES["single_neuron"]())
    finally:
        b2.prefs.codegen.runtime.cython.cache_dir = before


@pytest.mark.full
@pytest.mark.parametrize("name", ["signed_memory", "aec_two_digits"])
def test_cython_equals_the_reference(name: str) -> None:
    """Takes a minute or two a case the first time; the code is kept in Brian2's own cache."""
    assert check_conformance(Brian2Backend("cython", batch=2), {name: CASES[name]}) == {}


def test_another_device_of_the_program_is_an_error() -> None:
    b2 = load_brian2()
    b2.set_device("cpp_standalone", build_on_run=False)
    try:
        with pytest.raises(BackendError, match=r"has called brian2\.set_device, expected Brian2's runtime device"):
            Brian2Backend().run(*CASES["single_neuron"]())
    finally:
        b2.set_device("runtime")


def test_import_leaves_the_process_as_it_was(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    folder = tmp_path / "temporary"
    folder.mkdir()
    program.write_text(
        "import logging, os, sys, warnings\n"
        "before = sys.excepthook, warnings.showwarning\n"
        "from sparsespike.backends.brian2 import Brian2Backend\n"
        "assert 'brian2' not in sys.modules\n"
        "Brian2Backend()\n"
        "assert 'brian2' in sys.modules\n"
        "assert (sys.excepthook, warnings.showwarning) == before\n"
        f"assert os.listdir({str(folder)!r}) == []\n"
    )
    command = [sys.executable, "-W", "ignore", str(program)]
    done = subprocess.run(command, env={"TMPDIR": str(folder)}, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    assert list(folder.iterdir()) == []


def test_counts_that_begin_again_at_the_end_of_32_bits_lose_nothing() -> None:
    added = np.array([[0, 2**31 - 1], [7, 1], [2**31 - 1, 2**31 - 1], [2**31 - 1, 0], [2**31 - 1, 5]])
    so_far = np.cumsum(added, axis=0).astype(np.uint32).view(np.int32)
    assert so_far.min() < 0
    np.testing.assert_array_equal(_differences(so_far), added)
    np.testing.assert_array_equal(_differences(np.cumsum(added, axis=0).astype(np.float64)), added)
