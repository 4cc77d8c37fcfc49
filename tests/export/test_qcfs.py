"""QCFS conversion: the graph is the network, its topology unchanged, and what was left out is reported."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from sparsespike.ann.encoding import Encoding
from sparsespike.ann.models import MLP, MLPSpec
from sparsespike.ann.topology import Topology
from sparsespike.common.errors import ConfigError, ModelError
from sparsespike.export.fidelity import integer_levels
from sparsespike.export.graphfile import load_graph, save_graph
from sparsespike.export.qcfs import convert_qcfs, rounding_cost

UNIT = Encoding((0, 16), 16, (0.0,), (1.0,))
"""Pixels 0..16 stand for 0..1."""


def network(widths: tuple[int, ...], seed: int = 0, density: float = 0.4, levels: int = 4) -> MLP:
    """A sparse network whose every number is a small binary fraction: float32, float64 and 8-bit integers hold it exactly.

    In each row the largest weight is 127/64 once everything is folded, so the scales are powers of two.
    """
    rng = np.random.default_rng(seed)
    masks = [rng.random((m, n)) < density for n, m in itertools.pairwise(widths[:-1])]
    for mask in masks:
        mask[:, 0] = True
    model = MLP(MLPSpec(widths, True, "qcfs", levels, 2.0), [Topology.from_dense(mask) for mask in masks])
    with torch.no_grad():
        for i, layer in enumerate(model.layers):
            folded = 1.0 if i == 0 else 2.0  # lambda, which joins the weights of later layers
            if i < len(masks):
                weights = rng.integers(-127, 128, masks[i].shape)
                weights[weights == 0] = 1
                weights[:, 0] = 127
                layer.values.copy_(torch.from_numpy(weights[masks[i]] / 64 / folded))
            else:
                weights = rng.integers(1, 128, layer.weight.shape)
                weights[0, 0] = 127
                layer.weight.copy_(torch.from_numpy(weights / 64 / folded))
            layer.bias.copy_(torch.from_numpy(rng.integers(-64, 65, layer.bias.shape) / 64))
    return model.eval()


def activations(model: MLP, x: torch.Tensor) -> list[np.ndarray]:
    """Levels of every hidden layer, as the model's own modules compute them."""
    found = []
    with torch.no_grad():
        for layer, activation in zip(model.layers, model.activations, strict=False):
            x = activation(layer(x))
            found.append((x / activation.lam * activation.levels).round().long().numpy())
    return found


def test_an_exactly_representable_network_stays_exactly_the_same() -> None:
    model = network((6, 7, 5, 4))
    pixels = np.random.default_rng(1).integers(0, 17, (200, 6))
    graph, report, _ = convert_qcfs(model, UNIT, bits=8)
    found = integer_levels(graph, pixels, 4)
    x = torch.from_numpy(pixels / 16).float()
    for name, levels in zip(("hidden1", "hidden2"), activations(model, x), strict=True):
        assert np.array_equal(found[name], levels)
        assert len(np.unique(levels)) > 2
    scores = model(x).detach().numpy().astype(float)
    assert np.array_equal(found["readout"] * graph.readout.scale / 4, scores)
    assert all(layer.weight_error == layer.threshold_error == 0.0 for layer in report.layers)


def test_populations() -> None:
    model = network((6, 7, 5, 4))
    graph = convert_qcfs(model, UNIT, bits=8).graph
    assert graph.order == ("input", "hidden1", "hidden2", "readout")
    assert [graph.population(name).kind for name in graph.order] == ["input", "if", "if", "readout"]
    assert [graph.population(name).shape for name in graph.order] == [(6,), (7,), (5,), (4,)]
    assert graph.input.value_range == (0, 16)
    assert graph.readout.scale.shape == ()
    for name in graph.spiking:
        population = graph.population(name)
        assert population.threshold is not None
        assert np.array_equal(2 * population.v_init, population.threshold)
        assert population.reset == "subtract"
        assert population.bias_mode == "every_step"
        assert np.array_equal(population.threshold * population.scale, np.full(population.size, 2.0))  # lambda


