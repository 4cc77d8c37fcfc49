"""The state of an optimizer as named tensors, one value a link, whatever form sparse layers have."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from sparsespike.ann.sparse import SparseLayer

SLOTS = {"momentum_buffer": "", "exp_avg": "exp_avg.", "exp_avg_sq": "exp_avg_sq.", "step": "step."}
"""What stochastic gradient descent and Adam keep of a parameter, and the prefix of the parameter's name for it."""


def momentum_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's state of every parameter that has one, by the parameter's name in ``model.state_dict()``."""
    tensors = {}
    for name, parameter, layer in _parameters(model):
        for slot, prefix in SLOTS.items():
            value = optimizer.state.get(parameter, {}).get(slot)
            if value is not None:
                tensors[prefix + name] = layer.gather(value) if layer is not None and value.ndim else value
    return tensors


def restore_momentum(model: nn.Module, optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Take the state that :func:`momentum_tensors` gave for a model with the same links."""
    for name, parameter, layer in _parameters(model):
        for slot, prefix in SLOTS.items():
            if prefix + name in tensors:
                value = tensors[prefix + name].to(parameter.device)
                optimizer.state[parameter][slot] = layer.scatter(value) if layer is not None and value.ndim else value


def _parameters(model: nn.Module) -> Iterator[tuple[str, nn.Parameter, SparseLayer | None]]:
    """Every parameter with its saved name, and the layer whose links it holds, if any."""
    layers = [(name, module) for name, module in model.named_modules() if isinstance(module, SparseLayer)]
    links = {id(layer.parameter): (f"{name}.values", layer) for name, layer in layers}
    for name, parameter in model.named_parameters():
        saved, layer = links.get(id(parameter), (name, None))
        yield saved, parameter, layer
