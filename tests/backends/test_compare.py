"""The first divergence: its place, its order among causes and effects, and the membrane there."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsespike.backends.base import RunResult, SpikeCounts
from sparsespike.backends.compare import Divergence, Membrane, first_divergence
from sparsespike.backends.native import NativeBackend, engine
from sparsespike.backends.testing import CASES, Case, reference
from sparsespike.backends.testing.strategies import aec_graphs, graphs
from sparsespike.common.errors import BackendError
from sparsespike.export.graph import SpikingGraph


def with_spike(
    result: RunResult, name: str, image: int, step: int, neuron: int, spike: int, *, spikes_of_one: bool = True
) -> RunResult:
    """The result with one entry of a raster changed, and spike counts that agree with it."""
    raster = result.rasters[name].copy()
    raster[image, step, neuron] = spike
    fires = (raster == 1).astype(np.int64) if spikes_of_one else (raster & 1) + (raster >> 1).astype(np.int64)
    counts = {
        field: {
            **getattr(result, field),
            name: SpikeCounts(fires.sum(axis=axis, dtype=np.int64), (raster == -1).sum(axis=axis, dtype=np.int64)),
        }
        for field, axis in (("spikes", 1), ("spikes_by_step", 2))
    }
    return replace(result, backend="other", rasters={**result.rasters, name: raster}, **counts)


@given(graphs())
@settings(deadline=None, max_examples=40)
def test_equal_results_do_not_diverge(case: Case) -> None:
    graph, inputs, steps = case
    assert (
        first_divergence(graph, NativeBackend().run(graph, inputs, steps, record=graph.spiking), reference(*case), inputs) is None
    )


@given(graphs().filter(lambda case: case.graph.spiking), st.data())
@settings(deadline=None, max_examples=60)
def test_finds_the_one_spike_that_differs_and_the_membrane_it_came_from(case: Case, data: st.DataObject) -> None:
    graph, inputs, _ = case
    exact = reference(*case)
    name = data.draw(st.sampled_from(graph.spiking))
    image, step, neuron = (data.draw(st.integers(0, n - 1)) for n in exact.rasters[name].shape)
    right = int(exact.rasters[name][image, step, neuron])
    wrong = data.draw(st.sampled_from([spike for spike in (-1, 0, 1) if spike != right]))
    found = first_divergence(graph, exact, with_spike(exact, name, image, step, neuron, wrong), inputs)
    assert found is not None
    assert (found.quantity, found.where, found.depth) == ("raster", name, graph.depth[name])
    assert (found.image, found.step, found.neuron, found.values) == (image, step, neuron, (right, wrong))
    assert found.membrane is not None
    assert found.membrane.expected == right
    assert found.membrane.before == exact.integrated[name][image, step, neuron]
    assert found.membrane.after[0] == exact.membranes[name][image, step, neuron]


@given(aec_graphs(), st.data())
@settings(deadline=None, max_examples=60)
def test_finds_the_one_spike_of_a_window_that_differs(case: Case, data: st.DataObject) -> None:
    graph, inputs, _ = case
    exact = reference(*case)
    name = data.draw(st.sampled_from(graph.spiking))
    image, slot, neuron = (data.draw(st.integers(0, n - 1)) for n in exact.rasters[name].shape)
    right = int(exact.rasters[name][image, slot, neuron])
    wrong = data.draw(st.sampled_from([spikes for spikes in range(4) if spikes != right]))
    changed = with_spike(exact, name, image, slot, neuron, wrong, spikes_of_one=False)
    found = first_divergence(graph, exact, changed, inputs)
    assert found is not None
    assert (found.quantity, found.where, found.image, found.step, found.neuron) == ("raster", name, image, slot, neuron)
    assert found.membrane is not None
    assert (found.membrane.expected, found.values) == (right, (right, wrong))
    assert found.membrane.before == exact.integrated[name][image, slot, neuron]
    assert found.membrane.after[0] == exact.membranes[name][image, slot, neuron]


def test_the_report_of_a_window_reads_well() -> None:
    graph, inputs, slots = CASES["aec_two_digits"]()
    exact = reference(graph, inputs, slots)
    found = first_divergence(graph, with_spike(exact, "hidden", 13, 1, 0, 0, spikes_of_one=False), exact, inputs)
    assert str(found) == (
        "other and reference first differ in raster of hidden (depth 1), image 13, local step 1, neuron 0: other 0, reference 1; "
        "membrane at the begin of the slot 13, primary threshold 8, compensation threshold 8: expected a primary spike; membrane "
        "at its end 13 and 5"
    )


def test_the_report_reads_well() -> None:
    """Drive 3 a step, threshold 8, start 4: 7, then 10, which fires."""
    graph, inputs, steps = CASES["single_neuron"]()
    exact = reference(graph, inputs, steps)
    found = first_divergence(graph, with_spike(exact, "hidden", 3, 1, 0, 0), exact, inputs)
    assert found == Divergence(("other", "reference"), "raster", "hidden", 1, 3, 1, 0, (0, 1), Membrane(10, (10, 2), 8, None, 1))
    assert str(found) == (
        "other and reference first differ in raster of hidden (depth 1), image 3, local step 1, neuron 0: other 0, reference 1; "
        "membrane before firing 10, threshold 8: expected +1; membrane after firing 10 and 2"
    )


def test_signed_neurons_name_both_thresholds() -> None:
    graph, inputs, steps = CASES["negative_memory_meets_threshold"]()
    exact = reference(graph, inputs, steps)
    found = first_divergence(graph, exact, with_spike(exact, "hidden", 0, 1, 0, 0), inputs)
    assert found is not None
    assert found.membrane == Membrane(-2, (0, -2), 6, 2, -1)
    assert "threshold 6, negative threshold -2: expected -1" in str(found)


def test_the_cause_comes_before_its_effects() -> None:
    """Of two wrong spikes the one in the shallower population counts, then the one in the earlier step, then the lower image."""
    graph, inputs, steps = CASES["skips"]()
    exact = reference(graph, inputs, steps)

    def flip(result: RunResult, name: str, image: int, step: int, neuron: int) -> RunResult:
        return with_spike(result, name, image, step, neuron, 1 - int(result.rasters[name][image, step, neuron]))

    wrong = flip(flip(flip(flip(exact, "c", 0, 0, 0), "b", 0, 7, 0), "b", 3, 4, 0), "b", 2, 4, 1)
    found = first_divergence(graph, exact, wrong)
    assert found is not None
    assert (found.where, found.step, found.image, found.neuron, found.membrane) == ("b", 4, 2, 1, None)


def test_a_dropped_synapse_shows_first_in_the_events_of_its_projection(monkeypatch: pytest.MonkeyPatch) -> None:
    graph, inputs, steps = CASES["negative_weights"]()
    whole = engine.lower

    def lower(graph: SpikingGraph) -> engine.Plan:
        plan = whole(graph)
        pointers = plan.pointers.copy()
        pointers[plan.first_row[1] + 3 :] -= 1  # the last synapse of the last neuron of "hidden", to "deeper"
        return plan._replace(pointers=pointers, indices=np.delete(plan.indices, 12), values=np.delete(plan.values, 12))

    assert graph.projection("input", "hidden").connection.nnz == 7
    assert graph.projection("hidden", "deeper").connection.nnz == 6
    monkeypatch.setattr(engine, "lower", lower)
    exact, result = reference(graph, inputs, steps), NativeBackend().run(graph, inputs, steps, record=graph.spiking)
    found = first_divergence(graph, result, exact, inputs)
    assert found is not None
    spikes = exact.rasters["hidden"][:, :, 2]
    step = int(spikes.any(axis=0).argmax())
    assert (found.quantity, found.where, found.step, found.image) == (
        "events",
        "hidden -> deeper",
        step,
        spikes[:, step].argmax(),
    )
    assert found.values[0] == found.values[1] - 1


def test_totals_are_compared_where_steps_agree() -> None:
    graph, inputs, steps = CASES["skips"]()
    exact = reference(graph, inputs, steps)

    def only(**wrong: object) -> tuple[object, ...]:
        found = first_divergence(graph, exact, replace(exact, rasters={}, **wrong))
        assert found is not None
        return found.quantity, found.where, found.image, found.step, found.neuron

    spikes, by_step = exact.spikes["b"], exact.spikes_by_step["b"]
    more, later = spikes.negative.copy(), by_step.positive.copy()
    more[1, 1] += 1
    later[2, 5] += 1
    assert only(spikes={**exact.spikes, "b": SpikeCounts(spikes.positive, more)}) == ("negative spikes", "b", 1, None, 1)
    assert only(spikes_by_step={**exact.spikes_by_step, "b": SpikeCounts(later, by_step.negative)}) == (
        "positive spikes",
        "b",
        2,
        5,
        None,
    )
    events = {**exact.events, ("a", "c"): exact.events["a", "c"] + np.array([0, 0, 0, 1])}
    assert only(events=events) == ("events", "a -> c", 3, None, None)
    readout = exact.readout.copy()
    readout[1, 10, 0] += 1
    readout[0, 10, 1] += 1
    assert only(readout=readout) == ("membrane", "readout", 0, 10, 1)


def test_injected_and_simulated_inputs_are_not_held_against_each_other() -> None:
    graph, inputs, steps = CASES["images_apart"]()
    injected, simulated = (NativeBackend().run(graph, inputs, steps, input=mode) for mode in ("current", "events"))
    assert injected.events["input", "hidden"].tolist() != simulated.events["input", "hidden"].tolist()
    assert first_divergence(graph, injected, simulated) is None


def test_results_of_different_runs_are_refused() -> None:
    graph, inputs, steps = CASES["skips"]()
    a = NativeBackend().run(graph, inputs, steps)
    with pytest.raises(BackendError, match="run the same graph on the same images for the same steps"):
        first_divergence(graph, a, NativeBackend().run(graph, inputs, steps - 1))
    with pytest.raises(BackendError, match="run the same graph on the same images for the same steps"):
        first_divergence(graph, a, NativeBackend().run(graph, inputs[:2], steps))
    with pytest.raises(BackendError, match="is it another graph's"):
        first_divergence(graph, a, replace(a, spikes={}))
