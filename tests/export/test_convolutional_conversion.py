"""Convolutional and residual networks as graphs: the same function, the same links, exact borders."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from torch import nn
from torch.nn.utils import prune

from sparsespike.ann.activations import QCFS
from sparsespike.ann.convnets import ConvNet, ConvNetSpec
from sparsespike.ann.encoding import Encoding
from sparsespike.ann.masked import MaskedConv2d
from sparsespike.ann.topology import conv_er
from sparsespike.backends.native import NativeBackend
from sparsespike.backends.reference import reference
from sparsespike.common.errors import ModelError
from sparsespike.export.affine import READOUT, affine_populations
from sparsespike.export.calibrate import Calibration, real_inputs
from sparsespike.export.connections import Conv2dConnection, CSRConnection
from sparsespike.export.fidelity import constant_current_graph, integer_levels
from sparsespike.export.network import INPUT
from sparsespike.export.qcfs import convert_qcfs, rounding_cost
from sparsespike.export.snm import convert_snm
from sparsespike.export.source import read_network
from sparsespike.export.trace import with_average_pooling

Make = Callable[..., nn.Module]
SHAPE = (2, 8, 8)
COLOUR = Encoding((0, 255), 255, (0.5, 0.25), (0.5, 0.2))
"""Two channels, each with its own mean: what a padded border does not see."""


def qcfs() -> QCFS:
    return QCFS(4, 1.5)


def pixels(images: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (images, *SHAPE))


def test_folded_equals_unfolded(small_conv_net: Make) -> None:
    """Batch norm, pooling, residual sums and the encoding in weights and biases: the drives are those of the model's layers."""
    model = small_conv_net()
    network = read_network(model, SHAPE)
    populations = affine_populations(network, COLOUR)
    x = pixels(6)
    outputs = network.evaluate(real_inputs(network, COLOUR, x))
    values = {INPUT: x.reshape(6, -1).astype(float)}
    drives = {"stem.2": "stem.1", "joined": "add", "second": "add_1", "third": "hidden", READOUT: "head"}
    assert [population.name for population in populations] == list(drives)
    for population in populations:
        drive = population.bias + sum((operator.matrix() @ values[pre].T).T for pre, operator in population.into.items())
        np.testing.assert_allclose(drive, outputs[drives[population.name]].reshape(6, -1), rtol=1e-10, atol=1e-12)
        values[population.name] = np.maximum(drive, 0)
    with torch.no_grad():
        real = (torch.from_numpy(x) / 255 - torch.tensor([0.5, 0.25]).view(2, 1, 1)) / torch.tensor([0.5, 0.2]).view(2, 1, 1)
        expected = model.double()(real.double()).numpy()
    np.testing.assert_allclose(drive, expected, rtol=1e-6, atol=1e-6)  # the model's input above was made in float32


