"""The first thing on the page: all networks side by side, whether the accounts close, and what sparsity saves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import get_args

from sparsespike.energy.model import Counts, EnergyModel, Saving
from sparsespike.energy.profiles import Profile
from sparsespike.energy.report.account import Account
from sparsespike.energy.report.blocks import Block, Cell, Column, Table, Text
from sparsespike.energy.report.documents import Results
from sparsespike.energy.report.folder import Contents, Network
from sparsespike.energy.report.sections.accounts import per_image_nj, verdict
from sparsespike.energy.report.sections.runs import ann_accuracy


def overview_blocks(contents: Contents, profiles: Mapping[str, Profile]) -> list[Block]:
    """The networks as rows, verdicts of their ledgers, and savings."""
    blocks: list[Block] = []
    if contents.networks:
        blocks.append(
            Table(
                caption="Networks, mean image, profile paper",
                columns=(
                    Column("network"),
                    Column("synapses"),
                    Column("ANN", "accuracy, %", 2),
                    Column("SNN", "accuracy, %", 2),
                    Column("T", "steps"),
                    Column("images"),
                    Column("events"),
                    Column("energy", "nJ"),
                ),
                rows=tuple(row for network in contents.networks for row in _rows(network)),
                note="ANN: on all test images; SNN, events and energy: on so many images, after T steps.",
            )
        )
    for network in contents.networks:
        for label, results in _labelled(network):
            if results.account is not None:
                found = verdict(results.account)
                blocks.append(Text(text=f"{label}: {found.text}", tone=found.tone))
    blocks += _savings(contents, profiles)
    return blocks


def _labelled(network: Network) -> Iterator[tuple[str, Results]]:
    for path, results in network.results.items():
        yield (network.name if len(network.results) == 1 else f"{network.name}, {path.name}"), results


def _rows(network: Network) -> Iterator[tuple[Cell, ...]]:
    synapses = next((graph.nnz for graph in network.graphs.values()), None)
    if not network.results:
        accuracy = None if network.summary is None else network.summary.test_accuracy
        yield network.name, synapses, None if accuracy is None else 100 * accuracy, None, None, None, None, None
    for label, results in _labelled(network):
        run, account = results.runs[0], results.account
        ann = ann_accuracy(network, results)
        events, energy = None, None
        if account is not None and not account.disagreements:
            synapses = sum(entry.nnz for entry in account.sets[0].entries)
            events = sum(entry.computed for entry in account.sets[0].entries) / account.images
            energy = per_image_nj(account.energies(EnergyModel())[0])
        snn = 100 * run.accuracy_by_step[-1]
        yield label, synapses, None if ann is None else 100 * ann, snn, run.steps, run.images, events, energy


def _savings(contents: Contents, profiles: Mapping[str, Profile]) -> Iterator[Block]:
    """What each sparse network saves of the dense one's energy, if the folder holds exactly one dense network."""
    found: dict[bool, list[tuple[str, Account]]] = {True: [], False: []}
    for network in contents.networks:
        for label, results in _labelled(network):
            if results.account is not None and not results.account.disagreements:
                found[network.training.get("sparsity") == 0].append((label, results.account))
    if len(found[True]) != 1 or not found[False]:
        return
    ((dense_label, dense),) = found[True]
    rows: list[tuple[Cell, ...]] = []
    for label, sparse in found[False]:
        for name, profile in profiles.items():
            events, formula = (_saving(dense, sparse, EnergyModel(profile=profile, counts=counts)) for counts in get_args(Counts))
            shares = (100 * float(events.fraction), 100 * float(events.first_layer_fraction), 100 * float(formula.fraction))
            energies = (per_image_nj(events.dense), per_image_nj(events.sparse))
            rows.append((name, *([label] if len(found[False]) > 1 else []), *energies, *shares))
    yield Table(
        caption="Sensitivity: what the sparse network saves of the dense one's energy, under each profile",
        columns=(
            Column("profile"),
            *([Column("network")] if len(found[False]) > 1 else []),
            Column(f"dense: {dense_label}", "nJ"),
            Column("sparse", "nJ"),
            Column("saving", "%", 2),
            Column("of it by the first layer's MACs", "% of dense", 2),
            Column("saving by the paper's formula", "%", 2),
        ),
        rows=tuple(rows),
        note="saving: (E_dense − E_sparse) / E_dense, of the mean image, by the graph's own events; the paper's formula is Eq. "
        "2-4 on the ANN's layers. First layer at every step.",
    )


def _saving(dense: Account, sparse: Account, model: EnergyModel) -> Saving:
    return Saving(dense=dense.energies(model)[0], sparse=sparse.energies(model)[0])
