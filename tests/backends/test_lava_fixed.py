"""The fixed-point models of the Lava backend: equal to the reference, in Loihi's words, and never out of range unnoticed."""

import json
import subprocess

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from sparsespike.backends.lava import LavaBackend, Run
from sparsespike.backends.lava.environment import lava_python
from sparsespike.backends.lava.fixed import (
    PROGRAMMED,
    STOCK,
    WORD_LIMIT,
    distinct_weights,
    fixed_layout,
    is_bias,
    round_biases,
    weight_exponent,
)
from sparsespike.backends.registry import get_backend
from sparsespike.backends.testing import CASES, assert_equal, reference
from sparsespike.backends.testing.aec_cases import aec_input, aec_population, aec_readout
from sparsespike.backends.testing.strategies import aec_graphs, convolutions, even_if_leaky, graphs
from sparsespike.common.errors import BackendError, ConfigError, MembraneOverflowError
from sparsespike.export.connections import CSRConnection
from sparsespike.export.graph import Population, Projection, SpikingGraph
from sparsespike.export.population import NEVER

FIXED = LavaBackend(model="fixed_pt")


def recorded(case, input="events"):
    return Run(graph=case.graph, inputs=case.inputs, steps=case.steps, record=case.graph.spiking, input=input)


def assert_reference(run, result):
    assert_equal(result, reference(run.graph, run.inputs, run.steps, input=run.input))
    assert sorted(result.rasters) == sorted(run.graph.spiking)
    assert (result.backend, result.dtype) == ("lava-fixed", "int32")


def test_directed_cases():
    cases = {name: make() for name, make in CASES.items()}
    assert [name for name, case in cases.items() if FIXED.check(case.graph)] == ["wide_weights", "lif_wide"]
    del cases["wide_weights"], cases["lif_wide"]
    runs = [recorded(case, ("events", "current")[i % 2]) for i, case in enumerate(cases.values())]
    for run, result in zip(runs, FIXED.run_many(runs), strict=True):
        assert_reference(run, result)


