"""Table 2 of the paper from records: T, energy and reduction of dense and sparse networks, beside the printed values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import get_args

import pandas as pd

from sparsespike.energy.model import Energy, EnergyModel, FirstLayer, Saving
from sparsespike.energy.networks import Network, Pair
from sparsespike.energy.profiles import Profile
from sparsespike.energy.published import PublishedEnergy, PublishedPair, published, published_table2

PAPER_MODEL = EnergyModel(counts="paper")
"""Eq. 3 of the paper with its constants: FLOPs of the ANN's layers times the rate of the spikes that enter them."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One network of the table, the printed row beside it.

    Attributes
    ----------
    pair : Pair
    network : Network
    energy, events_energy : Energy
        By the table's model, and by the same model with the graph's own events as counts.
    printed : PublishedEnergy or None
    printed_pair : PublishedPair or None
    """

    pair: Pair
    network: Network
    energy: Energy
    events_energy: Energy
    printed: PublishedEnergy | None
    printed_pair: PublishedPair | None

    @property
    def first_layer_share(self) -> Fraction:
        """Share of the energy that is the first layer's MACs."""
        return _share(self.energy.share_pj("MAC"), self.energy.total_pj)

    def explanation(self) -> str | None:
        """Why the energy differs from the printed one: ratio of T times ratio of energy per step."""
        if self.printed is None or self.printed_pair is None:
            return None
        at = self.network.operating
        ours, theirs = self.energy.per_image_uj, float(self.printed.energy_uj)
        step, printed_step = ours / at.steps, theirs / self.printed.steps
        density = 1 - self.printed_pair.sparsity if self.network.sparse else Fraction(1)
        printed_first = float(density * self.printed_pair.first_layer_macs * PAPER_MODEL.profile.mac_pj) / 1e6
        first = float(self.energy.share_pj("MAC") / self.energy.images) / 1e6 / at.steps
        slots = "" if self.network.rated else f" (T + 1 = {at.steps} slots charged)"
        settled = "" if at.settled else ", accuracy does not saturate within the steps that were run"
        return (
            f"{self.pair.name} {self.network.connectivity}: {ours:.4g} uJ, paper {theirs:.4g}: x{ours / theirs:.3f} = "
            f"x{at.steps / self.printed.steps:.3f} for T = {at.time}{slots} instead of {self.printed.steps}{settled}, times "
            f"x{step / printed_step:.3f} for {step:.4g} uJ a step instead of {printed_step:.4g}; of a step the first layer's "
            f"MACs are {first:.4g} uJ (paper {printed_first:.4g}, inferred)"
        )


@dataclass(frozen=True, kw_only=True)
class Table2:
    """The table; make it with `table2`.

    Attributes
    ----------
    model : EnergyModel
    rows : tuple of Row
        Of each pair the dense network, then the sparse one; those that are missing left out.
    """

    model: EnergyModel
    rows: tuple[Row, ...]

    def saving(self, row: Row) -> Saving | None:
        """What the sparse network of a row saves of its dense partner's energy; None for a dense row or a missing partner."""
        if row.pair.dense is None or not row.network.sparse:
            return None
        return saving_of(row.pair, self.model)

    def missing(self) -> tuple[str, ...]:
        """Rows of the paper for which there is no record, such as ``cifar10 mlp aec fc``."""
        have = {(row.printed_pair.name, row.network.sparse) for row in self.rows if row.printed is not None and row.printed_pair}
        return tuple(
            f"{pair.name} {'fc' if not sparse else f's({float(pair.sparsity):g})'}"
            for pair in published_table2()
            for sparse in (False, True)
            if (pair.name, sparse) not in have
        )

    def to_frame(self) -> pd.DataFrame:
        """One row a network, units in the names of columns; empty where there is no value."""
        lines = []
        for row in self.rows:
            at, found = row.network.operating, self.saving(row)
            lines.append(
                {
                    "dataset": row.pair.dataset,
                    "model": row.pair.model,
                    "method": row.pair.method,
                    "connectivity": row.network.connectivity,
                    "images": at.record.images,
                    "accuracy_%": float(100 * at.accuracy),
                    "ANN_accuracy_%": float(100 * at.record.ann_accuracy),
                    "T_steps": at.time,
                    "paper_T_steps": row.printed and row.printed.steps,
                    "saturated": at.settled,
                    "energy_uJ": row.energy.per_image_uj,
                    "paper_energy_uJ": row.printed and float(row.printed.energy_uj),
                    "events_energy_uJ": row.events_energy.per_image_uj,
                    "first_layer_%": float(100 * row.first_layer_share),
                    "reduction_%": found and float(100 * found.fraction),
                    "paper_reduction_%": _printed_reduction(row),
                    "reduction_by_first_layer_%": found and float(100 * found.first_layer_fraction),
                    "reduction_at_equal_T_%": _at_equal_time(row.pair, self.model) if found else None,
                }
            )
        frame = pd.DataFrame(lines)
        return frame.assign(**frame.select_dtypes(["number", "bool"]).convert_dtypes())

    def notes(self) -> tuple[str, ...]:
        """What must be said beside the numbers: why they differ from the paper's, and what the pairs are."""
        lines = [text for row in self.rows if (text := row.explanation())]
        for pair in {id(row.pair): row.pair for row in self.rows}.values():
            if pair.tried > 1:
                lines.append(f"{pair.name}: the most accurate of {pair.tried} sparse networks")
            if pair.differs:
                lines.append(f"{pair.name}: the dense network differs: {', '.join(pair.differs)}")
            if any(network and network.what.get("convert_thresholds") == "calibrated" for network in (pair.dense, pair.sparse)):
                lines.append(f"{pair.name}: thresholds calibrated; the paper trains them, and batch normalisation (A.3)")
            if pair.dense is None or pair.sparse is None:
                absent = "dense" if pair.dense is None else "sparse"
                lines.append(f"{pair.name}: no {absent} network among the records, so no reduction")
        return (*lines, self.model.describe())


