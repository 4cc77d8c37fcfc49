"""Diagnosis of AEC graphs: payloads decoded, no stage in floating point of its own, damage found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from sparsespike.ann.aec import AEC, Exponentials
from sparsespike.ann.encoding import Encoding
from sparsespike.backends.reference import reference
from sparsespike.common.errors import BackendError
from sparsespike.export.aec import convert_aec, with_spiking_pools
from sparsespike.export.build import Conversion
from sparsespike.export.calibrate import Calibration, real_inputs
from sparsespike.export.diagnosis import Diagnosis, diagnose
from sparsespike.export.diagnosis.windows import window_code
from sparsespike.export.exponential import ExponentialCode
from sparsespike.export.graph import SpikingGraph
from sparsespike.export.network import Activate, Network
from sparsespike.export.source import read_network

Make = Callable[..., nn.Module]
SHAPE = (2, 8, 8)
COLOUR = Encoding((0, 255), 255, (0.5, 0.25), (0.5, 0.2))
SLOTS = 9


def pixels(images: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (images, *SHAPE))


def network_of(model: nn.Module) -> Network:
    return with_spiking_pools(read_network(model, SHAPE))


def classes(model: nn.Module, x: np.ndarray) -> np.ndarray:
    network = read_network(model, SHAPE)
    return network.evaluate(real_inputs(network, COLOUR, x))[network.nodes[-1].name].argmax(1)


def calibrated(model: nn.Module, bits: int, **settings: Any) -> Conversion:
    images = Calibration(pixels(60, 7), 99.0)
    return convert_aec(model, COLOUR, images, bits, steps=SLOTS - 1, input_shape=SHAPE, **settings)


def found_in(model: nn.Module, graph: SpikingGraph, widths: dict[int, Conversion], images: int = 40) -> Diagnosis:
    x = pixels(images)
    return diagnose(model, COLOUR, graph, widths, x, classes(model, x), SLOTS, input_shape=SHAPE)


@pytest.mark.parametrize("force", [False, True])
def test_layers_against_the_reference(small_conv_net: Make, force: bool) -> None:
    """Decoded values from the rasters of the reference, one slot after the other; the ANN's from its network with pools."""
    model = small_conv_net()
    widths = {24: calibrated(model, 24, payload_bits=20, force_compensation=force)}
    graph = widths[24].graph
    found = found_in(model, graph, widths, 10)
    assert [stage.name for stage in found.stages] == [
        "ANN (torch)",
        "ANN, clipped at the largest value of the code",
        "ANN, exponential code of 9 slots",
        "SNN, 24 bits",
    ]
    x = pixels(10)
    run = reference(graph, x, SLOTS)
    network = network_of(model)
    ann = network.evaluate(real_inputs(network, COLOUR, x))
    assert [layer.name for layer in found.layers] == ["stem.2", "pool-spikes", "joined", "second", "third", "readout"]
    for layer in found.layers[:-1]:
        tables, raster = graph.population(layer.name).tables, run.rasters[layer.name]
        decoded = np.zeros(ann[layer.name].reshape(10, -1).shape)
        for b, t, n in np.argwhere(raster > 0):
            spikes = int(raster[b, t, n])
            decoded[b, n] += (spikes & 1) * tables["primary_payload"][t] + (spikes >> 1) * tables["compensation_payload"][t]
        # The first primary threshold, in the ANN's units, is what its payload stands for.
        unit = tables["primary_threshold"][0] * float(graph.population(layer.name).scale) / tables["primary_payload"][0]
        exact = ann[layer.name].reshape(10, -1)
        assert layer.error == pytest.approx(np.abs(unit * decoded - exact).mean(), rel=1e-4)
        assert layer.causes["unevenness"] == 0.0
        assert layer.causes["integers"] < 1e-3 * layer.activation
        assert layer.dead == np.count_nonzero((exact > 0).any(0) & ~(raster > 0).any((0, 1)))
        assert layer.saturated == np.count_nonzero((raster[:, 0] == 3).any(0))
        assert layer.every_step == np.mean(raster[:, 0] == 3)
    assert found.stages[-1].correct == tuple((run.predictions == classes(model, x)[:, None]).sum(0).tolist())
    assert found.layers[-1].own_error < 1e-3 * found.layers[-1].activation


@pytest.mark.parametrize("force", [False, True])
def test_what_is_sent_is_the_closed_form(small_conv_net: Make, force: bool) -> None:
    """Thresholds and payloads read back from a graph of 24 bits against the code that they were rounded from."""
    conversion = calibrated(small_conv_net(), 24, payload_bits=24, force_compensation=force)
    code = window_code(read_network(small_conv_net(), SHAPE), conversion)
    initial = AEC(SLOTS - 1).thresholds()
    relu = Activate("relu")
    for name, neurons in code.neurons.items():
        exact = ExponentialCode(*initial, force).scaled(float(neurons.primary[0] / initial[0][0]))
        values = np.random.default_rng(0).uniform(-0.1, 1.2, (1, 400)) * exact.largest
        assert code.sent(name, relu, values) == pytest.approx(exact(values), rel=1e-4)
        assert code.clipped(name, relu, values) == pytest.approx(np.clip(values, 0, exact.largest), rel=1e-4)


def damaged(graph: SpikingGraph, name: str) -> SpikingGraph:
    """One population whose spikes carry a tenth of what they should."""
    tables = dict(graph.population(name).tables)
    for spike in ("primary_payload", "compensation_payload"):
        tables[spike] = np.where(tables[spike] > 0, np.maximum(tables[spike] // 10, 1), 0)
    populations = [replace(p, tables=tables) if p.name == name else p for p in graph.populations]
    return SpikingGraph(populations, graph.projections, graph.provenance)


def test_the_sentence_names_the_damaged_layer(small_conv_net: Make) -> None:
    model = small_conv_net()
    widths = {bits: calibrated(model, bits) for bits in (24, 16)}
    for name in ("stem.2", "pool-spikes", "second"):
        found = found_in(model, damaged(widths[16].graph, name), widths)
        assert found.sentence().startswith(f"Worst layer: {name}, ")
        assert found.worst_layer.cause == "integers"
        assert found.stages[-1].name == "this graph"


def test_a_network_trained_with_the_code_has_one_stage_less() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(128, 30), AEC(SLOTS - 1, Exponentials(1.0, 0.5, 0.5, 0.5)), nn.Linear(30, 4))
    widths = {bits: convert_aec(model, COLOUR, bits=bits, payload_bits=20, input_shape=SHAPE) for bits in (24, 8)}
    found = found_in(model, widths[24].graph, widths)
    assert [stage.name for stage in found.stages] == [
        "ANN (torch)",
        "ANN, exponential code of 9 slots",
        "SNN, 24 bits",
        "SNN, 8 bits",
    ]
    assert found.stages[0].accuracy == found.stages[1].accuracy == 1.0
    first = found.layers[0]
    assert first.causes["levels"] == first.causes["unevenness"] == 0.0
    assert "clipping" not in first.causes
    assert first.error < 1e-3 * first.activation


def test_steps_are_the_slots(small_conv_net: Make) -> None:
    model, x = small_conv_net(), pixels(4)
    widths = {16: calibrated(model, 16)}
    with pytest.raises(BackendError, match="steps"):
        diagnose(model, COLOUR, widths[16].graph, widths, x, classes(model, x), 8, input_shape=SHAPE)
