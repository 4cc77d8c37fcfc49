"""The ledger as a table: units, totals, means, and counts that are missing rather than wrong."""

import numpy as np
import pandas as pd
import pytest

from sparsespike.backends.base import SpikeCounts
from sparsespike.backends.native import NativeBackend
from sparsespike.backends.reference import reference
from sparsespike.energy.counts import EventCounts
from sparsespike.energy.ledger import Ledger
from sparsespike.energy.model import EnergyModel
from sparsespike.energy.profiles import get_profile
from sparsespike.energy.table import LABELS
from sparsespike.export.connections import CSRConnection
from sparsespike.export.graph import Population, Projection, SpikingGraph

T = 10
UNITS = ("_events", "_MACs", "_pJ", "_steps", "_operations", "_neurons", "_spikes", "_per_neuron_step")


@pytest.fixture(scope="module")
def runs(chain):
    rng = np.random.default_rng(2)
    weights = [rng.integers(-5, 9, shape) * (rng.random(shape) < 0.4) for shape in ((12, 16), (16, 9), (9, 3))]
    graph = chain(*weights)
    images = rng.integers(0, 5, (4, 12))
    return graph, images


@pytest.fixture(scope="module")
def ledger(runs):
    graph, images = runs
    return Ledger.from_results(graph, [NativeBackend().run(graph, images, T), reference(graph, images, T)])


def test_every_number_has_its_unit_in_the_name(ledger):
    for model in (EnergyModel(), EnergyModel(profile=get_profile("loihi1-active"), counts="paper")):
        for column in ledger.to_frame(model).columns:
            if column not in LABELS:
                assert column in ("images", "synapses") or column.endswith(UNITS), column


def test_rows_hold_the_entries(ledger):
    frame = ledger.to_frame()
    assert list(frame["pre"]) == ["input", "h1", "h2", "total"]
    assert list(frame["post"]) == ["h1", "h2", "readout", ""]
    assert list(frame["operation"]) == ["MAC", "AC", "AC", ""]
    for row, entry in zip(frame.to_dict("records"), ledger.entries, strict=False):
        assert row["native_measured_events"] == row["computed_events"] == entry.computed
        assert row["reference_computed_events"] == entry.computed
        assert pd.isna(row["reference_measured_events"])
        assert row["native_residual_events"] == 0
        assert pd.isna(row["reference_residual_events"])
        assert row["analytic_graph_events"] == float(entry.analytic_graph)
        assert row["covariance_events"] == float(entry.covariance)
        assert row["LASFR_spikes_per_neuron_step"] == entry.spikes / (entry.neurons * T * 4)
        assert (row["T_steps"], row["images"], row["synapses"]) == (T, 4, entry.nnz)


def test_total_row(ledger):
    frame = ledger.to_frame()
    rows, total = frame.iloc[:-1], frame.iloc[-1]
    for column in ("native_measured_events", "computed_events", "synapses", "pre_spikes"):
        assert frame[column].dtype == "Int64"
        assert total[column] == rows[column].sum()
    assert total["analytic_graph_events"] == float(sum(entry.analytic_graph for entry in ledger.entries))
    assert total["energy_pJ"] == float(ledger.energy().total_pj)
    assert pd.isna(total["LASFR_spikes_per_neuron_step"])
    assert total["every_step_MACs"] == rows["every_step_MACs"].iloc[0]


def test_part_of_a_sum_is_no_total(runs):
    graph, images = runs
    frame = Ledger.from_results(graph, [NativeBackend().run(graph, images, T, input="current")]).to_frame()
    assert pd.isna(frame["native_measured_events"].iloc[0])
    assert frame["native_computed_events"].iloc[0] == T * 4 * graph.projection("input", "h1").connection.nnz
    assert frame["native_computed_events"].iloc[1:].isna().all()
    assert pd.isna(frame["native_measured_events"].iloc[-1])
    assert pd.isna(frame["native_residual_events"].iloc[-1])
    assert frame["computed_events"].notna().all()


