"""Does the firing rate saturate before accuracy, and by how much (paper, section 3.3): statistics over many networks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from sparsespike.common.errors import ConfigError
from sparsespike.energy.rates import Over
from sparsespike.energy.record import Record

Group = Literal["all", "dense", "sparse"]
GROUPS: tuple[Group, ...] = ("all", "dense", "sparse")

PAPER_WILCOXON: dict[Group, float] = {"all": 6.119e-62, "dense": 1.613e-26, "sparse": 3.444e-35}
"""p values printed in section 3.3 of the paper, one-sided Wilcoxon signed-rank test."""

PAPER_MANN_WHITNEY = 1.266e-8
"""p value printed there for positive lags, sparse against dense, two-sided Mann-Whitney U test."""


@dataclass(frozen=True, kw_only=True)
class LagPoint:
    """Saturation times of one network, in steps (the ends of both windows).

    Attributes
    ----------
    network : str
        Its settings.
    dataset : str
    sparse : bool
    accuracy, masfr : int
    """

    network: str
    dataset: str
    sparse: bool
    accuracy: int
    masfr: int

    @property
    def lag(self) -> int:
        """Accuracy saturation time - MASFR saturation time (Eq. 5), in steps."""
        return self.accuracy - self.masfr


@dataclass(frozen=True, kw_only=True)
class Unsaturated:
    """A network without a lag: accuracy, MASFR or both do not saturate within the T that was run."""

    network: str
    dataset: str
    sparse: bool
    steps: int
    curves: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class LagSummary:
    """Statistics of a study; a p value is None where there is nothing to test.

    Attributes
    ----------
    networks, positive, zero, negative, unsaturated : dict of group to int
        Networks with a lag, those by its sign, and networks without one.
    mean_lag_steps, mean_positive_lag_steps : dict of group to float or None
    wilcoxon_p : dict of group to float or None
        One-sided Wilcoxon signed-rank test that accuracy saturates later than MASFR; lags of 0 are left out of the ranks.
    mann_whitney_p : float or None
        Two-sided Mann-Whitney U test between positive lags of sparse and of dense networks.
    left_out : int
        Records of AEC networks, which have no curve over time.
    datasets : dict of str to LagSummary
        The same within each data set, if there are several: pooled tests depend on how many networks of each there are.
    """

    networks: dict[Group, int]
    positive: dict[Group, int]
    zero: dict[Group, int]
    negative: dict[Group, int]
    unsaturated: dict[Group, int]
    mean_lag_steps: dict[Group, float | None]
    mean_positive_lag_steps: dict[Group, float | None]
    wilcoxon_p: dict[Group, float | None]
    mann_whitney_p: float | None
    left_out: int
    datasets: dict[str, LagSummary]

    def to_dict(self) -> dict[str, Any]:
        """For JSON, with the paper's p values beside ours."""
        return {**asdict(self), "paper_wilcoxon_p": PAPER_WILCOXON, "paper_mann_whitney_p": PAPER_MANN_WHITNEY}

    def describe(self) -> str:
        """The statistics for people, one line each, with the paper's p values."""
        lines = []
        for group in GROUPS:
            lines.append(
                f"{group}: {self.networks[group]} networks with a lag ({self.positive[group]} positive, {self.zero[group]} zero, "
                f"{self.negative[group]} negative), mean {_number(self.mean_lag_steps[group])} steps; "
                f"{self.unsaturated[group]} did not saturate within T and have none"
            )
            lines.append(
                f"  accuracy saturates later than MASFR, one-sided Wilcoxon signed-rank: p = {_number(self.wilcoxon_p[group])} "
                f"(paper {PAPER_WILCOXON[group]:g})"
            )
        lines.append(
            f"positive lags: mean {_number(self.mean_positive_lag_steps['sparse'])} steps sparse, "
            f"{_number(self.mean_positive_lag_steps['dense'])} steps dense (paper: sparse higher); two-sided Mann-Whitney U: "
            f"p = {_number(self.mann_whitney_p)} (paper {PAPER_MANN_WHITNEY:g})"
        )
        for name, part in self.datasets.items():
            p = ", ".join(f"{_number(part.wilcoxon_p[group])} {group}" for group in GROUPS)
            signs = f"{part.positive['all']} positive, {part.zero['all']} zero, {part.negative['all']} negative"
            means = " steps sparse, ".join(_number(part.mean_positive_lag_steps[group]) for group in ("sparse", "dense"))
            lines.append(
                f"{name} alone: {part.networks['all']} networks with a lag ({signs}), mean {_number(part.mean_lag_steps['all'])} "
                f"steps\n  Wilcoxon p = {p}; positive lags: mean {means} steps dense, Mann-Whitney p = "
                f"{_number(part.mann_whitney_p)}"
            )
        if self.left_out:
            lines.append(f"{self.left_out} records of AEC networks left out: they have no curve over time")
        return "\n".join(lines)


