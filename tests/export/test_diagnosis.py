"""Diagnosis: its figures against independent calculations, and damage that it has to find."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from sparsespike.ann.activations import QCFS
from sparsespike.ann.encoding import Encoding
from sparsespike.backends.bulk import run_blocks
from sparsespike.backends.native import NativeBackend
from sparsespike.common.errors import ConfigError, DataError, GraphError
from sparsespike.common.figures import save_figure
from sparsespike.export.balance import convert_percentile
from sparsespike.export.build import OUT_OF_REACH, Conversion
from sparsespike.export.calibrate import Calibration, real_inputs
from sparsespike.export.connections import Conv2dConnection
from sparsespike.export.diagnosis import Diagnosis, diagnose
from sparsespike.export.diagnosis.plots import activations_figure, layers_figure, stages_figure
from sparsespike.export.diagnosis.rates import product, rate_code
from sparsespike.export.fidelity import layer_levels
from sparsespike.export.graph import SpikingGraph
from sparsespike.export.qcfs import convert_qcfs
from sparsespike.export.snm import convert_snm
from sparsespike.export.source import read_network

Make = Callable[..., nn.Module]
SHAPE = (2, 8, 8)
COLOUR = Encoding((0, 255), 255, (0.5, 0.25), (0.5, 0.2))
UNIT = Encoding((0, 16), 16, (0.0,), (1.0,))
METHODS = ("qcfs", "snm", "percentile")


def pixels(images: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (images, *SHAPE))


def converted(method: str, model: nn.Module, bits: int, percentile: float = 100.0) -> Conversion:
    if method == "qcfs":
        return convert_qcfs(model, COLOUR, bits, input_shape=SHAPE)
    images = Calibration(pixels(60, 7), percentile)
    if method == "snm":
        return convert_snm(model, COLOUR, images, bits, input_shape=SHAPE, granularity="neuron")
    return convert_percentile(model, COLOUR, images, bits, input_shape=SHAPE)


def conv_model(make: Make, method: str) -> nn.Module:
    return make((lambda: QCFS(4, 1.5)) if method == "qcfs" else nn.ReLU)


def real(x: np.ndarray) -> Tensor:
    mean, std = (np.array(values)[:, None, None] for values in (COLOUR.mean, COLOUR.std))
    return torch.from_numpy((x / 255 - mean) / std)


@pytest.fixture(scope="module")
def widths(trained: Any) -> dict[int, Conversion]:
    return {bits: convert_qcfs(trained.model, trained.encoding, bits) for bits in (24, 16, 8)}


def of(trained: Any, widths: Mapping[int, Conversion], graph: SpikingGraph, steps: int = 8, **options: Any) -> Diagnosis:
    return diagnose(trained.model, trained.encoding, graph, widths, trained.pixels, trained.labels, steps, **options)


# --- stages -----------------------------------------------------------------------------------------------------------------


class IntegrateAndFire(nn.Module):
    """The textbook neuron, stepped by calling it."""

    def __init__(self, threshold: Tensor, v_init: float, signed: bool) -> None:
        super().__init__()
        self.threshold, self.signed = threshold, signed
        self.v, self.net = v_init * threshold, torch.zeros_like(threshold)

    def forward(self, x: Tensor) -> Tensor:
        self.v = self.v + x
        spike = (self.v >= self.threshold).double()
        if self.signed:
            spike = spike - ((self.v <= -self.threshold) & (self.net > 0)).double()
        self.net = self.net + spike
        self.v = self.v - spike * self.threshold
        return spike * self.threshold


@pytest.mark.parametrize("method", METHODS)
def test_the_floating_point_network_is_the_textbook_one(small_conv_net: Make, method: str) -> None:
    """The model's own modules in torch, each activation replaced by neurons, called T times."""
    model, x, steps = conv_model(small_conv_net, method), pixels(30), 20
    reached: dict[str, Tensor] = {}
    textbook = copy.deepcopy(model).double()
    for name in ("stem.2", "joined", "second", "third"):
        module = textbook.get_submodule(name)
        module.register_forward_hook(lambda module, inputs, output, name=name: reached.update({name: output}))
    with torch.no_grad():
        textbook(real(pixels(60, 7)))
        for name, output in reached.items():
            if method == "qcfs":
                threshold = torch.full((1, *output.shape[1:]), 1.5, dtype=torch.float64)
            elif method == "percentile":
                threshold = torch.full((1, *output.shape[1:]), float(output.max()), dtype=torch.float64)
            else:
                threshold = output.amax(0, keepdim=True)
                threshold[threshold == 0] = 1e300
            neurons = IntegrateAndFire(threshold, 0.5 if method == "qcfs" else 0.0, method == "snm")
            parent, _, last = name.rpartition(".")
            setattr(textbook.get_submodule(parent), last, neurons)
        scores = torch.cumsum(torch.stack([textbook(real(x)) for _ in range(steps)]), 0)
    network = read_network(model, SHAPE)
    code = rate_code(network, converted(method, model, 24), steps)
    found = code.simulate(real_inputs(network, COLOUR, x))
    assert np.array_equal(found, scores.argmax(2).T.numpy())