def test_the_graph(small_conv_net: Make) -> None:
    model = small_conv_net(qcfs)
    graph, report, kept = convert_qcfs(model, COLOUR, input_shape=SHAPE)
    assert graph.order == ("input", "stem.2", "joined", "second", "third", "readout")
    assert [graph.population(name).shape for name in graph.order] == [(2, 8, 8), (6, 8, 8), (6, 4, 4), (4, 2, 2), (7,), (3,)]
    first = graph.projection("input", "stem.2").connection
    assert isinstance(first, Conv2dConnection)
    assert first.padding == (1, 1)
    # Both ways of the first sum go through the pool, and one is the identity: one matrix.
    joined = graph.projection("stem.2", "joined").connection
    expected = sum(operator.nnz for operator in affine_populations(read_network(model, SHAPE), COLOUR)[1].into.values())
    assert not isinstance(joined, Conv2dConnection)
    assert joined.nnz == expected
    assert graph.population("stem.2").scale.shape == (6,)
    assert graph.population("joined").scale.shape == (96,)
    assert graph.readout.scale.shape == ()
    for name in graph.spiking:
        population = graph.population(name)
        assert population.threshold is not None
        assert np.array_equal(2 * population.v_init, population.threshold)
        real = population.threshold * np.repeat(population.scale, population.size // population.scale.size)
        assert real == pytest.approx(np.full(population.size, 1.5), rel=1e-3)
    assert {name: len(indices) for name, indices in kept.items()} == {name: graph.population(name).size for name in graph.spiking}
    assert [layer.layers for layer in report.layers] == [("stem.0",), ("conv",), ("down", "short"), ("hidden",), ("head",)]
    assert report.layers[0].projections == {"input": "conv2d"}
    assert all(layer.silent == layer.folded == layer.links_removed == 0 for layer in report.layers)
    assert report.layers[0].zero_links == np.count_nonzero(model.get_submodule("stem.0").weight.detach().numpy() == 0)


@pytest.mark.parametrize("bits", [2, 8, 24])
def test_links_are_those_of_the_model(small_conv_net: Make, bits: int) -> None:
    """Every synapse where the model has a weight, none elsewhere: against the gradients of the model's own layers."""
    model = small_conv_net(qcfs).double()
    graph, report, _ = convert_qcfs(model, COLOUR, bits, input_shape=SHAPE)
    assert [layer.nnz for layer in report.layers] == [layer.nnz_ann for layer in report.layers]
    x = torch.zeros(1, *SHAPE, dtype=torch.float64)
    stem = torch.autograd.functional.jacobian(model.stem[:2], x).reshape(384, 128)
    pooled = torch.zeros(1, 6, 8, 8, dtype=torch.float64)

    def block(y: torch.Tensor) -> torch.Tensor:
        y = model.pool(y)
        return y + model.norm(model.conv(y))

    joined = torch.autograd.functional.jacobian(block, pooled).reshape(96, 384)
    for key, jacobian in ((("input", "stem.2"), stem), (("stem.2", "joined"), joined)):
        weights = graph.projection(*key).connection.to_csr().to_scipy().toarray()
        assert np.array_equal(weights != 0, jacobian.numpy().T != 0)
        assert np.abs(weights).max() == 2 ** (bits - 1) - 1
    assert 0.2 < report.layers[0].sparsity < 0.5


def test_borders_have_their_own_bias() -> None:
    """A constant image of mean colour gives no drive but the bias; padding lets the border see zeros, which are not the mean."""
    model = nn.Sequential(nn.Conv2d(1, 1, 3, padding=1, bias=False), QCFS(4, 1.0), nn.Flatten(), nn.Linear(9, 2))
    with torch.no_grad():
        model[0].weight.fill_(1.0)
    graph = convert_qcfs(model, Encoding((0, 2), 1, (1.0,), (1.0,)), 8, input_shape=(1, 3, 3)).graph
    population = graph.population("1")
    taps = np.array([[4, 6, 4], [6, 9, 6], [4, 6, 4]])
    assert np.array_equal(population.bias.reshape(3, 3), -127 * taps)
    assert np.array_equal(graph.projection("input", "1").connection.fan_in.reshape(3, 3), taps)


def test_levels_of_the_model(small_conv_net: Make) -> None:
    """At 24 bits the graph's quantised network in integers has exactly the levels of the model's own modules."""
    model = small_conv_net(qcfs)
    x = pixels(40)
    graph = convert_qcfs(model, COLOUR, 24, input_shape=SHAPE).graph
    found = integer_levels(graph, x, 4)
    network = read_network(model, SHAPE)
    outputs = network.evaluate(real_inputs(network, COLOUR, x))
    for node in network.activations:
        expected = np.rint(outputs[node.name].reshape(40, -1) * 4 / 1.5)
        assert np.array_equal(found[node.name], expected)
        assert len(np.unique(expected)) == 5
    np.testing.assert_allclose(found[READOUT] * graph.readout.scale / 4, outputs["head"], atol=1e-5)


def test_each_layer_fires_its_levels_at_constant_current(small_conv_net: Make) -> None:
    """Integrate-and-fire with T = L equals QCFS exactly, for convolutional and residual layers as for others."""
    graph = convert_qcfs(small_conv_net(qcfs), COLOUR, input_shape=SHAPE).graph
    levels = integer_levels(graph, pixels(5), 4)
    for name in graph.spiking:
        given = np.concatenate([levels[projection.pre] for projection in graph.into(name)], axis=1)
        run = reference(constant_current_graph(graph, name, 4), given, 4)
        assert np.array_equal(run.spikes[name].positive, levels[name])
        assert levels[name].max() == 4


def test_rounding_cost_of_a_convolutional_net(small_conv_net: Make) -> None:
    x = pixels(30)
    model = small_conv_net(qcfs)
    network = read_network(model, SHAPE)
    labels = network.evaluate(real_inputs(network, COLOUR, x))["head"].argmax(1)
    fine, coarse = rounding_cost(model, COLOUR, x, labels, bits=(24, 4), input_shape=SHAPE)
    assert fine.ann_accuracy == fine.accuracy == 1.0
    assert max(fine.levels_changed.values()) < 1e-3 < max(coarse.levels_changed.values())


def test_channels_that_were_pruned_away_stay_silent_or_constant() -> None:
    """A channel without weights has its bias alone: it fires at that constant rate, and counts as a channel without fan-in."""
    model = nn.Sequential(nn.Conv2d(1, 2, 1), QCFS(4, 1.0), nn.Conv2d(2, 1, 1), QCFS(4, 1.0), nn.Flatten(), nn.Linear(4, 2))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([1.0, 0.0]).view(2, 1, 1, 1))
        model[0].bias.copy_(torch.tensor([0.0, 0.5]))
        model[2].weight.copy_(torch.tensor([0.0, 1.0]).view(1, 2, 1, 1))
        model[2].bias.zero_()
    graph, report, _ = convert_qcfs(model, Encoding((0, 1), 1, (0.0,), (1.0,)), input_shape=(1, 2, 2))
    assert report.layers[0].zero_links == 1
    assert report.layers[0].without_fan_out == 4
    run = reference(graph, np.array([[0, 1, 0, 1]]), 4)
    assert run.spikes["1"].positive.tolist() == [[0, 4, 0, 4, 2, 2, 2, 2]]
    assert run.spikes["3"].positive.tolist() == [[2, 2, 2, 2]]


