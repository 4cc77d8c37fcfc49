"""Counts to joules: Eq. 3 and 4, the first layer's charge behind Table 2, switches, savings."""

from fractions import Fraction

import numpy as np
import pytest

from sparsespike.backends.base import SpikeCounts
from sparsespike.backends.native import NativeBackend
from sparsespike.common.errors import ConfigError
from sparsespike.energy.counts import EventCounts
from sparsespike.energy.flops import linear_flops
from sparsespike.energy.ledger import Ledger
from sparsespike.energy.model import EnergyModel, Saving, saving
from sparsespike.energy.profiles import get_profile
from sparsespike.export.connections import CSRConnection
from sparsespike.export.graph import Population, Projection, SpikingGraph

STEP_UJ = Fraction("43.4110464")  # 3072 x 3072 x 4.6 pJ

# The paper's Table 2, MLP: T and energy (uJ) of the dense network, then of the sparse one (99 %), reduction (%).
TABLE_2_MLP = [
    (14, "622.13", 15, "6.59", "98.94"),
    (18, "810.99", 20, "10.02", "98.76"),
    (64, "2797.42", 64, "28.00", "99.00"),
    (14, "625.76", 20, "8.86", "98.58"),
    (22, "986.16", 34, "19.34", "98.04"),
    (32, "1409.70", 32, "14.09", "99.00"),
]
TABLE_2_VGG = [
    ("394.02", "203.91", "48.25"),
    ("912.14", "523.11", "42.65"),
    ("434.22", "351.73", "19.00"),
    ("629.51", "366.37", "41.80"),
    ("1104.36", "561.45", "49.16"),
    ("715.55", "362.79", "49.30"),
]


def first_layer(fan_out: int, steps: int) -> Ledger:
    """3072 pixels, none of them zero, to 3072 neurons of which each pixel reaches ``fan_out``; nothing after it fires."""
    n = 3072
    starts = np.arange(n)[:, None]
    indices = np.sort((starts + np.arange(fan_out)) % n, axis=1).ravel()
    first = CSRConnection(np.arange(0, n * fan_out + 1, fan_out), indices, np.ones(n * fan_out, int), n)
    last = CSRConnection.from_scipy(np.ones((n, 1), int))
    graph = SpikingGraph(
        [
            Population(name="input", shape=(3, 32, 32), kind="input", value_range=(0, 255)),
            Population(name="h1", shape=(n,), kind="if", threshold=np.full(n, 2)),
            Population(name="readout", shape=(1,), kind="readout"),
        ],
        [Projection("input", "h1", first), Projection("h1", "readout", last)],
    )
    silent = np.zeros((1, n), int)
    counts = EventCounts(
        backend="made",
        steps=steps,
        images=1,
        spikes={"input": SpikeCounts(silent + steps, silent), "h1": SpikeCounts(silent, silent)},
        events={("input", "h1"): np.array([steps * n * fan_out]), ("h1", "readout"): np.array([0])},
        counting={("input", "h1"): "measured", ("h1", "readout"): "measured"},
    )
    return Ledger.from_counts(graph, [counts])


@pytest.mark.parametrize("counts", ["events", "paper"])
def test_dense_first_layer_costs_43_41_uj_a_step(counts):
    energy = first_layer(3072, 1).energy(EnergyModel(counts=counts))
    assert energy.total_pj == 3072 * 3072 * Fraction("4.6")
    assert energy.total_pj / 10**6 == STEP_UJ
    assert round(energy.per_image_uj, 2) == 43.41


@pytest.mark.parametrize(("steps", "share"), [(14, 607.8), (64, 2778.3)])
def test_first_layer_share_of_table_2(steps, share):
    ledger = first_layer(3072, steps)
    assert ledger.reconciled
    assert ledger.energy().share_pj("MAC") == steps * STEP_UJ * 10**6
    assert round(float(ledger.energy().share_pj("MAC")) / 1e6, 1) == share


@pytest.mark.parametrize(("dense_steps", "dense", "sparse_steps", "sparse", "reduction"), TABLE_2_MLP)
def test_table_2_is_almost_the_first_layer_alone(dense_steps, dense, sparse_steps, sparse, reduction):
    """Charged at every step without a rate factor, the first layer fits under every total and leaves little to the others."""
    for steps, sparsity, total, least in ((dense_steps, "0", dense, "0.96"), (sparse_steps, "0.99", sparse, "0.76")):
        macs = steps * linear_flops(3072, 3072, sparsity=Fraction(sparsity))
        share = macs * get_profile("paper").mac_pj / 10**6 / Fraction(total)
        assert Fraction(least) < share < 1
    assert round(100 * saving(Fraction(dense), Fraction(sparse)), 2) == Fraction(reduction)


@pytest.mark.parametrize(("dense", "sparse", "reduction"), TABLE_2_VGG)
def test_table_2_divides_by_the_dense_energy(dense, sparse, reduction):
    dense, sparse = Fraction(dense), Fraction(sparse)
    assert round(100 * saving(dense, sparse), 2) == Fraction(reduction)
    assert round(100 * (dense - sparse) / sparse, 2) != Fraction(reduction)  # the denominator that the text prints


@pytest.fixture(scope="module")
def ledger(chain):
    rng = np.random.default_rng(4)
    weights = [rng.integers(-5, 9, shape) * (rng.random(shape) < 0.4) for shape in ((12, 16), (16, 9), (9, 3))]
    graph = chain(*weights)
    images = rng.integers(0, 5, (4, 12))
    return Ledger.from_results(graph, [NativeBackend().run(graph, images, 10)])


