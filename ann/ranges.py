"""How large the values of a network get on images: where thresholds start."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from sparsespike.common.errors import ModelError


def ranges(model: nn.Module, x: Tensor, types: tuple[type[nn.Module], ...], percentile: float) -> list[float]:
    """The percentile of the positive outputs of every module of these types.

    Parameters
    ----------
    model : Module
    x : Tensor ``[B, inputs]``
        Real inputs, of training images.
    types : tuple of module classes
    percentile : float
        Above 0 to 100, which is the largest.

    Returns
    -------
    list of float
        In the order of ``model.modules()``.

    Raises
    ------
    ModelError
        If no output of a module is positive.
    """
    found: dict[nn.Module, float] = {}

    def note(module: nn.Module, _: tuple[Tensor, ...], output: Tensor) -> None:
        values = output.detach().cpu().numpy()
        positive = values[values > 0]
        found[module] = float(np.percentile(positive, percentile)) if positive.size else 0.0

    modules = [(name, module) for name, module in model.named_modules() if isinstance(module, types)]
    hooks = [module.register_forward_hook(note) for _, module in modules]
    was_training = model.training
    try:
        model.eval()
        with torch.no_grad():
            model(x)
    finally:
        for hook in hooks:
            hook.remove()
        model.train(was_training)
    for name, module in modules:
        if not found[module] > 0:
            raise ModelError(
                f"layer {name!r}: found no positive value on {len(x)} training images, expected some; a dead layer cannot be "
                "fine-tuned: train the network again"
            )
    return [found[module] for _, module in modules]
