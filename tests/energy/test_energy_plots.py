"""Figures: what their bars and lines hold, that files are written, and that nothing global of matplotlib changes."""

import sys

import matplotlib
import numpy as np
import pytest
from matplotlib.container import BarContainer

from sparsespike.backends.native import NativeBackend
from sparsespike.backends.reference import reference
from sparsespike.common.errors import ConfigError, MissingExtraError
from sparsespike.energy.ledger import Ledger
from sparsespike.energy.model import EnergyModel
from sparsespike.energy.plots import AccuracyCurve, accuracy_figure, energy_figure, events_figure, save_figure
from sparsespike.energy.profiles import get_profile

T, B = 10, 4
STACKED = 1e-12  # matplotlib keeps a bar's ends: the height of one that does not start at 0 is their rounded difference


@pytest.fixture(scope="module")
def ledger(chain):
    rng = np.random.default_rng(6)
    weights = [rng.integers(-5, 9, shape) * (rng.random(shape) < 0.4) for shape in ((12, 16), (16, 9), (9, 3))]
    graph = chain(*weights)
    images = rng.integers(0, 5, (B, 12))
    return Ledger.from_results(graph, [NativeBackend().run(graph, images, T), reference(graph, images, T)])


def bars(ax):
    """Heights of each labelled group of bars."""
    return {c.get_label(): [bar.get_height() for bar in c] for c in ax.containers if isinstance(c, BarContainer)}


def test_accuracy_curves_hold_the_data_in_percent():
    dense = AccuracyCurve(label="dense", snn=[0.1, 0.5, 0.75], ann=0.8, mark=2)
    sparse = AccuracyCurve(label="_sparse $99$", snn=[0.2, 0.6], ann=0.9, steps=[2, 4])
    figure = accuracy_figure([dense, sparse], title="two networks")
    (ax,) = figure.axes
    curves = [line for line in ax.lines if len(line.get_xdata()) > 2 or list(line.get_xdata()) == [2, 4]]
    np.testing.assert_array_equal(curves[0].get_ydata(), [10, 50, 75])
    np.testing.assert_array_equal(curves[1].get_ydata(), [20, 60])
    legend = [text.get_text() for text in ax.get_legend().get_texts()]
    assert legend[0] == "dense: SNN, at most 75.0 %"
    assert legend[1] == "dense: ANN, 80.0 %"
    assert legend[2].endswith(r"_sparse \$99\$: SNN, at most 60.0 %")
    assert [text.get_text() for text in ax.texts] == ["T = 2"]
    assert ax.get_ylabel() == "accuracy (%)"
    assert {80.0, 90.0} <= {line.get_ydata()[0] for line in ax.lines if line.get_linestyle() == "--"}


@pytest.mark.parametrize("log", [False, True])
def test_events_measured_beside_analytic(ledger, log):
    figure = events_figure(ledger, log=log, title="events")
    top, bottom = figure.axes
    shown = bars(top)
    np.testing.assert_array_equal(shown["native: measured"], [e.computed / B for e in ledger.entries])
    np.testing.assert_array_equal(shown["reference: computed, not measured"], [e.computed / B for e in ledger.entries])
    assert "reference: measured" not in shown
    np.testing.assert_array_equal(shown["analytic, T · LASFR · nnz"], [float(e.analytic_graph / B) for e in ledger.entries])
    covariance = [abs(float(e.covariance / B)) for e in ledger.entries]
    np.testing.assert_allclose(shown["covariance term, N · cov(s, d)"], covariance, rtol=STACKED)
    assert top.get_yscale() == ("log" if log else "linear")
    assert top.get_ylabel() == "synaptic events per image"
    ((_, percent),) = bars(bottom).items()
    np.testing.assert_array_equal(percent, [100 * float(e.covariance / e.analytic_graph) for e in ledger.entries])
    low, high = top.get_ylim()
    assert low <= min(shown["native: measured"])
    assert high > max(shown["native: measured"])


