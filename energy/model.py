"""Counts to joules: the paper's Eq. 3 and 4, or the graph's own events, times a named profile."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Literal, get_args

import pandas as pd

from sparsespike.common.errors import ConfigError
from sparsespike.energy.entry import Count, Entry, RateOf
from sparsespike.energy.profiles import Profile, get_profile

Counts = Literal["events", "paper"]
FirstLayer = Literal["every_step", "zeros_skipped", "once"]
TermKind = Literal["MAC", "AC", "update", "message"]

SWITCHES = {"counts": get_args(Counts), "rate_of": get_args(RateOf), "first_layer": get_args(FirstLayer)}


@dataclass(frozen=True, kw_only=True)
class EnergyModel:
    """How counts are charged; every switch is printed with the result.

    Parameters
    ----------
    profile : Profile
        Constants of the hardware; the paper's by default.
    counts : {"events", "paper"}
        ``events``: spikes x fan-outs of the graph, to which a ledger's residual ties what backends measured. ``paper``:
        FL_SNN of Eq. 2-4 on the ANN's layers.
    rate_of : {"input", "output"}
        Which rate multiplies layers after the first under ``paper``: that of the spikes that enter the layer, or of its own
        neurons (the readout fires none, so its layer is charged nothing).
    first_layer : {"every_step", "zeros_skipped", "once"}
        MACs of the first projection: T nnz an image (the paper's, no rate factor), the same without input values of zero, or
        nnz (its current is constant and computed once).

    Raises
    ------
    ConfigError
        If a switch is unknown.
    """

    profile: Profile = field(default_factory=lambda: get_profile("paper"))
    counts: Counts = "events"
    rate_of: RateOf = "input"
    first_layer: FirstLayer = "every_step"

    def __post_init__(self) -> None:
        for name, values in SWITCHES.items():
            if getattr(self, name) not in values:
                raise ConfigError(f"energy model: found {name} = {getattr(self, name)!r}, expected one of {', '.join(values)}")

    def macs(self, entry: Entry) -> Fraction:
        """Multiply-and-accumulates of a first projection, summed over images, by the ``first_layer`` switch."""
        flops = entry.ann_flops if self.counts == "paper" else Fraction(entry.nnz)
        if self.first_layer == "every_step":
            return entry.steps * entry.images * flops
        if self.first_layer == "once":
            return entry.images * flops
        return entry.mean_spikes * flops if self.counts == "paper" else Fraction(entry.computed)

    def charged(self, entry: Entry) -> Fraction:
        """Operations of a projection that are charged, summed over images."""
        if entry.operation == "MAC":
            return self.macs(entry)
        return entry.analytic_paper(self.rate_of) if self.counts == "paper" else Fraction(entry.computed)

    def describe(self) -> str:
        """The switches and the profile on one line."""
        rate = f"rate_of = {self.rate_of}, " if self.counts == "paper" else ""
        return f"energy: counts = {self.counts}, {rate}first_layer = {self.first_layer}, profile = {self.profile}"


@dataclass(frozen=True, kw_only=True)
class Activity:
    """What a population that integrates did, summed over images: membrane updates and spikes sent."""

    population: str
    updates: Count
    messages: Count


@dataclass(frozen=True, kw_only=True)
class Term:
    """One share of an energy: ``count`` operations of one kind in one projection or population (``post`` is then empty)."""

    pre: str
    post: str
    operation: TermKind
    count: Fraction
    energy_pj: Fraction

    @property
    def part(self) -> str:
        """``pre -> post``, or the population's name."""
        return f"{self.pre} -> {self.post}" if self.post else self.pre


@dataclass(frozen=True, kw_only=True)
class Energy:
    """Energy of a run, by projection and operation, summed over images; exact rationals of picojoules."""

    model: EnergyModel
    steps: int
    images: int
    terms: tuple[Term, ...]

    @property
    def total_pj(self) -> Fraction:
        """All terms, all images, in picojoules."""
        return sum((term.energy_pj for term in self.terms), Fraction(0))

    @property
    def per_image_uj(self) -> float:
        """Microjoules to classify one image, mean over images (the paper's Table 2)."""
        return float(self.total_pj / self.images / 10**6)

    def share_pj(self, operation: TermKind) -> Fraction:
        """Energy of one kind of operation, all images, in picojoules; ``MAC`` is the first layer."""
        return sum((term.energy_pj for term in self.terms if term.operation == operation), Fraction(0))

    def describe(self) -> str:
        """The result with every switch that it depends on."""
        return (
            f"{self.per_image_uj:.6g} uJ per image ({float(self.share_pj('MAC') / self.images / 10**6):.6g} uJ of it in the "
            f"first layer's MACs), T = {self.steps}, mean of {self.images} images; {self.model.describe()}"
        )

    def to_frame(self) -> pd.DataFrame:
        """A row per term and a ``total`` row, summed over images; operations of different kinds have no total."""
        return pd.DataFrame(
            {
                "part": [*(term.part for term in self.terms), "total"],
                "operation": [*(term.operation for term in self.terms), ""],
                "count_operations": [*(float(term.count) for term in self.terms), None],
                "energy_pJ": [*(float(term.energy_pj) for term in self.terms), float(self.total_pj)],
            }
        )


def charge(entries: Sequence[Entry], activities: Sequence[Activity], model: EnergyModel) -> Energy:
    """Charge every projection, and whatever else the profile has a constant for (Eq. 3).

    Parameters
    ----------
    entries : sequence of Entry
        One for each projection, of one run.
    activities : sequence of Activity
        Populations that integrate.
    model : EnergyModel
    """
    profile = model.profile
    terms = []
    for entry in entries:
        count, constant = model.charged(entry), profile.mac_pj if entry.operation == "MAC" else profile.ac_pj
        terms.append(Term(pre=entry.pre, post=entry.post, operation=entry.operation, count=count, energy_pj=count * constant))
    for activity in activities:
        kinds: tuple[tuple[TermKind, int, Fraction], ...] = (
            ("update", activity.updates, profile.update_pj),
            ("message", activity.messages, profile.message_pj),
        )
        terms.extend(
            Term(pre=activity.population, post="", operation=kind, count=Fraction(number), energy_pj=number * constant)
            for kind, number, constant in kinds
            if number and constant
        )
    return Energy(model=model, steps=entries[0].steps, images=entries[0].images, terms=tuple(terms))


@dataclass(frozen=True, kw_only=True)
class Saving:
    """What the sparse network saves of the dense one's energy per image, (E_dense - E_sparse) / E_dense.

    The paper's text prints E_sparse as the denominator; the numbers of its Table 2 divide by E_dense.

    Attributes
    ----------
    dense, sparse : Energy
    """

    dense: Energy
    sparse: Energy

    def __post_init__(self) -> None:
        if self.dense.model != self.sparse.model:
            raise ConfigError(
                "energy saving: found two models, expected one for both networks\n"
                f"  dense:  {self.dense.model.describe()}\n  sparse: {self.sparse.model.describe()}"
            )
        if not self.dense.total_pj:
            raise ConfigError("energy saving: found a dense network that costs 0 pJ, expected more; nothing can be saved of it")

    @property
    def fraction(self) -> Fraction:
        """(E_dense - E_sparse) / E_dense, exact; negative if the sparse network costs more."""
        return saving(self.dense.total_pj / self.dense.images, self.sparse.total_pj / self.sparse.images)

    @property
    def first_layer_fraction(self) -> Fraction:
        """The part of ``fraction`` that the first layer's MACs alone make up: fewer weights there, not fewer spikes."""
        dense, sparse = self.dense, self.sparse
        return (dense.share_pj("MAC") / dense.images - sparse.share_pj("MAC") / sparse.images) / (dense.total_pj / dense.images)

    def describe(self) -> str:
        """The saving with its formula, the first layer's part and the switches."""
        return (
            f"saving (E_dense - E_sparse) / E_dense = {float(self.fraction):.2%} "
            f"({float(self.first_layer_fraction):.2%} of E_dense from the first layer's MACs): "
            f"{self.dense.per_image_uj:.6g} uJ dense at T = {self.dense.steps}, "
            f"{self.sparse.per_image_uj:.6g} uJ sparse at T = {self.sparse.steps}; {self.dense.model.describe()}"
        )


def saving(dense: Fraction, sparse: Fraction) -> Fraction:
    """(E_dense - E_sparse) / E_dense.

    >>> round(float(saving(Fraction("622.13"), Fraction("6.59"))), 4)
    0.9894
    """
    return (dense - sparse) / dense
