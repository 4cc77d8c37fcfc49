"""The Lava backend against the reference: equal rasters, spikes, events and readout."""

import subprocess
import sys
import venv
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from sparsespike.backends.lava import LavaBackend, Run, job
from sparsespike.backends.lava.clock import Clock
from sparsespike.backends.testing import CASES, assert_equal, check_conformance, reference
from sparsespike.backends.testing.aec_cases import aec_input, aec_population, aec_readout
from sparsespike.backends.testing.strategies import aec_graphs, convolutions, graphs
from sparsespike.common.errors import BackendError, ConfigError, MembraneOverflowError, MissingExtraError
from sparsespike.export.connections import Conv2dConnection, CSRConnection
from sparsespike.export.graph import Population, Projection, SpikingGraph

MODES = ("events", "current")


def recorded(case, input="events"):
    return Run(graph=case.graph, inputs=case.inputs, steps=case.steps, record=case.graph.spiking, input=input)


def assert_reference(run, result):
    assert_equal(result, reference(run.graph, run.inputs, run.steps, input=run.input))
    assert sorted(result.rasters) == sorted(run.graph.spiking)
    first = "measured" if run.input == "events" else "computed"
    assert result.counting == {(pre, post): first if pre == run.graph.input.name else "measured" for pre, post in result.events}


@pytest.fixture(scope="module")
def conformance():
    runs = {(name, mode): recorded(make(), mode) for name, make in CASES.items() for mode in MODES}
    return {
        key: (run, result) for (key, run), result in zip(runs.items(), LavaBackend().run_many(list(runs.values())), strict=True)
    }


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", CASES)
def test_directed_case(conformance, name, mode):
    assert_reference(*conformance[name, mode])


def test_public_conformance_suite():
    assert check_conformance(LavaBackend(), {"signed_memory": CASES["signed_memory"]}) == {}


