"""Kind lif: decay by hand and in closed form, bounds and file, and equality with Lava's own LIF."""

from __future__ import annotations

import json
import math
import subprocess
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsespike.backends.brian2 import Brian2Backend
from sparsespike.backends.compare import first_divergence
from sparsespike.backends.lava import LavaBackend, Run
from sparsespike.backends.lava.environment import lava_python
from sparsespike.backends.lava.fixed import fixed_layout
from sparsespike.backends.native import NativeBackend
from sparsespike.backends.testing import CASES, Case, reference
from sparsespike.backends.testing.lif_cases import lif_population
from sparsespike.backends.testing.strategies import graphs
from sparsespike.common.errors import BackendError, GraphError, GraphFileError, MembraneOverflowError
from sparsespike.export.bounds import bounds
from sparsespike.export.connections import CSRConnection
from sparsespike.export.graph import Population, Projection, SpikingGraph
from sparsespike.export.graphfile import load_graph, save_graph
from sparsespike.export.population import decayed
from sparsespike.export.schema import FORMAT_VERSION


def one_layer(leaky: Population, weights: list[list[int]], value_range: tuple[int, int] = (0, 255)) -> SpikingGraph:
    """Input -> leaky -> readout, which adds up each neuron's spikes."""
    populations = [
        Population(name="input", shape=(len(weights),), kind="input", value_range=value_range),
        leaky,
        Population(name="readout", shape=leaky.shape, kind="readout"),
    ]
    count = CSRConnection.from_scipy(np.eye(leaky.size, dtype=np.int64))
    first = CSRConnection.from_scipy(np.array(weights))
    return SpikingGraph(populations, [Projection("input", leaky.name, first), Projection(leaky.name, "readout", count)])


@given(st.integers(-(2**53), 2**53), st.integers(0, 4096))
def test_decay_is_the_exact_product_rounded_toward_zero(value: int, decay: int) -> None:
    expected = math.trunc(Fraction(value) * (4096 - decay) / 4096)
    for dtype in (np.int64, np.float64):
        assert int(decayed(np.array([value], dtype), np.array([decay]))[0]) == expected


def test_halving_by_hand() -> None:
    """Threshold 112, x = 64: membranes 64, 96, 112 (fires, to 0), and again."""
    result = reference(*CASES["lif_halving"]())
    assert result.integrated["hidden"][0, :7, 1].tolist() == [64, 96, 112, 64, 96, 112, 64]
    # 63 + floor(63 / 2) = 94, 63 + 47 = 110, 63 + 55 = 118: one step later than 64.
    assert result.integrated["hidden"][1, :5, 1].tolist() == [63, 94, 110, 118, 63]
    # The limit is 2 x - 1: 127 is reached, 128 never, however long.
    assert result.spikes["hidden"].positive[0].tolist() == [6, 4, 3, 1, 0]


def test_subtraction_leaves_what_is_above_the_threshold() -> None:
    leaky = lif_population("leaky", [6], [2048], reset="subtract")
    result = reference(one_layer(leaky, [[5]]), np.array([[1]]), 6)
    # 5; 2 + 5 = 7, fires, 1; 0 + 5; 2 + 5 = 7 ...
    assert result.membranes["leaky"][0, :, 0].tolist() == [5, 1, 5, 1, 5, 1]


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 60), st.integers(0, 12), st.integers(0, 4), st.integers(1, 5))
def test_geometric_series_of_powers_of_two(x: int, zeros: int, steps: int, shift: int) -> None:
    """With decay 4096 / 2^k and no rounding, v after step t is ``x (1 - q^(t+1)) / (1 - q)``, q = 1 - 2^-k."""
    value = x << (zeros + shift * steps)  # q^steps times it is an integer
    leaky = lif_population("leaky", [2**40], [4096 >> shift])
    graph = one_layer(leaky, [[1]], (0, 2**31 - 1))
    if value >= 2**31:
        return
    q = 1 - Fraction(1, 2**shift)
    expected = [value * (1 - q ** (t + 1)) / (1 - q) for t in range(steps + 1)]
    found = reference(graph, np.array([[value]]), steps + 1).membranes["leaky"][0, :, 0]
    assert found.tolist() == expected


