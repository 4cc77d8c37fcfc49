"""A network in one Lava process gives what a chain of processes gives: the reference's results, and its errors."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from sparsespike.backends.lava import LavaBackend, Run, job
from sparsespike.backends.testing import CASES, assert_equal, reference
from sparsespike.backends.testing.strategies import aec_graphs, convolutions, even_if_leaky, graphs
from sparsespike.common.errors import BackendError, ConfigError, MembraneOverflowError
from sparsespike.export.connections import CSRConnection
from sparsespike.export.graph import Population, Projection, SpikingGraph

MODELS = ("floating_pt", "fixed_pt")


def recorded(case, input="events"):
    return Run(graph=case.graph, inputs=case.inputs, steps=case.steps, record=case.graph.spiking, input=input)


def assert_reference(run, result):
    assert_equal(result, reference(run.graph, run.inputs, run.steps, input=run.input))
    assert sorted(result.rasters) == sorted(run.graph.spiking)
    first = "measured" if run.input == "events" else "computed"
    assert result.counting == {(pre, post): first if pre == run.graph.input.name else "measured" for pre, post in result.events}


@pytest.mark.parametrize("model", MODELS)
def test_directed_cases(model):
    backend = LavaBackend(model=model, shape="fused")
    cases = [make() for name, make in CASES.items() if model == "floating_pt" or name not in ("wide_weights", "lif_wide")]
    runs = [recorded(case, ("events", "current")[(i + (model == "fixed_pt")) % 2]) for i, case in enumerate(cases)]
    for run, result in zip(runs, backend.run_many(runs), strict=True):
        assert_reference(run, result)


@settings(
    max_examples=1,
    deadline=None,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(
    st.lists((graphs() | convolutions()).map(even_if_leaky) | aec_graphs(), min_size=16, max_size=16),
    st.lists(st.sampled_from(("events", "current")), min_size=16, max_size=16),
    st.sampled_from(MODELS),
)
def test_random_graphs(cases, modes, model):
    runs = [recorded(case, mode) for case, mode in zip(cases, modes, strict=True)]
    for run, result in zip(runs, LavaBackend(model=model, shape="fused").run_many(runs), strict=True):
        assert_reference(run, result)


def test_images_in_several_blocks(monkeypatch):
    rng = np.random.default_rng(9)
    monkeypatch.setattr(job, "FUSED_BLOCK", 4)
    runs = []
    for name, low, high in (("skips", 0, 4), ("aec_skips", -3, 10), ("signed_memory", 0, 3)):
        graph, _, steps = CASES[name]()
        inputs = rng.integers(low, high, (11, graph.input.size))
        assert job.describe(graph, inputs, steps, frozenset(), "events", shape="fused").block == 4  # blocks of 4, 4 and 3
        runs.append(Run(graph=graph, inputs=inputs, steps=steps, record=graph.spiking))
    for run, result in zip(runs, LavaBackend(shape="fused").run_many(runs), strict=True):
        assert_reference(run, result)


@pytest.mark.parametrize(
    ("array", "broken", "message"),
    [
        ("population/1/bias", np.ones(7), r"population 'hidden', Lava time step 2 failed: ValueError"),
        ("projection/1/indices", np.zeros(1, np.int64), r"projection 'hidden' -> 'readout', Lava time step 2 failed: TypeError"),
    ],
)
def test_exception_names_the_part_that_failed(array, broken, message):
    graph, inputs, steps = CASES["single_neuron"]()
    whole = job.describe(graph, inputs, steps, frozenset(), "events", shape="fused")
    with pytest.raises(BackendError, match=f"backend 'lava': {message}"):
        LavaBackend().execute([replace(whole, arrays={**whole.arrays, array: broken})])


def test_word_that_overflows_is_named():
    graph = SpikingGraph(
        [
            Population(name="input", shape=(1,), kind="input", value_range=(0, 1)),
            Population(name="hidden", shape=(1,), kind="if", threshold=np.array([2]), v_init=np.array([-(2**23) + 5])),
            Population(name="readout", shape=(1,), kind="readout"),
        ],
        [
            Projection("input", "hidden", CSRConnection.from_scipy([[-1]])),
            Projection("hidden", "readout", CSRConnection.from_scipy([[1]])),
        ],
    )
    with pytest.raises(
        MembraneOverflowError, match="backend 'lava-fixed': population 'hidden', image 1, local step 4: the membrane"
    ):
        LavaBackend(model="fixed_pt", shape="fused").run(graph, np.array([[0], [1]]), 5)


def test_dropping_a_synapse_inside_the_process_shows(monkeypatch):
    graph, inputs, steps = CASES["signed_memory"]()
    key = ("early", "signed")
    whole = job.synapse_arrays

    def one_less(label, connection):
        arrays = whole(label, connection)
        if connection is not graph.projection(*key).connection:
            return arrays
        pointers, indices, values = arrays.values()  # neuron 0 loses its first synapse
        kept = (pointers - (np.arange(len(pointers)) > 0), indices[1:], values[1:])
        return dict(zip(arrays, kept, strict=True))

    monkeypatch.setattr(job, "synapse_arrays", one_less)
    result = LavaBackend(shape="fused").run(graph, inputs, steps)
    residual = result.events[key] - result.spikes["early"].events @ graph.projection(*key).connection.fan_out
    assert np.array_equal(residual, -result.spikes["early"].events[:, 0])
    assert residual.any()


def test_unknown_shape():
    with pytest.raises(ConfigError, match="found shape = 'ring', expected 'chain' or 'fused'"):
        LavaBackend(shape="ring")
