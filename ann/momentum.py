"""The momentum of stochastic gradient descent as named tensors, one value a link, whatever form sparse layers have."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from sparsespike.ann.sparse import SparseLayer


def momentum_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The momentum of every parameter that has one, by the parameter's name in ``model.state_dict()``."""
    tensors = {}
    for name, parameter, layer in _parameters(model):
        momentum = optimizer.state.get(parameter, {}).get("momentum_buffer")
        if momentum is not None:
            tensors[name] = momentum if layer is None else layer.gather(momentum)
    return tensors


def restore_momentum(model: nn.Module, optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Take the momentum that :func:`momentum_tensors` gave for a model with the same links."""
    for name, parameter, layer in _parameters(model):
        if name in tensors:
            momentum = tensors[name].to(parameter.device)
            optimizer.state[parameter]["momentum_buffer"] = momentum if layer is None else layer.scatter(momentum)


def _parameters(model: nn.Module) -> Iterator[tuple[str, nn.Parameter, SparseLayer | None]]:
    """Every parameter with its saved name, and the layer whose links it holds, if any."""
    layers = [(name, module) for name, module in model.named_modules() if isinstance(module, SparseLayer)]
    links = {id(layer.parameter): (f"{name}.values", layer) for name, layer in layers}
    for name, parameter in model.named_parameters():
        saved, layer = links.get(id(parameter), (name, None))
        yield saved, parameter, layer
