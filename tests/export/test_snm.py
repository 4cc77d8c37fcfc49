"""Thresholds from data, SNM and percentile balancing."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from sparsespike.ann.activations import QCFS
from sparsespike.ann.encoding import Encoding
from sparsespike.ann.models import MLP, MLPSpec
from sparsespike.ann.topology import er
from sparsespike.backends.native import NativeBackend
from sparsespike.backends.reference import reference
from sparsespike.common.errors import ConfigError, DataError, ModelError
from sparsespike.export.balance import convert_percentile
from sparsespike.export.build import OUT_OF_REACH
from sparsespike.export.calibrate import Calibration, Granularity, calibrate, real_inputs
from sparsespike.export.connections import Conv2dConnection, CSRConnection
from sparsespike.export.snm import convert_snm
from sparsespike.export.source import read_network

Make = Callable[..., nn.Module]
SHAPE = (2, 8, 8)
COLOUR = Encoding((0, 255), 255, (0.5, 0.25), (0.5, 0.2))
UNIT = Encoding((0, 16), 16, (0.0,), (1.0,))


def pixels(images: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (images, *SHAPE))


def perceptron(seed: int = 0, widths: tuple[int, ...] = (12, 20, 16, 4)) -> MLP:
    rng = np.random.default_rng(seed)
    model = MLP(MLPSpec(widths), [er((m, n), 0.5, rng) for n, m in itertools.pairwise(widths[:-1])])
    model.reset_parameters(rng)
    return model.eval()


# --- thresholds -------------------------------------------------------------------------------------------------------------


@settings(max_examples=10, deadline=None)
@given(
    percentile=st.sampled_from([100.0, 99.9, 90.0, 50.0, 1.0]),
    granularity=st.sampled_from(["neuron", "channel", "layer"]),
    images=st.integers(16, 40),
    batch=st.integers(1, 41),
)
def test_percentiles_against_numpy(
    small_conv_net: Make, percentile: float, granularity: Granularity, images: int, batch: int
) -> None:
    network = read_network(small_conv_net(), SHAPE)
    x = pixels(images)
    shared = dict.fromkeys((node.name for node in network.activations), granularity)
    found = calibrate(network, COLOUR, Calibration(x, percentile, batch), shared)
    outputs = network.evaluate(real_inputs(network, COLOUR, x))
    for node in network.activations:
        groups = {"neuron": int(np.prod(node.shape)), "channel": node.shape[0], "layer": 1}[granularity]
        values = outputs[node.name].reshape(images, groups, -1)
        positive = [group[group > 0] for group in values.transpose(1, 0, 2).reshape(groups, -1)]
        expected = [np.percentile(group, percentile) if len(group) else 0.0 for group in positive]
        np.testing.assert_allclose(found[node.name], np.repeat(expected, values.shape[2]), rtol=1e-12)


@pytest.mark.parametrize("convert", [convert_snm, convert_percentile])
def test_nothing_depends_on_the_batch_size_or_the_order(small_conv_net: Make, convert: Callable[..., Any]) -> None:
    x = pixels(40)
    digests = set()
    for images, batch in ((x, 1), (x, 7), (x, 40), (x[::-1], 16)):
        digests.add(convert(small_conv_net(), COLOUR, Calibration(images, 99.0, batch), input_shape=SHAPE).graph.digest())
    assert len(digests) == 1


def test_progress_is_told() -> None:
    calls: list[tuple[str, int, int]] = []
    x = np.random.default_rng(0).integers(0, 17, (20, 12))
    convert_snm(perceptron(), UNIT, Calibration(x, batch=8), progress=lambda *call: calls.append(call))
    assert calls == [("calibration", 8, 20), ("calibration", 16, 20), ("calibration", 20, 20)]


# --- SNM --------------------------------------------------------------------------------------------------------------------


def test_thresholds_are_each_neurons_largest_activation() -> None:
    model = perceptron()
    x = np.random.default_rng(0).integers(0, 17, (50, 12))
    graph, report, kept = convert_snm(model, UNIT, Calibration(x), bits=24)
    with torch.no_grad():
        first = torch.relu(model.layers[0](torch.from_numpy(x / 16).float()))
        second = torch.relu(model.layers[1](first))
    for name, activations in (("hidden1", first), ("hidden2", second)):
        population, largest = graph.population(name), activations.max(0).values.numpy()
        assert population.kind == "signed_if"
        assert population.threshold is not None
        assert np.array_equal(population.threshold, population.threshold_neg)
        assert not population.v_init.any()
        assert np.array_equal(kept[name], np.flatnonzero(largest > 0))
        assert population.threshold * population.scale == pytest.approx(largest[largest > 0], rel=1e-4)
    assert report.settings == {"percentile": 100.0, "granularity": "auto", "calibration_images": 50, "v_init": 0.0}
    assert graph.provenance["method"] == "snm"
    assert graph.provenance["conversion"]["settings"]["percentile"] == 100.0


def test_initial_membrane() -> None:
    x = np.random.default_rng(0).integers(0, 17, (50, 12))
    for v_init in (0.5, 0.25):
        population = convert_snm(perceptron(), UNIT, Calibration(x), v_init=v_init).graph.population("hidden1")
        assert population.threshold is not None
        assert np.array_equal(population.v_init, np.rint(v_init * population.threshold))


def flickering() -> MLP:
    """Weights of which one path excites, and later ones inhibit: spikes come too early and are taken back."""
    model = perceptron(3, (12, 60, 60, 60, 4))
    with torch.no_grad():
        for layer in model.layers:
            layer.bias.mul_(0.2)
    return model


def test_the_net_count_is_never_negative_and_many_spikes_are_taken_back() -> None:
    x = np.random.default_rng(0).integers(0, 17, (60, 12))
    graph = convert_snm(flickering(), UNIT, Calibration(x)).graph
    steps = 24
    run = NativeBackend().run(graph, x, steps, record=graph.spiking)
    taken_back = 0
    for name in graph.spiking:
        net = np.cumsum(run.rasters[name].astype(np.int64), axis=1)
        assert net.min() == 0
        taken_back += int(run.spikes[name].negative.sum())
    assert taken_back > 1000
    assert not run.spikes[graph.spiking[0]].negative.any()  # a constant current never has to be corrected


def test_rates_come_near_the_activations_and_v_init_helps() -> None:
    model = flickering()
    x = np.random.default_rng(0).integers(0, 17, (60, 12))
    network = read_network(model)
    outputs = network.evaluate(real_inputs(network, UNIT, x))
    scores = outputs[network.nodes[-1].name]
    errors = {}
    for v_init, steps in ((0.0, 16), (0.0, 512), (0.5, 16), (0.5, 512)):
        graph = convert_snm(model, UNIT, Calibration(x), v_init=v_init).graph
        run = NativeBackend().run(graph, x, steps)
        errors[v_init, steps] = np.abs(run.readout[:, -1] * graph.readout.scale / steps - scores).mean()
    assert errors[0.0, 512] < 0.05 * errors[0.0, 16] + 1e-3
    assert errors[0.5, 16] < errors[0.0, 16]


def test_a_spiking_readout_adds_up_what_signed_scores_send() -> None:
    """The scores' thresholds are their largest values on the calibration images; what is read is threshold x net count."""
    model, images = perceptron(), np.random.default_rng(5).integers(0, 17, (40, 12))
    graph, report, kept = convert_snm(model, UNIT, Calibration(images), spiking_readout=True)
    assert report.settings["spiking_readout"]
    network = read_network(model)
    scores = network.evaluate(real_inputs(network, UNIT, images))[network.nodes[-1].name]
    largest = np.maximum(scores, 0).max(axis=0)
    name = graph.spiking[-1]
    result = reference(graph, images, 64)
    net = result.spikes[name].positive - result.spikes[name].negative
    assert net.min() == 0
    weights = graph.projection(name, "readout").connection.to_csr().to_scipy()
    assert np.array_equal(result.readout[:, -1], net @ weights)
    real = weights.toarray()[np.arange(len(kept[name])), kept[name]] * float(graph.readout.scale)
    assert np.allclose(real, largest[kept[name]], rtol=1e-3)
    sent = result.readout[:, -1] * float(graph.readout.scale) / 64
    assert np.abs(sent - np.maximum(scores, 0)).mean() < 0.1 * largest.mean()
    plain = reference(convert_snm(model, UNIT, Calibration(images)).graph, images, 64)
    assert (plain.readout[:, -1] < 0).any()
    assert not (result.readout[:, -1] < 0).any()


