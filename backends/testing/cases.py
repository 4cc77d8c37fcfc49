"""Directed cases: small graphs, each about one thing that a backend may get wrong.

Every case has few neurons, so that its result can be worked out on paper, and more than one image where state could leak from
one image into the next.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from sparsespike.backends.testing.aec_cases import AEC_CASES
from sparsespike.backends.testing.case import Case
from sparsespike.backends.testing.lif_cases import LIF_CASES
from sparsespike.export.connections import Conv2dConnection, CSRConnection
from sparsespike.export.graph import Kind, Population, Projection, SpikingGraph


def _input(size: int, low: int = 0, high: int = 255, **fields: Any) -> Population:
    return Population(name="input", shape=(size,), kind="input", value_range=(low, high), **fields)


def _neurons(name: str, threshold: list[int], **fields: Any) -> Population:
    """A population of kind ``if``, or ``signed_if`` if ``threshold_neg`` is given."""
    arrays: dict[str, Any] = {"shape": (len(threshold),)}
    arrays |= {key: np.array(value) if isinstance(value, list) else value for key, value in fields.items()}
    kind: Kind = "signed_if" if "threshold_neg" in fields else "if"
    return Population(name=name, kind=kind, threshold=np.array(threshold), **arrays)


def _readout(size: int, **fields: Any) -> Population:
    return Population(name="readout", shape=(size,), kind="readout", **fields)


def _chain(*populations: Population, weights: list[ArrayLike], inputs: ArrayLike, steps: int) -> Case:
    """Populations joined one to the next by dense matrices (rows = presynaptic), and the images."""
    pairs = zip(populations[:-1], populations[1:], weights, strict=True)
    projections = [Projection(pre.name, post.name, _csr(matrix)) for pre, post, matrix in pairs]
    return Case(SpikingGraph(populations, projections), np.asarray(inputs, np.int64), steps)


def _csr(matrix: ArrayLike) -> CSRConnection:
    return CSRConnection.from_scipy(np.asarray(matrix, np.int64))


def single_neuron() -> Case:
    """One neuron, start = threshold / 2: after t + 1 steps of drive x <= 8 it has fired floor((4 + x (t + 1)) / 8) times."""
    neuron = _neurons("hidden", [8], v_init=[4])
    return _chain(_input(1, 0, 8), neuron, _readout(1), weights=[[[1]], [[1]]], inputs=np.arange(9)[:, None], steps=17)


def tie() -> Case:
    """The membrane meets the threshold exactly: v == threshold fires, one below does not; v == -threshold_neg fires -1."""
    exact = _neurons("hidden", [4, 4, 6], threshold_neg=[4, 4, 6], v_init=[0, -1, 0])
    return _chain(
        _input(2, -9, 9),
        exact,
        _readout(3),
        weights=[[[4, 4, 3], [-4, -4, -6]], np.eye(3)],
        inputs=[[1, 0], [1, 1], [1, 2], [2, 1]],
        steps=6,
    )


def negative_memory_meets_threshold() -> Case:
    """A positive spike, then v falls to exactly -threshold_neg: one -1 spike, and none below a net count of one."""
    neuron = _neurons("hidden", [6], threshold_neg=[2], v_init=[5])
    gate = _neurons("gate", [2])
    graph = SpikingGraph(
        [_input(1), gate, neuron, _readout(1)],
        [
            Projection("input", "gate", _csr([[1]])),
            Projection("input", "hidden", _csr([[1]])),
            Projection("gate", "hidden", _csr([[-3]])),
            Projection("hidden", "readout", _csr([[3]])),
        ],
    )
    return Case(graph, np.array([[1], [0], [2]]), 9)


def negative_weights() -> Case:
    """Inhibition drives membranes far below zero, and they come back."""
    return _chain(
        _input(3),
        _neurons("hidden", [6, 4, 8], v_init=[3, 2, 4], bias=[0, 5, -1]),
        _neurons("deeper", [10, 2], v_init=[5, 1]),
        _readout(2),
        weights=[[[3, -7, 2], [-5, 4, 0], [0, -1, -2]], [[7, -3], [-9, 2], [4, 4]], [[2, -3], [-4, 5]]],
        inputs=[[1, 1, 0], [3, 0, 2], [0, 2, 5], [2, 2, 2]],
        steps=12,
    )


def isolated_neurons() -> Case:
    """Neurons without fan-in (silent, or driven by their bias alone) and without fan-out, first and last in line too."""
    return _chain(
        _input(4),
        _neurons("hidden", [2, 4, 6, 4], bias=[0, 0, 2, 3]),
        _readout(3),
        weights=[[[0, 0, 0, 0], [0, 3, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]], [[1, 0, 0], [0, 0, 0], [0, -2, 0], [0, 5, 0]]],
        inputs=[[9, 0, 1, 9], [0, 2, 2, 0]],
        steps=7,
    )


def empty_projection() -> Case:
    """Projections without a synapse: the hidden neurons fire from their bias, the readout never hears them."""
    return _chain(
        _input(2),
        _neurons("hidden", [2, 2, 4], bias=[1, 0, 3]),
        _readout(2, bias=np.array([1, -1])),
        weights=[np.zeros((2, 3)), np.zeros((3, 2))],
        inputs=[[1, 2], [0, 0]],
        steps=5,
    )


def skips() -> Case:
    """Every earlier population projects to every later one: delays of 1 to 4 steps meet in one membrane."""
    names = ("a", "b", "c")
    populations = [
        _input(2),
        *(_neurons(name, [4, 6], v_init=[2, 3], bias=[0, k]) for k, name in enumerate(names)),
        _readout(2, bias=np.array([0, 1])),
    ]
    order = ["input", *names, "readout"]
    weights = iter(range(1, 100))
    projections = []
    for post in range(1, len(order)):
        for pre in range(post):
            k = next(weights)
            projections.append(Projection(order[pre], order[post], _csr([[k % 5 + 1, -(k % 3)], [k % 4 - 1, k % 7 - 2]])))
    return Case(SpikingGraph(populations, projections), np.array([[1, 0], [0, 1], [2, 3], [0, 0]]), 11)


def uneven_branches() -> Case:
    """A long and a short way to the same population; populations of one depth; one that leads nowhere."""
    graph = SpikingGraph(
        [
            _input(2),
            _neurons("short", [2, 4]),
            _neurons("long1", [2, 2]),
            _neurons("long2", [4]),
            _neurons("nowhere", [2]),
            _neurons("join", [6, 8], v_init=[3, 4]),
            _readout(2),
        ],
        [
            Projection("input", "short", _csr([[1, 2], [1, 0]])),
            Projection("input", "long1", _csr([[1, 0], [0, 2]])),
            Projection("long1", "long2", _csr([[3], [2]])),
            Projection("long1", "nowhere", _csr([[1], [1]])),
            Projection("long2", "join", _csr([[5, -4]])),
            Projection("short", "join", _csr([[2, 3], [-1, 4]])),
            Projection("join", "readout", _csr([[1, -1], [2, 3]])),
            Projection("short", "readout", _csr([[0, 4], [1, 0]])),
        ],
    )
    return Case(graph, np.array([[1, 0], [0, 1], [1, 3]]), 10)


def bias_modes() -> Case:
    """A bias added once, in the first local step, and one added in every step, at two depths and in the readout."""
    return _chain(
        _input(1),
        _neurons("once", [4, 4], bias=[9, -5], bias_mode="once"),
        _neurons("every", [6, 4], bias=[1, -1], bias_mode="every_step"),
        _readout(2, bias=np.array([7, -7]), bias_mode="once"),
        weights=[[[1, 2]], [[3, 1], [2, 5]], [[1, 2], [3, -4]]],
        inputs=[[0], [1], [3]],
        steps=9,
    )


def reset_zero() -> Case:
    """Reset to zero forgets what is above the threshold; a negative membrane stays; -1 spikes still add the threshold."""
    return _chain(
        _input(2),
        _neurons("hidden", [4, 10], v_init=[2, 5], reset="zero"),
        _neurons("signed", [4, 6], threshold_neg=[2, 4], v_init=[2, 3], reset="zero"),
        _readout(2),
        weights=[[[3, 7], [2, -3]], [[5, 9], [-7, -6]], [[1, 2], [3, 4]]],
        inputs=[[1, 0], [1, 1], [5, 2], [3, 7]],
        steps=11,
    )


def positive_alone() -> Case:
    """Kind ``if`` alone, for a backend without signed spikes: reset to zero, negative inputs, a busy image among silent ones."""
    return _chain(
        _input(2, -5, 99),
        _neurons("zero", [4, 10], v_init=[2, 5], reset="zero"),
        _neurons("subtract", [4, 6], v_init=[2, 3]),
        _readout(2),
        weights=[[[3, 7], [2, -3]], [[5, 9], [-3, -2]], [[1, -2], [3, 4]]],
        inputs=[[1, 0], [0, 0], [99, 70], [0, 0], [-5, 8], [1, -2]],
        steps=9,
    )


def signed_memory() -> Case:
    """Spikes given too early are taken back one by one, until the net count is zero and not beyond."""
    early = _neurons("early", [2, 100], v_init=[1, 50], bias=[1, 0])
    late = _neurons("late", [10], v_init=[-30], bias=[9])
    signed = _neurons("signed", [4, 8], threshold_neg=[4, 6], v_init=[15, 30])
    graph = SpikingGraph(
        [_input(1), early, late, signed, _readout(2)],
        [
            Projection("input", "early", _csr([[1, 5]])),
            Projection("input", "late", _csr([[1]])),
            Projection("early", "signed", _csr([[2, 3], [7, 1]])),
            Projection("late", "signed", _csr([[-17, -23]])),
            Projection("signed", "readout", _csr([[5, -2], [1, 3]])),
        ],
    )
    return Case(graph, np.array([[0], [1], [2]]), 24)


def negative_inputs() -> Case:
    """Input values below zero emit negative events; zeros emit nothing."""
    return _chain(
        _input(3, -5, 5),
        _neurons("hidden", [4, 6], threshold_neg=[4, 2], v_init=[2, 3]),
        _readout(2),
        weights=[[[2, -3], [-1, 4], [5, 0]], [[1, -1], [2, 2]]],
        inputs=[[-5, 0, 5], [0, 0, 0], [3, -2, 1], [-1, -1, -1], [5, 5, -4]],
        steps=8,
    )


def input_once() -> Case:
    """An input that emits its values in the first step alone."""
    return _chain(
        _input(2, bias_mode="once"),
        _neurons("hidden", [4, 6], bias=[1, 0]),
        _readout(2),
        weights=[[[9, 3], [2, 17]], [[1, 2], [-3, 4]]],
        inputs=[[1, 1], [4, 0], [0, 0]],
        steps=6,
    )


def images_apart() -> Case:
    """A busy image before and after silent ones: no membrane, count or spike may pass from one image to the next."""
    return _chain(
        _input(2),
        _neurons("hidden", [200, 60], v_init=[100, 30]),
        _neurons("signed", [4, 2], threshold_neg=[2, 2]),
        _readout(2),
        weights=[[[1, 3], [2, -1]], [[5, -4], [-6, 7]], [[1, -1], [1, 1]]],
        inputs=[[0, 0], [255, 255], [0, 0], [90, 0], [0, 0]],
        steps=7,
    )


def wide_weights() -> Case:
    """Weights of 24 bits and membranes beyond 2^32: exact in int64 and float64, wrong in anything narrower."""
    big = 2**23 - 1
    return _chain(
        _input(3),
        _neurons("hidden", [2**34, 2 * big], v_init=[2**33, big]),
        _readout(2),
        weights=[[[big, 3], [big - 2, 1 - big], [-big, big]], [[big, 1], [1, -big]]],
        inputs=[[255, 255, 0], [255, 1, 254], [3, 2, 1]],
        steps=12,
    )


def one_step() -> Case:
    """A single step through three populations: each has taken exactly one when the run ends."""
    return _chain(
        _input(1),
        _neurons("first", [2]),
        _neurons("second", [2], bias=[1]),
        _readout(1, bias=np.array([5])),
        weights=[[[2]], [[1]], [[3]]],
        inputs=[[0], [1]],
        steps=1,
    )


def no_hidden() -> Case:
    """The input projects straight to the readout."""
    return _chain(_input(2), _readout(2, bias=np.array([1, 0])), weights=[[[1, -2], [3, 0]]], inputs=[[1, 0], [2, 5]], steps=4)


def convolution() -> Case:
    """Convolutions with stride, padding, dilation, groups and zero weights, then a dense readout."""
    rng = np.random.default_rng(7)
    first = Conv2dConnection(rng.integers(-3, 4, (4, 1, 3, 3), np.int32), (2, 6, 5), padding=(1, 0), groups=2)
    shape = first.output_shape
    second = Conv2dConnection(rng.integers(-4, 5, (3, 4, 2, 3), np.int32), shape, (2, 1), (0, 2), (2, 1))
    sizes = [int(np.prod(c.output_shape)) for c in (first, second)]
    graph = SpikingGraph(
        [
            Population(name="input", shape=first.input_shape, kind="input", value_range=(0, 3)),
            _neurons("conv1", [6] * sizes[0], shape=shape, v_init=[3] * sizes[0], bias=rng.integers(-2, 3, sizes[0])),
            _neurons("conv2", [10] * sizes[1], shape=second.output_shape, v_init=[5] * sizes[1]),
            _readout(3),
        ],
        [
            Projection("input", "conv1", first),
            Projection("conv1", "conv2", second),
            Projection("conv2", "readout", _csr(rng.integers(-3, 4, (sizes[1], 3)))),
        ],
    )
    return Case(graph, rng.integers(0, 4, (3, 60)), 6)


CASES: Mapping[str, Callable[[], Case]] = {
    make.__name__: make
    for make in (
        single_neuron,
        tie,
        negative_memory_meets_threshold,
        negative_weights,
        isolated_neurons,
        empty_projection,
        skips,
        uneven_branches,
        bias_modes,
        reset_zero,
        positive_alone,
        signed_memory,
        negative_inputs,
        input_once,
        images_apart,
        wide_weights,
        one_step,
        no_hidden,
        convolution,
        *LIF_CASES,
        *AEC_CASES,
    )
}
"""The directed cases by name."""
