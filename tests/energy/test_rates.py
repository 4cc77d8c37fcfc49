"""LASFR (Eq. 2) and MASFR (Eq. 1) against sums over rasters."""

import numpy as np
import pytest

from sparsespike.backends.base import SpikeCounts
from sparsespike.backends.reference import reference
from sparsespike.common.errors import ConfigError
from sparsespike.energy.ledger import Ledger
from sparsespike.energy.rates import lasfr, lasfr_curve, masfr, masfr_curve

T, B = 9, 5


@pytest.fixture(scope="module")
def run(chain):
    rng = np.random.default_rng(5)
    graph = chain(*(rng.integers(-3, 7, shape) for shape in ((6, 8), (8, 7), (7, 2))))
    return graph, reference(graph, rng.integers(0, 3, (B, 6)), T)


def fired(result, name, steps=T):
    """Spikes of both signs in the first ``steps`` steps, counted in the raster, shape (B,)."""
    return np.array([sum(abs(int(x)) for x in image[:steps].ravel()) for image in result.rasters[name]])


def test_lasfr(run):
    _, result = run
    np.testing.assert_array_equal(lasfr(result.spikes["h1"], T), fired(result, "h1") / (T * 8))
    assert lasfr(result.spikes["h1"], T).min() > 0


def test_lasfr_at_every_step(run):
    _, result = run
    curve = lasfr_curve(result.spikes_by_step["h2"], 7)
    for t in range(1, T + 1):
        np.testing.assert_array_equal(curve[:, t - 1], fired(result, "h2", t) / (t * 7))


def test_masfr_over_named_neurons(run):
    graph, result = run
    hidden = fired(result, "h1") + fired(result, "h2")
    emitted = result.spikes["input"].events.sum(axis=1)
    expected = {
        "hidden": hidden / (T * (8 + 7)),
        "hidden+readout": hidden / (T * (8 + 7 + 2)),
        "all": (hidden + emitted) / (T * (6 + 8 + 7 + 2)),
    }
    np.testing.assert_array_equal(masfr(graph, result.spikes, T), expected["hidden"])
    for over, values in expected.items():
        np.testing.assert_array_equal(masfr(graph, result.spikes, T, over=over), values)
        np.testing.assert_array_equal(masfr_curve(graph, result.spikes_by_step, over=over)[:, -1], values)
        ledger = Ledger.from_results(graph, [result])
        assert float(ledger.masfr(over)) == pytest.approx(values.mean(), rel=1e-14)
    assert len({values.sum() for values in expected.values()}) == 3


def test_masfr_at_every_step(run):
    graph, result = run
    curve = masfr_curve(graph, result.spikes_by_step)
    for t in range(1, T + 1):
        np.testing.assert_array_equal(curve[:, t - 1], (fired(result, "h1", t) + fired(result, "h2", t)) / (t * 15))


def test_negative_spikes_count():
    counts = SpikeCounts(np.array([[3, 0]]), np.array([[1, 2]]))
    assert lasfr(counts, 4)[0] == 6 / 8


def test_unknown_or_empty_average(run, chain):
    graph, result = run
    with pytest.raises(ConfigError, match=r"found over = 'model', expected one of hidden, hidden\+readout, all"):
        masfr(graph, result.spikes, T, over="model")
    no_hidden = chain(np.eye(2, dtype=int))
    with pytest.raises(ConfigError, match="no population that fires"):
        masfr(no_hidden, {}, T)
