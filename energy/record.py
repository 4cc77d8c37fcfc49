"""A record: what one converted network did on one test set, small enough to keep for hundreds of networks.

It holds integer counts by time step, so accuracy, MASFR, saturation, lag and energy at any T follow without the network.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from fractions import Fraction
from importlib.metadata import version
from itertools import accumulate
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import ConfigDict, TypeAdapter, ValidationError

from sparsespike.backends.base import RunResult
from sparsespike.backends.bulk import BulkResult
from sparsespike.common.errors import ConfigError
from sparsespike.common.files import write_text
from sparsespike.energy.entry import Entry
from sparsespike.energy.exact import Number, exact
from sparsespike.energy.flops import pooled_flops
from sparsespike.energy.model import Activity, Energy, EnergyModel, charge
from sparsespike.energy.rates import Over
from sparsespike.energy.saturation import Saturation, saturation
from sparsespike.energy.settings import Setting, check_settings, sparsity_of
from sparsespike.energy.stepcounts import (
    PopulationCounts,
    ProjectionCounts,
    by_step,
    check_counts,
    populations_of,
    projections_of,
)
from sparsespike.export.graph import Key, SpikingGraph

MARK = "sparsespike_record"
"""Key of a record file that holds the version of its format."""

FORMAT_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Record:
    """One converted network on one test set.

    Make one with `of`; `save`, `load` and `load_records` keep them as JSON.

    Parameters
    ----------
    what : mapping of str to str, int, float, bool or None
        Settings that name the network: ``dataset``, ``model``, ``method`` (of conversion) and ``sparsity`` (0: fully connected),
        and whatever else tells it from others (``training``, ``seed``, ``lr``, ``batch``, ``L``, ``T`` of AEC ...).
    images, steps : int
        B and T.
    slots : int or None
        Of an AEC graph, whose T is fixed by conversion: then ``steps`` = ``slots``, and only the last step has an answer.
    correct : tuple of int, length T
        Images classified correctly after each step.
    ann_correct : int
        Images that the ANN classifies correctly.
    populations : tuple of PopulationCounts
        Input first, then by depth.
    projections : tuple of ProjectionCounts
    backend, version : str
        Backend that ran the graph, and the version of this package.
    graph_digest : str

    Raises
    ------
    ConfigError
        If counts are negative, of the wrong length or more than can be, or a setting is missing or no plain value.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(strict=True, extra="forbid")

    what: Mapping[str, Setting]
    images: int
    steps: int
    slots: int | None
    correct: tuple[int, ...]
    ann_correct: int
    populations: tuple[PopulationCounts, ...]
    projections: tuple[ProjectionCounts, ...]
    backend: str
    version: str
    graph_digest: str

    def __post_init__(self) -> None:
        check_settings(self.what)
        if self.images < 1 or self.steps < 1:
            raise ConfigError(f"record: found {self.images} images and {self.steps} steps, expected 1 or more of both")
        if self.slots not in (None, self.steps):
            raise ConfigError(f"record, slots: found {self.slots} in a run of {self.steps} steps, expected them equal, or null")
        if not 0 <= self.ann_correct <= self.images:
            raise ConfigError(f"record, ann_correct: found {self.ann_correct}, expected 0 to {self.images}, the images")
        check_counts("record, correct", self.correct, self.steps, self.images)
        names = [population.name for population in self.populations]
        if len(set(names)) < len(names) or not self.projections:
            raise ConfigError("record: found two populations of one name or no projection, expected unique names, one or more")
        for population in self.populations:
            population.check(self.steps, self.images)
        for projection in self.projections:
            projection.check(self.steps, self.images, names)

    @classmethod
    def of(
        cls,
        graph: SpikingGraph,
        result: RunResult | BulkResult,
        labels: ArrayLike,
        ann_correct: int,
        what: Mapping[str, Setting],
        *,
        ann_flops: Mapping[Key, Number] | None = None,
    ) -> Record:
        """The record of a run.

        Parameters
        ----------
        graph : SpikingGraph
        result : RunResult or BulkResult of B images
        labels : integers, shape (B,)
        ann_correct : int
            Of the same images.
        what : mapping
            See `Record`.
        ann_flops : mapping of (pre, post) to number, optional
            FL_ANN of the ANN's layer, where a pool was composed into it (as for a ledger).

        Raises
        ------
        ConfigError
            If labels or settings do not fit.
        BackendError
            If the result is another graph's, or events that the backend reports are not spikes x fan-outs.
        """
        expected = np.asarray(labels)
        if expected.shape != (result.images,):
            raise ConfigError(f"record: found labels of shape {expected.shape}, expected ({result.images},), one an image")
        flops = pooled_flops(graph) | {key: exact(value) for key, value in (ann_flops or {}).items()}
        return cls(
            what=dict(what),
            images=result.images,
            steps=result.steps,
            slots=graph.slots,
            correct=by_step(result.predictions == expected[:, None]),
            ann_correct=int(ann_correct),
            populations=populations_of(graph, result),
            projections=projections_of(graph, result, flops),
            backend=result.backend,
            version=version("sparsespike"),
            graph_digest=graph.digest(),
        )

    @property
    def sparse(self) -> bool:
        """Whether links were left out."""
        return self.sparsity > 0

    @property
    def sparsity(self) -> Fraction:
        """Share of links left out, as named in ``what``."""
        return sparsity_of(self.what)

    @property
    def connectivity(self) -> str:
        """``fc`` or ``s(0.99)``, as in the paper's Table 2."""
        return f"s({float(self.sparsity):g})" if self.sparse else "fc"

    def population(self, name: str) -> PopulationCounts:
        """The counts of one population.

        Raises
        ------
        ConfigError
            If there is none.
        """
        for population in self.populations:
            if population.name == name:
                return population
        raise ConfigError(f"record: population {name!r} does not exist; found {', '.join(p.name for p in self.populations)}")

    def accuracy(self, steps: int | None = None) -> Fraction:
        """Share of images classified correctly after ``steps`` steps (all of them by default)."""
        return Fraction(self.correct[self._at(steps) - 1], self.images)

    @property
    def ann_accuracy(self) -> Fraction:
        """Share of images that the ANN classifies correctly."""
        return Fraction(self.ann_correct, self.images)

    @property
    def accuracy_curve(self) -> NDArray[np.float64]:
        """Share of images classified correctly at t = 1..T, shape (T,)."""
        return np.asarray(self.correct, np.float64) / self.images

    def masfr_curve(self, over: Over = "hidden") -> tuple[Fraction, ...]:
        """MASFR(t) at t = 1..T, mean over images, exact (Eq. 1), in spikes per neuron and step.

        Raises
        ------
        ConfigError
            If the network has no such neurons.
        """
        kinds: dict[Over, tuple[str, ...]] = {"hidden": ("input", "readout"), "hidden+readout": ("input",), "all": ()}
        if over not in kinds:
            raise ConfigError(f"MASFR: found over = {over!r}, expected one of {', '.join(kinds)}")
        averaged = [population for population in self.populations if population.kind not in kinds[over]]
        neurons = sum(population.neurons for population in averaged)
        if not any(population.kind != "readout" for population in averaged):
            raise ConfigError(f"MASFR over {over!r} neurons: the network has no population that fires; use over = 'all'")
        by_step = (sum(p.positive[t] + p.negative[t] for p in averaged) for t in range(self.steps))
        return tuple(Fraction(spikes, t * self.images * neurons) for t, spikes in enumerate(accumulate(by_step), 1))

    def accuracy_saturation(self) -> Saturation | None:
        """Where accuracy saturates (paper, section 2.3); None if it does not within T.

        Raises
        ------
        ConfigError
            If this is an AEC network, which answers once.
        """
        self._require_curve("accuracy saturation")
        return saturation(self.correct)

    def masfr_saturation(self, over: Over = "hidden") -> Saturation | None:
        """Where MASFR saturates; None if it does not within T. See `accuracy_saturation` for the errors."""
        self._require_curve("MASFR saturation")
        return saturation(self.masfr_curve(over))

    def lag(self, over: Over = "hidden") -> int | None:
        """Accuracy saturation time - MASFR saturation time (Eq. 5), in steps; None if either does not saturate within T.

        See `accuracy_saturation` for the errors.
        """
        accuracy, rate = self.accuracy_saturation(), self.masfr_saturation(over)
        return None if accuracy is None or rate is None else accuracy.end - rate.end

    def entries(self, steps: int | None = None) -> tuple[Entry, ...]:
        """The ledger's lines of a run cut after ``steps`` steps.

        A record holds no single neurons: the covariance term is what the identity computed = analytic + covariance leaves,
        and there is no measured count. The ledger itself holds the two against each other.
        """
        cut = self._at(steps)
        entries = []
        for projection in self.projections:
            pre, post = self.population(projection.pre), self.population(projection.post)
            spikes, computed = pre.spikes(cut), sum(projection.events[:cut])
            entries.append(
                Entry(
                    pre=pre.name,
                    post=post.name,
                    operation=projection.operation,
                    backends=(self.backend,),
                    steps=cut,
                    images=self.images,
                    neurons=pre.neurons,
                    post_neurons=post.neurons,
                    nnz=projection.synapses,
                    nominal=projection.nominal,
                    ann_flops=Fraction(projection.ann_flops),
                    spikes=spikes,
                    post_spikes=post.spikes(cut),
                    computed=computed,
                    covariance=computed - Fraction(spikes, pre.neurons) * projection.synapses,
                    measured={},
                    reported={},
                )
            )
        return tuple(entries)

    def energy(self, steps: int | None = None, model: EnergyModel | None = None) -> Energy:
        """Energy of a run cut after ``steps`` steps (all by default), equal to that of such a run's ledger (Eq. 3).

        Under a model that charges the graph's events with the paper's constants, or under the one given.

        Raises
        ------
        ConfigError
            If ``steps`` is not 1..T, or not T of an AEC network.
        """
        cut = self._at(steps)
        activities = [
            Activity(population=p.name, updates=p.neurons * cut * self.images, messages=p.spikes(cut))
            for p in self.populations
            if p.kind != "input"
        ]
        return charge(self.entries(cut), activities, model or EnergyModel())

    def describe(self) -> str:
        """The settings that it has, on one line."""
        return ", ".join(f"{key} = {value}" for key, value in self.what.items() if value is not None)

    def to_json(self) -> str:
        """The record as JSON text."""
        return json.dumps({MARK: FORMAT_VERSION, **asdict(self)})

    @classmethod
    def from_json(cls, text: str, where: str = "record") -> Record:
        """The record in a JSON text.

        Raises
        ------
        ConfigError
            For the first thing that is wrong with it, naming ``where`` and the field.
        """
        try:
            fields: Any = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"{where}: found no valid JSON ({error}), expected a record; make it again") from None
        if not isinstance(fields, dict) or MARK not in fields:
            raise ConfigError(f"{where}: found no key {MARK!r}, expected a record as Record.save writes it")
        found = fields.pop(MARK)
        if type(found) is not int or found != FORMAT_VERSION:
            raise ConfigError(f"{where}, {MARK}: found version {found!r}, expected {FORMAT_VERSION}; update sparsespike")
        try:
            return _ADAPTER.validate_json(json.dumps(fields))
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            at = ".".join(map(str, first["loc"])) or "the record"
            raise ConfigError(f"{where}, {at}: {first['msg']}; found {str(first['input'])[:80]}; make the record again") from None
        except ConfigError as error:
            raise ConfigError(f"{where}: {error}") from None

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the record to a JSON file, atomically."""
        write_text(path, self.to_json())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Record:
        """Read a record from a JSON file.

        Raises
        ------
        ConfigError
            If the file cannot be read or is no record.
        """
        return cls.from_json(_read(Path(path)), f"record {path}")

    def _at(self, steps: int | None) -> int:
        if steps is None:
            return self.steps
        if not 1 <= steps <= self.steps:
            raise ConfigError(f"record: found steps = {steps}, expected 1 to {self.steps}, the steps that were run")
        if self.slots is not None and steps != self.slots:
            raise ConfigError(
                f"record of an AEC network: found steps = {steps}, expected {self.slots}, the slots of its tables; T is part of "
                "the conversion, make a record for each"
            )
        return steps

    def _require_curve(self, what: str) -> None:
        if self.slots is not None:
            raise ConfigError(f"{what}: found a record of an AEC network, which answers once, expected a rate method (1 or 2)")


def load_records(folder: str | os.PathLike[str]) -> dict[Path, Record]:
    """Every record below a folder, by path: all ``*.json`` files that carry the mark of a record, in order of their paths.

    Raises
    ------
    ConfigError
        If the folder does not exist, or a file has the mark but is no record.
    """
    root = Path(folder)
    if not root.is_dir():
        raise ConfigError(f"records: found no folder {root}, expected one with record files (*.json) at any depth")
    texts = {path: _read(path) for path in sorted(root.rglob("*.json")) if path.is_file()}
    return {path: Record.from_json(text, f"record {path}") for path, text in texts.items() if f'"{MARK}"' in text}


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"record {path}: cannot be read ({error}); expected a JSON file in UTF-8") from None


_ADAPTER = TypeAdapter(Record)
