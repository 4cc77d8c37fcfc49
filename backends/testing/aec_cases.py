"""Directed cases of kind ``aec``: two graded spikes at most, decode and encode windows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from sparsespike.backends.testing.case import Case
from sparsespike.export.connections import Connection, Conv2dConnection, CSRConnection
from sparsespike.export.graph import Population, Projection, SpikingGraph
from sparsespike.export.population import NEVER

Slots = Sequence[tuple[int, int]]
"""(threshold, payload) of each slot."""

OFF = (NEVER, 0)
HALVES: Slots = ((16, 16), (8, 8), (4, 4), (2, 2))
"""Powers of two: a value up to 24 is sent as its two highest binary digits."""


def aec_population(
    name: str,
    size: int | tuple[int, ...],
    primary: Slots,
    compensation: Slots,
    *,
    bias: ArrayLike | None = None,
    v_init: ArrayLike | None = None,
) -> Population:
    """A population of kind ``aec`` from the slots of its two spikes."""
    tables = {}
    for spike, slots in (("primary", primary), ("compensation", compensation)):
        tables[f"{spike}_threshold"], tables[f"{spike}_payload"] = np.array(slots, np.int64).T
    shape = (size,) if isinstance(size, int) else size
    return Population(name=name, shape=shape, kind="aec", bias_mode="once", tables=tables, bias=_ints(bias), v_init=_ints(v_init))


def aec_input(size: int | tuple[int, ...], low: int = 0, high: int = 255) -> Population:
    """An input that emits once, as AEC graphs need it."""
    shape = (size,) if isinstance(size, int) else size
    return Population(name="input", shape=shape, kind="input", value_range=(low, high), bias_mode="once")


def aec_readout(size: int, *, bias: ArrayLike | None = None, v_init: ArrayLike | None = None) -> Population:
    """A readout whose bias comes once."""
    return Population(name="readout", shape=(size,), kind="readout", bias_mode="once", bias=_ints(bias), v_init=_ints(v_init))


def _ints(values: ArrayLike | None) -> Any:
    """An int64 array, or None for the default."""
    return None if values is None else np.asarray(values, np.int64)


def _graph(populations: Sequence[Population], weights: dict[tuple[str, str], Connection | ArrayLike]) -> SpikingGraph:
    projections = [
        Projection(pre, post, w if isinstance(w, Conv2dConnection) else CSRConnection.from_scipy(np.asarray(w, np.int64)))
        for (pre, post), w in weights.items()
    ]
    return SpikingGraph(populations, projections)


def aec_two_digits() -> Case:
    """One neuron, tables of powers of two: values 0..30 come out as their two highest binary digits, more than 24 as 24."""
    graph = _graph(
        [aec_input(1), aec_population("hidden", 1, HALVES, ((NEVER, 0), *HALVES[1:])), aec_readout(1)],
        {("input", "hidden"): [[1]], ("hidden", "readout"): [[1]]},
    )
    return Case(graph, np.arange(31)[:, None], 4)


def aec_order() -> Case:
    """A compensation spike waits for the primary one though the membrane is above its threshold, and may share its slot."""
    late = aec_population("late", 3, (OFF, OFF, (6, 5), (2, 1)), ((4, 7), (4, 7), (4, 3), (1, 9)), bias=[0, 1, -1])
    graph = _graph(
        [aec_input(1), late, aec_readout(2)],
        {("input", "late"): [[1, 1, 1]], ("late", "readout"): [[1, 10], [-2, 20], [3, -30]]},
    )
    return Case(graph, np.arange(15)[:, None], 4)


def aec_forced() -> Case:
    """A compensation threshold of 0 fires for every neuron whose primary spike has gone, and for no other."""
    forced = aec_population("hidden", 2, ((6, 6), (3, 3)), (OFF, (0, 1)))
    graph = _graph([aec_input(1), forced, aec_readout(1)], {("input", "hidden"): [[1, -1]], ("hidden", "readout"): [[1], [-4]]})
    return Case(graph, np.array([[0], [2], [3], [6], [9]]), 2)


def aec_one_slot() -> Case:
    """Windows of a single slot, three deep."""
    names = ("a", "b", "c")
    graph = _graph(
        [aec_input(2), *(aec_population(name, 2, ((4, 3),), ((2, 1),), v_init=[0, 1]) for name in names), aec_readout(2)],
        {
            ("input", "a"): [[1, 2], [3, -1]],
            ("a", "b"): [[2, 1], [0, 5]],
            ("b", "c"): [[-1, 2], [3, 1]],
            ("c", "readout"): [[1, 2], [3, -4]],
        },
    )
    return Case(graph, np.array([[1, 1], [5, 0], [0, 0], [2, 7]]), 1)


def aec_skips() -> Case:
    """Every earlier population projects to every later one: what waits 0, 1, 2 and 3 windows meets in one membrane."""
    names = ["input", "a", "b", "c", "readout"]
    slots = ((20, 9), (12, 6), OFF, (5, 2), (2, 1))
    populations = [
        aec_input(2, -3, 9),
        *(aec_population(name, 2, slots, slots[::-1], bias=[k, 1 - k], v_init=[0, k]) for k, name in enumerate("abc")),
        aec_readout(2, bias=[3, -3], v_init=[1, 0]),
    ]
    weights: dict[tuple[str, str], Connection | ArrayLike] = {}
    for post in range(1, len(names)):
        for pre in range(post):
            k = 4 * post + pre
            weights[names[pre], names[post]] = [[k % 5 + 1, -(k % 3)], [k % 4 - 1, k % 7 - 2]]
    return Case(_graph(populations, weights), np.array([[1, 0], [-3, 9], [0, 0], [9, 9], [4, -2]]), 5)


def aec_convolution() -> Case:
    """Convolutions, one of them an average pool with spikes of its own, and a residual way round it."""
    rng = np.random.default_rng(11)
    first = Conv2dConnection(rng.integers(-3, 4, (2, 1, 3, 3), np.int32), (1, 4, 4), padding=(1, 1))
    pool = Conv2dConnection(np.ones((2, 1, 2, 2), np.int32), (2, 4, 4), stride=(2, 2), groups=2)
    second = Conv2dConnection(rng.integers(-3, 4, (2, 2, 3, 3), np.int32), (2, 4, 4), stride=(2, 2), padding=(1, 1))
    slots = ((30, 7), (15, 4), (6, 2))
    populations = [
        aec_input((1, 4, 4), 0, 5),
        aec_population("conv", (2, 4, 4), slots, slots, bias=rng.integers(-4, 5, 32)),
        aec_population("pool", (2, 2, 2), slots, slots),
        aec_population("join", (2, 2, 2), slots, slots),
        aec_readout(3),
    ]
    again = Conv2dConnection(rng.integers(-3, 4, (2, 2, 1, 1), np.int32), (2, 2, 2))
    graph = _graph(
        populations,
        {
            ("input", "conv"): first,
            ("conv", "pool"): pool,
            ("pool", "join"): again,
            ("conv", "join"): second,
            ("join", "readout"): rng.integers(-3, 4, (8, 3)),
        },
    )
    return Case(graph, rng.integers(0, 6, (3, 16)), 3)


AEC_CASES = (aec_two_digits, aec_order, aec_forced, aec_one_slot, aec_skips, aec_convolution)
