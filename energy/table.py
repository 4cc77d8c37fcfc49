"""The ledger as a pandas table; every number's column ends with its unit.

================================  ================================================================================
``pre``, ``post``, ``operation``  projection; or population with operation ``update`` or ``message``; or ``total``
``spikes_of``                     backends that fired these spikes
``T_steps``, ``images``           steps, and images summed over
``pre_neurons``, ``synapses``     N and nnz
``pre_spikes``                    sum of s_i (of the input: emissions of a value that is not zero)
``LASFR_spikes_per_neuron_step``  Eq. 2
``<backend>_measured_events``     counted where a weight is added to a membrane
``<backend>_computed_events``     reported without counting; the column exists if a backend does so
``computed_events``               sum_i s_i d_i
``analytic_graph_events``         T LASFR nnz
``covariance_events``             N cov(s, d), from s and d
``<backend>_residual_events``     measured - (analytic_graph + covariance)
``analytic_paper_events``         Eq. 2-4 on the ANN's layers (the first: T nnz, no rate factor)
``rate_term_events``              zero pixels of the first layer, and input against output rate of the others
``border_events``                 taps in the padding that the nominal count charges
``pool_events``                   what pools composed into the projection add
``every_step_MACs``               first projection: T nnz an image
``zeros_skipped_MACs``            first projection: without input values of zero
``once_MACs``                     first projection: nnz an image
``charged_operations``            operations that the energy model charges
``energy_pJ``                     their energy
``profile``, ``counts``,          switches of the energy model, so that a table says how it was made
``rate_of``, ``first_layer``
================================  ================================================================================

analytic_graph = analytic_paper + rate_term - border + pool.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, get_args

import pandas as pd

from sparsespike.energy.entry import Entry
from sparsespike.energy.model import Energy, EnergyModel, FirstLayer

LABELS = ("pre", "post", "operation", "spikes_of", "profile", "counts", "rate_of", "first_layer")
"""Columns that hold text."""

_NOT_ADDED = ("T_steps", "images", "LASFR_spikes_per_neuron_step")
_INTEGERS = ("T_steps", "images", "pre_neurons", "synapses", "pre_spikes", "measured_events", "computed_events")

Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Block:
    """Entries of backends that fired the same spikes, and their energy."""

    entries: tuple[Entry, ...]
    energy: Energy


def to_frame(blocks: Sequence[Block], backends: Sequence[str], *, mean: bool) -> pd.DataFrame:
    """Rows of each block with its total; sums over images, or the mean image."""
    reporting = [name for name in backends if any(name in entry.reported for block in blocks for entry in block.entries)]
    rows: list[Row] = []
    for block in blocks:
        rows += _block_rows(block, backends, reporting)
    if mean:
        rows = [_per_image(row) for row in rows]
    return pd.DataFrame({name: _column(name, [row.get(name) for row in rows]) for name in rows[0]})


def _block_rows(block: Block, backends: Sequence[str], reporting: Sequence[str]) -> list[Row]:
    model = block.energy.model
    terms = {(term.pre, term.post): term for term in block.energy.terms if term.post}
    common = {"spikes_of": ", ".join(block.entries[0].backends), "T_steps": block.energy.steps, "images": block.energy.images}
    switches = {"profile": model.profile.name, "counts": model.counts, "rate_of": model.rate_of, "first_layer": model.first_layer}
    rows: list[Row] = []
    for entry in block.entries:
        term = terms[entry.pre, entry.post]
        rows.append(
            {"pre": entry.pre, "post": entry.post, "operation": entry.operation}
            | common
            | _event_columns(entry, model, backends, reporting)
            | {"charged_operations": term.count, "energy_pJ": term.energy_pj}
            | switches
        )
    total = {"pre": "total", "post": "", "operation": ""} | common | _totals(rows, block.entries) | switches
    total["energy_pJ"] = block.energy.total_pj
    others = [
        {"pre": term.pre, "post": "", "operation": term.operation, "charged_operations": term.count, "energy_pJ": term.energy_pj}
        for term in block.energy.terms
        if not term.post
    ]
    if others:
        total["charged_operations"] = None  # synaptic operations and updates are no one sum
    return [*rows, *(common | switches | other for other in others), total]


def _event_columns(entry: Entry, model: EnergyModel, backends: Sequence[str], reporting: Sequence[str]) -> Row:
    first = entry.operation == "MAC"
    accountings: tuple[FirstLayer, ...] = get_args(FirstLayer)
    return {
        "pre_neurons": entry.neurons,
        "synapses": entry.nnz,
        "pre_spikes": entry.spikes,
        "LASFR_spikes_per_neuron_step": entry.lasfr,
        **{f"{name}_measured_events": entry.measured.get(name) for name in backends},
        **{f"{name}_computed_events": entry.reported.get(name) for name in reporting},
        "computed_events": entry.computed,
        "analytic_graph_events": entry.analytic_graph,
        "covariance_events": entry.covariance,
        **{f"{name}_residual_events": entry.residual(name) for name in backends},
        "analytic_paper_events": entry.analytic_paper(model.rate_of),
        "rate_term_events": entry.rate_term(model.rate_of),
        "border_events": entry.border,
        "pool_events": entry.pool,
        **{f"{way}_MACs": replace(model, first_layer=way).macs(entry) if first else None for way in accountings},
    }


def _totals(rows: Sequence[Row], entries: Sequence[Entry]) -> Row:
    """Sums of the columns that add up; a column with a missing count has no total, except MACs, which only first layers have."""
    names = [name for name in rows[0] if name not in LABELS and name not in _NOT_ADDED]
    total: Row = {"LASFR_spikes_per_neuron_step": None}
    for name in names:
        values = [row[name] for row in rows if not (name.endswith("_MACs") and row[name] is None)]
        total[name] = None if None in values else sum(values)
    # A population with two projections out of it fires once.
    senders = {entry.pre: entry for entry in entries}.values()
    total["pre_neurons"] = sum(entry.neurons for entry in senders)
    total["pre_spikes"] = sum(entry.spikes for entry in senders)
    return total


def _per_image(row: Row) -> Row:
    kept = (*LABELS, *_NOT_ADDED, "pre_neurons", "synapses")
    return {name: value if name in kept or value is None else Fraction(value) / row["images"] for name, value in row.items()}


def _column(name: str, values: list[Any]) -> pd.Series[Any]:
    """Text; exact integers; or floats, rounded once from exact rationals."""
    if name in LABELS:
        return pd.Series(["" if value is None else value for value in values], dtype="object")
    if name.endswith(_INTEGERS) and not any(isinstance(value, Fraction) for value in values):
        fits = all(value is None or value < 2**63 for value in values)
        return pd.Series(values, dtype="Int64" if fits else "object")
    return pd.Series([None if value is None else float(value) for value in values], dtype="Float64")