def test_a_negative_covariance_hangs_from_the_analytic_bar(chain, count):
    weights = np.array([[1, 1, 1], [1, 0, 0]])
    graph = chain(np.eye(2, dtype=int), weights)
    ledger = Ledger.from_counts(graph, [count(graph, [np.array([[2, 2]]), np.array([[1, 9]])], 16)])
    entry = ledger.entry("h1", "readout")
    assert entry.covariance == -8
    top, _ = events_figure(ledger).axes
    (hanging,) = (c for c in top.containers if c.get_label().startswith("covariance"))
    (bar,) = hanging
    assert (bar.get_y(), bar.get_y() + bar.get_height()) == (entry.computed, entry.analytic_graph)


def test_energies_are_stacked_per_image_in_joules(ledger):
    model = EnergyModel(profile=get_profile("loihi1-active"))
    energies = {"all": ledger.energy(model), "first image": ledger.image(0).energy(model)}
    figure = energy_figure(energies, title="energy")
    left, right = figure.axes
    kinds = dict(zip(bars(left), ("MAC", "AC", "update", "message"), strict=True))
    for label, kind in kinds.items():
        expected = [float(e.share_pj(kind) / e.images) * 1e-12 for e in energies.values()]
        np.testing.assert_allclose(bars(left)[label], expected, rtol=STACKED)
    tops = [bar.get_y() + bar.get_height() for bar in left.containers[-1]]
    np.testing.assert_allclose(tops, [e.per_image_uj * 1e-6 for e in energies.values()], rtol=STACKED)
    shares = [bar.get_y() + bar.get_height() for bar in right.containers[-1]]
    np.testing.assert_allclose(shares, 100, rtol=STACKED)
    assert "first_layer = every_step" in figure.get_supxlabel().replace("\n", " ")
    assert [text.get_text() for text in left.get_xticklabels()] == ["all\nT = 10", "first image\nT = 10"]


def test_parts_that_cost_nothing_are_not_in_the_legend(ledger):
    left, _ = energy_figure({"paper": ledger.energy()}).axes
    assert list(bars(left)) == ["first layer (MAC)", "other layers (AC)"]


@pytest.mark.parametrize(("ending", "start"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")])
def test_files(ledger, tmp_path, ending, start):
    path = tmp_path / "plots" / f"events.{ending}"
    save_figure(events_figure(ledger), path)
    assert path.read_bytes().startswith(start)
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_nothing_global_changes(ledger, tmp_path):
    before = dict(matplotlib.rcParams)
    save_figure(energy_figure({"paper": ledger.energy()}), tmp_path / "energy.png")
    save_figure(accuracy_figure([AccuracyCurve(label="x", snn=[0.5], ann=0.5)]), tmp_path / "accuracy.png")
    assert dict(matplotlib.rcParams) == before


def test_errors(ledger, tmp_path):
    with pytest.raises(ConfigError, match="no curves"):
        accuracy_figure([])
    with pytest.raises(ConfigError, match="no energies"):
        energy_figure({})
    with pytest.raises(ConfigError, match="different energy models"):
        energy_figure({"a": ledger.energy(), "b": ledger.energy(EnergyModel(first_layer="once"))})
    with pytest.raises(ConfigError, match=r"found the ending '.bmp', expected one of .png, .svg, .pdf"):
        save_figure(events_figure(ledger), tmp_path / "x.bmp")
    for wrong, message in (
        ({"snn": [50.0]}, "fractions, not percent"),
        ({"snn": [np.nan]}, "outside 0..1"),
        ({"snn": [0.5, 0.6], "steps": [1]}, "expected one for each"),
        ({"snn": []}, "expected one for each"),
        ({"snn": [0.5], "mark": 2}, "found mark = 2"),
    ):
        with pytest.raises(ConfigError, match=message):
            AccuracyCurve(**({"label": "x", "ann": 0.5} | wrong))


def test_without_matplotlib(ledger, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'sparsespike\[report\]'"):
        energy_figure({"paper": ledger.energy()})
