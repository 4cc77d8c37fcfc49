"""Models and settings that cannot be converted, for every method: one message that says what, where and what to do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import prune

from sparsespike.ann.activations import QCFS
from sparsespike.ann.encoding import Encoding
from sparsespike.backends.bulk import run_blocks
from sparsespike.backends.native import NativeBackend
from sparsespike.backends.reference import reference
from sparsespike.common.errors import BackendError, ConfigError, DataError, ModelError
from sparsespike.export.aec import convert_aec
from sparsespike.export.balance import convert_percentile
from sparsespike.export.build import Conversion
from sparsespike.export.calibrate import Calibration
from sparsespike.export.qcfs import convert_qcfs
from sparsespike.export.snm import convert_snm
from sparsespike.export.source import verdicts
from sparsespike.export.trace import with_average_pooling

UNIT = Encoding((0, 16), 16, (0.0,), (1.0,))
SHAPE = (1, 4, 4)
METHODS = ("qcfs", "snm", "percentile", "aec")


def pixels(images: int = 40) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 17, (images, *SHAPE))


def convert(method: str, model: nn.Module, images: int = 40) -> Conversion:
    if method == "qcfs":
        return convert_qcfs(model, UNIT, input_shape=SHAPE)
    calibration = Calibration(pixels(images))
    if method == "aec":
        return convert_aec(model, UNIT, calibration, steps=6, input_shape=SHAPE)
    return (convert_snm if method == "snm" else convert_percentile)(model, UNIT, calibration, input_shape=SHAPE)


def small(method: str, *between: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    activation = (lambda: QCFS(4, 1.0)) if method == "qcfs" else nn.ReLU
    layers = nn.Conv2d(1, 3, 3, padding=1), activation(), *between, nn.Flatten(), nn.LazyLinear(6), activation(), nn.Linear(6, 2)
    model = nn.Sequential(*layers)
    model(torch.zeros(1, *SHAPE))
    return model


def fill(layer: int, value: float, name: str = "weight") -> Callable[[Any], None]:
    def change(model: Any) -> None:
        with torch.no_grad():
            getattr(model[layer], name).view(-1)[0] = value

    return change


def no_links(model: Any) -> None:
    prune.ln_structured(model[3], "weight", amount=6, n=1, dim=0)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (fill(0, float("nan")), "layer '0' (Conv2d): weight: found 1 of 27 values that are NaN or infinite"),
        (fill(3, float("inf")), "layer '3' (Linear): weight: found 1 of 288 values that are NaN or infinite"),
        (fill(5, float("-inf"), "bias"), "layer '5' (Linear): bias: found 1 of 2 values that are NaN or infinite"),
        (no_links, "layer '4': found no link that leads to the input, expected at least one"),
    ],
)
def test_weights(method: str, change: Callable[[Any], None], message: str) -> None:
    model = small(method)
    change(model)
    with pytest.raises(ModelError) as caught:
        convert(method, model)
    assert message in str(caught.value)


@pytest.mark.parametrize("method", METHODS)
def test_a_layer_that_is_not_supported_or_a_maximum(method: str) -> None:
    with pytest.raises(ModelError, match=r"^layer '2' \(GELU\): integrate-and-fire neurons stand for ReLU or QCFS"):
        convert(method, small(method, nn.GELU()))
    with pytest.raises(ModelError, match=r"layer '2' \(MaxPool2d\): a maximum is not linear in spikes: replace it by average"):
        convert(method, small(method, nn.MaxPool2d(2)))
    replaced = with_average_pooling(small(method, nn.MaxPool2d(2)))
    graph = convert(method, replaced).graph
    assert graph.order[-1] == "readout"


@pytest.mark.parametrize("method", ["snm", "percentile", "aec"])
def test_thresholds_of_zero_and_too_few_images(method: str) -> None:
    model: Any = small(method)
    with torch.no_grad():
        model[3].bias.fill_(-100.0)
    with pytest.raises(
        ModelError, match="layer '4': found no neuron that is active on the calibration images, expected at least"
    ):
        convert(method, model)
    with pytest.raises(DataError, match="calibration: found 15 images, expected at least 16"):
        convert(method, small(method), images=15)


def test_a_threshold_lambda_of_zero() -> None:
    model: Any = small("qcfs")
    fill(1, 0.0, "lam")(model)
    with pytest.raises(ModelError, match=r"layer '1' \(QCFS\): found the QCFS threshold lambda = 0.0, expected a finite value"):
        convert("qcfs", model)


def test_no_steps() -> None:
    graph = convert("snm", small("snm")).graph
    for run in (NativeBackend().run, reference, lambda *arguments: run_blocks(NativeBackend(), *arguments)):
        with pytest.raises(BackendError, match="found steps = 0, expected at least 1"):
            run(graph, pixels(2), 0)
    with pytest.raises(ConfigError, match="AEC"):
        convert_aec(small("aec"), UNIT, Calibration(pixels()), steps=0, input_shape=SHAPE)


class Reused(nn.Module):
    """One ReLU, as a function and as a module, at several places."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.three, self.four = nn.Linear(16, 8), nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 3)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.one(torch.flatten(x, 1)))
        x = self.relu(functional.relu(self.two(x)) + x)
        scores: Tensor = self.four(self.relu(self.three(x)))
        return scores


@pytest.mark.parametrize("method", ["snm", "percentile"])
def test_each_use_of_a_relu_is_a_population_of_its_own(method: str) -> None:
    """What other converters pass over silently."""
    torch.manual_seed(0)
    model = Reused()
    graph = convert(method, model).graph
    assert len(graph.spiking) == 4
    thresholds = [graph.population(name).threshold for name in graph.spiking]
    assert len({tuple(np.asarray(threshold).tolist()) for threshold in thresholds}) == 4
    run = reference(graph, pixels(), 2000)
    with torch.no_grad():
        scores = model(torch.from_numpy(pixels() / 16).float()).numpy()
    np.testing.assert_allclose(run.readout[:, -1] * graph.readout.scale / 2000, scores, atol=0.01)


def test_vgg11_of_torchvision_says_what_to_do() -> None:
    """Every pool is refused before anything is done; with average pools all layers are accepted."""
    made: Any = torchvision.models.vgg11_bn(num_classes=10)
    made.avgpool, made.classifier = nn.Identity(), nn.Linear(512, 10)
    refused = [verdict for verdict in verdicts(made, (3, 32, 32)) if not verdict.accepted]
    assert [verdict.type for verdict in refused] == ["MaxPool2d"] * 5
    assert all("replace it by average pooling (sparsespike.export.trace.with_average_pooling does)" in v.text for v in refused)
    assert all(verdict.accepted for verdict in verdicts(with_average_pooling(made), (3, 32, 32)))
