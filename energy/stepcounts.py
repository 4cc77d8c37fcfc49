"""Integer counts by time step, summed over images: what a record holds of each population and projection."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsespike.backends.base import RunResult
from sparsespike.backends.bulk import BulkResult
from sparsespike.common.errors import BackendError, ConfigError
from sparsespike.energy.entry import Operation
from sparsespike.energy.exact import total, weighted_sum
from sparsespike.energy.flops import nominal_flops
from sparsespike.export.graph import Kind, SpikingGraph

SPIKES_A_SLOT = 2
"""Most spikes of a neuron in one step: an AEC neuron may fire its primary and its compensation in one slot."""


@dataclass(frozen=True, kw_only=True)
class PopulationCounts:
    """Spikes of one population, summed over its neurons and all images.

    Parameters
    ----------
    name, kind : str
    neurons : int
    positive, negative : tuple of int, length T
        By local step. Of the input: emissions of a value that is not zero. Of the readout, which never fires: zeros.

    Raises
    ------
    ConfigError
        If a count is negative.
    """

    name: str
    kind: Kind
    neurons: int
    positive: tuple[int, ...]
    negative: tuple[int, ...]

    def __post_init__(self) -> None:
        if self.neurons < 1:
            raise ConfigError(f"population {self.name!r}: found {self.neurons} neurons, expected 1 or more")

    def spikes(self, steps: int) -> int:
        """Spikes of both signs in the first ``steps`` steps."""
        return sum(self.positive[:steps]) + sum(self.negative[:steps])

    def check(self, steps: int, images: int) -> None:
        """Check the lengths and sizes of the counts against a run; ConfigError if they do not fit."""
        for sign, counts in (("positive", self.positive), ("negative", self.negative)):
            check_counts(f"population {self.name!r}, {sign}", counts, steps, SPIKES_A_SLOT * self.neurons * images)


@dataclass(frozen=True, kw_only=True)
class ProjectionCounts:
    """Events of one projection, summed over all images.

    Parameters
    ----------
    pre, post : str
    operation : {"MAC", "AC"}
    synapses : int
        nnz.
    nominal : int
        Synapses before borders cut any, see `Entry`.
    ann_flops : str
        FL_ANN of the ANN's layer (Eq. 4) as an exact rational, such as ``"2359296/25"``.
    events : tuple of int, length T
        Spikes x fan-outs by local step of the presynaptic population; of the first projection without input values of zero.

    Raises
    ------
    ConfigError
        If a number is negative or no rational.
    """

    pre: str
    post: str
    operation: Operation
    synapses: int
    nominal: int
    ann_flops: str
    events: tuple[int, ...]

    def __post_init__(self) -> None:
        try:
            flops = Fraction(self.ann_flops)
        except (ValueError, ZeroDivisionError):
            flops = Fraction(-1)
        if flops < 0:
            raise ConfigError(f"{self.where}, ann_flops: found {self.ann_flops!r}, expected a rational such as '2359296/25'")
        if min(self.synapses, self.nominal) < 0:
            raise ConfigError(f"{self.where}: found {self.synapses} synapses (nominal {self.nominal}), expected 0 or more")

    @property
    def where(self) -> str:
        """What messages call it."""
        return f"projection {self.pre!r} -> {self.post!r}"

    def check(self, steps: int, images: int, populations: Sequence[str]) -> None:
        """Check ends, lengths and sizes of the counts against a run; ConfigError if they do not fit."""
        for end in (self.pre, self.post):
            if end not in populations:
                raise ConfigError(f"{self.where}: population {end!r} does not exist; found {', '.join(map(repr, populations))}")
        check_counts(f"{self.where}, events", self.events, steps, SPIKES_A_SLOT * self.synapses * images)


def check_counts(what: str, counts: tuple[int, ...], steps: int, most: int) -> None:
    """Check that there is a count for each step, from 0 to ``most``; ConfigError if not."""
    if len(counts) != steps:
        raise ConfigError(f"{what}: found {len(counts)} values, expected {steps}, one a step")
    if min(counts) < 0 or max(counts) > most:
        raise ConfigError(f"{what}: found {min(counts)} to {max(counts)}, expected 0 to {most} in a step")


def populations_of(graph: SpikingGraph, result: RunResult | BulkResult) -> tuple[PopulationCounts, ...]:
    """The counts of every population of a run, input first, then by depth.

    Raises
    ------
    BackendError
        If the run holds no spikes of one of them, or of another number of neurons.
    """
    found = []
    for name in graph.order:
        population = graph.population(name)
        positive = negative = (0,) * result.steps
        if population.kind != "readout":
            if name not in result.spikes_by_step or result.spikes[name].events.shape[1] != population.size:
                raise BackendError(
                    f"record: the run holds no spikes of {population.size} neurons of population {name!r}; is it another graph's?"
                )
            counts = result.spikes_by_step[name]
            positive, negative = by_step(counts.positive), by_step(counts.negative)
        found.append(
            PopulationCounts(name=name, kind=population.kind, neurons=population.size, positive=positive, negative=negative)
        )
    return tuple(found)


def projections_of(
    graph: SpikingGraph, result: RunResult | BulkResult, ann_flops: dict[tuple[str, str], Fraction]
) -> tuple[ProjectionCounts, ...]:
    """The counts of every projection of a run.

    Raises
    ------
    BackendError
        If events that the backend reports are not spikes x fan-outs, or the run is another graph's.
    """
    found = []
    for projection in graph.projections:
        nominal = nominal_flops(projection.connection)
        found.append(
            ProjectionCounts(
                pre=projection.pre,
                post=projection.post,
                operation="MAC" if projection.pre == graph.input.name else "AC",
                synapses=projection.connection.nnz,
                nominal=int(nominal),
                ann_flops=str(ann_flops.get(projection.key, nominal)),
                events=_events(graph, projection.key, result),
            )
        )
    return tuple(found)


def by_step(array: NDArray[Any]) -> tuple[int, ...]:
    """Counts of shape (B, T) or (1, T), summed over images."""
    return tuple(array.sum(axis=0, dtype=np.int64).tolist())


def _events(graph: SpikingGraph, key: tuple[str, str], result: RunResult | BulkResult) -> tuple[int, ...]:
    pre, post = key
    where = f"record: events of {pre!r} -> {post!r}"
    if key not in result.events_by_step:
        raise BackendError(f"{where}: the run has none; is it another graph's?")
    spikes = result.spikes[pre].events.sum(axis=0)
    computed = weighted_sum(spikes, graph.projection(pre, post).connection.fan_out)
    events = by_step(result.events_by_step[key])
    if pre == graph.input.name and result.counting[key] == "computed":
        # Injected as a constant current, which reports T x nnz. Every step in which values are sent sends the same ones.
        emitted, whole = by_step(result.spikes_by_step[pre].events), total(spikes) or 1
        events = tuple(computed * count // whole for count in emitted)
    if sum(events) != computed:
        raise BackendError(
            f"{where}: {result.backend!r} reports {sum(events)}, expected spikes x fan-outs = {computed}; look at the ledger's "
            "residual before keeping the run"
        )
    return events
