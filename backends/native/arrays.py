"""The arrays that the kernel fills and works in."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sparsespike.backends.native.plan import AEC, INPUT, Plan

WORD = 8
"""Fired flags are looked through eight at a time."""


class Outputs(NamedTuple):
    """Arrays that the kernel fills, for B images, all zero before."""

    readout: NDArray[np.int64]
    """(B, steps, classes) membranes."""
    positive: NDArray[np.int64]
    """(B, neurons) spikes of every neuron of the graph."""
    negative: NDArray[np.int64]
    positive_by_step: NDArray[np.int64]
    """(B, P, steps)."""
    negative_by_step: NDArray[np.int64]
    events: NDArray[np.int64]
    """(B, R, steps) weights added."""
    rasters: NDArray[np.int8]
    """(B, steps, recorded neurons)."""
    overflow: NDArray[np.int64]
    """(B, 3) population + 1, step and membrane where the limit was first left; zeros if it never was."""


class Scratch(NamedTuple):
    """Work space of one thread."""

    v: NDArray[np.int64]
    """Membranes of one population; below, what drives it: in the coming step, and as a constant in every step."""
    drive: NDArray[np.int64]
    constant: NDArray[np.int64]
    u: NDArray[np.int64]
    """Currents of kind ``lif``."""
    net_count: NDArray[np.int32]
    """Net spike count of each neuron so far; of kind ``aec`` the number of its spikes."""
    fired: NDArray[np.int8]
    """+1, 0 or -1 of this step; of kind ``aec`` bit 0 = primary, bit 1 = compensation."""
    source: NDArray[np.int32]
    """Neuron of every event of the image, population after population and step after step."""
    payload: NDArray[np.int32]
    """Value of every event."""
    start: NDArray[np.int64]
    """(P, steps) events ``start[p, t]:stop[p, t]`` were emitted by population p in step t."""
    stop: NDArray[np.int64]


def make_scratch(plan: Plan, steps: int) -> Scratch:
    """Work space for one thread: 8 bytes a neuron and step (of kind ``aec``: and spike), the most events of an image."""
    sizes = np.diff(plan.offset)
    widest = int(sizes.max())
    most = np.select([plan.kind == INPUT, plan.kind == AEC], [1, 2], steps)
    events = int((sizes * most).sum())
    return Scratch(
        v=np.empty(widest, np.int64),
        drive=np.empty(widest, np.int64),
        constant=np.empty(widest, np.int64),
        u=np.empty(widest, np.int64),
        net_count=np.empty(widest, np.int32),
        fired=np.zeros(-(-widest // WORD) * WORD, np.int8),
        source=np.empty(events, np.int32),
        payload=np.empty(events, np.int32),
        start=np.zeros((len(plan.kind), steps), np.int64),
        stop=np.zeros((len(plan.kind), steps), np.int64),
    )