def test_without_any_decay_it_is_kind_if() -> None:
    graph, inputs, steps = CASES["reset_zero"]()
    plain = [p for p in graph.populations if p.kind == "if"]
    assert plain
    populations = [
        replace(p, kind="lif", decay_voltage=np.zeros(p.size, np.int64)) if p.kind == "if" else p for p in graph.populations
    ]
    leaky = reference(SpikingGraph(populations, graph.projections), inputs, steps)
    assert first_divergence(graph, leaky, reference(graph, inputs, steps)) is None


@settings(deadline=None, max_examples=30)
@given(graphs(kinds=("lif",), max_steps=25))
def test_bounds_hold(case: Case) -> None:
    result = reference(*case)
    for name, bound in bounds(case.graph, case.steps).items():
        assert max(np.abs(result.integrated[name]).max(), np.abs(result.membranes[name]).max()) <= bound.membrane


def test_bounds_are_geometric_series_and_do_not_grow_with_time() -> None:
    """Current 3 * 255 a step; u up to 4 times that, v up to 8 times u + bias; from there on 10^9 steps are as one."""
    leaky = lif_population("leaky", [2**40], [512], [1024], bias=[5], v_init=[7])
    graph = one_layer(leaky, [[3]])
    assert bounds(graph, 1)["leaky"].membrane == 7 + 765 + 5
    for steps in (1000, 10**9):
        assert bounds(graph, steps)["leaky"].membrane == 8 * (4 * 765 + 5)
    # The bound is tight: with so large a threshold the membrane comes within one percent of it.
    reached = reference(graph, np.array([[255]]), 200).membranes["leaky"].max()
    assert 0.99 * 8 * (4 * 765 + 5) < reached <= 8 * (4 * 765 + 5)
    at_rest = one_layer(lif_population("leaky", [2], [1], v_init=[-(10**6)]), [[1]])
    assert bounds(at_rest, 10**9)["leaky"].membrane == 255 * 4096


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"decay_voltage": None}, "decay_voltage is missing for kind 'lif'"),
        ({"decay_voltage": [4097, 0]}, r"decay_voltage: found 4097 at neuron 0, expected 0 .* to 4096"),
        ({"decay_current": [0, -1]}, "decay_current: found -1 at neuron 1"),
        ({"decay_current": [0]}, r"decay_current: found shape \(1,\), expected \(2,\)"),
        ({"threshold": [0, 2]}, "threshold: found 0 at neuron 0"),
        ({"kind": "if"}, "decay_current is given for kind 'if'; expected it for lif only"),
        ({"threshold_neg": [1, 1]}, "threshold_neg is given for kind 'lif'"),
    ],
)
def test_a_wrong_population_is_refused(change: dict, message: str) -> None:
    good = lif_population("p", [2, 4], [1, 2], [3, 4])
    with pytest.raises(GraphError, match=message):
        replace(good, **change)


def test_odd_thresholds_and_currents_without_memory_by_default() -> None:
    population = Population(name="p", shape=(2,), kind="lif", threshold=np.array([1, 3]), decay_voltage=np.array([0, 5]))
    assert population.decay_current.tolist() == [4096, 4096]


def test_file_keeps_every_field(tmp_path: Path) -> None:
    graph = CASES["lif_beside_others"]().graph
    save_graph(graph, tmp_path / "graph.safetensors")
    found = load_graph(tmp_path / "graph.safetensors")
    assert found.digest() == graph.digest()
    for field in ("decay_current", "decay_voltage"):
        assert getattr(found.population("leaky"), field).tolist() == getattr(graph.population("leaky"), field).tolist()
    assert FORMAT_VERSION == 1