@pytest.mark.parametrize("bits", [2, 8, 16, 24])
def test_topology_is_frozen(bits: int) -> None:
    model = network((6, 7, 5, 4))
    graph = convert_qcfs(model, UNIT, bits=bits).graph
    for projection, layer in zip(graph.projections, model.layers, strict=True):
        mask = layer.topology.to_dense() if hasattr(layer, "topology") else np.ones(layer.weight.shape, bool)
        weights = projection.connection.to_csr().to_scipy().toarray()
        assert np.array_equal(weights != 0, mask.T)  # rows: inputs here, outputs there
        assert np.abs(weights).max() == 2 ** (bits - 1) - 1


def test_two_channels_have_their_own_normalisation() -> None:
    """Pixels of channel c stand for (p / unit - mean_c) / std_c."""
    encoding = Encoding((0, 255), 255, (0.5, 0.25), (0.5, 0.125))
    model = network((6, 7, 5, 4))
    pixels = np.random.default_rng(1).integers(0, 256, (50, 2, 3))
    real = (pixels / 255 - np.array([[0.5], [0.25]])) / np.array([[0.5], [0.125]])
    graph = convert_qcfs(model, encoding, bits=24).graph
    levels = integer_levels(graph, pixels.reshape(50, 6), 4)
    expected = activations(model.double(), torch.from_numpy(real.reshape(50, 6)))
    assert np.mean(levels["hidden1"] != expected[0]) < 0.01  # a tie may fall to the other side
    assert np.mean(levels["hidden2"] != expected[1]) < 0.02
    first = model.layers[0].topology.to_dense().astype(float)
    first[first > 0] = model.layers[0].values.detach().numpy()
    slope = np.repeat(1 / (255 * np.array([0.5, 0.125])), 3)
    population = graph.population("hidden1")
    weights = graph.projection("input", "hidden1").connection.to_csr().to_scipy().toarray() * population.scale
    assert weights == pytest.approx((first * slope).T, abs=1e-6 * slope.max())
    bias = model.layers[0].bias.detach().numpy() + first @ np.repeat([-1.0, -2.0], 3)
    assert population.bias * population.scale == pytest.approx(bias, abs=1e-6)


def test_neurons_without_fan_in_are_removed_and_reported() -> None:
    model = network((6, 7, 5, 4))
    masks = [layer.topology.to_dense() for layer in model.sparse_layers]
    masks[0][[1, 3]] = False
    bare = MLP(model.spec, [Topology.from_dense(mask) for mask in masks]).eval()
    with torch.no_grad():
        for layer, old in zip(bare.sparse_layers, model.sparse_layers, strict=True):
            dense = np.zeros(old.topology.shape)
            dense[old.topology.to_dense()] = old.values.numpy()
            layer.values.copy_(torch.from_numpy(dense[layer.topology.to_dense()]))
            layer.bias.copy_(old.bias)
        bare.layers[-1].load_state_dict(model.layers[-1].state_dict())
        bare.layers[0].bias[1], bare.layers[0].bias[3] = 1.5, -1.0  # 3/4 of lambda, and silent
    graph, report, kept = convert_qcfs(bare, UNIT, bits=24)
    assert kept["hidden1"].tolist() == [0, 2, 4, 5, 6]
    assert kept["hidden2"].tolist() == [0, 1, 2, 3, 4]
    first, second, last = report.layers
    lost = int(masks[1][:, [1, 3]].sum())
    assert (first.neurons_ann, first.neurons, first.silent, first.folded) == (7, 5, 1, 1)
    assert (second.nnz_ann, second.links_removed, second.nnz) == (masks[1].sum(), lost, masks[1].sum() - lost)
    assert (last.silent, last.folded, last.links_removed) == (0, 0, 0)
    assert graph.nnz == sum(layer.nnz for layer in report.layers)
    assert "hidden1: neurons without input or activity, of constant output 0, removed: 1" in report.notes()
    assert "hidden1: neurons without input, of another constant output, folded into the next biases: 1" in report.notes()
    assert f"hidden2: links of removed neurons, removed with them: {lost}" in report.notes()

    pixels = np.random.default_rng(1).integers(0, 17, (200, 6))
    found = integer_levels(graph, pixels, 4)
    expected = activations(bare, torch.from_numpy(pixels / 16).float())
    assert (expected[0][:, 1] == 3).all()
    assert (expected[0][:, 3] == 0).all()
    assert np.array_equal(found["hidden1"], expected[0][:, kept["hidden1"]])
    assert np.mean(found["hidden2"] != expected[1]) < 0.01


