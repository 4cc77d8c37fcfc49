"""The ledger: its identity, what it says of backends that drop, compute or differ, and sums over images."""

import dataclasses
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparsespike.backends.base import SpikeCounts
from sparsespike.backends.native import NativeBackend
from sparsespike.backends.reference import reference
from sparsespike.common.errors import BackendError, ConfigError
from sparsespike.energy.counts import EventCounts
from sparsespike.energy.ledger import Ledger
from sparsespike.export.connections import Conv2dConnection, CSRConnection
from sparsespike.export.graph import Population, Projection, SpikingGraph

T = 12


def sparse_weights(rng, n_in, n_out, density=0.3):
    return rng.integers(-6, 10, (n_in, n_out)) * (rng.random((n_in, n_out)) < density)


@pytest.fixture(scope="module")
def network(chain):
    rng = np.random.default_rng(7)
    return chain(sparse_weights(rng, 20, 30), sparse_weights(rng, 30, 25), sparse_weights(rng, 25, 4))


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(8)
    return rng.integers(0, 4, (6, 20)) * (rng.random((6, 20)) < 0.7)


@pytest.fixture(scope="module")
def native(network, images):
    return NativeBackend().run(network, images, T)


@st.composite
def graphs_and_spikes(draw):
    """Any weights and any spikes: the identity does not ask where spikes come from."""
    n_in, n_hidden, n_out, n_images = (draw(st.integers(1, 6)) for _ in range(4))
    seed = draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    density = draw(st.sampled_from([0.0, 0.3, 0.7, 1.0]))
    weights = [(rng.random(shape) < density).astype(np.int64) for shape in ((n_in, n_hidden), (n_hidden, n_out))]
    spikes = [rng.integers(0, 65, (n_images, n)) for n in (n_in, n_hidden)]
    return weights, spikes, density


@given(graphs_and_spikes())
def test_identity_for_any_spikes_and_fan_outs(chain, count, drawn):
    weights, spikes, density = drawn
    graph = chain(*weights)
    ledger = Ledger.from_counts(graph, [count(graph, spikes, 64)])
    assert ledger.reconciled
    for entry in ledger.entries:
        assert entry.measured["made"] == entry.computed == entry.analytic_graph + entry.covariance
        assert entry.residual("made") == 0
        assert entry.analytic_paper() + entry.rate_term() - entry.border + entry.pool == entry.analytic_graph
        if density == 1.0:
            assert entry.covariance == 0
    parts = [ledger.image(i) for i in range(ledger.images)]
    for i, entry in enumerate(ledger.entries):
        of_images = [part.entries[i] for part in parts]
        for number in ("computed", "covariance", "analytic_graph", "spikes"):
            assert sum(getattr(e, number) for e in of_images) == getattr(entry, number)


def test_native_reconciles_with_the_reference(network, images, native):
    ledger = Ledger.from_results(network, [native, reference(network, images, T)])
    assert ledger.reconciled
    assert ledger.disagreements == ()
    for entry in ledger.entries:
        assert entry.backends == ("native", "reference")
        assert entry.measured == {"native": entry.computed}
        assert entry.reported == {"reference": entry.computed}
        assert entry.residual("native") == 0
        assert entry.residual("reference") is None
    assert all(entry.computed > 0 for entry in ledger.entries)
    assert any(entry.covariance != 0 for entry in ledger.entries)


def test_first_projection_reconciles_with_the_pixels_that_are_not_zero(network, images, native):
    entry = Ledger.from_results(network, [native]).entry("input", "h1")
    fan_out = network.projection("input", "h1").connection.fan_out
    by_hand = sum(T * int(d) for image in images for x, d in zip(image, fan_out, strict=True) if x != 0)
    assert entry.measured["native"] == by_hand
    assert entry.spikes == T * np.count_nonzero(images)


def test_current_mode_is_shown_as_computed(network, images):
    ledger = Ledger.from_results(network, [NativeBackend().run(network, images, T, input="current")])
    first, second = ledger.entry("input", "h1"), ledger.entry("h1", "h2")
    assert first.measured == {}
    assert first.reported == {"native": T * first.nnz * len(images)}
    assert first.residual("native") is None
    assert second.measured == {"native": second.computed}
    assert "computed, not measured: input -> h1 by native" in ledger.describe()


