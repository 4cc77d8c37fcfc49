"""Lag statistics against closed forms: small samples whose exact distribution can be counted."""

import dataclasses
import itertools
from math import comb, exp, pi, sqrt

import numpy as np
import pytest

from sparsespike.backends.native import NativeBackend
from sparsespike.common.errors import ConfigError
from sparsespike.energy.lag import (
    LagPoint,
    LagStudy,
    Unsaturated,
    lag_density,
    lag_study,
    mann_whitney_p,
    wilcoxon_p,
)
from sparsespike.energy.record import Record

SATURATES_AT_16 = [100, 110, 121, 133, 146, 160] + [160] * 14
SATURATES_AT_11 = [100] * 20
NEVER = [10 * 2**t for t in range(20)]


@pytest.fixture(scope="module")
def record(chain):
    graph = chain(np.ones((3, 4), np.int64), np.ones((4, 2), np.int64))
    run = NativeBackend().run(graph, np.full((2, 3), 9), 20)
    what = {"dataset": "made", "model": "mlp", "method": "qcfs", "sparsity": 0}
    return Record.of(graph, run, np.zeros(2), 1, what)


def made(record, correct, spikes, sparsity=0.0, **what):
    silent = (0,) * 20
    positive = {"h1": tuple(spikes)}
    return dataclasses.replace(
        record,
        what={**record.what, "sparsity": sparsity, **what},
        images=10**8,
        correct=tuple(correct),
        populations=tuple(
            dataclasses.replace(p, positive=positive.get(p.name, silent), negative=silent) for p in record.populations
        ),
    )


def points(*lags, sparse=False, dataset="digits"):
    return [LagPoint(network="", dataset=dataset, sparse=sparse, accuracy=20 + lag, masfr=20) for lag in lags]


def test_study_of_records(record):
    rising = [5] + [5 * (t + 2) for t in range(19)]
    records = [
        made(record, SATURATES_AT_16, [5] * 20, seed=1),
        made(record, SATURATES_AT_11, [5] * 20, 0.99, seed=2),
        made(record, NEVER, [5] * 20, 0.99, seed=3),
        made(record, NEVER, rising, seed=4),
        made(record, SATURATES_AT_11, rising, seed=5),
        dataclasses.replace(record, slots=20),
    ]
    study = lag_study(records)
    assert [(p.accuracy, p.masfr, p.lag, p.sparse) for p in study.points] == [(16, 11, 5, False), (11, 11, 0, True)]
    assert [(u.sparse, u.steps, u.curves) for u in study.unsaturated] == [
        (True, 20, ("accuracy",)),
        (False, 20, ("accuracy", "MASFR")),
        (False, 20, ("MASFR",)),
    ]
    assert "seed = 4" in study.unsaturated[1].network
    summary = study.summary()
    assert summary.unsaturated == {"all": 3, "dense": 2, "sparse": 1}
    assert summary.left_out == 1
    text = summary.describe()
    assert "dense: 1 networks with a lag (1 positive, 0 zero, 0 negative), mean 5 steps; 2 did not saturate within T" in text
    assert "1 records of AEC networks left out" in text


def test_a_study_needs_a_rate_method(record):
    with pytest.raises(ConfigError, match=r"no record of a rate method \(1 of AEC\)"):
        lag_study([dataclasses.replace(record, slots=20)])


@pytest.mark.parametrize("n", [1, 2, 5, 8, 12])
def test_wilcoxon_of_lags_that_are_all_positive(n):
    # Of the 2^n equally likely signs of the ranks, one has a rank sum as large.
    assert wilcoxon_p(np.arange(1, n + 1)) == pytest.approx(2.0**-n, rel=1e-12)


def test_wilcoxon_by_counting_all_signs():
    lags = np.array([3, -1, 7, 2, -5, 11, 13])
    ranks = np.abs(lags).argsort().argsort() + 1
    observed = ranks[lags > 0].sum()
    sums = [sum(r for r, up in zip(ranks, signs, strict=True) if up) for signs in itertools.product((0, 1), repeat=7)]
    assert wilcoxon_p(lags) == pytest.approx(sum(s >= observed for s in sums) / 2**7, rel=1e-12)
    # A lag of zero has no sign and does not count.
    assert wilcoxon_p(np.append(lags, [0, 0])) == wilcoxon_p(lags)


