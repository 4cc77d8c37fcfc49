"""Converted networks run equal on native, the reference, Brian2 and Lava: rasters, spikes, events and readout."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from sparsespike.ann.activations import QCFS
from sparsespike.ann.encoding import Encoding
from sparsespike.ann.models import MLP, MLPSpec
from sparsespike.ann.topology import er
from sparsespike.backends.base import RunResult
from sparsespike.backends.brian2 import Brian2Backend
from sparsespike.backends.lava import LavaBackend, Run
from sparsespike.backends.native import NativeBackend
from sparsespike.backends.testing import assert_equal, reference
from sparsespike.export.aec import convert_aec
from sparsespike.export.balance import convert_percentile
from sparsespike.export.build import Conversion
from sparsespike.export.calibrate import Calibration
from sparsespike.export.connections import Conv2dConnection
from sparsespike.export.qcfs import convert_qcfs
from sparsespike.export.snm import convert_snm

SHAPES = {"mlp": (24,), "conv": (2, 8, 8), "block": (2, 8, 8)}
ENCODING = Encoding((0, 255), 255, (0.5, 0.25), (0.5, 0.2))
IMAGES, STEPS = 3, 8
CASES = [
    *itertools.product(("mlp", "conv"), ("qcfs", "snm", "percentile", "aec"), (8, 16, 24)),
    ("block", "qcfs", 8),
    ("block", "aec", 24),
    ("block", "snm", 16),
]


class Block(nn.Module):
    """A residual block after a pool: a convolution of 6 x 6 with stride 2, and a sum of two populations' projections."""

    def __init__(self, activation: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.stem, self.pool = nn.Conv2d(2, 4, 3, padding=1), nn.AvgPool2d(2)
        self.one, self.two = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.a, self.b, self.c = activation(), activation(), activation()
        self.head = nn.Linear(64, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.pool(self.a(self.stem(x)))
        x = self.c(self.two(self.b(self.one(x))) + x)
        scores: torch.Tensor = self.head(x.flatten(1))
        return scores


def converted(make: Callable[..., nn.Module], network: str, method: str, bits: int) -> Conversion:
    shape = SHAPES[network]
    if network == "mlp":
        rng = np.random.default_rng(0)
        widths = (24, 30, 20, 4)
        topologies = [er((m, n), 0.5, rng) for n, m in itertools.pairwise(widths[:-1])]
        model: nn.Module = MLP(MLPSpec(widths, True, "qcfs" if method == "qcfs" else "relu", 4, 1.0), topologies)
        assert isinstance(model, MLP)
        model.reset_parameters(rng)
    else:
        torch.manual_seed(0)
        kind = Block if network == "block" else make
        model = kind((lambda: QCFS(4, 1.0)) if method == "qcfs" else nn.ReLU)
    if method == "qcfs":
        return convert_qcfs(model, ENCODING, bits, input_shape=shape)
    calibration = Calibration(images(shape, 40, seed=1), 99.0)
    if method == "aec":
        return convert_aec(model, ENCODING, calibration, bits, steps=STEPS, input_shape=shape)
    return (convert_snm if method == "snm" else convert_percentile)(model, ENCODING, calibration, bits, input_shape=shape)


def images(shape: tuple[int, ...], count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, *shape))


@pytest.fixture(scope="module")
def runs(small_conv_net: Callable[..., nn.Module]) -> dict[tuple[str, str, int], Run]:
    made = {case: converted(small_conv_net, *case).graph for case in CASES}
    return {
        case: Run(graph=graph, inputs=images(SHAPES[case[0]], IMAGES, seed=2), steps=graph.slots or STEPS, record=graph.spiking)
        for case, graph in made.items()
    }


@pytest.fixture(scope="module")
def lava(runs: dict[tuple[str, str, int], Run]) -> dict[tuple[str, str, int], RunResult]:
    return dict(zip(runs, LavaBackend().run_many(list(runs.values())), strict=True))


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case)))
def test_backends_are_equal(
    runs: dict[tuple[str, str, int], Run], lava: dict[tuple[str, str, int], RunResult], case: tuple[str, str, int]
) -> None:
    run = runs[case]
    expected = reference(run.graph, run.inputs, run.steps)
    for backend in (NativeBackend(), Brian2Backend()):
        assert_equal(backend.run(run.graph, run.inputs, run.steps, record=run.record), expected)
    assert_equal(lava[case], expected)
    for name in run.graph.spiking:
        assert 0.02 < expected.spikes[name].events.mean() / STEPS < 0.9


def test_the_cases_hold_what_they_are_for(runs: dict[tuple[str, str, int], Run]) -> None:
    """Convolutions with stride and padding, pooling, a residual sum, -1 spikes, and weights of the full width."""
    for (network, method, bits), run in runs.items():
        connections = [projection.connection for projection in run.graph.projections]
        largest = max(np.abs(c.kernel if isinstance(c, Conv2dConnection) else c.values).max() for c in connections)
        assert largest == 2 ** (bits - 1) - 1
        assert any(isinstance(c, Conv2dConnection) for c in connections) == (network != "mlp")
        result = reference(run.graph, run.inputs, run.steps)
        taken_back = sum(int(result.spikes[name].negative.sum()) for name in run.graph.spiking)
        assert (taken_back > 0) == (method == "snm")
    block = runs["block", "snm", 16].graph
    into = {projection.pre: projection.connection for projection in block.into("c")}
    pooled, skip = block.projection("a", "b").connection, into["a"]
    assert isinstance(pooled, Conv2dConnection)
    assert (pooled.kernel.shape, pooled.stride, pooled.padding) == ((4, 4, 6, 6), (2, 2), (2, 2))
    assert isinstance(skip, Conv2dConnection)
    assert (skip.kernel.shape, skip.groups, skip.stride) == ((4, 1, 2, 2), 4, (2, 2))
    assert isinstance(into["b"], Conv2dConnection)
    assert block.delay("a", "c") == 2