@dataclass(frozen=True, kw_only=True)
class LagStudy:
    """Saturation times of many networks; make one with `lag_study`.

    Attributes
    ----------
    points : tuple of LagPoint
    unsaturated : tuple of Unsaturated
    left_out : int
        Records of AEC networks.
    """

    points: tuple[LagPoint, ...]
    unsaturated: tuple[Unsaturated, ...]
    left_out: int

    def lags(self, group: Group = "all", *, positive: bool = False) -> NDArray[np.int64]:
        """Lags of a group, in steps; ``positive`` leaves out those of 0 and below."""
        lags = [point.lag for point in self.points if _belongs(point.sparse, group)]
        return np.array([lag for lag in lags if lag > 0 or not positive], np.int64)

    def of(self, dataset: str) -> LagStudy:
        """The networks of one data set."""
        points = tuple(point for point in self.points if point.dataset == dataset)
        return LagStudy(points=points, unsaturated=tuple(u for u in self.unsaturated if u.dataset == dataset), left_out=0)

    def summary(self) -> LagSummary:
        """The statistics of section 3.3, over all networks and within each data set."""
        datasets = sorted({point.dataset for point in self.points} | {each.dataset for each in self.unsaturated})
        lags = {group: self.lags(group) for group in GROUPS}
        later = {group: self.lags(group, positive=True) for group in GROUPS}
        return LagSummary(
            networks={group: len(lags[group]) for group in GROUPS},
            positive={group: int((lags[group] > 0).sum()) for group in GROUPS},
            zero={group: int((lags[group] == 0).sum()) for group in GROUPS},
            negative={group: int((lags[group] < 0).sum()) for group in GROUPS},
            unsaturated={group: sum(_belongs(each.sparse, group) for each in self.unsaturated) for group in GROUPS},
            mean_lag_steps={group: _mean(lags[group]) for group in GROUPS},
            mean_positive_lag_steps={group: _mean(later[group]) for group in GROUPS},
            wilcoxon_p={group: wilcoxon_p(lags[group]) for group in GROUPS},
            mann_whitney_p=mann_whitney_p(later["sparse"], later["dense"]),
            left_out=self.left_out,
            datasets={name: self.of(name).summary() for name in datasets} if len(datasets) > 1 else {},
        )


def lag_study(records: Iterable[Record], over: Over = "hidden") -> LagStudy:
    """Saturation times of records of the rate methods (1 and 2).

    Parameters
    ----------
    records : iterable of Record
    over : {"hidden", "hidden+readout", "all"}
        Neurons that MASFR averages over.

    Raises
    ------
    ConfigError
        If no record is of a rate method.
    """
    points, unsaturated, left_out = [], [], 0
    for record in records:
        if record.slots is not None:
            left_out += 1
            continue
        named: Any = {"network": record.describe(), "dataset": str(record.what["dataset"]), "sparse": record.sparse}
        accuracy, masfr = record.accuracy_saturation(), record.masfr_saturation(over)
        if accuracy is not None and masfr is not None:
            points.append(LagPoint(**named, accuracy=accuracy.end, masfr=masfr.end))
        else:
            curves = tuple(name for name, found in (("accuracy", accuracy), ("MASFR", masfr)) if found is None)
            unsaturated.append(Unsaturated(**named, steps=record.steps, curves=curves))
    if not points and not unsaturated:
        raise ConfigError(f"lag study: found no record of a rate method ({left_out} of AEC), expected QCFS, SNM or another")
    return LagStudy(points=tuple(points), unsaturated=tuple(unsaturated), left_out=left_out)


def wilcoxon_p(lags: NDArray[np.int64]) -> float | None:
    """p of the one-sided Wilcoxon signed-rank test that lags are above 0; None if every lag is 0 or there is none.

    Lags of 0 are left out (Wilcoxon's own rule). Exact for up to 50 lags without ties, else the normal approximation.
    """
    moved = lags[lags != 0]
    return float(stats.wilcoxon(moved, alternative="greater").pvalue) if len(moved) else None


def mann_whitney_p(one: NDArray[np.int64], other: NDArray[np.int64]) -> float | None:
    """p of the two-sided Mann-Whitney U test between two samples; None if one is empty."""
    return float(stats.mannwhitneyu(one, other, alternative="two-sided").pvalue) if len(one) and len(other) else None


def lag_density(lags: NDArray[np.int64], at: Sequence[float] | NDArray[np.float64]) -> NDArray[np.float64] | None:
    """Gaussian kernel density estimate (Scott's rule) of lags at the points ``at``, per step; None below two different lags."""
    if len(set(lags.tolist())) < 2:
        return None
    return np.asarray(stats.gaussian_kde(lags)(np.asarray(at, np.float64)), np.float64)


def _belongs(sparse: bool, group: Group) -> bool:
    return group == "all" or sparse == (group == "sparse")


def _mean(lags: NDArray[np.int64]) -> float | None:
    return float(lags.mean()) if len(lags) else None


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.4g}"
