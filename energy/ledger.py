"""The event ledger: what backends measured, held against what the energy model of the literature says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import pandas as pd

from sparsespike.backends.base import RunResult
from sparsespike.backends.bulk import BulkResult
from sparsespike.common.errors import ConfigError
from sparsespike.energy.counts import EventCounts, differences
from sparsespike.energy.entry import Entry
from sparsespike.energy.exact import Number, covariance_term, exact, total, weighted_sum
from sparsespike.energy.flops import nominal_flops, pooled_flops
from sparsespike.energy.model import Activity, Energy, EnergyModel, charge
from sparsespike.energy.rates import Over, averaged_populations
from sparsespike.energy.table import Block, to_frame
from sparsespike.export.graph import Key, Projection, SpikingGraph


@dataclass(frozen=True, eq=False, kw_only=True)
class Ledger:
    """The account of one graph, run by one or several backends on the same images for the same steps.

    Make one with `from_results` or `from_counts`. Numbers are exact integers and rationals until they are shown.

    Attributes
    ----------
    graph : SpikingGraph
    counts : tuple of EventCounts
        Of each backend.
    ann_flops : mapping of (pre, post) to Fraction
        FL_ANN of the layers for which the graph's own projection is not the ANN's layer.
    disagreements : tuple of str
        Where backends fired different spikes; empty if they agree.
    entries : tuple of Entry
        Summed over images: one for each projection and each set of spikes. Backends that fired the same spikes share their
        entries; if some differ, each set has entries of its own, and none is preferred.
    """

    graph: SpikingGraph
    counts: tuple[EventCounts, ...]
    ann_flops: Mapping[Key, Fraction]
    disagreements: tuple[str, ...]
    entries: tuple[Entry, ...]

    @classmethod
    def from_results(
        cls, graph: SpikingGraph, results: Sequence[RunResult | BulkResult], *, ann_flops: Mapping[Key, Number] | None = None
    ) -> Ledger:
        """A ledger of runs of the same images; see `from_counts` for the errors.

        Parameters
        ----------
        graph : SpikingGraph
        results : sequence of RunResult or BulkResult
            One for each backend.
        ann_flops : mapping of (pre, post) to number, optional
            FL_ANN (multiply-and-accumulates, one image, one pass) of the ANN's layer, where a pool was composed into it; a
            graph of our own conversion knows it.
        """
        return cls.from_counts(graph, [EventCounts.of(result) for result in results], ann_flops=ann_flops)

    @classmethod
    def from_counts(
        cls, graph: SpikingGraph, counts: Sequence[EventCounts], *, ann_flops: Mapping[Key, Number] | None = None
    ) -> Ledger:
        """A ledger of counts, image by image or summed over images.

        Raises
        ------
        ConfigError
            If there are no counts, two have one name, or they differ in steps or images.
        BackendError
            If counts do not fit the graph.
        """
        _check_comparable(counts)
        for each in counts:
            each.check_fits(graph)
        if not all(each.per_image for each in counts):
            counts = [each.summed() for each in counts]
        populations = (graph.input.name, *graph.spiking)
        sets: list[list[EventCounts]] = []
        disagreements: list[str] = []
        for each in counts:
            lines = [differences(same[0], each, populations) for same in sets]
            if [] in lines:
                sets[lines.index([])].append(each)
            else:
                disagreements.extend(line for found in lines for line in found)
                sets.append([each])
        flops = pooled_flops(graph) | {key: exact(value) for key, value in (ann_flops or {}).items()}
        return cls(
            graph=graph,
            counts=tuple(counts),
            ann_flops=flops,
            disagreements=tuple(disagreements),
            entries=tuple(
                _entry(graph, projection, [each.summed() for each in same], flops)
                for same in sets
                for projection in graph.projections
            ),
        )

    @property
    def backends(self) -> tuple[str, ...]:
        """Names of the backends."""
        return tuple(each.backend for each in self.counts)

    @property
    def steps(self) -> int:
        """Local steps T."""
        return self.counts[0].steps

    @property
    def images(self) -> int:
        """Number of images."""
        return self.counts[0].images

    @property
    def reconciled(self) -> bool:
        """Whether all backends fired the same spikes and every residual of a measured count is 0."""
        return not self.disagreements and not self.residuals

    @property
    def residuals(self) -> dict[tuple[str, Key], Fraction]:
        """Residuals that are not 0, by backend and projection, in events."""
        return {
            (backend, (entry.pre, entry.post)): residual
            for entry in self.entries
            for backend in entry.measured
            if (residual := entry.residual(backend))
        }

    def entry(self, pre: str, post: str, backend: str | None = None) -> Entry:
        """The entry of one projection, by the spikes of ``backend`` (any, if all agree).

        Raises
        ------
        ConfigError
            If there is none, or backends disagree and none was named.
        """
        if backend is None:
            self._require_agreement("an entry")
        for entry in self.entries:
            if (entry.pre, entry.post) == (pre, post) and (backend is None or backend in entry.backends):
                return entry
        raise ConfigError(
            f"ledger: found no entry {pre!r} -> {post!r} of {backend or 'any backend'}; it holds "
            f"{', '.join(f'{e.pre} -> {e.post}' for e in self.entries)} of {', '.join(self.backends)}"
        )

    def image(self, index: int) -> Ledger:
        """The ledger of one image.

        Raises
        ------
        ConfigError
            If there is no such image, or counts are summed over images.
        """
        return Ledger.from_counts(self.graph, [each.image(index) for each in self.counts], ann_flops=self.ann_flops)

    def masfr(self, over: Over = "hidden") -> Fraction:
        """MASFR(T), mean over images (Eq. 1), spikes per neuron and step.

        Raises
        ------
        ConfigError
            If ``over`` is unknown, or backends disagree.
        """
        self._require_agreement("MASFR")
        names, neurons = averaged_populations(self.graph, over)
        spikes = sum(total(self.counts[0].spikes[name].events) for name in names)
        return Fraction(spikes, self.steps * self.images * neurons)

    def energy(self, model: EnergyModel | None = None) -> Energy:
        """Energy of all images under a model (the paper's profile by default).

        Raises
        ------
        ConfigError
            If backends disagree.
        """
        self._require_agreement("an energy")
        return self._block(self.entries, model or EnergyModel()).energy

    def to_frame(self, model: EnergyModel | None = None, *, images: Literal["sum", "mean", "each"] = "sum") -> pd.DataFrame:
        """The ledger as a table: a row for each projection, and a ``total`` row for each set of spikes.

        Parameters
        ----------
        model : EnergyModel, optional
            How ``energy_pJ`` is charged, and which rate ``analytic_paper_events`` takes; its switches are columns too.
        images : {"sum", "mean", "each"}
            Sum over images, mean image, or rows for each image with its number in the column ``image``.

        Returns
        -------
        DataFrame
            Columns as in `sparsespike.energy.table`. A count that a backend did not measure is missing, and so is the total
            of a column in which one is missing: part of a sum is no sum.

        Raises
        ------
        ConfigError
            If ``images`` is unknown, or "each" is asked of counts that are summed over images.
        """
        if images not in ("sum", "mean", "each"):
            raise ConfigError(f"ledger table: found images = {images!r}, expected 'sum', 'mean' or 'each'")
        model = model or EnergyModel()
        if images == "each":
            frames = [self.image(index).to_frame(model) for index in range(self.images)]
            return pd.concat(frames, keys=range(self.images), names=["image", None]).reset_index("image").reset_index(drop=True)
        sets = dict.fromkeys(entry.backends for entry in self.entries)
        blocks = [self._block(tuple(e for e in self.entries if e.backends == backends), model) for backends in sets]
        return to_frame(blocks, self.backends, mean=images == "mean")

    def describe(self, *, over: Over = "hidden") -> str:
        """What was compared and whether it reconciles, a few lines for people."""
        lines = [f"ledger of {', '.join(self.backends)}: T = {self.steps}, {self.images} images"]
        if self.disagreements:
            lines += [f"SPIKES DIFFER, no count is preferred: {line}" for line in self.disagreements]
        else:
            lines.append(f"MASFR = {float(self.masfr(over)):.6g} spikes per neuron and step, averaged over: {over}")
        for entry in self.entries:
            if entry.reported:
                lines.append(f"computed, not measured: {entry.pre} -> {entry.post} by {', '.join(entry.reported)}")
        lines += [
            f"RESIDUAL {float(value):g} events: {pre} -> {post} by {name}"
            for (name, (pre, post)), value in self.residuals.items()
        ]
        if not self.residuals and any(entry.measured for entry in self.entries):
            lines.append("residual 0: every measured count equals analytic + covariance")
        return "\n".join(lines)

    def _block(self, entries: tuple[Entry, ...], model: EnergyModel) -> Block:
        activities = []
        counts = next(each for each in self.counts if each.backend == entries[0].backends[0])
        for name in self.graph.order:
            population = self.graph.population(name)
            if population.kind != "input":
                fired = total(counts.spikes[name].events) if name in self.graph.spiking else 0
                updates = population.size * self.steps * self.images
                activities.append(Activity(population=name, updates=updates, messages=fired))
        return Block(entries=entries, energy=charge(entries, activities, model))

    def _require_agreement(self, what: str) -> None:
        if self.disagreements:
            raise ConfigError(
                f"ledger: {what} needs one set of spikes, but backends differ: {'; '.join(self.disagreements)}; "
                "make a ledger of one backend, or find the first divergence"
            )


def _check_comparable(counts: Sequence[EventCounts]) -> None:
    if not counts:
        raise ConfigError("ledger: found no results, expected at least one")
    names = [each.backend for each in counts]
    if len(set(names)) < len(names):
        raise ConfigError(
            f"ledger: found the backends {', '.join(names)}, expected different names; rename one with "
            "dataclasses.replace(result, backend=...)"
        )
    for what in ("steps", "images"):
        found = {each.backend: getattr(each, what) for each in counts}
        if len(set(found.values())) > 1:
            raise ConfigError(f"ledger: found different {what} {found}, expected runs of the same images for the same steps")


def _entry(graph: SpikingGraph, projection: Projection, same: Sequence[EventCounts], flops: Mapping[Key, Fraction]) -> Entry:
    """The entry of a projection from the summed counts of backends that fired the same spikes."""
    pre, post = (graph.population(name) for name in projection.key)
    fan_out = projection.connection.fan_out
    spikes = same[0].spikes[pre.name].events[0]
    nominal = nominal_flops(projection.connection)
    events: dict[str, dict[str, int]] = {"measured": {}, "computed": {}}
    for each in same:
        events[each.counting[projection.key]][each.backend] = int(each.events[projection.key][0])
    return Entry(
        pre=pre.name,
        post=post.name,
        operation="MAC" if pre.kind == "input" else "AC",
        backends=tuple(each.backend for each in same),
        steps=same[0].steps,
        images=same[0].images,
        neurons=pre.size,
        post_neurons=post.size,
        nnz=projection.connection.nnz,
        nominal=int(nominal),
        ann_flops=flops.get(projection.key, nominal),
        spikes=total(spikes),
        post_spikes=total(same[0].spikes[post.name].events) if post.name in graph.spiking else 0,
        computed=weighted_sum(spikes, fan_out),
        covariance=covariance_term(spikes, fan_out),
        measured=events["measured"],
        reported=events["computed"],
    )
