"""Equivalences behind rate conversion: spikes of a QCFS neuron at another T, and unit spikes for those of amplitude theta."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from sparsespike.ann.encoding import Encoding
from sparsespike.ann.models import MLP, MLPSpec
from sparsespike.backends.testing import reference
from sparsespike.export.connections import CSRConnection
from sparsespike.export.graph import Population, Projection, SpikingGraph
from sparsespike.export.network import qcfs_levels
from sparsespike.export.qcfs import convert_qcfs

PRIME = 509
THRESHOLD = 2 * PRIME


@pytest.mark.parametrize(("steps", "levels"), [(1, 4), (2, 4), (8, 4), (4, 8), (16, 8), (3, 8)])
def test_at_another_t_the_error_is_zero_in_the_mean_and_bounded(steps: int, levels: int) -> None:
    """Bu et al. 2022, Theorem 2: over inputs spread evenly from 0 to the threshold, the expected error is zero.

    Even inputs and twice a prime as threshold: no input but the ends lies where rounding has a tie, so that errors at x and at
    threshold - x cancel exactly.
    """
    x = np.arange(0, THRESHOLD + 1, 2)
    neuron = Population(name="n", shape=(1,), kind="if", threshold=[THRESHOLD], v_init=[PRIME])
    one = CSRConnection.from_scipy(np.array([[1]]))
    graph = SpikingGraph(
        [
            Population(name="x", shape=(1,), kind="input", value_range=(0, THRESHOLD)),
            neuron,
            Population(name="y", shape=(1,), kind="readout"),
        ],
        [Projection("x", "n", one), Projection("n", "y", one)],
    )
    spikes = reference(graph, x[:, None], steps).spikes["n"].positive[:, 0]
    target = qcfs_levels(x.astype(float), float(THRESHOLD), levels)
    error = levels * spikes - steps * target  # in units of threshold / (T L)
    assert error.sum() == 0
    assert 0 < np.abs(error).max() <= levels / 2 + steps / 2


def test_unit_spikes_equal_spikes_of_amplitude_theta() -> None:
    """The folded integer graph against W, theta and amplitude theta as they are, spike for spike.

    All numbers are binary fractions, and each neuron's largest weight is 127 units: rounding to 8 bits changes nothing, and
    float64 sums are exact.
    """
    rng = np.random.default_rng(4)
    widths, lams = (16, 12, 10, 4), (2.0, 0.5)
    model = MLP(MLPSpec(widths, sparse=False, activation="qcfs", levels=4))
    weights = []
    with torch.no_grad():
        for layer, (n, m) in zip(model.layers, itertools.pairwise(widths), strict=True):
            w = rng.integers(-126, 127, (m, n))
            w[:, 0] = 127
            weights.append(w / 512)
            layer.weight.copy_(torch.from_numpy(weights[-1]))
            layer.bias.copy_(torch.from_numpy(rng.integers(-32, 33, m) / 256))
        for activation, lam in zip(model.activations, lams, strict=True):
            activation.lam.fill_(lam)
    biases = [layer.bias.detach().double().numpy() for layer in model.layers]
    graph, *_ = convert_qcfs(model.eval(), Encoding((0, 8), 8, (0.0,), (1.0,)), bits=8)
    pixels, steps = rng.integers(0, 9, (25, 16)), 12
    result = reference(graph, pixels, steps)

    v = [np.full((25, lam_width), lam / 2) for lam_width, lam in zip(widths[1:3], lams, strict=True)]
    logits = np.zeros((25, 4))
    for t in range(steps):
        sent = pixels / 8
        for k, lam in enumerate(lams):
            v[k] += sent @ weights[k].T + biases[k]
            fires = v[k] >= lam
            v[k] -= lam * fires
            sent = lam * fires
            assert np.array_equal(result.rasters[f"hidden{k + 1}"][:, t], fires)
        logits += sent @ weights[2].T + biases[2]
        assert np.array_equal(result.readout[:, t] * float(graph.readout.scale), logits)
    assert 0.05 < result.rasters["hidden2"].mean() < 0.95