def test_every_decay_counts_in_the_digest() -> None:
    graph = CASES["lif_beside_others"]().graph
    digests = {graph.digest()}
    for field in ("decay_current", "decay_voltage"):
        changed = replace(graph.population("joined"), **{field: np.array([1, 2])})
        populations = [changed if p.name == "joined" else p for p in graph.populations]
        digests.add(SpikingGraph(populations, graph.projections).digest())
    assert len(digests) == 3


def test_a_decay_out_of_range_in_a_file_is_refused(tmp_path: Path) -> None:
    graph = CASES["lif_halving"]().graph
    leaky = graph.population("hidden")
    leaky.decay_voltage.flags.writeable = True
    leaky.decay_voltage[2] = 5000
    save_graph(graph, tmp_path / "graph.safetensors")
    with pytest.raises(GraphFileError, match="population 'hidden', decay_voltage: found 5000 at neuron 2, expected 0"):
        load_graph(tmp_path / "graph.safetensors")


@pytest.mark.parametrize(("decay_current", "decay_voltage", "step"), [(0, 4096, 2), (4096, 0, 4), (4096, 1, 4)])
def test_native_checks_currents_and_membranes_that_are_not_proven_to_fit(
    decay_current: int, decay_voltage: int, step: int
) -> None:
    """Nearly -2^60 a step: a current passes -2^61 in the third step, and a membrane -2^62 in the fifth."""
    leaky = lif_population("leaky", [2**53], [decay_voltage], [decay_current])
    graph = one_layer(leaky, [[1 - 2**31]] * 2**9, (0, 2**20))
    with pytest.raises(MembraneOverflowError, match=f"population 'leaky', image 1, step {step}: "):
        NativeBackend().run(graph, np.repeat([[0], [2**20]], 2**9, axis=1), 20)


def test_brian2_checks_the_current_too() -> None:
    """The membrane forgets at once, but its current of both signs grows: 2^51 a step."""
    leaky = lif_population("leaky", [2**53], [4096], [0], bias=[0])
    graph = one_layer(leaky, [[2**31 - 1]], (-(2**20), 2**20))
    with pytest.raises(MembraneOverflowError, match=r"'leaky'.*image 0, step 2"):
        Brian2Backend().run(graph, np.array([[-(2**20)]]), 4)


def test_fixed_point_takes_the_unit_of_the_graph_or_refuses() -> None:
    mixed = one_layer(lif_population("leaky", [9, 9], [7]), [[3, -1]])
    (reason,) = fixed_layout(mixed)[1]
    assert "weights -1..3, expected mantissas of 8 bits with one exponent, in the unit of a membrane that leaks" in reason
    even = one_layer(lif_population("leaky", [9, 9], [7]), [[6, -2]])
    layout, reasons = fixed_layout(even)
    assert reasons == []
    assert layout.shifts["leaky"] == 0


ORACLE = """
import json, sys
import numpy as np
from lava.magma.core.run_conditions import RunSteps
from lava.magma.core.run_configs import Loihi2SimCfg
from lava.proc.io.sink import RingBuffer as Sink
from lava.proc.io.source import RingBuffer as Source
from lava.proc.lif.process import LIF
from lava.proc.monitor.process import Monitor

results = []
for given in json.load(sys.stdin):
    arriving = np.array(given["arriving"], np.int32)  # (neurons, steps)
    neurons, steps = arriving.shape
    source = Source(data=arriving)
    lif = LIF(shape=(neurons,), du=given["du"], dv=given["dv"], vth=given["vth"], bias_mant=np.array(given["bias"]))
    sink, watch = Sink(shape=(neurons,), buffer=steps), Monitor()
    source.s_out.connect(lif.a_in)
    lif.s_out.connect(sink.a_in)
    watch.probe(lif.v, steps)
    lif.run(condition=RunSteps(num_steps=steps), run_cfg=Loihi2SimCfg(select_tag="fixed_pt"))
    v = next(iter(next(iter(watch.get_data().values())).values())).astype(int).T.tolist()
    results.append({"spikes": sink.data.get().astype(int).tolist(), "v": v})
    lif.stop()
print(json.dumps(results))
"""


