"""Topology evolution of a network in training: initial links, and changes that weights and momentum follow."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from sparsespike.ann.config import TrainConfig
from sparsespike.ann.data import DataSplits
from sparsespike.ann.masked import MaskedConv2d
from sparsespike.ann.models import MLP, MLPSpec
from sparsespike.ann.networks import Network, Spec, build
from sparsespike.ann.sparse import LinkGradient, carry
from sparsespike.ann.topology import (
    EvolutionConfig,
    LayerUpdate,
    Topology,
    active_neurons,
    brf,
    bsw,
    conv_er,
    csti,
    er,
    evolve,
    evolve_conv,
    feature_correlation,
    initial_sparsity,
)
from sparsespike.ann.topology.conv import ConvMode

CHUNK = 2000
Gradients = list[LinkGradient]
"""One for each sparse layer."""


def initial_topologies(config: TrainConfig, spec: Spec, splits: DataSplits, generator: np.random.Generator) -> list[Topology]:
    """Draw the initial links of every sparse layer.

    CSTI correlates the pixels of the training images as they are, without augmentation.
    """
    sparsity = initial_sparsity(config.evolution_config(), config.sparsity)
    if not isinstance(spec, MLPSpec):
        return [conv_er(layer.shape, sparsity, generator) for layer in _convolutions(build(spec))]
    shapes = spec.shapes[:-1]
    if config.topology == "csti":
        pixels = splits.train.images.reshape(len(splits.train), -1)
        correlation = feature_correlation(pixels[start : start + CHUNK] for start in range(0, len(pixels), CHUNK))
        return [csti(correlation, shape, sparsity, generator) for shape in shapes]
    random = {"er": er, "bsw": bsw, "brf": brf}[config.topology]
    return [random(shape, sparsity, generator) for shape in shapes]


def evolve_model(
    model: Network,
    optimizer: torch.optim.Optimizer,
    config: EvolutionConfig,
    progress: float,
    generator: np.random.Generator,
    gradients: Gradients | None = None,
    conv_mode: ConvMode = "kernel",
) -> tuple[float, bool]:
    """Change the topology of all sparse layers together, in place.

    Kept links carry their weight and momentum; links that were absent start with zero weight and zero momentum.

    Parameters
    ----------
    model, optimizer
        The network, and the stochastic gradient descent on its parameters.
    config, progress, generator, gradients
        See :func:`sparsespike.ann.topology.evolve`; for convolutions :func:`sparsespike.ann.topology.evolve_conv`.
    conv_mode : str
        How convolutions are scored; those of 1 x 1 always as a linear layer, for within a kernel of one weight there is
        nothing to score.

    Returns
    -------
    overlap : float
        Share of the added links that this update had removed.
    settled : bool
        Whether the configuration's early stop ends the evolution.
    """
    layers = model.sparse_layers
    weights = [layer.gather(layer.parameter.detach()).cpu().numpy() for layer in layers]
    if isinstance(model, MLP):
        update = evolve([layer.topology for layer in layers], weights, config, progress, generator, gradients=gradients)
        changes, settled = list(update.layers), update.early_stop
    else:
        changes = _evolve_convolutions(model, weights, config, progress, generator, gradients, conv_mode)
        stop = config.early_stop
        settled = stop is not None and all(change.statistics.overlap > stop for change in changes)
    for layer, change in zip(layers, changes, strict=True):
        state = optimizer.state.get(layer.parameter, {})
        momentum = state.get("momentum_buffer")
        carried = None if momentum is None else carry(layer.gather(momentum), change.source)
        layer.set_topology(change.topology, change.source)
        layer.parameter.grad = None
        if carried is not None:
            state["momentum_buffer"] = layer.scatter(carried)
    regrown = sum(change.statistics.regrown for change in changes)
    reselected = sum(change.statistics.reselected for change in changes)
    return reselected / regrown if regrown else 0.0, settled


def _evolve_convolutions(
    model: Network,
    weights: list[npt.NDArray[np.float32]],
    config: EvolutionConfig,
    progress: float,
    generator: np.random.Generator,
    gradients: Gradients | None,
    mode: ConvMode,
) -> list[LayerUpdate]:
    changes = []
    for position, layer in enumerate(_convolutions(model)):
        c_out, _, *taps = layer.shape
        changes.append(
            evolve_conv(
                layer.topology,
                layer.shape,
                weights[position],
                config,
                progress,
                generator,
                mode="im2col" if math.prod(taps) == 1 else mode,
                gradient=None if gradients is None else gradients[position](0, c_out).reshape(layer.shape),
            )
        )
    return changes


def _convolutions(model: Network) -> list[MaskedConv2d]:
    return [layer for layer in model.sparse_layers if isinstance(layer, MaskedConv2d)]


def link_gradients(model: Network, x: Tensor, targets: Tensor) -> Gradients:
    """Magnitude of the loss gradient of every possible link, absent ones included, for one batch.

    Nothing of the model changes, the running statistics of normalisation included.
    """
    layers = model.sparse_layers
    seen: dict[nn.Module, tuple[Tensor, Tensor]] = {}

    def record(layer: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        seen[layer] = args[0].detach(), output

    hooks = [layer.register_forward_hook(record) for layer in layers]
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.track_running_stats = False  # the statistics of the batch, as in training, without a trace
    try:
        loss = nn.functional.cross_entropy(model(x), targets)
    finally:
        for hook in hooks:
            hook.remove()
        for norm in norms:
            norm.track_running_stats = True
    slopes = torch.autograd.grad(loss, [seen[layer][1] for layer in layers])
    return [layer.link_gradient(seen[layer][0], dy) for layer, dy in zip(layers, slopes, strict=True)]


def sparsity(model: Network) -> float:
    """Fraction of absent links over the layers that hold a topology; 0 without any."""
    topologies = [layer.topology for layer in model.sparse_layers]
    possible = sum(math.prod(topology.shape) for topology in topologies)
    return 1 - sum(topology.nnz for topology in topologies) / possible if possible else 0.0


def parameter_count(model: Network) -> int:
    """Number of trained values, of sparse layers those of the links only."""
    absent = sum(layer.parameter.numel() - layer.topology.nnz for layer in model.sparse_layers)
    return sum(parameter.numel() for parameter in model.parameters()) - absent


def active_share(model: Network) -> float:
    """Fraction of neurons that take part (ANP); 1 in a dense network.

    In an MLP those from the inputs to the last hidden layer, by percolation. Convolutions are not percolated: there it is the
    fraction of their input and output channels that have a weight.
    """
    if not model.sparse_layers:
        return 1.0
    if isinstance(model, MLP):
        return float(np.concatenate(active_neurons([layer.topology for layer in model.sparse_layers])).mean())
    flags = []
    for layer in _convolutions(model):
        kernels = layer.mask.any(dim=(2, 3)).cpu().numpy()
        flags += [kernels.any(axis=0), kernels.any(axis=1)]
    return float(np.concatenate(flags).mean())
