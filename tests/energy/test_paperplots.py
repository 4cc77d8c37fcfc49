"""Figures 2 and 3: what is drawn is what the records say."""

import dataclasses

import numpy as np
import pytest

from sparsespike.backends.native import NativeBackend
from sparsespike.common.errors import ConfigError
from sparsespike.common.figures import save_figure
from sparsespike.energy.lag import LagPoint, LagStudy, Unsaturated
from sparsespike.energy.networks import networks, pairs
from sparsespike.energy.paperplots import accuracy_frame, accuracy_panels, lag_frame, lag_panels
from sparsespike.energy.record import Record


@pytest.fixture(scope="module")
def found(chain):
    graph = chain(np.ones((4, 6), np.int64), np.ones((6, 2), np.int64))
    inputs = np.full((40, 4), 9)
    made = []
    for method, sparsity, level, ann in (("snm", 0, 30, 31), ("snm", 0.9, 20, 22), ("qcfs", 0, 35, 33)):
        what = {"dataset": "made", "model": "mlp", "method": method, "sparsity": sparsity, "training": "chts"}
        record = Record.of(graph, NativeBackend().run(graph, inputs, 20), np.zeros(40), ann, what)
        made.append(dataclasses.replace(record, correct=(5, 10, *[level] * 18)))
    return pairs(networks(made))


def texts(ax):
    return [text.get_text() for text in ax.texts]


def test_figure_2_shows_curves_lines_maxima_and_saturation(found, tmp_path):
    figure = accuracy_panels(found)
    qcfs, snm = figure.axes
    assert [ax.get_title() for ax in figure.axes] == ["qcfs", "snm"]
    solid = {line.get_label(): line for line in snm.lines if len(line.get_xdata()) == 20}
    assert list(solid) == ["fc", "s(0.9) chts"]
    np.testing.assert_allclose(solid["fc"].get_ydata(), [12.5, 25, *[75] * 18])
    np.testing.assert_array_equal(solid["fc"].get_xdata(), np.arange(1, 21))
    dashed = [line.get_ydata()[0] for line in snm.lines if len(line.get_xdata()) == 2]
    assert dashed == [77.5, 55.0]
    # Both saturate 10 steps after T = 3; ANN accuracies at the left, largest SNN accuracies at the right.
    assert sorted(texts(snm)) == sorted(["T = 13", "T = 13", "77.50", "55.00", "75.00", "50.00"])
    assert sorted(texts(qcfs)) == sorted(["T = 13", "82.50", "87.50"])
    save_figure(figure, tmp_path / "figure2.png")


def test_numbers_of_figure_2(found):
    frame = accuracy_frame(found)
    assert len(frame) == 60
    assert frame.loc[frame["marked"], "T_steps"].tolist() == [13, 13, 13]
    assert frame.groupby("method")["SNN_accuracy_%"].max().to_dict() == {"qcfs": 87.5, "snm": 75.0}


def test_figure_2_needs_networks():
    with pytest.raises(ConfigError, match="figure 2: found no networks"):
        accuracy_panels([])


@pytest.fixture
def study():
    times = [(20, 15, False), (20, 15, False), (18, 14, False), (12, 14, False), (30, 12, True), (25, 12, True)]
    points = [
        LagPoint(network=str(i), dataset="digits", sparse=sparse, accuracy=a, masfr=m) for i, (a, m, sparse) in enumerate(times)
    ]
    never = Unsaturated(network="never", dataset="digits", sparse=True, steps=64, curves=("accuracy", "MASFR"))
    return LagStudy(points=tuple(points), unsaturated=(never,), left_out=0)


def test_figure_3_shows_points_with_their_number_and_densities(study, tmp_path):
    figure = lag_panels(study)
    dense, sparse, density = figure.axes[:3]
    dots = dense.collections[-1]
    shown = {tuple(at): count for at, count in zip(dots.get_offsets().tolist(), dots.get_array().tolist(), strict=True)}
    assert shown == {(15.0, 20.0): 2, (14.0, 18.0): 1, (14.0, 12.0): 1}
    assert "4 networks, 3 above y = x" in dense.get_title()
    assert "2 networks, 2 above y = x" in sparse.get_title()
    means = [line.get_xdata()[0] for line in density.lines if len(line.get_xdata()) == 2]
    assert means == [pytest.approx(14 / 3), pytest.approx(15.5)]
    assert "1 did not saturate" in figure._supxlabel.get_text()
    save_figure(figure, tmp_path / "figure3.png")


def test_numbers_of_figure_3(study):
    frame = lag_frame(study)
    assert frame["lag_steps"].dropna().tolist() == [5, 5, 4, -2, 18, 13]
    assert frame["not_saturated"].tolist()[-1] == "accuracy and MASFR"
    with pytest.raises(ConfigError, match="no network that saturates"):
        lag_panels(dataclasses.replace(study, points=()))