def test_thresholds_by_channel() -> None:
    """One lambda a channel: two channels of one weight fire at rates that their lambdas set, and weigh the more."""
    model = nn.Sequential(nn.Conv2d(1, 2, 1), QCFS(4, 1.0), nn.Conv2d(2, 1, 1), QCFS(4, 4.0), nn.Flatten(), nn.Linear(4, 2))
    with torch.no_grad():
        model[1].lam = nn.Parameter(torch.tensor([1.0, 2.0]).view(1, 2, 1, 1))
        for layer in (0, 2):
            model[layer].weight.fill_(1.0)
            model[layer].bias.zero_()
    graph = convert_qcfs(model, Encoding((0, 4), 4, (0.0,), (1.0,)), 8, input_shape=(1, 2, 2)).graph
    run = reference(graph, np.array([[0, 1, 2, 4]]), 4)
    assert run.spikes["1"].positive.tolist() == [[0, 1, 2, 4, 0, 1, 1, 2]]
    outgoing = graph.projection("1", "3").connection
    assert isinstance(outgoing, Conv2dConnection)
    assert outgoing.kernel.ravel().tolist() == [64, 127]


@pytest.mark.parametrize("name", ["vgg-small", "resnet20"])
def test_masked_convolutions_of_this_package(name: str) -> None:
    """Sparse networks as training makes them: nnz unchanged, and the graph's levels are the model's."""
    model = ConvNet(ConvNetSpec(name, (1, 8, 8), 4, width=0.1, activation="qcfs", levels=4, lam=1.0))
    rng = np.random.default_rng(0)
    for layer in model.sparse_layers:
        assert isinstance(layer, MaskedConv2d)
        layer.reset_topology(conv_er(layer.shape, 0.5, rng))
    model.reset_parameters(rng)
    encoding = Encoding((0, 16), 16, (0.3,), (0.4,))
    graph, report, _ = convert_qcfs(model, encoding, 24)
    assert all(layer.nnz == layer.nnz_ann for layer in report.layers)
    trained = {layer.layers[0]: layer.sparsity for layer in report.layers if len(layer.layers) == 1}
    assert trained["conv1"] == pytest.approx(0.5, abs=0.1)
    x = rng.integers(0, 17, (10, 64))
    network = read_network(model)
    outputs = network.evaluate(real_inputs(network, encoding, x))
    levels = integer_levels(graph, x, 4)
    for node in network.activations:
        assert np.array_equal(levels[node.name], np.rint(outputs[node.name].reshape(10, -1) * 4))
    residual = [graph.population(name) for name in graph.spiking if len(graph.into(name)) == 2]
    assert len(residual) == (9 if name == "resnet20" else 0)


def test_an_activation_right_after_flatten() -> None:
    model = nn.Sequential(nn.Conv2d(1, 3, 2), nn.Flatten(), QCFS(4, 1.0), nn.Linear(12, 2))
    graph = convert_qcfs(model, Encoding((0, 1), 1, (0.0,), (1.0,)), input_shape=(1, 3, 3)).graph
    assert graph.population("2").shape == (3, 2, 2)
    assert isinstance(graph.projection("input", "2").connection, Conv2dConnection)


