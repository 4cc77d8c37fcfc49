"""What fine-tuning trains is what conversion reads: thresholds by layer and channel, and spikes that give the same class."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from sparsespike.ann.activations import LAMBDA_MIN, SoftplusQCFS
from sparsespike.ann.convnets import ConvNetSpec
from sparsespike.ann.encoding import Encoding
from sparsespike.ann.models import MLPSpec
from sparsespike.ann.networks import Network, build
from sparsespike.backends.registry import get_backend
from sparsespike.common.errors import ModelError
from sparsespike.export.network import Activate
from sparsespike.export.qcfs import convert_qcfs
from sparsespike.export.source import read_network

MLP = MLPSpec((64, 20, 12, 10), sparse=False, levels=4)
VGG = ConvNetSpec("vgg-small", (1, 8, 8), 10, 0.1, sparse=False, levels=4)
ENCODING = Encoding((0, 16), 16, (0.3,), (0.35,))


def network(spec: MLPSpec | ConvNetSpec, activation: str) -> Network:
    """With thresholds that differ from channel to channel."""
    model = build(replace(spec, activation=activation))
    generator = torch.Generator().manual_seed(0)
    model.reset_parameters(np.random.default_rng(0))
    with torch.no_grad():
        for layer in model.modules():
            if isinstance(layer, SoftplusQCFS):
                layer.rho.copy_(torch.rand(layer.rho.shape, generator=generator) * 3 - 1)
    return model.eval()


@pytest.mark.parametrize("spec", [MLP, VGG])
@pytest.mark.parametrize("activation", ["s-qcfs", "cs-qcfs"])
def test_each_threshold_is_read(spec: MLPSpec | ConvNetSpec, activation: str) -> None:
    model = network(spec, activation)
    layers = [layer for layer in model.modules() if isinstance(layer, SoftplusQCFS)]
    read = [node.layer for node in read_network(model).activations]
    for module, layer in zip(layers, read, strict=True):
        assert isinstance(layer, Activate)
        assert (layer.kind, layer.levels) == ("qcfs", 4)
        assert layer.lam is not None
        assert layer.lam.shape == (() if activation == "s-qcfs" else (module.channels,))
        assert np.array_equal(layer.lam, module.lam.detach().double().numpy())


@pytest.mark.parametrize("spec", [MLP, VGG])
@pytest.mark.parametrize("activation", ["s-qcfs", "cs-qcfs", "aec"])
def test_the_network_that_is_read_computes_the_same(spec: MLPSpec | ConvNetSpec, activation: str) -> None:
    model = network(spec, activation)
    x = torch.randn(6, 64, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    read = read_network(model)
    found = read.evaluate(x.numpy())[read.nodes[-1].name]
    assert np.allclose(found, model.double()(x).detach().numpy(), rtol=1e-5, atol=1e-6)


def test_spikes_of_a_channelwise_network_stand_for_its_activation() -> None:
    """At T = L the first layer fires exactly n times where the activation is lam n / L."""
    model = network(MLP, "cs-qcfs")
    pixels = np.random.default_rng(2).integers(0, 17, (8, 64))
    graph = convert_qcfs(model, ENCODING, 24).graph
    result = get_backend("native").run(graph, pixels, 4)
    read = read_network(model)
    real = pixels * ENCODING.scale[0] + ENCODING.offset[0]
    first = read.activations[0]
    assert isinstance(first.layer, Activate)
    assert first.layer.lam is not None
    levels = np.rint(read.evaluate(real)[first.name] * 4 / first.layer.lam)
    assert len(set(first.layer.lam.tolist())) == 20
    assert np.array_equal(result.spikes[first.name].positive, levels)


def test_a_threshold_that_is_not_finite_is_refused_and_a_vanishing_one_is_cut_off() -> None:
    model = network(MLP, "cs-qcfs")
    layer = next(layer for layer in model.modules() if isinstance(layer, SoftplusQCFS))
    with torch.no_grad():
        layer.rho[3] = -200.0
    first = read_network(model).activations[0].layer
    assert isinstance(first, Activate)
    assert first.lam is not None
    assert first.lam[3] == pytest.approx(LAMBDA_MIN)
    with torch.no_grad():
        layer.rho[3] = float("nan")
    with pytest.raises(ModelError, match=r"found the QCFS threshold lambda = nan, expected a finite value > 0"):
        read_network(model)