def test_signed_neurons_lose_less_than_plain_ones() -> None:
    """What memory is for: neurons that should be silent but fired early give their spikes back."""
    model = flickering()
    x = np.random.default_rng(0).integers(0, 17, (60, 12))
    network = read_network(model)
    silent = network.evaluate(real_inputs(network, UNIT, x))["hidden3"] == 0
    false = {}
    for convert in (convert_snm, convert_percentile):
        graph, _, kept = convert(model, UNIT, Calibration(x))
        counts = NativeBackend().run(graph, x, 16).spikes["hidden3"]
        net = counts.positive - counts.negative
        false[convert] = np.mean(net[silent[:, kept["hidden3"]]] > 0)
    assert false[convert_snm] < false[convert_percentile]


def with_dead_neurons() -> tuple[nn.Module, np.ndarray]:
    """Channel 1 and two dense neurons are negative on every image."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 3, 1), nn.ReLU(), nn.Conv2d(3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(8, 5), nn.ReLU(), nn.Linear(5, 2)
    )
    with torch.no_grad():
        for layer in (0, 2, 5):
            model[layer].weight.abs_()
            model[layer].bias.abs_()
        model[0].bias[1] = -100.0
        model[5].bias[[0, 3]] = -100.0
    return model, np.random.default_rng(0).integers(0, 17, (30, 1, 2, 2))


def test_neurons_that_are_never_active_do_not_fire_and_are_reported() -> None:
    model, x = with_dead_neurons()
    graph, report, kept = convert_snm(model, UNIT, Calibration(x), input_shape=(1, 2, 2))
    by_name = {layer.name: layer for layer in report.layers}
    assert (by_name["1"].silenced, by_name["1"].neurons, by_name["1"].links_removed) == (4, 12, 0)
    assert (by_name["6"].silent, by_name["6"].neurons, by_name["6"].links_removed) == (2, 3, 16)
    assert by_name["readout"].links_removed == 4
    assert kept["6"].tolist() == [1, 2, 4]
    threshold = graph.population("1").threshold
    assert threshold is not None
    assert (threshold.reshape(3, 4)[1] == OUT_OF_REACH).all()
    assert (threshold.reshape(3, 4)[[0, 2]] < 2**30).all()
    assert "1: neurons never active in calibration, given a threshold out of reach: 4" in report.notes()
    every = np.stack(np.meshgrid(*[np.arange(0, 17, 4)] * 4), axis=-1).reshape(-1, 4)
    run = NativeBackend().run(graph, every, 32)
    assert not run.spikes["1"].events.reshape(-1, 3, 4)[:, 1].any()
    assert run.spikes["1"].events.reshape(-1, 3, 4)[:, 0].any()


def test_thresholds_by_neuron_expand_the_convolutions_that_read_them(small_conv_net: Make) -> None:
    model, x = small_conv_net(), pixels(40)
    kinds = {}
    granularities: tuple[Granularity, ...] = ("neuron", "channel", "layer")
    for granularity in granularities:
        graph = convert_snm(model, COLOUR, Calibration(x), input_shape=SHAPE, granularity=granularity).graph
        kinds[granularity] = type(graph.projection("joined", "second").connection)
        thresholds = graph.population("stem.2")
        assert thresholds.threshold is not None
        real = (thresholds.threshold * np.repeat(thresholds.scale, 64)).reshape(6, 64)
        spread = [len(np.unique(np.round(channel, 4))) for channel in real]
        assert (max(spread) > 1) == (granularity == "neuron")
    assert kinds == {"neuron": CSRConnection, "channel": CSRConnection, "layer": CSRConnection}
    first = nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Conv2d(3, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(32, 2))
    found = {}
    for choice in ("auto", "neuron", "channel"):
        graph = convert_snm(first, COLOUR, Calibration(x), input_shape=SHAPE, granularity=choice).graph
        found[choice] = type(graph.projection("1", "3").connection)
    assert found == {"auto": Conv2dConnection, "neuron": CSRConnection, "channel": Conv2dConnection}


# --- percentile -------------------------------------------------------------------------------------------------------------


def test_percentile_balancing_shares_a_threshold_by_layer() -> None:
    model = perceptron()
    x = np.random.default_rng(0).integers(0, 17, (50, 12))
    graph = convert_percentile(model, UNIT, Calibration(x, 90.0), bits=24).graph
    with torch.no_grad():
        first = torch.relu(model.layers[0](torch.from_numpy(x / 16).float())).numpy()
    population = graph.population("hidden1")
    assert population.kind == "if"
    assert population.threshold is not None
    assert population.threshold * population.scale == pytest.approx(np.full(20, np.percentile(first[first > 0], 90)), rel=1e-4)
    assert not population.v_init.any()
    run = reference(graph, x[:5], 600)
    scores = model(torch.from_numpy(x[:5] / 16).float()).detach().numpy()
    small = convert_percentile(model, UNIT, Calibration(x), bits=24).graph
    exact = reference(small, x[:5], 600).readout[:, -1] * small.readout.scale / 600
    assert np.abs(exact - scores).max() < 0.05
    assert np.abs(run.readout[:, -1] * graph.readout.scale / 600 - scores).max() > np.abs(exact - scores).max()


# --- bad input --------------------------------------------------------------------------------------------------------------

IMAGES = np.zeros((20, 12), np.int64)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"percentile": 0.0}, "percentile: found 0.0, expected more than 0 and at most 100"),
        ({"percentile": 100.5}, "percentile: found 100.5"),
        ({"percentile": float("nan")}, "percentile: found nan"),
        ({"batch": 0}, "calibration batch: found 0, expected at least 1"),
    ],
)
def test_calibration_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Calibration(IMAGES, **settings)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (IMAGES[:5], "calibration: found 5 images, expected at least 16; give more training images"),
        (IMAGES[:, :7], "images: found int64 of shape (1, 7), expected integers (images, 12)"),
        (IMAGES / 1.0, "images: found float64"),
        (IMAGES + 17, "images: found values 17..17, expected 0..16"),
    ],
)
def test_calibration_images(images: np.ndarray, message: str) -> None:
    with pytest.raises(DataError) as caught:
        convert_snm(perceptron(), UNIT, Calibration(images))
    assert message in str(caught.value)


@pytest.mark.parametrize("convert", [convert_snm, convert_percentile])
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"granularity": "image"}, "granularity: found 'image', expected"),
        ({"v_init": 1.0}, "v_init: found 1.0, expected a part of the threshold"),
        ({"v_init": -0.1}, "v_init: found -0.1"),
        ({"bits": 1}, "bits: found 1"),
    ],
)
def test_method_settings(convert: Callable[..., Any], settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        convert(perceptron(), UNIT, Calibration(IMAGES), **settings)
    assert message in str(caught.value)


@pytest.mark.parametrize("convert", [convert_snm, convert_percentile])
def test_models_that_do_not_fit_the_method(convert: Callable[..., Any]) -> None:
    quantised = nn.Sequential(nn.Linear(12, 3), QCFS(4, 1.0), nn.Linear(3, 2))
    with pytest.raises(ModelError, match="layer '1': found the activation QCFS, expected ReLU; train the model with"):
        convert(quantised, UNIT, Calibration(IMAGES), input_shape=(12,))
    with pytest.raises(ModelError, match="model: found no activation, expected ReLU"):
        convert(nn.Linear(12, 2), UNIT, Calibration(IMAGES), input_shape=(12,))
    dead = nn.Sequential(nn.Linear(12, 3), nn.ReLU(), nn.Linear(3, 2))
    nn.init.constant_(dead[0].bias, -1.0)
    with pytest.raises(ModelError, match="layer '1': found no neuron that is active on the calibration images"):
        convert(dead, UNIT, Calibration(IMAGES), input_shape=(12,))
