"""What to simulate, and what came of it: plain data, so that both can pass to another process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sparsespike.backends.base import InputMode, SpikeCounts
from sparsespike.export.graph import Key, SpikingGraph


@dataclass(frozen=True, eq=False)
class Job:
    """A graph that Brian2 can run and checked inputs of shape (B, N), simulated ``batch`` images at a time."""

    graph: SpikingGraph
    inputs: NDArray[np.int64]
    steps: int
    record: frozenset[str]
    input: InputMode
    batch: int

    @property
    def starts(self) -> range:
        """The first image of each batch."""
        return range(0, len(self.inputs), self.batch)


@dataclass(frozen=True, eq=False)
class Recording:
    """What was seen of one batch of images; arrays as in RunResult."""

    readout: NDArray[np.int64]
    spikes: Mapping[str, SpikeCounts]
    spikes_by_step: Mapping[str, SpikeCounts]
    events_by_step: Mapping[Key, NDArray[np.int64]]
    rasters: Mapping[str, NDArray[np.int8]]


@dataclass(frozen=True, eq=False)
class Outcome:
    """Recordings of all batches, Brian2's version, and the seconds spent on building and on running."""

    recordings: list[Recording]
    version: str
    build: float
    run: float