@settings(
    max_examples=2,
    deadline=None,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(st.lists(graphs() | aec_graphs() | convolutions(), min_size=12, max_size=14), st.randoms(use_true_random=False))
def test_random_graphs(cases, random):
    runs = [recorded(case, random.choice(MODES)) for case in cases]
    for run, result in zip(runs, LavaBackend().run_many(runs), strict=True):
        assert_reference(run, result)


def busy_case():
    """Two hidden populations that fire from their bias alone, a skip, both resets, and 11 images."""
    rng = np.random.default_rng(3)
    sizes = {"input": 20, "a": 15, "b": 12, "readout": 3}

    def fires(name, **fields):
        n = sizes[name]
        arrays = {"threshold": np.full(n, 40), "v_init": np.full(n, 20), "bias": rng.integers(0, 12, n)}
        return Population(name=name, shape=(n,), **arrays, **fields)

    populations = [
        Population(name="input", shape=(20,), kind="input", value_range=(0, 7)),
        fires("a", kind="if", reset="zero"),
        fires("b", kind="signed_if", threshold_neg=np.full(12, 2)),
        Population(name="readout", shape=(3,), kind="readout"),
    ]
    projections = [
        Projection(pre, post, CSRConnection.from_scipy(rng.integers(-largest, largest + 1, (sizes[pre], sizes[post]))))
        for pre, post, largest in (("input", "a", 6), ("a", "b", 40), ("input", "b", 1), ("b", "readout", 9), ("a", "readout", 9))
    ]
    return SpikingGraph(populations, projections), rng.integers(0, 8, (11, 20)), 9


def busy_aec_case():
    """All skips of a chain, and 11 images."""
    graph, _, steps = CASES["aec_skips"]()
    return graph, np.random.default_rng(4).integers(-3, 10, (11, 2)), steps


@pytest.mark.parametrize("block", [1, 4])
@pytest.mark.parametrize("make", [busy_case, busy_aec_case])
def test_images_in_several_blocks(monkeypatch, make, block):
    graph, inputs, steps = make()
    runs = [Run(graph=graph, inputs=inputs, steps=steps, record=graph.spiking, input=mode) for mode in MODES]
    whole = job.describe(graph, inputs, steps, frozenset(), "current")
    per_image = job.CHANNEL_SLOTS * sum(
        4 * whole.populations[p.pre].size + 8 * whole.populations[p.post].size for p in whole.projections
    )
    monkeypatch.setattr(job, "CHANNEL_BYTES", per_image * block)
    assert job.describe(graph, inputs, steps, frozenset(), "current").block == block  # 11 images: blocks of 4, 4 and 3
    results = LavaBackend().run_many(runs)
    for run, result in zip(runs, results, strict=True):
        assert_reference(run, result)
    fired = {int(code) for raster in results[0].rasters.values() for code in np.unique(raster)}
    assert fired == ({0, 1, 3} if graph.slots else {-1, 0, 1})


def test_network_that_falls_apart_without_its_input():
    def fires(name):
        return Population(name=name, shape=(2,), kind="if", threshold=np.array([4, 6]), v_init=np.array([2, 3]))

    sizes = {"input": 1, "a": 2, "b": 2, "c": 2, "readout": 1}
    graph = SpikingGraph(
        [
            Population(name="input", shape=(1,), kind="input", value_range=(0, 9)),
            fires("a"),
            fires("b"),
            fires("c"),
            Population(name="readout", shape=(1,), kind="readout"),
        ],
        [
            Projection(pre, post, CSRConnection.from_scipy(np.full((sizes[pre], sizes[post]), weight)))
            for pre, post, weight in (("input", "a", 3), ("a", "readout", 2), ("input", "b", 1), ("b", "c", 5))
        ],
    )
    run = Run(graph=graph, inputs=np.array([[1], [2]]), steps=6, record=graph.spiking, input="current")
    assert_reference(run, *LavaBackend().run_many([run]))


def test_dropping_a_synapse_inside_the_backend_shows(monkeypatch):
    graph, inputs, steps = busy_case()
    key = ("a", "b")
    whole = job.synapse_arrays

    def one_less(label, connection):
        arrays = whole(label, connection)
        if connection is not graph.projection(*key).connection:
            return arrays
        pointers, indices, values = arrays.values()  # neuron 0 loses its first synapse
        kept = (pointers - (np.arange(len(pointers)) > 0), indices[1:], values[1:])
        return dict(zip(arrays, kept, strict=True))

    def residual(result):
        return result.events[key] - result.spikes["a"].events @ graph.projection(*key).connection.fan_out

    intact = LavaBackend().run(graph, inputs, steps)
    assert not residual(intact).any()
    monkeypatch.setattr(job, "synapse_arrays", one_less)
    dropped = LavaBackend().run(graph, inputs, steps)
    assert np.array_equal(residual(dropped), -dropped.spikes["a"].events[:, 0])
    assert residual(dropped).any()


def wide_chain(weight):
    """A neuron whose membrane reaches 2 * 3 * weight in two steps with input 3."""
    hidden = Population(name="hidden", shape=(1,), kind="if", threshold=np.array([2**53]))
    populations = [
        Population(name="input", shape=(2**20,), kind="input", value_range=(0, 3)),
        hidden,
        Population(name="readout", shape=(1,), kind="readout"),
    ]
    weights = CSRConnection.from_scipy(np.full((2**20, 1), weight))
    projections = [Projection("input", "hidden", weights), Projection("hidden", "readout", CSRConnection.from_scipy([[1]]))]
    return SpikingGraph(populations, projections), np.full((1, 2**20), 3)


def test_graph_beyond_exact_range_is_refused():
    graph, inputs = wide_chain(2**31 - 1)
    with pytest.raises(MembraneOverflowError, match=rf"population 'hidden' can reach {2 * 3 * 2**20 * (2**31 - 1)} .* 2\^53"):
        LavaBackend().run(graph, inputs, 2)


def test_membranes_just_inside_the_exact_range_are_exact():
    big = 2**31 - 1
    readout = Population(name="readout", shape=(1,), kind="readout", v_init=np.array([2**52 + 1]), bias=np.array([-3]))
    graph = SpikingGraph(
        [Population(name="input", shape=(2,), kind="input", value_range=(0, 255)), readout],
        [Projection("input", "readout", CSRConnection.from_scipy([[big], [-1]]))],
    )
    inputs = np.array([[255, 254], [1, 0]])
    assert_equal(LavaBackend().run(graph, inputs, 40), reference(graph, inputs, 40))


def test_the_largest_payloads_are_exact():
    payload = 2**31 - 1
    coded = aec_population("coded", 2, ((3, payload), (1, 1)), ((2, payload - 2), (1, 2)))
    projections = [
        Projection("input", "coded", CSRConnection.from_scipy([[1, 2]])),
        Projection("coded", "readout", CSRConnection.from_scipy([[3], [-1]])),
    ]
    graph = SpikingGraph([aec_input(1), coded, aec_readout(1)], projections)
    inputs = np.arange(7)[:, None]
    result = LavaBackend().run(graph, inputs, 2)
    assert_equal(result, reference(graph, inputs, 2))
    assert result.readout.max() == 4 * (payload - 1)


def test_too_many_synapses_are_refused_before_they_are_expanded():
    wide = Conv2dConnection(np.ones((64, 64, 3, 3), np.int32), (64, 64, 64), padding=(1, 1))
    graph = SpikingGraph(
        [
            Population(name="input", shape=(64, 64, 64), kind="input", value_range=(0, 1)),
            Population(name="readout", shape=(64, 64, 64), kind="readout"),
        ],
        [Projection("input", "readout", wide)],
    )
    with pytest.raises(BackendError, match=rf"backend 'lava' cannot run .* found {wide.nnz:,} synapses .* raise max_syn"):
        LavaBackend().run(graph, np.zeros((1, 64**3), np.int64), 1)
    assert LavaBackend(max_synapses=wide.nnz).check(graph) == []
    with pytest.raises(ConfigError, match="backend 'lava': found max_synapses = 0"):
        LavaBackend(max_synapses=0)


def test_missing_package_names_the_extra(tmp_path):
    venv.create(tmp_path / "bare", with_pip=False, symlinks=True)
    backend = LavaBackend(python=str(tmp_path / "bare" / "bin" / "python"))
    graph, inputs, steps = CASES["tie"]()
    (reason,) = backend.check(graph)
    assert "'lava-nc' is not installed" in reason
    assert "pip install 'sparsespike[lava]'" in reason
    assert "Python 3.10" in reason
    with pytest.raises(MissingExtraError, match="lava-nc"):
        backend.run(graph, inputs, steps)


@pytest.mark.parametrize("python", ["/nowhere/python", "/bin/true"])
def test_not_an_interpreter(python):
    graph, inputs, steps = CASES["tie"]()
    with pytest.raises(ConfigError, match=f"{python} does not run as a Python interpreter"):
        LavaBackend(python=python).run(graph, inputs, steps)


def test_caller_never_imports_lava():
    code = (
        "import sys; from sparsespike.backends.lava import LavaBackend; from sparsespike.backends.testing import CASES; "
        "LavaBackend().run(*CASES['tie']()); print(sorted({'lava', 'torch', 'numba'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_shared_memory_too_small_for_one_image_is_refused():
    huge = 2**40
    populations = [
        replace(job.PopulationJob("a", "if", 1, 0, True, False, False, True), size=huge),
        job.PopulationJob("b", "if", 1, 1, True, False, False, True),
    ]
    with pytest.raises(BackendError, match="one image needs 8388608 MiB of shared memory"):
        job.block_size(1, populations, [job.ProjectionJob(0, 1, 1, 0)], current_bytes=8)


@given(st.integers(1, 5), st.integers(1, 9), st.integers(1, 9), st.integers(0, 4), st.integers(0, 9))
def test_clock_takes_every_step_of_every_image_once_and_in_order(steps, images, block, start, first):
    clock = Clock(steps, images, block, start, first)
    windows = [clock.window(time_step) for time_step in range(1, clock.last + 5)]
    taken = [(image, w.step) for w in windows if w is not None for image in range(w.first, w.first + w.rows)]
    numbers = range(first, first + images)
    assert sorted(taken) == [(image, step) for image in numbers for step in range(steps)]
    for image in numbers:
        assert [step for i, step in taken if i == image] == list(range(steps))
    assert [w is None for w in windows[:start]] == [True] * start
    shallow = replace(clock, start=0)
    assert windows[start:] == [shallow.window(t) for t in range(1, clock.last + 5 - start)]