def test_stages_of_a_trained_network(trained: Any, widths: dict[int, Conversion]) -> None:
    found = of(trained, widths, widths[16].graph)
    assert [stage.name for stage in found.stages] == [
        "ANN (torch)",
        "quantised ANN, L = 8 levels",
        "ANN, rates of T = 8 steps",
        "SNN in floating point",
        "SNN, 24 bits",
        "SNN, 16 bits",
        "SNN, 8 bits",
    ]
    assert [stage.before for stage in found.stages] == [None, *(stage.name for stage in found.stages[:-1])]
    assert found.graph_stage == "SNN, 16 bits"
    assert found.path == found.stages[:-1]
    assert (found.method, found.bits, found.steps, found.images) == ("qcfs", 16, 8, len(trained.labels))
    with torch.no_grad():
        scores = trained.model(torch.from_numpy(trained.encoding.table()[0][trained.pixels]))
    ann = int((scores.argmax(1).numpy() == trained.labels).sum())
    # At T = L an evenly driven rate is the quantised activation, which this network was trained with.
    assert [found.stages[i].correct for i in range(3)] == [(ann,)] * 3
    for stage, bits in zip(found.stages[4:], (24, 16, 8), strict=True):
        run = run_blocks(NativeBackend(), widths[bits].graph, trained.pixels, 8)
        assert stage.correct == tuple((run.predictions == trained.labels[:, None]).sum(0).tolist())
        assert stage.over_time
        assert stage.accuracy == run.accuracy(trained.labels)[-1]
    assert found.stages[3].correct == found.stages[4].correct


def test_clipping_is_a_stage_and_a_cause(small_conv_net: Make) -> None:
    """A percentile that cuts off the upper half of all activations."""
    model, x = small_conv_net(), pixels(40)
    labels = model(real(x).float()).argmax(1).numpy()
    widths = {24: converted("percentile", model, 24, percentile=50.0)}
    found = diagnose(model, COLOUR, widths[24].graph, widths, x, labels, 128, input_shape=SHAPE)
    assert found.stages[0].accuracy == 1.0
    assert found.worst_stage is found.stages[1]
    assert found.stages[1].name == "ANN, clipped at the thresholds"
    first = found.layers[0]
    assert first.cause == "clipping"
    network = read_network(model, SHAPE)
    activation = network.evaluate(real_inputs(network, COLOUR, x))["stem.2"]
    threshold = float(np.percentile((seen := activations_of(model))[seen > 0], 50))
    assert first.causes["clipping"] == pytest.approx(np.maximum(activation - threshold, 0).mean(), rel=1e-4)
    assert "mostly by clipping at the thresholds" in found.sentence()