@settings(
    max_examples=1,
    deadline=None,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(
    st.lists((graphs() | convolutions()).map(even_if_leaky) | aec_graphs(), min_size=12, max_size=14),
    st.lists(st.sampled_from(("events", "current")), min_size=14, max_size=14),
)
def test_random_graphs(cases, modes):
    runs = [recorded(case, mode) for case, mode in zip(cases, modes, strict=False)]
    for run, result in zip(runs, FIXED.run_many(runs), strict=True):
        assert_reference(run, result)


def chain(weights, *, inputs=255, **hidden):
    """Input -> hidden (kind if, unless it is given otherwise) -> readout, all of one neuron but the input."""
    weights = np.asarray(weights, np.int64)
    population = Population(name="hidden", shape=(1,), kind="if", **({"threshold": np.array([2])} | hidden))
    return SpikingGraph(
        [
            Population(name="input", shape=(len(weights),), kind="input", value_range=(-inputs, inputs)),
            population,
            Population(name="readout", shape=(1,), kind="readout"),
        ],
        [
            Projection("input", "hidden", CSRConnection.from_scipy(weights[:, None])),
            Projection("hidden", "readout", CSRConnection.from_scipy([[1]])),
        ],
    )


@pytest.mark.parametrize(
    ("weights", "shift", "exponent"),
    [
        ([1, 3, 255], 0, 0),  # of one sign: 8 bits, odd ones too
        ([-255, -1], 0, 0),
        ([-256, 2, 254], 0, 0),  # of both: even ones only
        ([-128, 1, 127], 1, 0),  # odd ones of both signs are doubled, with their membrane
        ([-128, 1, 128], None, None),
        ([-512, 4, 508], 0, 1),
        ([510, 2], 0, 1),
        ([510, 1], None, None),
        ([255 * 8, 8], 0, 3),
        ([257], None, None),
        ([2**13 * 255], 0, 13),
        ([2**14 * 255], None, None),
    ],
)
def test_layout_of_weights(weights, shift, exponent):
    graph = chain(weights)
    layout, reasons = fixed_layout(graph)
    if shift is None:
        (reason,) = reasons
        assert reason.startswith(f"projection 'input' -> 'hidden' has weights {min(weights)}..{max(weights)}, expected mantissas")
        return
    assert reasons == []
    assert (layout.shifts["hidden"], layout.exponents["input", "hidden"]) == (shift, exponent)


@settings(deadline=None)
@given(
    st.lists(st.integers(-300, 300).filter(bool), min_size=1, max_size=3),
    st.integers(0, 14),
    st.integers(0, 7),
    st.sampled_from((PROGRAMMED, STOCK)),
)
def test_weight_exponent_against_all_mantissas(values, power, shift, format):
    values = np.array(values) << power
    low, high, step = (-256, 254, 2) if min(values) < 0 < max(values) else (-255, 255, 1)
    possible = [
        exponent
        for exponent in format.exponents
        if {int(w) << shift for w in values} <= {m << exponent for m in range(low, high + 1, step)}
    ]
    connection = CSRConnection.from_scipy(values[:, None])
    assert weight_exponent(distinct_weights(connection), shift, format.exponents) == min(possible, default=None)


def test_biases_against_all_mantissas():
    values = np.arange(-9000, 9000)
    for shift in range(8):
        registers = {mantissa << exponent for mantissa in range(-4096, 4096) for exponent in range(8)}
        assert is_bias(values, shift).tolist() == [int(value) << shift in registers for value in values]
    assert not is_bias(np.array([2**60, -(2**60)]), 0).any()


@settings(deadline=None)
@given(st.lists(st.integers(-300_000, 300_000), min_size=1, max_size=5), st.booleans())
def test_rounded_biases_are_the_nearest(biases, odd):
    values = np.array(biases)
    ones = np.ones((len(values), 1), int)
    hidden = Population(name="hidden", shape=values.shape, kind="if", threshold=np.full(len(values), 2), bias=values)
    ends = chain([-1, 1] if odd else [1])
    projections = [
        Projection("input", "hidden", CSRConnection.from_scipy(np.tile([[-1], [1]] if odd else [[1]], len(values)))),
        Projection("hidden", "readout", CSRConnection.from_scipy(ones)),
    ]
    graph = SpikingGraph([ends.input, hidden, ends.readout], projections)
    words = np.array(sorted({mantissa << exponent for mantissa in range(-4096, 4096) for exponent in range(8)}))
    possible = words[words % (1 + odd) == 0] // (1 + odd)
    if values.max() > possible.max() + 32 or values.min() < possible.min() - 32:
        with pytest.raises(BackendError, match="round_biases: population 'hidden' has a bias of"):
            round_biases(graph)
        return
    rounded = round_biases(graph)
    assert fixed_layout(rounded)[1] == []
    distance = np.abs(rounded.population("hidden").bias - values)
    assert distance.tolist() == [int(np.abs(possible - value).min()) for value in values]


def test_lava_itself_leaves_the_mantissas_as_they_are():
    rng = np.random.default_rng(5)
    rows = [rng.integers(-127, 128, 50), 2 * rng.integers(-128, 128, 50), rng.integers(1, 256, 50), rng.integers(-255, 0, 50)]
    found = []
    for weights in rows:
        graph = chain(weights[weights != 0])
        layout, reasons = fixed_layout(graph)
        assert reasons == []
        found.append(layout.mantissas(graph, ("input", "hidden")).values.tolist())
    code = (
        "import sys, json, scipy.sparse as sp; from lava.utils.weightutils import *\n"
        "for row in json.load(sys.stdin):\n"
        "    matrix = sp.csr_matrix([row]); mode = determine_sign_mode(matrix.data)\n"
        "    print(truncate_weights(clip_weights(matrix, mode, num_bits=8), mode, 8).toarray()[0].tolist())"
    )
    done = subprocess.run([lava_python(), "-c", code], input=json.dumps(found), capture_output=True, text=True, check=True)
    assert [json.loads(line) for line in done.stdout.splitlines()] == found


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        (
            {"threshold": np.array([2**23])},
            r"population 'hidden' has a threshold of 8388608, expected at most 8388607 \(23 bits\)",
        ),
        ({"v_init": np.array([-(2**23)])}, r"population 'hidden' starts with a membrane of 8388608, expected at most 8388607"),
        (
            {"bias": np.array([-4097])},
            r"population 'hidden' has a bias of -4097, expected a mantissa of 13 .* up to 524160; round",
        ),
        (
            {"bias": np.array([2**19])},
            r"population 'hidden' has a bias of 524288, expected a mantissa of 13 .* up to 524160; round",
        ),
        ({"inputs": 2**23}, r"population 'input' emits values up to 8388608, expected at most 8388607"),
    ],
)
def test_what_does_not_fit_is_refused(fields, reason):
    graph = chain([1, 255], **fields)
    with pytest.raises(BackendError, match=f"backend 'lava-fixed' cannot run this graph: {reason}"):
        FIXED.run(graph, np.zeros((1, 2), np.int64), 1)
    assert LavaBackend().check(graph) == []