def table2(found: Iterable[Pair], model: EnergyModel = PAPER_MODEL) -> Table2:
    """The table of pairs under an energy model."""
    rows = []
    for pair in found:
        printed = published(pair.dataset, pair.model, pair.method)
        for network in (pair.dense, pair.sparse):
            if network is None:
                continue
            at = network.operating
            same = printed is not None and (not network.sparse or at.record.sparsity == printed.sparsity)
            rows.append(
                Row(
                    pair=pair,
                    network=network,
                    energy=at.record.energy(at.steps, model),
                    events_energy=at.record.energy(at.steps, replace(model, counts="events")),
                    printed=(printed.sparse if network.sparse else printed.dense) if printed and same else None,
                    printed_pair=printed if same else None,
                )
            )
    return Table2(model=model, rows=tuple(rows))


def saving_of(pair: Pair, model: EnergyModel) -> Saving | None:
    """What the sparse network of a pair saves, each at its own T; None if one is missing."""
    if pair.dense is None or pair.sparse is None:
        return None
    dense, sparse = pair.dense.operating, pair.sparse.operating
    return Saving(dense=dense.record.energy(dense.steps, model), sparse=sparse.record.energy(sparse.steps, model))


def sensitivity(pairs: Iterable[Pair], profiles: Mapping[str, Profile], model: EnergyModel = PAPER_MODEL) -> pd.DataFrame:
    """The reduction of each pair under each profile, the first layer charged in each of three ways.

    Events are the graph's own: profiles of chips charge what a chip would do, not FLOPs of the ANN's layers.

    Returns
    -------
    DataFrame
        A row for each pair and profile; columns ``reduction_<way>_%`` and ``dense_energy_<way>_uJ``.
    """
    ways: tuple[FirstLayer, ...] = get_args(FirstLayer)
    lines = []
    for pair in pairs:
        for name, profile in profiles.items():
            models = {way: replace(model, profile=profile, counts="events", first_layer=way) for way in ways}
            savings = {way: saving_of(pair, each) for way, each in models.items()}
            row: dict[str, object] = {"pair": pair.name, "profile": name, "process": profile.process}
            row |= {f"reduction_{way}_%": found and float(100 * found.fraction) for way, found in savings.items()}
            row |= {f"dense_energy_{way}_uJ": found and found.dense.per_image_uj for way, found in savings.items()}
            lines.append(row)
    return pd.DataFrame(lines)


def _at_equal_time(pair: Pair, model: EnergyModel) -> float | None:
    """The reduction in percent if both networks ran for the later of their two T; None if one was not run for it."""
    if pair.dense is None or pair.sparse is None:
        return None
    later = max(pair.dense.operating, pair.sparse.operating, key=lambda at: at.time)
    dense, sparse = pair.dense.record_at(later.time), pair.sparse.record_at(later.time)
    if dense is None or sparse is None:
        return None
    energies = dense.energy(later.steps, model), sparse.energy(later.steps, model)
    return float(100 * Saving(dense=energies[0], sparse=energies[1]).fraction)


def _printed_reduction(row: Row) -> float | None:
    return float(row.printed_pair.reduction_percent) if row.printed_pair and row.network.sparse else None


def _share(part: Fraction, whole: Fraction) -> Fraction:
    return part / whole if whole else Fraction(0)


GRIDS = {
    ("cifar10", "mlp"): "paper-cifar10-mlp-grid",
    ("cifar100", "mlp"): "paper-cifar100-mlp",
    ("cifar10", "vgg16"): "paper-vgg16-cifar10",
    ("cifar100", "vgg16"): "paper-vgg16-cifar100",
}
"""The experiment that makes the rows of a data set and model."""


def describe_missing(missing: Sequence[str]) -> str:
    """Rows without a record, and how to make one."""
    if not missing:
        return "Every row of the paper's table has a record."
    groups: dict[tuple[str, str], list[str]] = {}
    for row in missing:
        dataset, model, *rest = row.split(" ")
        groups.setdefault((dataset, model), []).append(" ".join(rest))
    lines = ["Not run, or not among these records:"]
    for (dataset, model), rows in groups.items():
        experiment = GRIDS[dataset, model]
        lines.append(
            f"  {', '.join(rows)}: sparsespike sweep run experiments/{experiment}.toml --out runs/{experiment} "
            f"--data {dataset}=imagefolder:PATH"
        )
    return "\n".join(lines)