def activations_of(model: nn.Module) -> np.ndarray:
    """What the first activation gives on the calibration images."""
    network = read_network(model, SHAPE)
    return network.evaluate(real_inputs(network, COLOUR, pixels(60, 7)))["stem.2"]


# --- layers -----------------------------------------------------------------------------------------------------------------


def test_layers_against_a_calculation_by_hand(trained: Any, widths: dict[int, Conversion]) -> None:
    """T = 12 with L = 8 levels, from the torch modules, the graph's integers and the spike counts."""
    steps, graph = 12, widths[16].graph
    found = {layer.name: layer for layer in of(trained, widths, graph, steps).layers}
    assert list(found) == ["hidden1", "hidden2", "hidden3", "readout"]
    run = NativeBackend().run(graph, trained.pixels, steps)
    model = copy.deepcopy(trained.model).double()
    before = torch.from_numpy(trained.pixels * trained.encoding.scale + trained.encoding.offset)
    ann = given = before
    counts: dict[str, np.ndarray] = {"input": steps * trained.pixels}
    for i, name in enumerate(("hidden1", "hidden2", "hidden3")):
        kept, layer = widths[24].kept[name], found[name]
        with torch.no_grad():
            ann = model.activations[i](model.layers[i](ann))
            expected = model.activations[i](model.layers[i](given)).numpy()
        lam = float(model.activations[i].lam.detach())
        count = run.spikes[name].positive
        snn = lam * count / steps
        there = ann.numpy()[:, kept]
        assert layer.neurons == len(kept)
        assert layer.activation == pytest.approx(there.mean(), rel=1e-6)
        assert layer.error == pytest.approx(np.abs(snn - there).mean(), rel=1e-5)
        assert layer.bias == pytest.approx((snn - there).mean(), abs=1e-6)
        assert layer.correlation == pytest.approx(np.corrcoef(snn.ravel(), there.ravel())[0, 1], rel=1e-6)
        assert layer.own_error == pytest.approx(np.abs(snn - expected[:, kept]).mean(), rel=1e-5)
        population = graph.population(name)
        assert population.threshold is not None
        drive = steps * population.bias
        for projection in graph.into(name):
            drive = drive + counts[projection.pre] @ projection.connection.to_csr().to_scipy().toarray()
        even = layer_levels(drive, population.threshold, steps)
        assert layer.causes["unevenness"] == pytest.approx(lam / steps * np.abs(count - even).mean(), rel=1e-5, abs=1e-12)
        assert layer.causes["clipping"] == 0.0
        assert layer.dead == np.count_nonzero((there > 0).any(0) & ~(count > 0).any(0))
        assert layer.saturated == np.count_nonzero((count == steps).any(0))
        assert layer.every_step == np.mean(count == steps)
        counts[name] = count
        # What was removed has no fan-in: its activation is a constant.
        given = ann.clone()
        given[:, kept] = torch.from_numpy(snn)
        with torch.no_grad():
            rest = given
            for j in range(i + 1, 3):
                rest = model.activations[j](model.layers[j](rest))
            scores = model.layers[3](rest).numpy()
        assert layer.accuracy == np.mean(scores.argmax(1) == trained.labels)
    readout = found["readout"]
    decoded = run.readout[:, -1] * graph.readout.scale / steps
    assert readout.own_error == pytest.approx(np.abs(decoded - scores).mean(), abs=1e-6)
    assert (readout.dead, readout.saturated, readout.every_step, readout.accuracy) == (None, None, None, None)


def test_a_constant_current_is_even_and_later_layers_are_not(trained: Any, widths: dict[int, Conversion]) -> None:
    first, *later = of(trained, widths, widths[16].graph, 32).layers[:-1]
    assert first.causes["unevenness"] == 0.0
    assert all(layer.causes["unevenness"] > 0 for layer in later)