def test_links_of_weight_zero_and_unread_neurons_are_reported() -> None:
    model = network((6, 7, 5, 4), density=1.0)
    with torch.no_grad():
        model.layers[0].values[3] = 0.0
        model.layers[2].weight[:, 2] = 0.0
    graph, report, _ = convert_qcfs(model, UNIT)
    assert (report.layers[0].zero_links, report.layers[0].nnz) == (1, 41)
    assert (report.layers[1].without_fan_out, report.layers[1].neurons) == (1, 5)
    assert (report.layers[2].zero_links, report.layers[2].nnz) == (4, 16)
    assert graph.nnz == 41 + 35 + 16
    assert report.notes() == [
        "hidden1: links of weight exactly 0, which are no synapses: 1",
        "hidden2: neurons without fan-out, kept though nothing reads them: 1",
        "readout: links of weight exactly 0, which are no synapses: 4",
    ]


def test_raised_weights_are_reported() -> None:
    model = network((6, 7, 5, 4), density=1.0)
    with torch.no_grad():
        model.layers[0].values[1] = 1e-7
    report = convert_qcfs(model, UNIT, bits=8).report
    assert report.layers[0].raised == 1
    assert "hidden1: weights that would round to 0 at 8 bits, raised to +1 or -1: 1" in report.notes()
    assert convert_qcfs(network((6, 7, 5, 4)), UNIT, bits=8).report.notes() == []


def test_a_dense_network() -> None:
    model = MLP(MLPSpec((6, 8, 4), sparse=False, activation="qcfs"))
    model.reset_parameters(np.random.default_rng(0))
    graph, report, _ = convert_qcfs(model, UNIT)
    assert graph.nnz == 6 * 8 + 8 * 4
    assert [layer.sparsity for layer in report.layers] == [0.0, 0.0]


def test_provenance_travels_with_the_file(tmp_path: Path) -> None:
    conversion = convert_qcfs(network((6, 7, 5, 4)), UNIT, bits=8, provenance={"dataset": "digits", "ann_accuracy": 0.5})
    save_graph(conversion.graph, tmp_path / "graph.safetensors")
    provenance = load_graph(tmp_path / "graph.safetensors").provenance
    assert (provenance["method"], provenance["T"], provenance["bits"]) == ("qcfs", 4, 8)
    assert (provenance["dataset"], provenance["ann_accuracy"]) == ("digits", 0.5)
    assert Encoding.from_dict(provenance["encoding"]) == UNIT
    assert provenance["versions"]["torch"] == torch.__version__.split("+")[0]
    assert provenance["conversion"] == json.loads(json.dumps(conversion.report.to_dict()))
    assert provenance["sparsity"]["readout"] == 0.0
    assert 0 < provenance["sparsity"]["hidden1"] < 1


def test_the_same_model_gives_the_same_graph(tmp_path: Path) -> None:
    one, other = (convert_qcfs(network((6, 7, 5, 4)), UNIT).graph for _ in range(2))
    assert one.digest() == other.digest()
    save_graph(one, tmp_path / "one")
    save_graph(other, tmp_path / "other")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()