def test_dense_layers_have_no_covariance(chain, images):
    rng = np.random.default_rng(1)
    dense = [rng.integers(1, 5, shape) * rng.choice([-1, 1], shape) for shape in ((20, 30), (30, 4))]
    graph = chain(*dense)
    ledger = Ledger.from_results(graph, [NativeBackend().run(graph, images, T)])
    assert ledger.reconciled
    assert [entry.covariance for entry in ledger.entries] == [0, 0]
    assert all(entry.computed > 0 for entry in ledger.entries)


def test_hubs_that_fire_more_have_positive_covariance(chain, count):
    weights = np.zeros((4, 6), int)
    weights[0] = 1  # a hub of fan-out 6 that fires 10 times, three neurons of fan-out 1 that fire twice
    weights[1:, 0] = 1
    graph = chain(np.eye(4, dtype=int), weights)
    entry = Ledger.from_counts(graph, [count(graph, [np.zeros((1, 4), int), np.array([[10, 2, 2, 2]])], 16)]).entry(
        "h1", "readout"
    )
    assert entry.computed == 10 * 6 + 3 * 2
    assert entry.analytic_graph == Fraction(16, 4) * 9
    assert entry.covariance == 6 * Fraction(15, 4) + 3 * (-2) * Fraction(-5, 4)
    assert entry.residual("made") == 0


def test_synapse_dropped_in_a_run_is_the_residual(network, images, native):
    last = network.projection("h2", "readout").connection
    fired = native.spikes["h2"].events.sum(axis=0)
    neuron = int(np.argmax(fired * (last.fan_out > 0)))
    weights = last.to_scipy().tolil()
    weights[neuron, last.indices[last.pointers[neuron]]] = 0
    cut = SpikingGraph(
        network.populations,
        [
            p if p.post != "readout" else Projection("h2", "readout", CSRConnection.from_scipy(weights))
            for p in network.projections
        ],
    )
    ledger = Ledger.from_results(network, [NativeBackend().run(cut, images, T)])
    assert ledger.residuals == {("native", ("h2", "readout")): -int(fired[neuron])}
    assert fired[neuron] > 0
    assert not ledger.reconciled
    assert f"RESIDUAL -{fired[neuron]} events: h2 -> readout by native" in ledger.describe()


def test_one_lost_event_is_a_residual_of_one(network, native):
    events = {key: value.copy() for key, value in native.events.items()}
    events["h1", "h2"][3] -= 1
    ledger = Ledger.from_results(network, [native, dataclasses.replace(native, backend="lossy", events=events)])
    assert ledger.residuals == {("lossy", ("h1", "h2")): -1}
    assert ledger.disagreements == ()
    assert not ledger.reconciled
    assert [ledger.image(i).reconciled for i in range(6)] == [True, True, True, False, True, True]


def test_different_spikes_are_said_and_none_is_preferred(network, native):
    positive = native.spikes["h2"].positive.copy()
    positive[2, 5] += 3
    spikes = {**native.spikes, "h2": SpikeCounts(positive, native.spikes["h2"].negative)}
    other = dataclasses.replace(native, backend="other", spikes=spikes)
    third = dataclasses.replace(native, backend="third")
    ledger = Ledger.from_results(network, [native, other, third])
    n = int(native.spikes["h2"].positive[2, 5])
    assert ledger.disagreements == (
        f"population 'h2': native and other differ in 1 of 25 neurons; first at image 2, neuron 5: native +{n} -0 spikes, "
        f"other +{n + 3} -0 spikes",
    )
    assert not ledger.reconciled
    assert "SPIKES DIFFER" in ledger.describe()
    assert [entry.backends for entry in ledger.entries] == [("native", "third")] * 3 + [("other",)] * 3
    fan_out = int(network.projection("h2", "readout").connection.fan_out[5])
    assert ledger.entry("h2", "readout", "other").computed == ledger.entry("h2", "readout", "native").computed + 3 * fan_out
    assert ledger.entry("h2", "readout", "other").residual("other") == -3 * fan_out
    for refused in (ledger.energy, ledger.masfr, lambda: ledger.entry("h1", "h2")):
        with pytest.raises(ConfigError, match="one set of spikes"):
            refused()
    frame = ledger.to_frame()
    assert list(frame["spikes_of"]) == ["native, third"] * 4 + ["other"] * 4
    assert frame.loc[frame["spikes_of"] == "other", "native_measured_events"].isna().all()


