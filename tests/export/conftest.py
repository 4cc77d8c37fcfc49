"""Graphs that several test modules of this folder share."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from sparsespike.ann.encoding import Encoding
from sparsespike.ann.models import MLP, MLPSpec
from sparsespike.ann.topology import er
from sparsespike.export.connections import Conv2dConnection, CSRConnection
from sparsespike.export.graph import Population, Projection, SpikingGraph
from sparsespike.export.population import NEVER


@pytest.fixture(scope="session")
def every_kind() -> SpikingGraph:
    """A small graph with every rate-coded kind, both connections, a skip, and every optional field in use."""
    populations = [
        Population(name="pixels", shape=(2, 4, 4), kind="input", value_range=(0, 255), scale=np.array([0.5, 0.25])),
        Population(
            name="net.0",
            shape=(3, 2, 2),
            kind="if",
            threshold=2 * np.arange(1, 13),
            v_init=np.arange(1, 13),
            bias=np.arange(12) - 6,
            scale=np.linspace(0.1, 0.5, 12),
            reset="zero",
        ),
        Population(
            name="net-1",
            shape=(5,),
            kind="signed_if",
            threshold=np.full(5, 20),
            threshold_neg=np.full(5, 7),
            bias=np.arange(5),
            bias_mode="once",
        ),
        Population(
            name="coded",
            shape=(4,),
            kind="if",
            threshold=[40, 20, 10, 6],
        ),
        Population(name="classes", shape=(3,), kind="readout", bias=[5, -4, 2**40], scale=1e-3),
    ]
    kernel = np.arange(3 * 1 * 3 * 3).reshape(3, 1, 3, 3) % 7 - 3
    first = Conv2dConnection(np.concatenate([kernel, kernel[::-1]], axis=1), (2, 4, 4), stride=(2, 2), padding=(1, 1))
    projections = [
        Projection("pixels", "net.0", first),
        Projection("pixels", "net-1", CSRConnection.from_scipy(_checkered(32, 5))),
        Projection("net.0", "net-1", CSRConnection.from_scipy(_checkered(12, 5))),
        Projection("net-1", "coded", CSRConnection.from_scipy(_checkered(5, 4))),
        Projection("coded", "classes", CSRConnection.from_scipy(np.zeros((4, 3), np.int64))),
        Projection("net.0", "classes", CSRConnection.from_scipy(_checkered(12, 3))),
    ]
    return SpikingGraph(populations, projections, {"method": "none", "sparsity": {"net.0": 0.5}, "note": "θ ≥ 0", "bits": 16})


@pytest.fixture(scope="session")
def coded_in_time() -> SpikingGraph:
    """A small graph of kind aec, with a skip and a slot without a compensation spike."""
    tables = {
        "primary_threshold": [40, 20, 10],
        "compensation_threshold": [30, 15, NEVER],
        "primary_payload": [8, 4, 2],
        "compensation_payload": [6, 3, 0],
    }
    populations = [
        Population(name="pixels", shape=(6,), kind="input", value_range=(0, 255), bias_mode="once"),
        Population(name="coded", shape=(4,), kind="aec", tables=tables, bias=[0, -3, 9, 1], bias_mode="once"),
        Population(name="deeper", shape=(2,), kind="aec", tables=tables, bias_mode="once", scale=0.25),
        Population(name="classes", shape=(3,), kind="readout", bias=[5, -4, 0], bias_mode="once"),
    ]
    sizes = {population.name: population.size for population in populations}
    keys = [("pixels", "coded"), ("coded", "deeper"), ("coded", "classes"), ("deeper", "classes")]
    projections = [Projection(*key, CSRConnection.from_scipy(_checkered(*(sizes[name] for name in key)))) for key in keys]
    return SpikingGraph(populations, projections, {"method": "none"})


def _checkered(n_pre: int, n_post: int) -> np.ndarray:
    """Weights of both signs with a regular pattern of absent synapses."""
    weights = np.arange(n_pre * n_post).reshape(n_pre, n_post) % 11 - 5
    return np.where(np.add.outer(np.arange(n_pre), np.arange(n_post)) % 3 == 0, 0, weights)


@dataclass(frozen=True)
class Trained:
    """A small sparse network with QCFS activations, trained on the handwritten digits of scikit-learn."""

    model: MLP
    encoding: Encoding
    pixels: np.ndarray
    """Test images, shape (B, 64), 0..16."""
    labels: np.ndarray


@pytest.fixture(scope="session")
def trained() -> Trained:
    digits = load_digits()
    pixels, labels = digits.data.astype(np.int64), digits.target
    train = slice(0, 1200)
    encoding = Encoding.fit(pixels[train].astype(np.uint8).reshape(-1, 1, 8, 8), (0, 16))
    generator = np.random.default_rng(3)
    widths = (64, 96, 96, 96, 10)
    topologies = [er((m, n), 0.95, generator) for n, m in itertools.pairwise(widths[:-1])]
    model = MLP(MLPSpec(widths, sparse=True, activation="qcfs", levels=8, lam=2.0), topologies)
    model.reset_parameters(generator)
    x = torch.from_numpy(encoding.table()[0][pixels])
    y = torch.from_numpy(labels)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(8):
        for batch in np.array_split(generator.permutation(1200), 12):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(x[batch]), y[batch]).backward()
            optimizer.step()
    return Trained(model.eval(), encoding, pixels[1200:], labels[1200:])


class SmallConvNet(torch.nn.Module):
    """Padding, stride, groups, dilation, batch normalisation, pooling and two residual sums on images of 2 x 8 x 8."""

    def __init__(self, activation: Callable[[], torch.nn.Module]) -> None:
        super().__init__()
        nn = torch.nn
        self.stem = nn.Sequential(nn.Conv2d(2, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6), activation())
        self.pool = nn.AvgPool2d(2)
        self.conv = nn.Conv2d(6, 6, 3, padding=1, groups=2)
        self.norm = nn.BatchNorm2d(6)
        self.joined = activation()
        self.down = nn.Conv2d(6, 4, 3, stride=2, padding=2, dilation=2)
        self.short = nn.Conv2d(6, 4, 1, stride=2)
        self.second = activation()
        self.drop = nn.Dropout(0.5)
        self.hidden = nn.Linear(16, 7)
        self.third = activation()
        self.head = nn.Linear(7, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.pool(self.stem(x))
        x = self.joined(x + self.norm(self.conv(x)))
        x = self.second(self.down(x) + self.short(x))
        scores: torch.Tensor = self.head(self.third(self.hidden(self.drop(torch.flatten(x, 1)))))
        return scores


@pytest.fixture(scope="session")
def small_conv_net() -> Callable[..., torch.nn.Module]:
    """``small_conv_net(activation, seed)``: random weights, a third of each convolution pruned, statistics of a batch norm."""

    def make(activation: Callable[[], torch.nn.Module] = torch.nn.ReLU, seed: int = 0) -> torch.nn.Module:
        generator = torch.Generator().manual_seed(seed)
        model = SmallConvNet(activation)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if parameter.ndim > 1:
                    fan_in = parameter[0].numel()
                    parameter.copy_(torch.randn(parameter.shape, generator=generator) * (2 / fan_in) ** 0.5)
                    if parameter.ndim == 4:
                        parameter.mul_(torch.rand(parameter.shape, generator=generator) > 1 / 3)
                elif "lam" not in name:
                    parameter.copy_(torch.rand(parameter.shape, generator=generator) * 0.4 + (0.8 if "weight" in name else -0.2))
            for module in model.modules():
                if isinstance(module, torch.nn.BatchNorm2d):
                    module.running_mean.copy_(torch.randn(module.num_features, generator=generator) * 0.1)
                    module.running_var.copy_(torch.rand(module.num_features, generator=generator) + 0.5)
        return model.eval()

    return make
