"""The ledger, and energy under every profile."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any, get_args

from sparsespike.energy.model import Energy, EnergyModel, FirstLayer, TermKind
from sparsespike.energy.profiles import Profile
from sparsespike.energy.report.account import Account
from sparsespike.energy.report.blocks import Bar, Bars, Block, Cell, Column, Heading, Part, Table, Text, number, show
from sparsespike.energy.report.folder import Network
from sparsespike.energy.report.sections.runs import missing_results

KINDS: Mapping[TermKind, tuple[str, str]] = {
    "MAC": ("first layer", "s5"),
    "AC": ("other layers", "s2"),
    "update": ("neuron updates", "s3"),
    "message": ("spike messages", "s4"),
}
ACCOUNTINGS: Mapping[FirstLayer, str] = {
    "every_step": "every step",
    "zeros_skipped": "zero pixels skipped",
    "once": "once an image",
}


def ledger_blocks(network: Network) -> list[Block]:
    """Events of every projection: by backend, by formula, and what is between them."""
    blocks: list[Block] = []
    for account in _accounts(network, blocks):
        blocks += _ledger(account)
    return blocks or [missing_results(network, "the ledger")]


def energy_blocks(network: Network, profiles: Mapping[str, Profile]) -> list[Block]:
    """Energy of the mean image under every profile, and what charging the first layer in three ways does to it."""
    blocks: list[Block] = []
    for account in _accounts(network, blocks):
        if account.disagreements:
            blocks.append(Text(text="The backends fired different spikes: there is no one energy. See the ledger.", tone="bad"))
        else:
            blocks += _energy(account, profiles)
    return blocks or [missing_results(network, "energy by profile")]


def _accounts(network: Network, blocks: list[Block]) -> Iterator[Account]:
    """The accounts of a network; a heading goes before each if there are several."""
    found = {path: results.account for path, results in network.results.items() if results.account is not None}
    for path, account in found.items():
        if len(found) > 1:
            blocks.append(Heading(text=path.name))
        yield account


def verdict(account: Account) -> Text:
    """Whether the account closes, in a sentence."""
    if account.disagreements:
        return Text(
            text="Backends fired different spikes, and no count is preferred: " + "; ".join(account.disagreements), tone="bad"
        )
    names = ", ".join(account.backends)
    measured = [entry for each in account.sets for entry in each.entries if entry.measured]
    if not account.reconciled:
        return Text(text=f"Not reconciled: a count of {names} differs from analytic + covariance; see the residuals.", tone="bad")
    if not measured:
        return Text(text=f"{names}: every count was computed from spikes, none was measured, so nothing is reconciled.")
    return Text(text=f"Residual 0: every count measured by {names} equals analytic + covariance.", tone="good")


def _ledger(account: Account) -> Iterator[Block]:
    frame = account.to_frame()
    several = len(account.sets) > 1
    yield verdict(account)
    measured = [(name, f"{name}_measured_events", f"{name}_computed_events") for name in account.backends]
    columns = [Column("projection"), *([Column("spikes of")] if several else []), Column("synapses"), Column("spikes")]
    columns += [Column(name, "events, measured") for name, _, _ in measured]
    columns += [Column(name, "events, computed by it") for name, _, column in measured if column in frame]
    columns += [
        Column("spikes × fan-out", "events, computed"),
        Column("analytic, graph", "events"),
        Column("covariance", "events"),
        Column("residual", "events"),
    ]
    rows = []
    for _, row in frame[frame["operation"].isin(["MAC", "AC", ""])].iterrows():
        cells: list[Cell] = [_name(row), *([str(row["spikes_of"])] if several else [])]
        cells += [number(row["synapses"]), number(row["pre_spikes"])]
        cells += [number(row[column]) for _, column, _ in measured]
        cells += [number(row[column]) for _, _, column in measured if column in frame]
        cells += [number(row[f"{column}_events"]) for column in ("computed", "analytic_graph", "covariance")]
        rows.append((*cells, _largest(row, account.backends)))
    yield Table(
        caption=f"Synaptic events of the mean image, T = {account.steps}, {account.images:,} images",
        columns=tuple(columns),
        rows=tuple(rows),
        total=not several,
        note="measured: counted where a backend adds a weight to a membrane. analytic: T × mean rate × synapses. covariance: "
        "neurons × covariance of spikes and fan-outs. residual: measured − (analytic + covariance), the largest of the backends.",
    )
    if not account.disagreements:
        yield _bars(account)
    yield Table(
        caption="From the paper's formula (Eq. 2-4) to the graph's own, events of the mean image",
        columns=(
            Column("projection"),
            Column("analytic, paper", "events"),
            Column("+ rate term", "events"),
            Column("− border", "events"),
            Column("+ pool", "events"),
            Column("= analytic, graph", "events"),
        ),
        rows=tuple(
            (
                _name(row),
                *(
                    number(row[f"{column}_events"])
                    for column in ("analytic_paper", "rate_term", "border", "pool", "analytic_graph")
                ),
            )
            for _, row in frame[frame["operation"].isin(["MAC", "AC", ""])].iterrows()
        ),
        total=not several,
        note="rate term: the paper charges every pixel of the first layer at every step, whether it is zero or not. border: taps "
        "of a convolution in the padding. pool: what an average pool composed into a projection adds.",
    )


def _bars(account: Account) -> Bars:
    groups = []
    for entry in account.sets[0].entries:
        bars = []
        for name in account.backends:
            events, what = (
                (entry.measured.get(name), "measured") if name in entry.measured else (entry.reported.get(name), "computed")
            )
            if events is not None:
                value = events / account.images
                style = "s1" if what == "measured" else "hatch"
                bars.append(Bar(name, (Part(f"{what} by a backend", value, style),), show(value)))
        analytic, covariance = (float(value / account.images) for value in (entry.analytic_graph, entry.covariance))
        if covariance >= 0:
            parts = [Part("analytic", analytic, "grey")] + [Part("covariance, to be added", covariance, "cov")] * (covariance > 0)
        else:
            parts = [Part("analytic", analytic + covariance, "grey"), Part("covariance, to be taken away", -covariance, "less")]
        share = f" ({100 * covariance / analytic:+.2g} %)" if analytic and covariance else ""
        text = (
            f"{show(analytic)} {'−' if covariance < 0 else '+'} {show(abs(covariance))}{share}" if covariance else show(analytic)
        )
        bars.append(Bar("formula", tuple(parts), text))
        groups.append((f"{entry.pre} → {entry.post}", tuple(bars)))
    return Bars(caption="Events of the mean image: what backends count, and what the formula says", groups=tuple(groups))


def _energy(account: Account, profiles: Mapping[str, Profile]) -> Iterator[Block]:
    models = {name: EnergyModel(profile=profile) for name, profile in profiles.items()}
    energies = {name: account.energies(model)[0] for name, model in models.items()}
    yield Table(
        caption=f"Energy of the mean image under each profile, T = {account.steps}",
        columns=(
            Column("profile"),
            Column("energy", "nJ"),
            Column("first layer", "%", 1),
            Column("other layers", "%", 1),
            Column("neuron updates", "%", 1),
            Column("spike messages", "%", 1),
            Column("by the paper's formula", "nJ"),
        ),
        rows=tuple(
            (
                name,
                per_image_nj(energy),
                *(_share(energy, kind) for kind in KINDS),
                per_image_nj(account.energies(replace(models[name], counts="paper"))[0]),
            )
            for name, energy in energies.items()
        ),
        note="Counts times the constants of a profile, not measurements on a chip. The first layer is charged at every step, as "
        "in the paper. By the paper's formula: Eq. 2-4 on the ANN's own layers, instead of the graph's events.",
    )
    yield Bars(
        caption="What the energy of the mean image is spent on, by profile (shares; the total is behind each bar)",
        groups=(
            (
                "",
                tuple(
                    Bar(
                        name,
                        tuple(
                            Part(label, _share(energy, kind) or 0.0, style)
                            for kind, (label, style) in KINDS.items()
                            if _share(energy, kind)
                        ),
                        f"{show(per_image_nj(energy))} nJ",
                    )
                    for name, energy in energies.items()
                ),
            ),
        ),
    )
    yield Table(
        caption="The first layer charged in three ways: energy of the mean image",
        columns=(
            Column("profile"),
            *(
                column
                for label in ACCOUNTINGS.values()
                for column in (Column(label, "nJ"), Column(label, "first layer, % of it", 1))
            ),
        ),
        rows=tuple((name, *_three_ways(account, model)) for name, model in models.items()),
        note="every step: T × synapses multiply-and-accumulates, no rate factor (the paper's). zero pixels skipped: events only. "
        "once: the current of a still image is computed one time.",
    )


def profile_table(profiles: Mapping[str, Profile]) -> Table:
    """The constants, where they are from, and what they do not cover."""
    return Table(
        caption="The profiles",
        columns=(
            Column("profile"),
            Column("MAC", "pJ"),
            Column("AC", "pJ"),
            Column("update", "pJ"),
            Column("message", "pJ"),
            Column("process"),
            Column("source"),
            Column("leaves out"),
        ),
        rows=tuple(
            (
                name,
                *(_rational(value) for value in (each.mac_pj, each.ac_pj, each.update_pj, each.message_pj)),
                each.process,
                each.source,
                "; ".join(each.leaves_out),
            )
            for name, each in profiles.items()
        ),
    )


def per_image_nj(energy: Energy) -> float:
    """Nanojoules of the mean image."""
    return float(energy.total_pj / energy.images / 1000)


def _three_ways(account: Account, model: EnergyModel) -> Iterator[Cell]:
    for way in get_args(FirstLayer):
        energy = account.energies(replace(model, first_layer=way))[0]
        yield per_image_nj(energy)
        yield _share(energy, "MAC")


def _share(energy: Energy, kind: TermKind) -> float | None:
    """Percent of an energy; none where nothing is charged."""
    return float(100 * energy.share_pj(kind) / energy.total_pj) if energy.share_pj(kind) else None


def _rational(value: Fraction) -> Cell:
    return number(value) if value else None


def _name(row: Any) -> str:
    return f"{row['pre']} → {row['post']}" if row["post"] else str(row["pre"])


def _largest(row: Any, backends: Sequence[str]) -> Cell:
    residuals = [number(row[f"{name}_residual_events"]) for name in backends]
    known = [value for value in residuals if value is not None]
    return max(known, key=abs) if known else None