def test_wilcoxon_is_one_sided():
    assert wilcoxon_p(-np.arange(1, 9)) == 1.0
    assert wilcoxon_p(np.zeros(4, np.int64)) is None
    assert wilcoxon_p(np.zeros(0, np.int64)) is None


@pytest.mark.parametrize(("m", "n"), [(1, 1), (3, 4), (5, 6)])
def test_mann_whitney_of_samples_apart(m, n):
    # One of the C(m + n, m) equally likely arrangements is as extreme, on each side.
    low, high = np.arange(1, m + 1), np.arange(100, 100 + n)
    assert mann_whitney_p(low, high) == pytest.approx(2 / comb(m + n, m), rel=1e-12)
    assert mann_whitney_p(high, low) == mann_whitney_p(low, high)
    assert mann_whitney_p(low, low[:0]) is None


def test_density_is_a_mean_of_normal_curves():
    lags = np.array([2, 4, 9])
    width = lags.std(ddof=1) * 3 ** (-1 / 5)  # Scott's rule in one dimension
    at = [0.0, 3.5, 10.0]
    expected = [sum(exp(-((x - v) ** 2) / (2 * width**2)) for v in lags) / (3 * width * sqrt(2 * pi)) for x in at]
    assert lag_density(lags, at) == pytest.approx(expected, rel=1e-12)
    assert lag_density(np.array([4, 4]), at) is None


def test_summary_by_hand():
    study = LagStudy(points=tuple(points(-2, 0, 1, 3) + points(4, 6, 8, sparse=True)), unsaturated=(), left_out=0)
    summary = study.summary()
    assert summary.networks == {"all": 7, "dense": 4, "sparse": 3}
    assert (summary.positive["dense"], summary.zero["dense"], summary.negative["dense"]) == (2, 1, 1)
    assert summary.mean_lag_steps == {"all": 20 / 7, "dense": 0.5, "sparse": 6.0}
    assert summary.mean_positive_lag_steps == {"all": 22 / 5, "dense": 2.0, "sparse": 6.0}
    assert summary.wilcoxon_p["sparse"] == pytest.approx(1 / 8)
    # Dense signed ranks of -2, 1, 3: rank sum of the positive ones is 1 + 3 = 4; of 8 sums 0, 1, 2, 3, 3, 4, 5, 6 three reach it.
    assert summary.wilcoxon_p["dense"] == pytest.approx(3 / 8)
    assert summary.mann_whitney_p == pytest.approx(2 / comb(5, 2))
    assert summary.to_dict()["paper_wilcoxon_p"]["all"] == 6.119e-62
    nothing = LagStudy(points=(), unsaturated=(), left_out=0).summary()
    assert (nothing.mann_whitney_p, nothing.wilcoxon_p["all"], nothing.mean_lag_steps["all"]) == (None, None, None)
    assert "p = none" in nothing.describe()


def test_summary_within_each_data_set():
    digits, cifar = points(-2, 0, -1, -3), points(4, 6, 8, sparse=True, dataset="cifar10") + points(5, dataset="cifar10")
    never = Unsaturated(network="", dataset="cifar10", sparse=True, steps=64, curves=("MASFR",))
    summary = LagStudy(points=(*digits, *cifar), unsaturated=(never,), left_out=1).summary()
    alone = LagStudy(points=tuple(cifar), unsaturated=(never,), left_out=0).summary()
    assert summary.datasets == {
        "cifar10": alone,
        "digits": LagStudy(points=tuple(digits), unsaturated=(), left_out=0).summary(),
    }
    assert alone.datasets == {}
    assert summary.datasets["digits"].wilcoxon_p["all"] == 1.0
    assert summary.to_dict()["datasets"]["cifar10"]["unsaturated"] == {"all": 1, "dense": 0, "sparse": 1}
    assert "digits alone: 4 networks with a lag (0 positive, 1 zero, 3 negative), mean -1.5 steps" in summary.describe()
    assert "\n  Wilcoxon p = " in summary.describe()