STOCK_STEPS = 60


def beside_a_clock(du: int, dv: int, vth: int, weights: np.ndarray, bias: np.ndarray) -> SpikingGraph:
    """LIF with weights of shape (steps, neurons), one row arriving a step: neuron t of ``clock`` fires in step t alone."""
    steps, neurons = weights.shape
    late = 2 * np.arange(steps, 0, -1) - 2
    clock = Population(name="clock", shape=(steps,), kind="if", threshold=[2 * steps] * steps, v_init=late, bias=[2] * steps)
    populations = [
        Population(name="input", shape=(1,), kind="input", value_range=(0, 1)),
        clock,
        lif_population("lif", [(vth << 6) + 1] * neurons, dv, du + 1, bias=bias),
        Population(name="readout", shape=(1,), kind="readout"),
    ]
    matrices = np.zeros((1, steps), np.int64), weights << 6, np.zeros((neurons, 1), np.int64)
    pairs = zip(populations[:-1], populations[1:], matrices, strict=True)
    return SpikingGraph(populations, [Projection(a.name, b.name, CSRConnection.from_scipy(matrix)) for a, b, matrix in pairs])


def test_equals_lavas_own_lif_in_fixed_point() -> None:
    """LIF of lava-nc, run for real: what arrives is shifted by 6 bits, ``du`` is one less, and it fires *above* vth << 6."""
    rng = np.random.default_rng(0)
    sent, graphs = [], []
    for du, dv, vth in ((4095, 0, 100), (4095, 410, 90), (1023, 7, 300), (0, 4000, 40), (2047, 2047, 120)):
        weights, bias = rng.integers(-60, 90, (STOCK_STEPS, 24)), rng.integers(-900, 1500, 24)
        sent.append({"arriving": weights.T.tolist(), "du": du, "dv": dv, "vth": vth, "bias": bias.tolist()})
        graphs.append(beside_a_clock(du, dv, vth, weights, bias))
    command = [lava_python(), "-W", "ignore", "-c", ORACLE]
    done = subprocess.run(command, input=json.dumps(sent), capture_output=True, text=True, check=True)
    one = np.array([[1]])
    runs = [Run(graph=graph, inputs=one, steps=STOCK_STEPS, record=graph.spiking) for graph in graphs]
    fixed = LavaBackend(model="fixed_pt", shape="fused").run_many(runs)
    for graph, expected, found in zip(graphs, json.loads(done.stdout.splitlines()[-1]), fixed, strict=True):
        result = reference(graph, one, STOCK_STEPS)
        assert np.array_equal(result.rasters["clock"][0], np.eye(STOCK_STEPS))
        assert result.rasters["lif"][0].T.tolist() == expected["spikes"]
        assert result.membranes["lif"][0].T.tolist() == expected["v"]
        assert np.count_nonzero(expected["spikes"]) > 20
        assert first_divergence(graph, result, found) is None


def test_divergence_names_the_membrane_of_a_leaky_neuron() -> None:
    graph, inputs, steps = CASES["lif_halving"]()
    result = reference(graph, inputs, steps)
    rasters = {"hidden": result.rasters["hidden"].copy()}
    rasters["hidden"][0, 2, 1] = 0
    divergence = first_divergence(graph, result, replace(result, backend="broken", rasters=rasters), inputs)
    assert divergence is not None
    assert (divergence.where, divergence.image, divergence.step, divergence.neuron) == ("hidden", 0, 2, 1)
    assert divergence.membrane is not None
    assert (divergence.membrane.before, divergence.membrane.threshold, divergence.membrane.expected) == (112, 112, 1)


def test_backends_of_stock_processes_refuse_with_one_message() -> None:
    from sparsespike.backends.lava.stock import write_stock_program

    with pytest.raises(BackendError, match="population 'hidden' is of kind 'lif'"):
        write_stock_program(CASES["lif_halving"]().graph, Path("nowhere"))