def test_a_pruned_sequential_converts() -> None:
    """Links of the graph are the unpruned ones; masks of torch.nn.utils.prune still in place."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 16), nn.ReLU(), nn.Linear(16, 4))
    for layer in (1, 3, 5):
        prune.l1_unstructured(model[layer], "weight", 0.8)
    x = np.random.default_rng(0).integers(0, 17, (64, 1, 8, 8))
    graph, report, _ = convert_snm(model, Encoding((0, 16), 16, (0.3,), (0.4,)), Calibration(x), input_shape=(1, 8, 8))
    for layer, index in zip(report.layers, (1, 3, 5), strict=True):
        assert layer.nnz_ann == int(model[index].weight_mask.sum())
        assert layer.nnz == layer.nnz_ann - layer.links_removed
        assert layer.sparsity == pytest.approx(0.8, abs=0.01)
    assert graph.nnz == sum(layer.nnz for layer in report.layers)
    run = NativeBackend().run(graph, x[:20].reshape(20, -1), 256)
    with torch.no_grad():
        scores = model((torch.from_numpy(x[:20]).float() / 16 - 0.3) / 0.4).numpy()
    np.testing.assert_allclose(run.readout[:, -1] * graph.readout.scale / 256, scores, atol=0.02)


def test_vgg11_of_torchvision() -> None:
    """A model that nobody here wrote: 266 million synapses, never expanded; one image comes near the ANN's scores."""
    torch.manual_seed(0)
    made: Any = torchvision.models.vgg11_bn(num_classes=10)
    made.avgpool, made.classifier = nn.Identity(), nn.Linear(512, 10)
    with pytest.raises(ModelError, match="MaxPool2d"):
        convert_qcfs(made, Encoding((0, 255), 255, (0.5,) * 3, (0.25,) * 3), input_shape=(3, 32, 32))
    model = with_average_pooling(made).eval()
    x = np.random.default_rng(0).integers(0, 256, (16, 3, 32, 32))
    encoding = Encoding((0, 255), 255, (0.5,) * 3, (0.25,) * 3)
    graph, report, _ = convert_snm(model, encoding, Calibration(x), input_shape=(3, 32, 32))
    kinds = [kind for layer in report.layers for kind in layer.projections.values()]
    assert kinds == ["conv2d"] * 8 + ["csr"]
    assert graph.nnz > 2.6e8
    stored = sum(p.connection.kernel.size for p in graph.projections if isinstance(p.connection, Conv2dConnection))
    assert stored < 4 * 9.3e6  # the pools repeat kernels 2 x 2
    run = NativeBackend().run(graph, x[:1], 16)
    with torch.no_grad():
        scores = model((torch.from_numpy(x[:1]).float() / 255 - 0.5) / 0.25).numpy()[0]
    found = run.readout[0, -1] * graph.readout.scale / 16
    assert np.corrcoef(found, scores)[0, 1] > 0.9


def test_an_encoding_of_other_channels(small_conv_net: Make) -> None:
    with pytest.raises(ModelError, match="found an encoding of 3 channels, expected 2 channels"):
        convert_qcfs(small_conv_net(qcfs), Encoding((0, 1), 1, (0.0,) * 3, (1.0,) * 3), input_shape=SHAPE)


@pytest.mark.full
def test_vgg16_is_held_by_its_kernels() -> None:
    """399 M synapses if a dense VGG-16 for 32 x 32 images with its pools composed were expanded; kept are the kernels."""
    model = ConvNet(ConvNetSpec("vgg16", (3, 32, 32), 10, sparse=False, activation="qcfs", lam=2.0)).eval()
    model.reset_parameters(np.random.default_rng(0))
    graph = convert_qcfs(model, Encoding((0, 255), 255, (0.5,) * 3, (0.25,) * 3)).graph
    *convolutions, classifier = (projection.connection for projection in graph.projections)
    assert len(convolutions) == 13
    assert 395e6 < graph.nnz < 400e6
    assert sum(c.kernel.nbytes for c in convolutions if isinstance(c, Conv2dConnection)) < 120e6
    assert isinstance(classifier, CSRConnection)
    assert classifier.nnz == 2048 * 10
    pixels = np.random.default_rng(1).integers(1, 256, (1, 3072))  # none is zero: all synapses of the first projection are used
    events = NativeBackend().run(graph, pixels, 1).events
    assert events["input", "activation1"].tolist() == [graph.projection("input", "activation1").connection.nnz]
