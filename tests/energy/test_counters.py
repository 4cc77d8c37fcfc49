"""Counts as other tools define them: by hand on small layers, and the terms that lead from the events of the graph to each."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings

from sparsespike.backends.native import NativeBackend
from sparsespike.backends.testing.strategies import aec_graphs, convolutions, graphs
from sparsespike.common.errors import ConfigError
from sparsespike.energy.counters import COUNTERS, TERMS, Layer, count_all, counted, counters_frame
from sparsespike.export.connections import Conv2dConnection
from sparsespike.export.graph import Population, Projection, SpikingGraph


def layer(values, weights, *, first=False, events=None):
    """A fully connected layer fed with values of shape (B, T, N)."""
    values, present = np.array(values), np.array(weights) != 0
    return Layer(
        key=("a", "b"),
        first=first,
        values=values,
        events=np.asarray(values != 0, np.int8) if events is None else np.array(events, np.int8),
        fan_out=present.sum(axis=1),
        full=np.full(len(present), present.shape[1]),
        kernel_fan_out=None,
        nominal=Fraction(present.size),
    )


WEIGHTS = [[1, 0, 0, 2], [3, 4, 5, 0]]  # fan-outs 2 and 3 of 4


def operations(name, made, batch=1):
    count = counted(made, COUNTERS[name], batch)
    assert count.acs + count.macs - count.events == count.absent_links + count.borders + count.activity
    return int(count.acs), int(count.macs)


def test_unit_spikes_by_hand():
    made = layer([[[1, 0], [1, 1], [0, 0], [0, 1]]], WEIGHTS)  # 2 spikes of each
    assert operations("ledger", made) == operations("neurobench", made) == (2 * 2 + 2 * 3, 0)
    for name in ("syops", "sinabs", "spikingjelly", "snn-toolbox"):
        assert operations(name, made) == (4 * 4, 0)


def test_signed_spikes_by_hand():
    made = layer([[[1, 0], [1, -1], [0, 0], [-1, 1]]], WEIGHTS)  # net +1 of the first neuron, 0 of the second
    assert operations("ledger", made) == operations("neurobench", made) == (3 * 2 + 2 * 3, 0)
    assert operations("sinabs", made) == (1 * 4, 0)
    assert operations("snn-toolbox", made) == (5 * 4, 0)
    # Steps 2 and 4 hold a -1: the dense layer's 8 MACs in each; one spike in the others.
    assert operations("syops", made) == operations("spikingjelly", made) == (1 * 4, 2 * 8)


def test_numbers_by_hand():
    made = layer([[[7, 0], [7, 0]]], WEIGHTS, first=True)
    assert operations("ledger", made) == operations("neurobench", made) == (0, 2 * 2)
    assert operations("sinabs", made) == (14 * 4, 0)
    assert operations("syops", made) == operations("spikingjelly", made) == (0, 2 * 8)
    assert operations("snn-toolbox", made) == (0, 0)


def test_two_spikes_of_a_slot_are_one_value_for_a_tensor():
    made = layer([[[5, 0]]], WEIGHTS, events=[[[2, 0]]])
    assert operations("ledger", made) == (2 * 2, 0)
    assert operations("neurobench", made) == (0, 1 * 2)


def test_one_number_in_a_batch_makes_the_whole_call_numbers():
    made = layer([[[1, 1]], [[7, 0]]], WEIGHTS)
    assert operations("neurobench", made, batch=1) == (5, 2)
    assert operations("neurobench", made, batch=2) == (0, 7)
    assert operations("syops", made, batch=1) == (8, 8)
    assert operations("syops", made, batch=2) == (0, 16)


def test_the_terms_say_why():
    made = layer([[[1, 0], [1, -1]]], WEIGHTS)
    count = counted(made, COUNTERS["sinabs"], 1)
    # 3 events of neurons with 2, 2 and 1 absent links; the -1 and the 1 it cancels are 2 events x 4 lost.
    assert (count.absent_links, count.borders, count.activity) == (2 + 2 + 1, 0, -2 * 4)


def identity(case):
    run = NativeBackend().run(case.graph, case.inputs, case.steps, record=case.graph.spiking)
    found = count_all(case.graph, run, case.inputs)
    for counts in found.values():
        for count, projection in zip(counts, case.graph.projections, strict=True):
            assert count.acs + count.macs - count.events == count.absent_links + count.borders + count.activity
            assert count.events == int(run.events[projection.key].sum())
    assert all(getattr(count, term) == 0 for count in found["ledger"] for term in TERMS)
    return found


@settings(max_examples=25, deadline=None)
@given(graphs())
def test_identity_and_neurobench_equals_the_events_of_rate_networks(case):
    found = identity(case)
    assert [count.acs + count.macs for count in found["neurobench"]] == [count.events for count in found["neurobench"]]
    assert all(count.borders == 0 for counts in found.values() for count in counts)


@settings(max_examples=15, deadline=None)
@given(convolutions())
def test_identity_at_the_borders_of_convolutions(case):
    found = identity(case)
    assert all(count.borders == 0 for name in ("neurobench", "sinabs") for count in found[name])
    assert [count.acs + count.macs for count in found["neurobench"]] == [count.events for count in found["neurobench"]]


@settings(max_examples=10, deadline=None)
@given(aec_graphs())
def test_identity_of_aec_networks(case):
    identity(case)


def test_borders_of_a_padded_kernel():
    shape = (1, 3, 3)
    copies = Conv2dConnection(kernel=np.ones((1, 1, 1, 1), np.int64), input_shape=shape)
    padded = Conv2dConnection(kernel=np.ones((1, 1, 3, 3), np.int64), input_shape=shape, padding=(1, 1))
    populations = [
        Population(name="input", shape=shape, kind="input", value_range=(0, 1)),
        Population(name="h", shape=shape, kind="if", threshold=np.full(9, 2), v_init=np.full(9, 1)),
        Population(name="readout", shape=shape, kind="readout"),
    ]
    graph = SpikingGraph(populations, [Projection("input", "h", copies), Projection("h", "readout", padded)])
    inputs = np.ones((2, 9), np.int64)  # every neuron fires in the first and the third step
    found = count_all(graph, NativeBackend().run(graph, inputs, 4, record=["h"]), inputs)
    exact, nominal = 2 * 2 * (4 * 4 + 4 * 6 + 9), 2 * 2 * 9 * 9
    for name, operations in (("neurobench", exact), ("sinabs", exact), ("spikingjelly", exact), ("snn-toolbox", nominal)):
        assert (found[name][1].acs, found[name][1].borders) == (operations, operations - exact), name
    assert (found["syops"][1].acs, found["syops"][1].borders) == (nominal, nominal - exact)
    assert (found["syops"][0].acs, found["snn-toolbox"][0].acs) == (2 * 4 * 9, 0)


def test_table(chain):
    graph = chain(np.ones((3, 4), np.int64), np.eye(4, dtype=np.int64))
    inputs = np.full((2, 3), 9)
    run = NativeBackend().run(graph, inputs, 4, record=graph.spiking)
    frame = counters_frame(count_all(graph, run, inputs), 2)
    total = frame[(frame["counter"] == "syops") & (frame["pre"] == "total")].iloc[0]
    events = int(sum(run.events[key].sum() for key in run.events)) / 2
    assert total["events"] == events
    assert total["difference"] == total["ACs"] + total["MACs"] - events == total["absent_links"]
    with pytest.raises(ConfigError, match=r"no rasters of \['h1'\]"):
        count_all(graph, NativeBackend().run(graph, inputs, 4), inputs)
    with pytest.raises(ConfigError, match="batch = 0"):
        count_all(graph, run, inputs, batch=0)