def by_hand(ledger: Ledger, rate_of: str) -> Fraction:
    """Eq. 3 written out: E_MAC T FL^1 + E_AC sum_l T LASFR^l FL^l, with FL = n_in n_out (1 - sparsity), for all images."""
    spikes, graph = ledger.counts[0].spikes, ledger.graph
    energy = Fraction(0)
    for projection in graph.projections:
        pre, post = (graph.population(name) for name in projection.key)
        sparsity = 1 - Fraction(projection.connection.nnz, pre.size * post.size)
        flops = pre.size * post.size * (1 - sparsity)
        if pre.kind == "input":
            energy += Fraction("4.6") * ledger.steps * ledger.images * flops
            continue
        of = pre if rate_of == "input" else post
        fired = int(spikes[of.name].events.sum()) if of.name in spikes else 0
        lasfr = Fraction(fired, ledger.steps * ledger.images * of.size)
        energy += Fraction("0.9") * ledger.steps * ledger.images * lasfr * flops
    return energy


@pytest.mark.parametrize("rate_of", ["input", "output"])
def test_equation_3(ledger, rate_of):
    assert ledger.energy(EnergyModel(counts="paper", rate_of=rate_of)).total_pj == by_hand(ledger, rate_of)


def test_rate_of_changes_the_result(ledger):
    assert by_hand(ledger, "input") != by_hand(ledger, "output")


def test_events_differ_from_the_paper_by_the_covariance(ledger):
    difference = ledger.energy().total_pj - ledger.energy(EnergyModel(counts="paper")).total_pj
    assert difference == Fraction("0.9") * sum(entry.covariance for entry in ledger.entries[1:])
    assert difference != 0


def test_three_accountings_of_the_first_layer(ledger):
    entry = ledger.entry("input", "h1")
    macs = {way: EnergyModel(first_layer=way).macs(entry) for way in ("every_step", "zeros_skipped", "once")}
    assert macs == {"every_step": 10 * 4 * entry.nnz, "zeros_skipped": entry.measured["native"], "once": 4 * entry.nnz}
    assert macs["zeros_skipped"] < macs["every_step"]
    paper = EnergyModel(counts="paper", first_layer="zeros_skipped")
    assert paper.macs(entry) == entry.analytic_graph
    for way, number in macs.items():
        assert ledger.energy(EnergyModel(first_layer=way)).share_pj("MAC") == number * Fraction("4.6")


def test_energy_is_the_sum_of_its_terms(ledger):
    energy = ledger.energy(EnergyModel(profile=get_profile("loihi1-active")))
    kinds = {kind: energy.share_pj(kind) for kind in ("MAC", "AC", "update", "message")}
    assert sum(kinds.values()) == energy.total_pj
    assert kinds["update"] == 81 * (16 + 9 + 3) * 10 * 4
    assert kinds["message"] == Fraction("1.7") * (ledger.entry("h1", "h2").spikes + ledger.entry("h2", "readout").spikes)
    frame = energy.to_frame()
    assert list(frame.columns) == ["part", "operation", "count_operations", "energy_pJ"]
    assert frame["part"].iloc[-1] == "total"
    assert frame["energy_pJ"].iloc[-1] == float(energy.total_pj)


def test_switches_and_profile_are_printed(ledger):
    text = ledger.energy(EnergyModel(counts="paper", rate_of="output", first_layer="once")).describe()
    for part in (
        "counts = paper",
        "rate_of = output",
        "first_layer = once",
        "MAC 4.6 pJ, AC 0.9 pJ",
        "45 nm",
        "Horowitz",
        "T = 10",
    ):
        assert part in text
    assert "rate_of" not in EnergyModel(counts="events").describe()
    assert "averaged over: hidden+readout" in ledger.describe(over="hidden+readout")


def test_saving_of_sparse_against_dense():
    model = EnergyModel(counts="paper")
    dense, sparse = first_layer(3072, 14).energy(model), first_layer(31, 15).energy(model)
    result = Saving(dense=dense, sparse=sparse)
    assert result.fraction == 1 - Fraction(15 * 31, 14 * 3072)
    assert result.first_layer_fraction == result.fraction
    assert result.describe().startswith("saving (E_dense - E_sparse) / E_dense = 98.92% (98.92% of E_dense from the first layer")
    assert Saving(dense=sparse, sparse=dense).fraction < 0


def test_saving_is_per_image(ledger):
    one = Saving(dense=ledger.energy(), sparse=ledger.image(0).energy())
    assert one.fraction == 1 - ledger.image(0).energy().total_pj / (ledger.energy().total_pj / 4)
    part = ledger.energy().share_pj("MAC") / 4 - ledger.image(0).energy().share_pj("MAC")
    assert one.first_layer_fraction == part / (ledger.energy().total_pj / 4) == 0


def test_saving_under_two_models_is_refused(ledger):
    with pytest.raises(ConfigError, match=r"(?s)two models.*rate_of = output"):
        Saving(dense=ledger.energy(), sparse=ledger.energy(EnergyModel(counts="paper", rate_of="output")))


@pytest.mark.parametrize("switch", [{"counts": "spikes"}, {"rate_of": "hidden"}, {"first_layer": "never"}])
def test_unknown_switches(switch):
    ((name, value),) = switch.items()
    with pytest.raises(ConfigError, match=f"found {name} = '{value}', expected one of"):
        EnergyModel(**switch)


def test_unknown_rate_of_an_entry(ledger):
    with pytest.raises(ConfigError, match="expected 'input' or 'output'"):
        ledger.entry("h1", "h2").analytic_paper("hidden")


def test_sparsity_outside_its_range():
    assert linear_flops(4, 5) == 20
    with pytest.raises(ConfigError, match="found sparsity 99"):
        linear_flops(3072, 3072, sparsity=99)
