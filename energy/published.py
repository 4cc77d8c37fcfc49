"""What the paper printed in its Table 2, to be held beside our own numbers."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from functools import cache
from importlib import resources

from sparsespike.energy.exact import exact

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

METHODS = {"qcfs": "cs-qcfs"}
"""Methods of ours that stand in a row of the paper under another name."""


@dataclass(frozen=True, kw_only=True)
class PublishedEnergy:
    """One row: T in steps, and energy to classify one image in microjoules, as printed."""

    steps: int
    energy_uj: Fraction


@dataclass(frozen=True, kw_only=True)
class PublishedPair:
    """A dense and a sparse row with their reduction.

    Attributes
    ----------
    dataset, model, method : str
    sparsity : Fraction
    dense, sparse : PublishedEnergy
    reduction_percent : Fraction
        (E_dense - E_sparse) / E_dense, as printed.
    first_layer_macs : int
        Of the dense first layer in one step; inferred from the energies, not printed.
    """

    dataset: str
    model: str
    method: str
    sparsity: Fraction
    dense: PublishedEnergy
    sparse: PublishedEnergy
    reduction_percent: Fraction
    first_layer_macs: int

    @property
    def name(self) -> str:
        """Data set, model and method."""
        return f"{self.dataset} {self.model} {self.method}"


@cache
def published_table2() -> tuple[PublishedPair, ...]:
    """Table 2 of the paper, in its order."""
    text = resources.files("sparsespike.energy").joinpath("paper_table2.toml").read_text(encoding="utf-8")
    table = tomllib.loads(text, parse_float=Decimal)

    def row(cells: dict[str, Decimal]) -> PublishedEnergy:
        return PublishedEnergy(steps=int(cells["T"]), energy_uj=exact(cells["energy_uJ"]))

    return tuple(
        PublishedPair(
            dataset=pair["dataset"],
            model=pair["model"],
            method=pair["method"],
            sparsity=exact(pair["sparsity"]),
            dense=row(pair["dense"]),
            sparse=row(pair["sparse"]),
            reduction_percent=exact(pair["reduction_percent"]),
            first_layer_macs=table["first_layer"][pair["model"]],
        )
        for pair in table["pair"]
    )


def published(dataset: str, model: str, method: str) -> PublishedPair | None:
    """The paper's rows of one data set, model and method; None if it has none."""
    for pair in published_table2():
        if (pair.dataset, pair.model, pair.method) == (dataset, model, METHODS.get(method, method)):
            return pair
    return None
