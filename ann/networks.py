"""The networks that training knows: from settings or a file's description to a module."""

from __future__ import annotations

from typing import Any

from sparsespike.ann.config import TrainConfig
from sparsespike.ann.convnets import ConvNet, ConvNetSpec
from sparsespike.ann.models import MLP, MLPSpec

Network = MLP | ConvNet
Spec = MLPSpec | ConvNetSpec


def spec_of(config: TrainConfig, shape: tuple[int, int, int], classes: int) -> Spec:
    """Describe the network of a training run for images of ``shape`` (C, y, x)."""
    sparse = config.sparsity > 0
    if config.model == "mlp":
        widths = (shape[0] * shape[1] * shape[2], *config.hidden, classes)
        return MLPSpec(widths, sparse, config.activation, config.levels, config.lam, config.dropout)
    return ConvNetSpec(
        config.model,
        shape,
        classes,
        config.width,
        sparse,
        config.sparse_stem,
        config.activation,
        config.levels,
        config.lam,
        config.dropout,
    )


def spec_from_dict(fields: dict[str, Any]) -> Spec:
    """Rebuild the description that ``spec.to_dict()`` gave.

    Raises
    ------
    ModelError
        If it is malformed.
    """
    return ConvNetSpec.from_dict(fields) if "model" in fields else MLPSpec.from_dict(fields)


def build(spec: Spec, *, masked: bool = False) -> Network:
    """Build the network; a sparse one starts without links.

    Parameters
    ----------
    spec : MLPSpec or ConvNetSpec
    masked : bool
        Whether sparse linear layers take the masked dense form (convolutions always do); see
        :func:`sparsespike.ann.masks.takes_masks`.
    """
    return MLP(spec, masked=masked) if isinstance(spec, MLPSpec) else ConvNet(spec)