def test_nothing_depends_on_the_batch(trained: Any, widths: dict[int, Conversion]) -> None:
    calls: list[tuple[str, int, int]] = []
    one = of(trained, widths, widths[8].graph, batch=597, progress=lambda *call: calls.append(call)).to_dict()
    other = of(trained, widths, widths[8].graph, batch=100).to_dict()
    assert calls == [("diagnosis", 597, 597)]
    assert one["stages"] == other["stages"]
    for a, b in zip(one["layers"], other["layers"], strict=True):
        assert a.pop("causes") == pytest.approx(b.pop("causes"), rel=1e-9)
        for name, value in a.items():
            assert value == (pytest.approx(b[name], rel=1e-9, abs=1e-12) if isinstance(value, float) else b[name])
    assert one["sentence"] == other["sentence"]


def with_removed_neurons() -> tuple[nn.Module, np.ndarray]:
    """Neuron 0 of the first layer is constant (no fan-in), 1 never active; of the second, 0 reads only these two.

    Neuron 1 reads only a pixel that is dark in all images; on others it would be active.
    """
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3))
    with torch.no_grad():
        for layer in (0, 2):
            model[layer].weight.abs_()
            model[layer].bias.abs_()
        model[0].weight[0] = 0.0
        model[0].weight[1, 1:] = model[0].bias[1] = 0.0
        model[2].weight[0, 2:] = 0.0
    x = np.random.default_rng(0).integers(0, 17, (40, 6))
    x[:, 0] = 0
    return model, x


def test_removed_neurons_send_what_was_folded() -> None:
    model, x = with_removed_neurons()
    conversion = convert_snm(model, UNIT, Calibration(x), 24, input_shape=(6,))
    assert [kept.tolist() for kept in conversion.kept.values()] == [[2, 3, 4], [1, 2, 3]]
    code = rate_code(read_network(model, (6,)), conversion, 64)
    first, second = (code.neurons[name] for name in conversion.kept)
    constant = float(model[0].bias[0].detach())
    assert first.constant.tolist() == [constant, 0, 0, 0, 0]
    assert second.constant[0] == pytest.approx(float((model[2].bias[0] + model[2].weight[0, 0] * constant).detach()), rel=1e-6)
    labels = model(torch.from_numpy(x / 16).float()).argmax(1).numpy()
    found = diagnose(model, UNIT, conversion.graph, {24: conversion}, x, labels, 512, input_shape=(6,))
    assert max(layer.relative for layer in found.layers) < 0.01
    assert found.layers[-1].own_error < 1e-5
    assert found.stage("SNN in floating point").accuracy == 1.0


