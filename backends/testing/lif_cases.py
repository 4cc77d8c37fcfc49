"""Directed cases of kind ``lif``: membranes and currents that decay, rounded toward zero.

Weights of both signs are even, which fixed point on Loihi asks for where the unit of the membrane is given.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sparsespike.backends.testing.case import Case
from sparsespike.export.connections import Conv2dConnection, CSRConnection
from sparsespike.export.graph import Population, Projection, SpikingGraph
from sparsespike.export.population import BiasMode, Reset

NEVER_REACHED = 10**9


def lif_population(
    name: str,
    threshold: ArrayLike,
    decay_voltage: ArrayLike,
    decay_current: ArrayLike = 4096,
    *,
    bias: ArrayLike = 0,
    v_init: ArrayLike = 0,
    bias_mode: BiasMode = "every_step",
    reset: Reset = "zero",
    shape: tuple[int, ...] | None = None,
) -> Population:
    """A population of kind ``lif``, one neuron a threshold; single numbers hold for all neurons."""
    size = np.size(threshold)

    def each(values: ArrayLike) -> NDArray[np.int64]:
        return np.broadcast_to(np.asarray(values, np.int64), (size,))

    return Population(
        name=name,
        shape=shape or (size,),
        kind="lif",
        threshold=each(threshold),
        decay_voltage=each(decay_voltage),
        decay_current=each(decay_current),
        v_init=each(v_init),
        bias=each(bias),
        bias_mode=bias_mode,
        reset=reset,
    )


def _input(size: int, low: int = 0, high: int = 255, bias_mode: BiasMode = "every_step") -> Population:
    return Population(name="input", shape=(size,), kind="input", value_range=(low, high), bias_mode=bias_mode)


def _readout(size: int) -> Population:
    return Population(name="readout", shape=(size,), kind="readout")


def _csr(matrix: ArrayLike) -> CSRConnection:
    return CSRConnection.from_scipy(np.asarray(matrix, np.int64))


def _chain(populations: Sequence[Population], weights: Sequence[ArrayLike], inputs: ArrayLike, steps: int) -> Case:
    pairs = zip(populations[:-1], populations[1:], weights, strict=True)
    graph = SpikingGraph(populations, [Projection(pre.name, post.name, _csr(matrix)) for pre, post, matrix in pairs])
    return Case(graph, np.asarray(inputs, np.int64), steps)


def lif_halving() -> Case:
    """A membrane that is halved in each step and receives x: it climbs to at most 2 x, and fires only if the threshold is below.

    From v = 0 with x = 2^k it is 2 x - x / 2^t after step t as long as that is an integer: 2, 3 quarters ... of the limit.
    """
    leaky = lif_population("hidden", [96, 112, 120, 127, 128], 2048)
    return _chain([_input(1), leaky, _readout(1)], [[[1] * 5], [[1]] * 5], [[64], [63], [0], [128]], 12)


def lif_toward_zero() -> Case:
    """Decay rounds toward zero from both sides: 1 and -1 are gone after a step, whatever the decay; only decay 0 keeps them."""
    bias = [1, -1, 5, -5, 3, -3, 1, -1]
    decays = [1, 1, 1, 1, 4095, 4095, 0, 0]
    kicked = lif_population("hidden", [2, 2, 4, 4, 2, 2, 9, 9], decays, bias=bias, bias_mode="once", reset="subtract")
    weights: list[ArrayLike] = [[[0, 0, 2, -2, 2, -2, 2, -2]], np.eye(8, dtype=int)]
    return _chain([_input(1, 0, 3), kicked, _readout(8)], weights, [[0], [1], [3]], 10)


def lif_start() -> Case:
    """An initial membrane decays in the first step already; a bias added once, in that step, does not."""
    v_init, bias = [100, 100, -200, 1000], [0, 0, 199, 100]
    leaky = lif_population("hidden", [50, 51, 99, 100], [2048, 2048, 2048, 4096], v_init=v_init, bias=bias, bias_mode="once")
    return _chain([_input(1), leaky, _readout(4)], [[[0, 0, 0, 0]], np.eye(4, dtype=int)], [[0], [1]], 4)


def lif_current() -> Case:
    """Currents with memory: an input that comes once goes on driving the membrane, 8 + 4 + 2 + 1 times its value / 8."""
    decay_current = [2048, 2048, 4096, 0, 1024]
    leaky = lif_population("hidden", [14, 15, 14, 40, 9], [0, 0, 0, 0, 512], decay_current)
    deeper = lif_population("deeper", [9, 4], [100, 4000], [300, 2000], reset="subtract", bias=[0, 1])
    weights = [[[8] * 5], [[6, -2], [4, 2], [10, 10], [-8, 4], [2, 2]], [[1, -1], [2, 3]]]
    return _chain([_input(1, -1, 2, "once"), leaky, deeper, _readout(2)], weights, [[1], [2], [0], [-1]], 9)


def lif_every_field() -> Case:
    """Decays, biases and starts that differ from neuron to neuron, both resets, inhibition, a busy image before a silent one."""
    rng = np.random.default_rng(5)
    size = 12
    populations = [_input(3, -4, 9)]
    resets: tuple[Reset, ...] = ("subtract", "zero")
    for name, reset in zip("ab", resets, strict=True):
        decays = rng.choice([0, 1, 37, 410, 2048, 4095, 4096], (2, size))
        bias, v_init = rng.integers(-40, 60, size), rng.integers(-300, 300, size)
        threshold = rng.integers(1, 400, size)
        populations.append(lif_population(name, threshold, *decays, bias=bias, v_init=v_init, reset=reset))
    populations.append(_readout(2))
    weights = [2 * rng.integers(-15, 25, (3, size)), 2 * rng.integers(-45, 70, (size, size)), rng.integers(-3, 4, (size, 2))]
    return _chain(populations, weights, [[9, 9, 9], [0, 0, 0], [-4, 2, 1], [0, 0, 0], [1, 0, 3]], 15)


def lif_beside_others() -> Case:
    """Leaky, plain and signed neurons in one graph, with skips: what waits one and two steps meets in one current."""
    leaky = lif_population("leaky", [7, 12, 3], [400, 0, 4096], [1000, 4096, 0])
    plain = Population(name="plain", shape=(2,), kind="if", threshold=np.array([4, 6]), v_init=np.array([2, 3]))
    signed = Population(
        name="signed", shape=(2,), kind="signed_if", threshold=np.array([4, 2]), threshold_neg=np.array([2, 3]), reset="zero"
    )
    joined = lif_population("joined", [9, 5], [1500, 90], [2048, 600], reset="subtract")
    pairs = {
        ("input", "leaky"): [[6, 2, 2], [-2, 4, 0]],
        ("input", "plain"): [[1, 2], [2, -1]],
        ("leaky", "signed"): [[2, -3], [-2, 5], [1, 0]],
        ("plain", "signed"): [[-3, 1], [2, -2]],
        ("leaky", "joined"): [[8, 0], [0, -6], [4, 4]],
        ("signed", "joined"): [[6, 14], [-12, 4]],
        ("input", "joined"): [[1, 0], [0, 1]],
        ("joined", "readout"): [[2, -1], [1, 5]],
        ("plain", "readout"): [[1, 0], [0, -1]],
    }
    projections = [Projection(*pair, _csr(weights)) for pair, weights in pairs.items()]
    graph = SpikingGraph([_input(2), leaky, plain, signed, joined, _readout(2)], projections)
    return Case(graph, np.array([[1, 0], [0, 2], [3, 1], [0, 0]]), 14)


def lif_wide() -> Case:
    """Membranes beyond 2^44 and currents beyond 2^32 that decay slowly, with bits below: only exact arithmetic gets it right."""
    big = 2**23 - 1
    v_init = [2**48 + 1, -(2**47) - 7, 5]
    leaky = lif_population("hidden", [2**33 + 1, 2**31 - 3, NEVER_REACHED], [1, 5, 0], [3, 4096, 1], v_init=v_init)
    return _chain(
        [_input(3), leaky, _readout(2)],
        [[[big, 3, 1], [big - 2, 1 - big, 0], [-big, big, -1]], [[big, 1], [1, -big], [5, 5]]],
        [[255, 255, 0], [255, 1, 254], [3, 2, 1]],
        12,
    )


def lif_convolution() -> Case:
    """Leaky neurons behind convolutions, each channel with its own decay."""
    rng = np.random.default_rng(3)
    first = Conv2dConnection(2 * rng.integers(-3, 5, (3, 1, 3, 3), np.int32), (1, 5, 5), padding=(1, 1))
    second = Conv2dConnection(2 * rng.integers(-3, 5, (2, 3, 2, 2), np.int32), (3, 5, 5), stride=(2, 2))
    populations = [
        Population(name="input", shape=(1, 5, 5), kind="input", value_range=(0, 3)),
        lif_population("conv1", [17] * 75, np.repeat([300, 2048, 4000], 25), np.repeat([4096, 1000, 0], 25), shape=(3, 5, 5)),
        lif_population("conv2", [23] * 8, np.repeat([100, 1], 4), shape=(2, 2, 2), reset="subtract"),
        _readout(3),
    ]
    projections = [
        Projection("input", "conv1", first),
        Projection("conv1", "conv2", second),
        Projection("conv2", "readout", _csr(rng.integers(-3, 4, (8, 3)))),
    ]
    return Case(SpikingGraph(populations, projections), rng.integers(0, 4, (3, 25)), 7)


LIF_CASES = (
    lif_halving,
    lif_toward_zero,
    lif_start,
    lif_current,
    lif_every_field,
    lif_beside_others,
    lif_wide,
    lif_convolution,
)