def test_injected_currents_that_fit_no_bias_register_are_refused():
    with pytest.raises(BackendError, match=r"'hidden', image 1, neuron 0: .* are 4097 together, .* input='events'"):
        FIXED.run(chain([1, 255], bias=np.array([3])), np.array([[255, 0], [14, 16]]), 5, input="current")


def falling(steps):
    """A membrane that comes to the lowest word in a number of steps."""
    return chain([-1], v_init=np.array([-(2**23) + 1 + steps]))


def test_a_membrane_out_of_range_names_population_image_and_step():
    with pytest.raises(MembraneOverflowError) as caught:
        FIXED.run(falling(4), np.array([[0], [1], [0]]), 5)
    assert str(caught.value).startswith(
        "backend 'lava-fixed': population 'hidden', image 1, local step 4: the membrane of neuron 0 is the word "
        f"{-(2**23)}, expected at most {WORD_LIMIT} (24 bits with the sign); convert with fewer bits"
    )


def test_runs_just_inside_the_ranges():
    full = chain([1, 255], bias=np.array([3]))
    silent = chain([2**11], threshold=np.array([NEVER]))  # 20 times its current leaves 24 bits, and nobody can see it
    runs = [
        Run(graph=falling(4), inputs=np.array([[1]]), steps=4),
        Run(graph=full, inputs=np.array([[255, 0], [3, 16], [14, 16]]), steps=5),
        Run(graph=full, inputs=np.array([[255, 0], [3, 16], [13, 16]]), steps=5, input="current"),
        Run(graph=silent, inputs=np.array([[255], [-255]]), steps=20),
        Run(graph=late_decoding(), inputs=np.array([[1], [0]]), steps=2),
    ]
    for run, result in zip(runs, FIXED.run_many(runs), strict=True):
        assert_equal(result, reference(run.graph, run.inputs, run.steps, input=run.input))


def test_a_current_out_of_range_names_the_projection_and_is_not_wrapped_before():
    graph = chain([255, 255], inputs=2**23 - 1)
    inputs = np.array([[0, 0], [2**23 - 1, 2**23 - 1]])  # 32 bits hold no such sum
    with pytest.raises(MembraneOverflowError, match=r"projection 'input' -> 'hidden', image 1, local step 0: .* word 4278189570"):
        FIXED.run(graph, inputs, 2)


def test_currents_that_are_too_large_together_name_the_population():
    gate = Population(name="gate", shape=(1,), kind="if", threshold=np.array([2]), bias=np.array([2]))
    graph = chain([255])
    projections = [
        *graph.projections,
        Projection("input", "gate", CSRConnection.from_scipy([[1]])),
        Projection("gate", "hidden", CSRConnection.from_scipy([[255]])),
    ]
    graph = SpikingGraph([graph.input, gate, *graph.populations[1:]], projections)
    value = (2**23 - 1) // 255
    wide = SpikingGraph(
        [Population(name="input", shape=(1,), kind="input", value_range=(0, value)), *graph.populations[1:]], projections
    )
    word = 255 * value + 255
    with pytest.raises(
        MembraneOverflowError, match=rf"population 'hidden', image 0, local step 0: the current of neuron 0 is the word {word}"
    ):
        FIXED.run(wide, np.array([[value]]), 1)


def late_decoding():
    """A primary spike in slot 0 and a compensation in slot 1, each of which a word holds, and the sum of both does not."""
    slots = ((1, 30000), (NEVER, 0)), ((NEVER, 0), (1, 30000))
    return SpikingGraph(
        [aec_input(1), aec_population("a", 1, *slots), aec_population("b", 1, *slots), aec_readout(1)],
        [
            Projection("input", "a", CSRConnection.from_scipy([[1]])),
            Projection("a", "b", CSRConnection.from_scipy([[255]])),
            Projection("b", "readout", CSRConnection.from_scipy([[1]])),
        ],
    )


def test_the_sum_of_a_decode_window_is_checked():
    with pytest.raises(
        MembraneOverflowError, match="'b', image 1, local step 1: the sum of the decode window of neuron 0 is the word 15300000"
    ):
        FIXED.run(late_decoding(), np.array([[1], [2], [0]]), 2)


def test_names():
    assert get_backend("lava-fixed").name == "lava-fixed"
    assert (get_backend("lava").name, LavaBackend().name, FIXED.name) == ("lava", "lava", "lava-fixed")
    with pytest.raises(ConfigError, match="found model = 'double', expected 'floating_pt' or 'fixed_pt'"):
        LavaBackend(model="double")