@pytest.mark.parametrize(
    "geometry", [{}, {"stride": (2, 1), "padding": (1, 2)}, {"dilation": (2, 2), "padding": (2, 0)}, {"groups": 2}]
)
def test_products_of_convolutions_are_those_of_their_matrices(geometry: dict[str, Any]) -> None:
    rng = np.random.default_rng(0)
    groups = geometry.get("groups", 1)
    connection = Conv2dConnection(rng.integers(-9, 10, (4, 4 // groups, 3, 3)), (4, 7, 6), **geometry)
    values = rng.integers(-50, 50, (5, 4 * 7 * 6))
    assert np.array_equal(product(values, connection), values @ connection.to_csr().to_scipy().toarray())
    with pytest.raises(GraphError, match="convolution: found sums of up to"):
        product(values * 2**50, connection)


# --- damage -----------------------------------------------------------------------------------------------------------------


def with_thresholds(graph: SpikingGraph, name: str, factor: int) -> SpikingGraph:
    whole = graph.population(name).threshold
    assert whole is not None
    larger = np.where(whole < OUT_OF_REACH, whole * factor, whole)
    populations = [replace(p, threshold=larger) if p.name == name else p for p in graph.populations]
    return SpikingGraph(populations, graph.projections, graph.provenance)


@pytest.mark.parametrize("name", ["hidden1", "hidden2", "hidden3"])
def test_the_sentence_names_the_layer_whose_thresholds_are_wrong(trained: Any, widths: dict[int, Conversion], name: str) -> None:
    found = of(trained, widths, with_thresholds(widths[16].graph, name, 10), 32)
    assert found.worst_layer.name == name
    assert found.worst_layer.cause == "integers"
    assert found.worst_layer.relative > 0.8
    assert found.worst_stage is not None
    assert (found.worst_stage.name, found.worst_stage.before) == ("this graph", "SNN, 16 bits")
    assert [stage.name for stage in found.path[-3:]] == ["SNN, 24 bits", "SNN, 16 bits", "this graph"]
    loss = 100 * (found.stage("SNN, 16 bits").accuracy - found.stage("this graph").accuracy)
    sentence = found.sentence()
    assert sentence.startswith(f"Worst layer: {name}, which misses what its ANN layer gives for the same input by ")
    assert "mostly by the graph's integers" in sentence
    assert f"worst stage: this graph, which loses {loss:.2f} points" in sentence


@pytest.mark.parametrize("name", ["hidden1", "hidden2", "hidden3", "readout"])
def test_the_sentence_names_the_layer_of_few_bits(trained: Any, widths: dict[int, Conversion], name: str) -> None:
    fine, coarse = widths[16].graph, convert_qcfs(trained.model, trained.encoding, 3).graph
    mixed = SpikingGraph(
        [(coarse if p.name == name else fine).population(p.name) for p in fine.populations],
        [(coarse if p.post == name else fine).projection(*p.key) for p in fine.projections],
        fine.provenance,
    )
    found = of(trained, widths, mixed)
    assert found.worst_layer.name == name
    assert found.worst_layer.cause == "integers"


@pytest.mark.parametrize("method", METHODS)
def test_damage_in_a_residual_convolutional_net(small_conv_net: Make, method: str) -> None:
    model, x = conv_model(small_conv_net, method), pixels(30)
    labels = model(real(x).float()).argmax(1).numpy()
    widths = {bits: converted(method, model, bits) for bits in (24, 16)}
    whole = diagnose(model, COLOUR, widths[16].graph, widths, x, labels, 32, input_shape=SHAPE)
    assert whole.graph_stage == "SNN, 16 bits"
    assert max(layer.causes["integers"] for layer in whole.layers) < 0.01
    for name in ("joined", "second"):
        found = diagnose(model, COLOUR, with_thresholds(widths[16].graph, name, 10), widths, x, labels, 32, input_shape=SHAPE)
        assert found.worst_layer.name == name
        assert f"Worst layer: {name}" in found.sentence()


def test_dead_and_saturated_layers(trained: Any, widths: dict[int, Conversion]) -> None:
    graph = widths[16].graph
    silent = of(trained, widths, with_thresholds(graph, "hidden2", 2**24)).layers[1]
    network = read_network(trained.model)
    ann = network.evaluate(real_inputs(network, trained.encoding, trained.pixels))["hidden2"]
    assert silent.dead == np.count_nonzero((ann > 0).any(axis=0))
    assert (silent.saturated, silent.every_step, silent.correlation) == (0, 0.0, None)
    populations = [
        replace(p, threshold=np.full(p.size, 2), v_init=np.full(p.size, 2**40)) if p.name == "hidden2" else p
        for p in graph.populations
    ]
    full = of(trained, widths, SpikingGraph(populations, graph.projections, graph.provenance)).layers[1]
    assert (full.dead, full.saturated, full.every_step) == (0, 96, 1.0)


def test_a_network_without_a_loss_says_so(trained: Any, widths: dict[int, Conversion]) -> None:
    one = {24: widths[24]}
    with torch.no_grad():
        scores = trained.model(torch.from_numpy(trained.encoding.table()[0][trained.pixels])).numpy()
    run = NativeBackend().run(one[24].graph, trained.pixels, 8)
    right = np.flatnonzero((scores.argmax(1) == trained.labels) & (run.predictions[:, -1] == trained.labels))
    found = diagnose(trained.model, trained.encoding, one[24].graph, one, trained.pixels[right], trained.labels[right], 8)
    assert {stage.accuracy for stage in found.stages} == {1.0}
    assert found.worst_stage is None
    assert found.to_dict()["worst_stage"] is None
    assert f"no stage loses accuracy: ANN 100.00 %, this graph 100.00 % at T = 8, on {len(right)} images." in found.sentence()


def test_models_pruned_by_torch() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(36, 12), nn.ReLU(), nn.Linear(12, 3)
    )
    for layer in (0, 4, 6):
        prune.l1_unstructured(model[layer], "weight", 0.5)
    x = pixels(40)
    labels = model(real(x).float()).argmax(1).detach().numpy()
    for method in ("snm", "percentile"):
        widths = {24: converted(method, model, 24)}
        found = diagnose(model, COLOUR, widths[24].graph, widths, x, labels, 256, input_shape=SHAPE)
        assert found.layers[0].name == "1"
        assert found.layers[0].error < 0.02 * found.layers[0].activation
        assert found.stages[0].accuracy == 1.0


# --- figures ----------------------------------------------------------------------------------------------------------------


def test_figures_hold_the_figures(trained: Any, widths: dict[int, Conversion], tmp_path: Path) -> None:
    found = of(trained, widths, with_thresholds(widths[16].graph, "hidden2", 10), 16)
    stages, layers, activations = stages_figure(found), layers_figure(found), activations_figure(found)
    bars = [bar.get_width() for bar in stages.axes[0].patches]
    assert bars == [100 * stage.accuracy for stage in found.stages]
    assert [line.get_label() for line in stages.axes[1].lines] == [s.name for s in found.stages[3:]] + ["ANN (torch)"]
    own = layers.axes[0].lines[0].get_ydata()
    assert list(own) == [100 * layer.own_error / layer.activation for layer in found.layers]
    assert [label.get_text() for label in layers.axes[1].get_xticklabels()] == ["hidden1", "hidden2", "hidden3", "readout"]
    assert [ax.get_title().split(",")[0] for ax in activations.axes] == ["hidden1", "hidden2", "hidden3", "readout"]
    for name, figure in (("stages", stages), ("layers", layers), ("activations", activations)):
        save_figure(figure, tmp_path / f"{name}.png")
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")


# --- bad input --------------------------------------------------------------------------------------------------------------


def test_refusals(trained: Any, widths: dict[int, Conversion], small_conv_net: Make) -> None:
    graph, x, y = widths[16].graph, trained.pixels, trained.labels
    other = converted("qcfs", conv_model(small_conv_net, "qcfs"), 16).graph
    zeroed = [replace(p, reset="zero") if p.name == "hidden2" else p for p in graph.populations]
    reset_to_zero = SpikingGraph(zeroed, graph.projections)
    cases: list[tuple[type[Exception], str, tuple[Any, ...]]] = [
        (ConfigError, "found steps = 0 and batch = 64, expected at least 1", (graph, widths, x, y, 0)),
        (ConfigError, "found no conversion, expected at least one", (graph, {}, x, y, 8)),
        (DataError, "found 597 images and 3 labels, expected one label an image", (graph, widths, x, y[:3], 8)),
        (DataError, "found 0 images and 0 labels", (graph, widths, x[:0], y[:0], 8)),
        (DataError, "images: found int64 of shape (1, 63)", (graph, widths, x[:, 1:], y, 8)),
        (GraphError, "graph: found populations {'stem.2': 384", (other, widths, x, y, 8)),
        (GraphError, "population 'hidden2': found kind 'if', reset 'zero'", (reset_to_zero, widths, x, y, 8)),
    ]  # fmt: skip
    for error, message, arguments in cases:
        with pytest.raises(error) as caught:
            diagnose(trained.model, trained.encoding, *arguments)
        assert message in str(caught.value)