def test_signs_are_compared_apart(network, native):
    h1 = native.spikes["h1"]
    flipped = {**native.spikes, "h1": SpikeCounts(h1.negative, h1.positive)}
    ledger = Ledger.from_results(network, [native, dataclasses.replace(native, backend="flipped", spikes=flipped)])
    assert len(ledger.disagreements) == 1
    assert "population 'h1'" in ledger.disagreements[0]


def test_negative_spikes_are_events(chain):
    weights = np.array([[1, 1], [0, 1]])
    graph = chain(np.eye(2, dtype=int), weights)
    spikes = {
        "input": SpikeCounts(np.zeros((1, 2), int), np.zeros((1, 2), int)),
        "h1": SpikeCounts(np.array([[5, 1]]), np.array([[2, 0]])),
    }
    events = {("input", "h1"): np.array([0]), ("h1", "readout"): np.array([7 * 2 + 1 * 1])}
    counts = EventCounts(
        backend="signed", steps=8, images=1, spikes=spikes, events=events, counting=dict.fromkeys(events, "measured")
    )
    assert Ledger.from_counts(graph, [counts]).reconciled


def test_summed_counts_give_the_same_ledger(network, native):
    whole = Ledger.from_results(network, [native])
    counts = EventCounts.of(native)
    bulk = EventCounts(
        backend="bulk",
        steps=T,
        images=6,
        spikes={
            name: SpikeCounts(c.positive.sum(axis=0)[None], c.negative.sum(axis=0)[None]) for name, c in native.spikes.items()
        },
        events=native.events,
        counting=native.counting,
    )
    batches = [counts.image(i) for i in range(6)]
    merged = EventCounts.merge([EventCounts.merge(batches[:2]), EventCounts.merge(batches[2:])])
    assert merged.images == 6
    for summed in (bulk, merged, counts.summed()):
        ledger = Ledger.from_counts(network, [summed])
        assert ledger.reconciled
        assert ledger.images == 6
        for mine, other in zip(ledger.entries, whole.entries, strict=True):
            assert (mine.computed, mine.covariance, mine.lasfr) == (other.computed, other.covariance, other.lasfr)
        with pytest.raises(ConfigError, match="summed over 6 images"):
            ledger.image(0)
        with pytest.raises(ConfigError, match="summed over 6 images"):
            ledger.to_frame(images="each")
    both = Ledger.from_counts(network, [counts, bulk])
    assert both.reconciled
    assert both.backends == ("native", "bulk")


def test_merging_refuses_what_is_not_one_run(network, native):
    counts = EventCounts.of(native)
    other = dataclasses.replace(counts, counting={**counts.counting, ("h1", "h2"): "computed"})
    with pytest.raises(ConfigError, match="different counting"):
        EventCounts.merge([counts, other])
    with pytest.raises(ConfigError, match="no batch"):
        EventCounts.merge([])


