"""A ledger as a JSON document, exact, without its graph: every table and every energy can be made from it again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import pandas as pd
from pydantic import Field, TypeAdapter

from sparsespike.energy.entry import Entry
from sparsespike.energy.ledger import Ledger
from sparsespike.energy.model import Activity, Energy, EnergyModel, charge
from sparsespike.energy.table import Block, to_frame


@dataclass(frozen=True, kw_only=True)
class SpikeSet:
    """What is charged for one set of spikes: the backends that fired the same ones share it.

    Attributes
    ----------
    entries : tuple of Entry
        One for each projection, summed over images.
    activities : tuple of Activity
        Of each population that integrates.
    """

    entries: Annotated[tuple[Entry, ...], Field(min_length=1)]
    activities: tuple[Activity, ...]


@dataclass(frozen=True, kw_only=True)
class Account:
    """A ledger's numbers, exact integers and rationals, as they are kept in a results file.

    Attributes
    ----------
    backends : tuple of str
    sets : tuple of SpikeSet
        One if all backends agree.
    disagreements : tuple of str
        Where backends fired different spikes.
    """

    backends: Annotated[tuple[str, ...], Field(min_length=1)]
    sets: Annotated[tuple[SpikeSet, ...], Field(min_length=1)]
    disagreements: tuple[str, ...]

    def __post_init__(self) -> None:
        entries = [entry for each in self.sets for entry in each.entries]
        for what in ("steps", "images"):
            if len(found := {getattr(entry, what) for entry in entries}) > 1:
                raise ValueError(f"entries with {what} {sorted(found)}, expected one number")
        if unknown := {name for entry in entries for name in (*entry.backends, *entry.measured, *entry.reported)} - {
            *self.backends
        }:
            raise ValueError(f"entries of backends {sorted(unknown)}, expected those of the account")

    @classmethod
    def of(cls, ledger: Ledger) -> Account:
        """The numbers of a ledger."""
        sets = []
        for backends in dict.fromkeys(entry.backends for entry in ledger.entries):
            counts = next(each for each in ledger.counts if each.backend == backends[0])
            activities = []
            for name in ledger.graph.order:
                population = ledger.graph.population(name)
                if population.kind != "input":
                    fired = int(counts.spikes[name].events.sum()) if name in ledger.graph.spiking else 0
                    updates = population.size * ledger.steps * ledger.images
                    activities.append(Activity(population=name, updates=updates, messages=fired))
            entries = tuple(entry for entry in ledger.entries if entry.backends == backends)
            sets.append(SpikeSet(entries=entries, activities=tuple(activities)))
        return cls(backends=ledger.backends, sets=tuple(sets), disagreements=ledger.disagreements)

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Account:
        """The account in a document of `to_dict`.

        Raises
        ------
        pydantic.ValidationError
            If a field is missing or malformed, or numbers contradict each other.
        """
        return _ADAPTER.validate_python(document)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; a rational is a text such as ``"7/3"``."""
        return dict(_ADAPTER.dump_python(self, mode="json"))

    @property
    def steps(self) -> int:
        """Local steps T."""
        return self.sets[0].entries[0].steps

    @property
    def images(self) -> int:
        """Images summed over."""
        return self.sets[0].entries[0].images

    @property
    def reconciled(self) -> bool:
        """Whether all backends fired the same spikes and every residual of a measured count is 0."""
        entries = [entry for each in self.sets for entry in each.entries]
        return not self.disagreements and not any(entry.residual(name) for entry in entries for name in entry.measured)

    def energies(self, model: EnergyModel) -> tuple[Energy, ...]:
        """The energy of each set of spikes under a model."""
        return tuple(charge(each.entries, each.activities, model) for each in self.sets)

    def to_frame(self, model: EnergyModel | None = None) -> pd.DataFrame:
        """The mean image's table, equal to ``ledger.to_frame(model, images="mean")``."""
        energies = self.energies(model or EnergyModel())
        blocks = [Block(entries=each.entries, energy=energy) for each, energy in zip(self.sets, energies, strict=True)]
        return to_frame(blocks, self.backends, mean=True)


_ADAPTER = TypeAdapter(Account)