def in_place(change: Callable[[MLP], Any]) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        model = network((6, 7, 5, 4))
        with torch.no_grad():
            change(model)
        return model

    return make


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.Linear(2, 2), "model: found Linear and no input_shape, expected the shape of one input"),
        (lambda: MLP(MLPSpec((6, 5, 4), False, "relu")), "layer 'hidden1': found the activation ReLU, expected QCFS"),
        (lambda: MLP(MLPSpec((6, 4), False, "qcfs")), "model: found no activation, expected QCFS after"),
        (lambda: MLP(MLPSpec((6, 5, 4), True, "qcfs")), "layer 'hidden1': found no link that leads to the input"),
        (in_place(lambda m: m.layers[0].values[2].fill_(torch.nan)), "layer 'layers.0' (SparseLinear): weight: found 1 of"),
        (in_place(lambda m: m.layers[2].weight[1, 1].fill_(torch.inf)), "layer 'layers.2' (DenseLinear): weight: found 1 of 20"),
        (in_place(lambda m: m.layers[1].bias[0].fill_(torch.nan)), "layer 'layers.1' (SparseLinear): bias: found 1 of 5"),
        (in_place(lambda m: m.activations[1].lam.fill_(0.0)), "layer 'activations.1' (QCFS): found the QCFS threshold"),
        (in_place(lambda m: m.activations[0].lam.fill_(-1.0)), "found the QCFS threshold lambda = -1.0"),
        (in_place(lambda m: m.activations[0].lam.fill_(torch.nan)), "lambda = nan, expected a finite value > 0"),
        (in_place(lambda m: setattr(m.activations[0], "levels", 3)), "found QCFS levels [3, 4], expected one L"),
        (in_place(lambda m: m.activations.__setitem__(1, nn.Sigmoid())), "layer 'activations.1' (Sigmoid): integrate"),
        (in_place(lambda m: m.layers.__setitem__(1, nn.Bilinear(2, 2, 2))), "layer 'layers.1' (Bilinear): expected Linear"),
    ],
)  # fmt: skip
def test_models_that_cannot_be_converted(make: Callable[[], nn.Module], message: str) -> None:
    with pytest.raises(ModelError) as caught:
        convert_qcfs(make(), UNIT)
    assert message in str(caught.value)


def test_an_encoding_that_does_not_fit() -> None:
    encoding = Encoding((0, 16), 16, (0.0,) * 4, (1.0,) * 4)
    with pytest.raises(ModelError, match="found 6 inputs, expected a multiple of the encoding's 4 channels"):
        convert_qcfs(network((6, 7, 5, 4)), encoding)


@pytest.mark.parametrize("bits", [1, 25, 8.0])
def test_bits_out_of_range(bits: Any) -> None:
    with pytest.raises(ConfigError, match="expected an integer from 2 to 24"):
        convert_qcfs(network((6, 7, 5, 4)), UNIT, bits=bits)


def test_a_small_lambda_is_clamped_as_in_the_forward_pass() -> None:
    model = network((6, 7, 5, 4))
    with torch.no_grad():
        model.activations[0].lam.fill_(1e-5)
    graph = convert_qcfs(model, UNIT, bits=24).graph
    model(torch.zeros(1, 6))
    threshold = graph.population("hidden1").threshold
    assert threshold is not None
    assert threshold * graph.population("hidden1").scale == pytest.approx(float(model.activations[0].lam.detach()), rel=1e-3)


def test_rounding_cost(trained: Any) -> None:
    costs = rounding_cost(trained.model, trained.encoding, trained.pixels, trained.labels, bits=(24, 16, 8, 2))
    with torch.no_grad():
        scores = trained.model(torch.from_numpy(trained.encoding.table()[0][trained.pixels]))
    accuracy = float((scores.argmax(1).numpy() == trained.labels).mean())
    assert accuracy > 0.8
    assert [cost.bits for cost in costs] == [24, 16, 8, 2]
    assert all(abs(cost.ann_accuracy - accuracy) < 0.005 for cost in costs)  # float64 here, float32 there
    fine, default, loihi, coarse = costs
    assert fine.changed == 0.0
    assert fine.accuracy == fine.ann_accuracy
    assert max(fine.levels_changed.values()) < 1e-4
    assert max(default.levels_changed.values()) < max(loihi.levels_changed.values()) < max(coarse.levels_changed.values())
    assert default.changed <= loihi.changed < coarse.changed
    assert abs(default.accuracy - accuracy) < 0.01
    assert abs(loihi.accuracy - accuracy) < 0.03


def test_a_trained_network_loses_only_what_is_reported(trained: Any) -> None:
    graph, report, kept = convert_qcfs(trained.model, trained.encoding)
    assert sum(layer.silent + layer.folded for layer in report.layers) > 0
    for layer, found in zip(report.layers, trained.model.layers, strict=True):
        links = found.topology.nnz if hasattr(found, "topology") else found.weight.numel()
        assert layer.nnz == links - layer.zero_links - layer.links_removed
    assert {name: len(indices) for name, indices in kept.items()} == {name: graph.population(name).size for name in graph.spiking}
