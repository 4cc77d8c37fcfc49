"""The reference against closed forms and an independent simulator; the conformance suite against broken results and backends."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import fields, replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import Phase, find, given, settings

from sparsespike.backends.base import SpikeCounts
from sparsespike.backends.native import NativeBackend, engine
from sparsespike.backends.testing import CASES, Case, assert_equal, check_conformance, reference
from sparsespike.backends.testing.aec_cases import aec_population
from sparsespike.backends.testing.strategies import aec_graphs, convolutions, graphs
from sparsespike.common.errors import BackendError, GraphError, MembraneOverflowError
from sparsespike.export.connections import CSRConnection
from sparsespike.export.graph import Population, Projection, SpikingGraph


def raster(case: Case, population: str) -> list[list[list[int]]]:
    return reference(*case).rasters[population].tolist()


def toward_zero(x: int, decay: int) -> int:
    """What is left of x, rounded toward zero."""
    return math.trunc(Fraction(x) * (1 - Fraction(decay, 4096)))


def in_global_time(case: Case) -> tuple[dict, dict]:
    """Rasters and readout, neuron by neuron in plain Python integers, on a backend's clock.

    Every population takes global step g as its local step g - depth, if that is one of 0..T-1; a spike travels
    depth(post) - depth(pre) steps. Nothing is shared with the reference.
    """
    graph, inputs, steps = case
    rasters: dict = defaultdict(dict)
    readout: dict = {}
    synapses: dict = defaultdict(list)  # (pre, post, presynaptic neuron) -> [(postsynaptic neuron, weight)]
    for pre, post in graph.nx.edges:
        for (i, j), weight in graph.projection(pre, post).connection.to_csr().to_scipy().todok().items():
            synapses[pre, post, i].append((j, int(weight)))
    for image, pixels in enumerate(inputs.tolist()):
        membrane = {p.name: p.v_init.tolist() for p in graph.populations}
        net = {p.name: [0] * p.size for p in graph.populations}
        flow = {p.name: [0] * p.size for p in graph.populations}
        arriving: dict = defaultdict(int)  # (global step, population, neuron) -> current
        for now in range(steps + max(graph.depth.values())):
            for population in graph.populations:
                local = now - graph.depth[population.name]
                if not 0 <= local < steps:
                    continue
                active = local == 0 or population.bias_mode == "every_step"
                for n in range(population.size):
                    if population.kind == "input":
                        spike = pixels[n] if active else 0
                    else:
                        v, current = membrane[population.name][n], arriving[now, population.name, n]
                        if population.kind == "lif":
                            v = toward_zero(v, int(population.decay_voltage[n]))
                            current += toward_zero(flow[population.name][n], int(population.decay_current[n]))
                            flow[population.name][n] = current
                        v += current + int(population.bias[n]) * active
                        spike = 0
                        if population.threshold is not None and v >= population.threshold[n]:
                            spike, v = 1, 0 if population.reset == "zero" else v - int(population.threshold[n])
                        elif (
                            population.threshold_neg is not None
                            and net[population.name][n] > 0
                            and -v >= population.threshold_neg[n]
                        ):
                            spike, v = -1, v + int(population.threshold_neg[n])
                        membrane[population.name][n] = v
                        net[population.name][n] += spike
                        if population.kind == "readout":
                            readout[image, local, n] = v
                        elif spike:
                            rasters[population.name][image, local, n] = spike
                    for post in graph.nx.successors(population.name):
                        delay = graph.depth[post] - graph.depth[population.name]
                        for j, weight in synapses[population.name, post, n]:
                            arriving[now + delay, post, j] += weight * spike
    return rasters, readout


def in_windows(case: Case) -> tuple[dict, dict]:
    """The same of an AEC graph: depth d encodes in window d, and decodes all that arrives in the slots of window d - 1."""
    graph, inputs, slots = case
    rasters: dict = defaultdict(dict)
    readout: dict = {}
    synapses = {key: graph.projection(*key).connection.to_csr().to_scipy().toarray().tolist() for key in graph.nx.edges}
    for image, pixels in enumerate(inputs.tolist()):
        membrane = {p.name: (p.v_init + p.bias).tolist() for p in graph.populations}
        arriving: dict = defaultdict(int)  # (global slot, population, neuron) -> current
        fired: dict = defaultdict(set)
        for now in range(slots * (1 + max(graph.depth.values()))):
            sent = []  # (population, neuron, payload)
            for p in graph.populations:
                slot = now - slots * graph.depth[p.name]
                for n in range(p.size if 0 <= slot < slots else 0):
                    if p.kind == "input" and slot == 0:
                        sent.append((p.name, n, pixels[n]))
                    for bit, spike in enumerate(("primary", "compensation") if p.kind == "aec" else ()):
                        threshold = int(p.tables[f"{spike}_threshold"][slot])
                        ready = spike == "primary" or "primary" in fired[p.name, n]
                        if ready and spike not in fired[p.name, n] and membrane[p.name][n] >= threshold:
                            membrane[p.name][n] -= threshold
                            fired[p.name, n].add(spike)
                            raster = rasters[p.name]
                            raster[image, slot, n] = raster.get((image, slot, n), 0) + (1 << bit)
                            sent.append((p.name, n, int(p.tables[f"{spike}_payload"][slot])))
            for name, n, payload in sent:
                for post in graph.nx.successors(name):
                    for j, weight in enumerate(synapses[name, post][n]):
                        arriving[now + (graph.depth[post] - graph.depth[name] - 1) * slots, post, j] += weight * payload
            for p in graph.populations:
                slot = now - slots * (graph.depth[p.name] - 1)
                for n in range(p.size if 0 <= slot < slots else 0):
                    membrane[p.name][n] += arriving[now, p.name, n]
                    if p.kind == "readout":
                        readout[image, slot, n] = membrane[p.name][n]
    return rasters, readout


def assert_equals_global_time(case: Case) -> None:
    rasters, readout = in_global_time(case) if case.graph.slots is None else in_windows(case)
    result = reference(*case)
    for name in case.graph.spiking:
        found = {tuple(at): int(result.rasters[name][tuple(at)]) for at in np.argwhere(result.rasters[name]).tolist()}
        assert found == rasters[name]
    assert {at: int(v) for at, v in np.ndenumerate(result.readout)} == readout


@pytest.mark.parametrize("name", CASES)
def test_reference_equals_a_neuron_by_neuron_simulation_in_global_time(name: str) -> None:
    assert_equals_global_time(CASES[name]())


@given(graphs())
@settings(deadline=None, max_examples=60)
def test_reference_equals_global_time_on_random_graphs(case: Case) -> None:
    assert_equals_global_time(case)


@given(aec_graphs())
@settings(deadline=None, max_examples=60)
def test_reference_equals_windows_on_random_graphs(case: Case) -> None:
    assert_equals_global_time(case)


def test_tables_of_powers_of_two_send_the_two_highest_binary_digits() -> None:
    case = CASES["aec_two_digits"]()
    result = reference(*case)

    def two_digits(value: int) -> int:
        highest = min(16, 1 << value.bit_length() >> 1) if value > 1 else 0
        rest = value - highest
        return highest + min(highest // 2 if highest > 2 else 0, 1 << rest.bit_length() >> 1) * (rest > 1)

    assert result.readout[:, -1, 0].tolist() == [two_digits(value) for value in range(31)]
    assert result.spikes["hidden"].positive[5:8, 0].tolist() == [1, 2, 2]


def test_two_spikes_in_one_slot_are_two_events() -> None:
    case = CASES["aec_order"]()
    result = reference(*case)
    both = np.argwhere(result.rasters["late"] == 3)
    assert len(both)
    image, slot = both[0, :2]
    spikes = result.spikes_by_step["late"].positive[image, slot]
    assert spikes == (result.rasters["late"][image, slot] & 1).sum() + (result.rasters["late"][image, slot] >> 1).sum()
    assert result.events_by_step["late", "readout"][image, slot] == 2 * spikes
    assert result.messages["late"][image] == result.spikes["late"].positive[image].sum()


def test_aec_graphs_run_for_their_slots_and_within_exact_numbers() -> None:
    graph, inputs, slots = CASES["aec_order"]()
    with pytest.raises(BackendError, match=r"found steps = 5, expected 4, the T \+ 1 slots"):
        reference(graph, inputs, slots + 1)
    huge = aec_population("late", 3, ((6, 5),), ((2, 1),), v_init=[2**53, 0, 0])
    populations = [huge if p.name == "late" else p for p in graph.populations]
    with pytest.raises(MembraneOverflowError, match=r"can reach 9007199254741247, expected less than 2\^53"):
        reference(SpikingGraph(populations, graph.projections), inputs, 1)


def test_single_neuron_fires_as_often_as_its_charge_holds_thresholds() -> None:
    case = CASES["single_neuron"]()
    for x, spikes in enumerate(raster(case, "hidden")):
        expected = [(4 + x * (t + 1)) // 8 for t in range(case.steps)]
        assert np.cumsum(spikes).tolist() == expected
    result = reference(*case)
    assert result.spikes["hidden"].positive[:, 0].tolist() == [(4 + 17 * x) // 8 for x in range(9)]
    assert result.readout[:, -1, 0].tolist() == [(4 + 17 * x) // 8 for x in range(9)]


def test_a_tie_fires() -> None:
    first = np.array(raster(CASES["tie"](), "hidden")[0])
    assert first[:, 0].tolist() == [1] * 6  # 4 arrives, 4 is the threshold
    assert first[:, 1].tolist() == [0] + [1] * 5  # starts at -1: 3 is one below
    assert first[:, 2].tolist() == [0, 1] * 3


def test_a_negative_tie_fires_once() -> None:
    """Image 0 by hand: 5 + 1 meets 6; then the gate's -3 and the input's 1 meet -2; after that no spike is left to take back."""
    case = CASES["negative_memory_meets_threshold"]()
    result = reference(*case)
    assert result.rasters["hidden"][0, :, 0].tolist() == [1, -1, 0, 0, 0, 0, 0, 0, 0]
    assert result.integrated["hidden"][0, :, 0].tolist() == [6, -2, 1, -1, 0, -2, -1, -3, -2]
    assert result.membranes["hidden"][0, :, 0].tolist() == [0, 0, 1, -1, 0, -2, -1, -3, -2]


def test_signed_memory_takes_back_no_more_than_it_gave() -> None:
    spikes = np.array(raster(CASES["signed_memory"](), "signed"))
    net = spikes.cumsum(axis=1)
    assert net.min() == 0
    assert (spikes == -1).sum(axis=1).max() >= 3
    result = reference(*CASES["signed_memory"]())
    quiet = (net == 0) & (spikes == 0)
    assert (result.integrated["signed"][quiet.nonzero()] <= -100).any()  # far below the threshold, and still silent


def test_reset_to_zero_loses_the_rest_and_keeps_what_is_negative() -> None:
    result = reference(*CASES["reset_zero"]())
    fired = result.rasters["hidden"] == 1
    assert (result.integrated["hidden"][fired] > np.broadcast_to([4, 10], fired.shape)[fired]).any()
    assert (result.membranes["hidden"][fired] == 0).all()
    assert (result.membranes["hidden"][~fired] == result.integrated["hidden"][~fired]).all()
    taken_back = result.rasters["signed"] == -1
    assert (result.membranes["signed"] - result.integrated["signed"])[taken_back].tolist() == [
        [2, 4][n] for n in taken_back.nonzero()[2]
    ]


def test_bias_once_and_bias_every_step() -> None:
    result = reference(*CASES["bias_modes"]())
    assert result.integrated["once"][0, :, 0].tolist() == [9, 5, 1, 1, 1, 1, 1, 1, 1]
    assert result.integrated["once"][0, :, 1].tolist() == [-5] * 9
    assert result.rasters["once"][0, :, 0].tolist() == [1, 1, 0, 0, 0, 0, 0, 0, 0]
    assert result.integrated["every"][0, :, 1].tolist() == [0, 0, -1, -2, -3, -4, -5, -6, -7]
    assert result.rasters["every"][0].any(axis=1).tolist()[:2] == [False, True]  # 1 + 3 = 4, then 8: the threshold is 6
    assert result.readout[0, :2].tolist() == [[7, -7], [8, -5]]
    assert result.bias_additions["once"].tolist() == [2] * 3
    assert result.bias_additions["every"].tolist() == [18] * 3


def test_an_input_that_emits_once_is_silent_afterwards() -> None:
    result = reference(*CASES["input_once"]())
    assert result.spikes_by_step["input"].positive.tolist() == [[2, 0, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0], [0] * 6]
    assert result.events["input", "hidden"].tolist() == [4, 2, 0]
    charged = reference(*CASES["input_once"](), input="current")
    assert charged.events_by_step["input", "hidden"].tolist() == [[4, 0, 0, 0, 0, 0]] * 3


def test_injected_current_is_charged_for_every_synapse_in_every_step() -> None:
    case = CASES["negative_weights"]()
    result = reference(*case, input="current")
    assert result.events["input", "hidden"].tolist() == [12 * 7] * 4
    assert_equal(result, replace(reference(*case), events=result.events, events_by_step=result.events_by_step))


def test_negative_inputs_are_negative_events() -> None:
    result = reference(*CASES["negative_inputs"]())
    assert result.spikes["input"].positive[0].tolist() == [0, 0, 8]
    assert result.spikes["input"].negative[0].tolist() == [8, 0, 0]
    assert result.events["input", "hidden"].tolist() == [8 * 3, 0, 8 * 5, 8 * 5, 8 * 5]  # fan-outs are 2, 2, 1


def test_forced_spikes_replace_the_reference_s_own() -> None:
    case = CASES["single_neuron"]()
    silent = np.zeros((9, 17, 1), np.int8)
    result = reference(*case, forced={"hidden": silent})
    assert result.readout.max() == 0
    assert result.membranes["hidden"][:, -1, 0].tolist() == [4 + 17 * x for x in range(9)]


def test_reference_refuses_what_it_cannot_run() -> None:
    graph, inputs, _ = CASES["single_neuron"]()
    with pytest.raises(BackendError, match="found steps = 0, expected at least 1"):
        reference(graph, inputs, 0)
    with pytest.raises(GraphError, match=r"found values 9\.\.9, expected 0\.\.8"):
        reference(graph, inputs[:1] + 9, 1)
    wide = SpikingGraph(
        [
            Population(name="x", shape=(1,), kind="input", value_range=(0, 2**31 - 1)),
            Population(name="y", shape=(1,), kind="readout"),
        ],
        [Projection("x", "y", CSRConnection.from_scipy(np.array([[2**31 - 1]])))],
    )
    with pytest.raises(MembraneOverflowError, match=r"the membrane of population 'y' can reach \d+, expected less than 2\^63"):
        reference(wide, np.array([[1]]), 3)


def test_every_case_asks_something_of_every_population() -> None:
    """A case in which nothing fires would prove nothing."""
    for name, make in CASES.items():
        result = reference(*make())
        for population in make().graph.spiking:
            assert result.spikes[population].events.any(), f"{name}: {population}"


def test_random_graphs_reach_the_hard_parts() -> None:
    once = settings(phases=[Phase.generate], deadline=None, max_examples=5000)  # it ends when one is found, made small or not
    find(graphs(), lambda case: any(case.graph.delay(*p.key) > 1 for p in case.graph.projections), settings=once)
    find(graphs(), lambda case: any(c.negative.any() for n, c in reference(*case).spikes.items() if n != "input"), settings=once)
    find(
        graphs(),
        lambda case: any(p.reset == "zero" and p.name in case.graph.spiking for p in case.graph.populations),
        settings=once,
    )
    find(convolutions(), lambda case: reference(*case).spikes["conv"].events.any(), settings=once)


def changed(array: np.ndarray) -> np.ndarray:
    """A copy whose last entry is one larger."""
    other = array.copy()
    other[(-1,) * other.ndim] += 1
    return other


@pytest.mark.parametrize(
    "field", ["readout", "spikes", "spikes_by_step", "events", "events_by_step", "neuron_updates", "bias_additions", "rasters"]
)
def test_assert_equal_sees_a_single_entry_in_every_field(field: str) -> None:
    expected = reference(*CASES["skips"]())
    assert_equal(expected, expected)
    value = getattr(expected, field)
    if field == "readout":
        wrong = changed(value)
    else:
        key = list(value)[-1]
        last = value[key]
        other = SpikeCounts(last.positive, changed(last.negative)) if isinstance(last, SpikeCounts) else changed(last)
        wrong = {**value, key: other}
    with pytest.raises(AssertionError, match=r"1 of \d+ entries differ, the first at \(.*\): found -?\d+, expected -?\d+"):
        assert_equal(replace(expected, **{field: wrong}), expected)


def test_assert_equal_sees_missing_keys_shapes_types_and_steps() -> None:
    expected = reference(*CASES["skips"]())
    with pytest.raises(AssertionError, match=r"events: found keys \['a -> b'"):
        assert_equal(replace(expected, events={k: v for k, v in expected.events.items() if k[0] != "input"}), expected)
    with pytest.raises(AssertionError, match="found dtype int32, expected int64"):
        assert_equal(replace(expected, readout=expected.readout.astype(np.int32)), expected)
    with pytest.raises(AssertionError, match=r"found shape \(3, 11, 2\), expected \(4, 11, 2\)"):
        assert_equal(replace(expected, readout=expected.readout[:3]), expected)
    with pytest.raises(AssertionError, match="steps: found 12, expected 11"):
        assert_equal(replace(expected, steps=12), expected)
    with pytest.raises(AssertionError, match=r"rasters of \['a'"):
        assert_equal(expected, replace(expected, rasters={}))


def test_assert_equal_leaves_out_names_and_times_only() -> None:
    expected = reference(*CASES["skips"]())
    result = replace(expected, backend="other", version="7", dtype="float64", wall_seconds={"run": 1.0}, messages={}, counting={})
    assert_equal(result, expected)
    compared = {
        "steps",
        "readout",
        "spikes",
        "spikes_by_step",
        "events",
        "events_by_step",
        "neuron_updates",
        "bias_additions",
        "rasters",
    }
    left_out = {"backend", "version", "dtype", "wall_seconds", "messages", "counting", "integrated", "membranes"}
    assert {field.name for field in fields(expected)} == compared | left_out


def test_check_conformance_names_the_case_of_a_backend_that_drops_a_synapse(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = engine.lower

    def lower(graph: SpikingGraph) -> engine.Plan:
        plan = whole(graph)
        pointers = plan.pointers.copy()
        pointers[plan.first_row[0] + 1 :][pointers[plan.first_row[0] + 1 :] == pointers[plan.first_row[0] + 1]] -= 1
        return plan._replace(pointers=pointers)

    monkeypatch.setattr(engine, "lower", lower)
    with pytest.raises(AssertionError, match=r"backend 'native', case 'single_neuron', input 'events': .* entries differ"):
        check_conformance(NativeBackend())


class Picky(NativeBackend):
    """Refuses two populations in a row."""

    def check(self, graph: SpikingGraph) -> list[str]:
        return super().check(graph) or ([f"{len(graph.spiking)} layers"] if len(graph.spiking) > 1 else [])


def test_check_conformance_returns_what_a_backend_refuses() -> None:
    refused = check_conformance(Picky())
    assert refused == {name: [f"{n} layers"] for name, make in CASES.items() if (n := len(make().graph.spiking)) > 1}
    assert "skips" in refused
    assert "tie" not in refused
