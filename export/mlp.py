"""Multilayer perceptrons out of PyTorch: the layers of a trained model in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp
from torch import Tensor, nn

from sparsespike.ann.activations import LAMBDA_MIN, QCFS
from sparsespike.ann.models import MLP
from sparsespike.ann.sparse import SparseLinear
from sparsespike.common.errors import ModelError
from sparsespike.export.affine import AffineLayer, FloatArray


def read_mlp(model: nn.Module) -> tuple[list[AffineLayer], int]:
    """The layers ``hidden1`` ... and ``readout`` of a multilayer perceptron with QCFS activations, and its quantisation steps L.

    Raises
    ------
    ModelError
        If a layer or activation is not one that QCFS conversion knows, or a value is not finite.
    """
    if not isinstance(model, MLP):
        raise ModelError(f"model: found {type(model).__name__}, expected an MLP; other networks cannot be converted with QCFS")
    levels = set()
    layers = []
    for position, layer in enumerate(model.layers):
        lam = None
        name = "readout"
        if position < len(model.activations):
            name = f"hidden{position + 1}"
            activation = model.activations[position]
            if not isinstance(activation, QCFS):
                raise ModelError(
                    f"layer {name!r}: found the activation {type(activation).__name__}, expected QCFS; train the model with "
                    "activation='qcfs', or convert it with another method"
                )
            levels.add(activation.levels)
            lam = float(activation.lam.detach())
            # A forward pass clamps a small lambda; one that training left at or below zero is refused by AffineLayer.
            lam = max(lam, LAMBDA_MIN) if lam > 0 else lam
        weights, links = _weights(name, layer)
        layers.append(AffineLayer(name, weights, _bias(layer), lam, links))
    if len(levels) != 1:
        raise ModelError(f"model: found QCFS levels {sorted(levels)}, expected one L for at least one hidden layer")
    return layers, levels.pop()


def _weights(name: str, layer: nn.Module) -> tuple[sp.csr_matrix, int]:
    """Weights, rows = outputs, and the number of links, those with the weight zero included."""
    if isinstance(layer, SparseLinear):
        topology = layer.topology
        return sp.csr_matrix((_numbers(layer.values), topology.indices, topology.indptr), shape=topology.shape), topology.nnz
    if isinstance(layer, nn.Linear):
        return sp.csr_matrix(_numbers(layer.weight)), layer.in_features * layer.out_features
    raise ModelError(f"layer {name!r}: found {type(layer).__name__}, expected SparseLinear or Linear")


def _bias(layer: Any) -> FloatArray:
    return np.zeros(layer.out_features) if layer.bias is None else _numbers(layer.bias)


def _numbers(tensor: Tensor) -> FloatArray:
    return np.asarray(tensor.detach().cpu().numpy(), dtype=np.float64)