def test_overflow_size_numbers_stay_exact(chain):
    n = 3000
    weights = np.ones((n, 20), int)
    weights[1::2, 1:] = 0
    graph = chain(np.ones((1, n), int), weights)
    s = np.full((1, n), 2**47)
    s[0, 0] += 1
    computed = n // 2 * 21 * 2**47 + 20
    spikes = {"input": SpikeCounts(np.array([[0]]), np.array([[0]])), "h1": SpikeCounts(s, np.zeros_like(s))}
    events = {("input", "h1"): np.array([0]), ("h1", "readout"): np.array([computed])}
    counts = EventCounts(
        backend="big", steps=2**47 + 1, images=1, spikes=spikes, events=events, counting=dict.fromkeys(events, "measured")
    )
    entry = Ledger.from_counts(graph, [counts]).entry("h1", "readout")
    assert n * computed > 2**63
    assert entry.computed == computed
    assert entry.covariance == 20 - Fraction(n // 2 * 21, n)
    assert entry.residual("big") == 0


def test_convolution_borders(count):
    rng = np.random.default_rng(3)
    kernel = rng.integers(1, 4, (2, 1, 3, 3))
    convolution = Conv2dConnection(kernel, (1, 4, 5), padding=(1, 1))
    graph = SpikingGraph(
        [
            Population(name="input", shape=(20,), kind="input", value_range=(0, 255)),
            Population(name="pixels", shape=(1, 4, 5), kind="if", threshold=np.full(20, 8)),
            Population(name="readout", shape=(2, 4, 5), kind="readout"),
        ],
        [
            Projection("input", "pixels", CSRConnection.from_scipy(np.eye(20, dtype=int))),
            Projection("pixels", "readout", convolution),
        ],
    )
    spikes = [np.zeros((2, 20), int), rng.integers(0, 9, (2, 20))]
    entry = Ledger.from_counts(graph, [count(graph, spikes, 8)]).entry("pixels", "readout")
    assert entry.residual("made") == 0
    assert entry.covariance != 0
    assert entry.nominal == entry.ann_flops == 3 * 3 * 1 * 2 * 4 * 5
    # Of 3 x 3 taps on 4 x 5 pixels, (3*4-2) x (3*5-2) lie inside.
    assert entry.nnz == 2 * (3 * 4 - 2) * (3 * 5 - 2)
    assert entry.border == Fraction(int(spikes[1].sum()), 20) * (entry.nominal - entry.nnz)
    assert entry.analytic_paper() - entry.border == entry.analytic_graph
    # A 2 x 2 pool composed into the projection: the ANN's own convolution has a quarter of its taps.
    pooled = Ledger.from_counts(graph, [count(graph, spikes, 8)], ann_flops={("pixels", "readout"): entry.nominal // 4})
    own = pooled.entry("pixels", "readout")
    assert own.pool == own.mean_spikes * (entry.nominal - entry.nominal // 4)
    assert own.analytic_paper() + own.pool - own.border == entry.analytic_graph


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": T + 1}, "different steps"),
        ({"backend": "native"}, "expected different names"),
        ({"readout": np.zeros((5, T, 4), np.int64)}, "expected 2 dimensions, the first of length 5"),
    ],
)
def test_results_that_cannot_be_compared(network, native, change, message):
    with pytest.raises((ConfigError, BackendError), match=message):
        Ledger.from_results(network, [native, dataclasses.replace(native, **({"backend": "other"} | change))])


def test_results_of_different_images(network, images, native):
    other = dataclasses.replace(NativeBackend().run(network, images[:4], T), backend="other")
    with pytest.raises(ConfigError, match=r"different images \{'native': 6, 'other': 4\}"):
        Ledger.from_results(network, [native, other])
    with pytest.raises(ConfigError, match="no results"):
        Ledger.from_results(network, [])


def test_malformed_counts(network, native):
    def bad(**change):
        return Ledger.from_results(network, [dataclasses.replace(native, **change)])

    h1 = native.spikes["h1"]
    with pytest.raises(BackendError, match=r"events of 'h1' -> 'h2' are missing"):
        bad(events={key: value for key, value in native.events.items() if key != ("h1", "h2")})
    with pytest.raises(BackendError, match=r"spikes of population 'h1' are missing"):
        bad(spikes={name: value for name, value in native.spikes.items() if name != "h1"})
    with pytest.raises(BackendError, match=r"found dtype float64, expected integers"):
        bad(events={**native.events, ("h1", "h2"): native.events["h1", "h2"] * 1.0})
    with pytest.raises(BackendError, match=r"found the negative count -1"):
        bad(spikes={**native.spikes, "h1": SpikeCounts(h1.positive, h1.negative - 1)})
    with pytest.raises(BackendError, match=r"found 29 neurons, expected 30"):
        bad(spikes={**native.spikes, "h1": SpikeCounts(h1.positive[:, 1:], h1.negative[:, 1:])})
    with pytest.raises(BackendError, match=r"expected one shape"):
        bad(spikes={**native.spikes, "h1": SpikeCounts(h1.positive, h1.negative[:, 1:])})
    with pytest.raises(BackendError, match=r"found counting 'guessed'"):
        bad(counting={**native.counting, ("h1", "h2"): "guessed"})
    with pytest.raises(BackendError, match=r"found T = 0"):
        bad(steps=0)


def test_asking_for_what_is_not_there(network, native):
    ledger = Ledger.from_results(network, [native])
    with pytest.raises(ConfigError, match=r"no entry 'h2' -> 'h1'"):
        ledger.entry("h2", "h1")
    with pytest.raises(ConfigError, match=r"found image 6, expected 0..5"):
        ledger.image(6)
    with pytest.raises(ConfigError, match="expected 'sum', 'mean' or 'each'"):
        ledger.to_frame(images="all")
