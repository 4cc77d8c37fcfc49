"""Records put together: one network over T, and pairs of a sparse and a dense network as in the paper's tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from sparsespike.common.errors import ConfigError
from sparsespike.energy.record import Record
from sparsespike.energy.settings import NAMED, Setting

CONNECTIVITY = ("sparsity", "training")
"""Settings in which a sparse network differs from its dense partner: the share of absent links and how links were trained."""


@dataclass(frozen=True, kw_only=True)
class Operating:
    """A network at the T at which its energy is compared (paper, section 3.2).

    Attributes
    ----------
    record : Record
    steps : int
        Steps that are charged: T, or the T + 1 slots of an AEC network.
    time : int
        T: where accuracy saturates (rate methods), or where it is largest (AEC).
    settled : bool
        Whether accuracy saturates within the T that was run; if not, T is the last one.
    """

    record: Record
    steps: int
    time: int
    settled: bool

    @property
    def accuracy(self) -> Fraction:
        """Share of images classified correctly there."""
        return self.record.accuracy(self.steps)


@dataclass(frozen=True, kw_only=True)
class Network:
    """One trained network converted by one method: a record, or for AEC a record for each T, in rising order of T."""

    records: tuple[Record, ...]

    @property
    def what(self) -> Mapping[str, Setting]:
        """Settings; those of the largest T for AEC."""
        return self.records[-1].what

    @property
    def sparse(self) -> bool:
        """Whether links were left out."""
        return self.records[0].sparse

    @property
    def connectivity(self) -> str:
        """``fc``, or the sparsity and how links were trained."""
        training = self.what.get("training")
        return f"{self.records[0].connectivity} {training}" if self.sparse and training else self.records[0].connectivity

    @property
    def rated(self) -> bool:
        """Whether it answers in every step (methods 1 and 2)."""
        return self.records[0].slots is None

    @property
    def times(self) -> tuple[int, ...]:
        """T of each accuracy."""
        return tuple(range(1, self.records[0].steps + 1)) if self.rated else tuple(r.steps - 1 for r in self.records)

    @property
    def accuracies(self) -> tuple[Fraction, ...]:
        """Accuracy at each of ``times``."""
        if self.rated:
            return tuple(self.records[0].accuracy(t) for t in self.times)
        return tuple(record.accuracy() for record in self.records)

    def record_at(self, time: int) -> Record | None:
        """The record that has an answer at T = ``time``; None if T was not run."""
        if self.rated:
            return self.records[0] if time <= self.records[0].steps else None
        return next((record for record in self.records if record.steps - 1 == time), None)

    @property
    def operating(self) -> Operating:
        """Where its energy is taken."""
        if not self.rated:
            best = max(self.records, key=lambda record: (record.accuracy(), -record.steps))
            return Operating(record=best, steps=best.steps, time=best.steps - 1, settled=True)
        record = self.records[0]
        found = record.accuracy_saturation()
        end = record.steps if found is None else found.end
        return Operating(record=record, steps=end, time=end, settled=found is not None)


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A sparse network and its dense partner; one of them may be missing.

    Attributes
    ----------
    dataset, model, method : str
    sparse, dense : Network or None
    differs : tuple of str
        Settings that both name, and numbers of test images, in which they differ: ``epochs = 100 (sparse), 20 (dense)``.
    tried : int
        Sparse networks among which this one is the most accurate.
    """

    dataset: str
    model: str
    method: str
    sparse: Network | None
    dense: Network | None
    differs: tuple[str, ...]
    tried: int

    @property
    def name(self) -> str:
        """Data set, model and method."""
        return f"{self.dataset} {self.model} {self.method}"


def networks(records: Iterable[Record]) -> tuple[Network, ...]:
    """Records of AEC graphs of one network joined over T; every other record is a network of its own.

    Raises
    ------
    ConfigError
        If two records of AEC graphs have the same settings, T included, and are not the same: nothing tells them apart.
    """
    single: list[Network] = []
    joined: dict[tuple[tuple[str, Setting], ...], dict[int, Record]] = {}
    for record in records:
        if record.slots is None:
            single.append(Network(records=(record,)))
        else:
            key = tuple(sorted((name, value) for name, value in record.what.items() if name != "T"))
            if joined.setdefault(key, {}).setdefault(record.steps, record) != record:
                raise ConfigError(
                    f"records: found two of one AEC network and T: {record.describe()}; keep one, or name what differs"
                )
    return (*single, *(Network(records=tuple(found[t] for t in sorted(found))) for found in joined.values()))


def pairs(found: Sequence[Network]) -> tuple[Pair, ...]:
    """Pairs of the most accurate sparse network and the dense one with the same settings, as the paper chooses them.

    There is one for each data set, model, method, sparsity and way of training links. The dense partner is the one that differs
    in the fewest settings from the sparse network, the more accurate one of several; what differs is said.

    Raises
    ------
    ConfigError
        If there is no network.
    """
    if not found:
        raise ConfigError("records: found none, expected at least one network; see `sparsespike paper record` and sweeps")
    groups: dict[tuple[str, ...], list[Network]] = {}
    for network in found:
        groups.setdefault(tuple(str(network.what[key]) for key in NAMED), []).append(network)
    result = []
    for (dataset, model, method), members in sorted(groups.items(), key=lambda group: group[0][:2]):
        dense = [network for network in members if not network.sparse]
        sparse: dict[tuple[Setting, ...], list[Network]] = {}
        for network in members:
            if network.sparse:
                sparse.setdefault(tuple(network.what.get(key) for key in CONNECTIVITY), []).append(network)
        for tried in sparse.values() or [[]]:
            best = _most_accurate(tried)
            partner = best_partner(best, dense) if best else _most_accurate(dense)
            result.append(
                Pair(
                    dataset=dataset,
                    model=model,
                    method=method,
                    sparse=best,
                    dense=partner,
                    differs=_differences(best, partner),
                    tried=len(tried),
                )
            )
    return tuple(result)


def best_partner(sparse: Network, dense: Sequence[Network]) -> Network | None:
    """The dense network that differs from ``sparse`` in the fewest settings; the more accurate one of several."""
    fewest = min((len(_differences(sparse, each)) for each in dense), default=0)
    return _most_accurate([each for each in dense if len(_differences(sparse, each)) == fewest])


def _most_accurate(found: Sequence[Network]) -> Network | None:
    return max(found, key=lambda network: network.operating.accuracy, default=None)


def _differences(sparse: Network | None, dense: Network | None) -> tuple[str, ...]:
    if sparse is None or dense is None:
        return ()
    found = [
        f"{key} = {value} (sparse), {dense.what[key]} (dense)"
        for key, value in sparse.what.items()
        if key not in (*CONNECTIVITY, "T") and None not in (value, dense.what.get(key)) and dense.what[key] != value
    ]
    counts = sparse.records[0].images, dense.records[0].images
    return (*found, *([f"images = {counts[0]} (sparse), {counts[1]} (dense)"] if counts[0] != counts[1] else []))