def test_a_population_with_two_projections_fires_once_in_the_total(count):
    def joined(pre, post):
        return Projection(pre, post, CSRConnection.from_scipy(np.eye(2, dtype=int)))

    neurons = {"shape": (2,), "kind": "if", "threshold": np.array([2, 2])}
    graph = SpikingGraph(
        [
            Population(name="input", shape=(2,), kind="input", value_range=(0, 9)),
            Population(name="a", **neurons),
            Population(name="b", **neurons),
            Population(name="readout", shape=(2,), kind="readout"),
        ],
        [joined("input", "a"), joined("a", "b"), joined("a", "readout"), joined("b", "readout")],
    )
    spikes = [np.array([[3, 0]]), np.array([[1, 2]]), np.array([[4, 0]])]
    total = Ledger.from_counts(graph, [count(graph, spikes, 4)]).to_frame().iloc[-1]
    assert total["pre_spikes"] == 3 + 3 + 4
    assert total["pre_neurons"] == 6
    assert total["computed_events"] == 3 + 3 + 3 + 4


def test_mean_is_the_sum_over_the_images(ledger):
    total, mean = ledger.to_frame(), ledger.to_frame(images="mean")
    for column in ("native_measured_events", "covariance_events", "energy_pJ", "pre_spikes", "every_step_MACs"):
        np.testing.assert_array_equal(
            mean[column].to_numpy(float, na_value=-1),
            np.where(total[column].isna(), -1, total[column].to_numpy(float, na_value=0) / 4),
        )
    for column in ("synapses", "pre_neurons", "LASFR_spikes_per_neuron_step"):
        assert mean[column].equals(total[column])


def test_each_image_has_its_rows(ledger):
    total, each = ledger.to_frame(), ledger.to_frame(images="each")
    assert len(each) == 4 * len(total)
    assert list(each["image"].unique()) == [0, 1, 2, 3]
    assert (each["images"] == 1).all()
    summed = each.groupby(["pre", "post"], sort=False)["native_measured_events"].sum()
    assert list(summed) == list(total["native_measured_events"])
    assert (each["native_residual_events"] == 0).all()


def test_switches_are_in_the_table(ledger):
    model = EnergyModel(profile=get_profile("horowitz-int8"), counts="paper", rate_of="output", first_layer="once")
    frame = ledger.to_frame(model)
    for column, value in (("profile", "horowitz-int8"), ("counts", "paper"), ("rate_of", "output"), ("first_layer", "once")):
        assert (frame[column] == value).all()


def test_updates_and_messages_have_rows_and_are_in_the_total(ledger):
    frame = ledger.to_frame(EnergyModel(profile=get_profile("loihi1-inactive")))
    updates = frame[frame["operation"] == "update"].set_index("pre")
    assert list(updates.index) == ["h1", "h2", "readout"]
    assert list(updates["charged_operations"]) == [16 * T * 4, 9 * T * 4, 3 * T * 4]
    assert list(updates["energy_pJ"]) == [52.0 * 16 * T * 4, 52.0 * 9 * T * 4, 52.0 * 3 * T * 4]
    messages = frame[frame["operation"] == "message"].set_index("pre")
    assert list(messages.index) == ["h1", "h2"]
    assert messages.loc["h1", "charged_operations"] == ledger.entry("h1", "h2").spikes
    assert frame["energy_pJ"].iloc[-1] == pytest.approx(frame["energy_pJ"].iloc[:-1].sum(), rel=1e-12)
    assert pd.isna(frame["charged_operations"].iloc[-1])


def test_counts_beyond_64_bits_are_kept(chain):
    graph = chain(np.eye(3, dtype=int), np.ones((3, 4), int))
    s = np.full((1, 3), 2**62)
    spikes = {name: SpikeCounts(s, np.zeros_like(s)) for name in ("input", "h1")}
    events = {("input", "h1"): np.array([0]), ("h1", "readout"): np.array([0])}
    counts = EventCounts(
        backend="big", steps=2**62, images=1, spikes=spikes, events=events, counting=dict.fromkeys(events, "measured")
    )
    frame = Ledger.from_counts(graph, [counts]).to_frame()
    assert list(frame["computed_events"]) == [3 * 2**62, 12 * 2**62, 15 * 2**62]
    assert list(frame["pre_spikes"]) == [3 * 2**62, 3 * 2**62, 6 * 2**62]
