"""Topology evolution of a network in training: initial links, and changes that weights and momentum follow."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from sparsespike.ann.config import TrainConfig
from sparsespike.ann.data import DataSplits
from sparsespike.ann.models import MLP, MLPSpec
from sparsespike.ann.sparse import carry
from sparsespike.ann.topology import (
    EvolutionConfig,
    Topology,
    active_neurons,
    brf,
    bsw,
    csti,
    er,
    evolve,
    feature_correlation,
    initial_sparsity,
)

CHUNK = 2000
Gradients = list[Callable[[int, int], npt.NDArray[Any]]]


def initial_topologies(config: TrainConfig, spec: MLPSpec, splits: DataSplits, generator: np.random.Generator) -> list[Topology]:
    """Draw the initial links of every layer before the classifier.

    CSTI correlates the pixels of the training images as they are, without augmentation.
    """
    sparsity = initial_sparsity(config.evolution_config(), config.sparsity)
    shapes = spec.shapes[:-1]
    if config.topology == "csti":
        pixels = splits.train.images.reshape(len(splits.train), -1)
        correlation = feature_correlation(pixels[start : start + CHUNK] for start in range(0, len(pixels), CHUNK))
        return [csti(correlation, shape, sparsity, generator) for shape in shapes]
    random = {"er": er, "bsw": bsw, "brf": brf}[config.topology]
    return [random(shape, sparsity, generator) for shape in shapes]


def evolve_model(
    model: MLP,
    optimizer: torch.optim.Optimizer,
    config: EvolutionConfig,
    progress: float,
    generator: np.random.Generator,
    gradients: Gradients | None = None,
) -> tuple[float, bool]:
    """Change the topology of all sparse layers together, in place.

    Kept links carry their weight and momentum; links that were absent start with zero weight and zero momentum.

    Parameters
    ----------
    model, optimizer
        The network, and the stochastic gradient descent on its parameters.
    config, progress, generator, gradients
        See :func:`sparsespike.ann.topology.evolve`.

    Returns
    -------
    overlap : float
        Share of the added links that this update had removed.
    settled : bool
        Whether the configuration's early stop ends the evolution.
    """
    layers = model.sparse_layers
    weights = [layer.values.detach().numpy() for layer in layers]
    update = evolve([layer.topology for layer in layers], weights, config, progress, generator, gradients=gradients)
    for layer, change in zip(layers, update.layers, strict=True):
        layer.set_topology(change.topology, change.source)
        layer.values.grad = None
        state = optimizer.state.get(layer.values, {})
        if state.get("momentum_buffer") is not None:
            state["momentum_buffer"] = carry(state["momentum_buffer"], change.source)
    regrown = sum(change.statistics.regrown for change in update.layers)
    reselected = sum(change.statistics.reselected for change in update.layers)
    return reselected / regrown if regrown else 0.0, update.early_stop


def link_gradients(model: MLP, x: Tensor, targets: Tensor) -> Gradients:
    """Magnitude of the loss gradient of every possible link, absent ones included, for one batch.

    Returns
    -------
    list of callables
        One for each sparse layer: ``gradient(start, stop)`` gives rows start .. stop - 1 of ``|dy x^T|``, so that no full
        matrix is ever held.
    """
    inputs: list[Tensor] = []
    outputs: list[Tensor] = []

    def record(_layer: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        inputs.append(args[0].detach())
        outputs.append(output)

    hooks = [layer.register_forward_hook(record) for layer in model.sparse_layers]
    try:
        loss = nn.functional.cross_entropy(model(x), targets)
    finally:
        for hook in hooks:
            hook.remove()
    slopes = torch.autograd.grad(loss, outputs)
    return [_outer(dy.t().numpy(), before.numpy()) for dy, before in zip(slopes, inputs, strict=True)]


def _outer(dy: npt.NDArray[np.float32], x: npt.NDArray[np.float32]) -> Callable[[int, int], npt.NDArray[Any]]:
    return lambda start, stop: np.abs(dy[start:stop] @ x)


def sparsity(model: MLP) -> float:
    """Fraction of absent links over the layers that hold a topology; 0 without any."""
    topologies = [layer.topology for layer in model.sparse_layers]
    possible = sum(math.prod(topology.shape) for topology in topologies)
    return 1 - sum(topology.nnz for topology in topologies) / possible if possible else 0.0


def active_share(model: MLP) -> float:
    """Fraction of neurons, from the inputs to the last hidden layer, that take part (ANP); 1 in a dense network."""
    layers = model.sparse_layers
    return float(np.concatenate(active_neurons([layer.topology for layer in layers])).mean()) if layers else 1.0
