"""A trained network between its framework and the spiking graph: affine layers in float64, with their QCFS activations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from sparsespike.common.errors import ModelError

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class AffineLayer:
    """``x = W a + b``, then QCFS with threshold ``lam``; the readout has no activation.

    Parameters
    ----------
    name : str
        Name of the population that the layer becomes.
    weights : scipy CSR matrix of float64, shape (outputs, inputs)
        Rows are OUTPUTS, as in torch (a projection holds the transpose). Explicit zeros are dropped: a link whose weight is
        exactly zero carries nothing and is no synapse.
    bias : float64 array, shape (outputs,)
    lam : float or None
        Threshold of QCFS, positive; None for the readout.
    links : int
        Links that the layer was trained with, those with the weight zero included.

    Raises
    ------
    ModelError
        If a weight, bias or ``lam`` is not finite, or ``lam`` is not positive.
    """

    name: str
    weights: sp.csr_matrix
    bias: FloatArray
    lam: float | None
    links: int

    def __post_init__(self) -> None:
        weights = sp.csr_matrix(self.weights, dtype=np.float64)
        if not weights.has_canonical_format or not np.all(weights.data):
            weights = weights.copy()  # the steps below work in place
            weights.sum_duplicates()
            weights.eliminate_zeros()
        bias = np.asarray(self.bias, dtype=np.float64)
        for field, values in (("weights", weights.data), ("bias", bias)):
            bad = int(np.count_nonzero(~np.isfinite(values)))
            if bad:
                raise ModelError(
                    f"layer {self.name!r}, {field}: found {bad} of {values.size} values that are NaN or infinite, "
                    "expected finite ones; train again with a smaller learning rate"
                )
        if bias.shape != (weights.shape[0],):
            raise ModelError(f"layer {self.name!r}, bias: found shape {bias.shape}, expected ({weights.shape[0]},)")
        if self.lam is not None and not (np.isfinite(self.lam) and self.lam > 0):
            raise ModelError(
                f"layer {self.name!r}: found the QCFS threshold lambda = {self.lam}, expected a finite value > 0; "
                "a threshold that is not positive would fire at every step: train again with a larger initial lambda"
            )
        object.__setattr__(self, "weights", weights)
        object.__setattr__(self, "bias", bias)

    @property
    def fan_in(self) -> NDArray[np.int64]:
        """Links of each output, shape (outputs,)."""
        return np.diff(self.weights.indptr).astype(np.int64)

    @property
    def fan_out(self) -> NDArray[np.int64]:
        """Links of each input, shape (inputs,)."""
        return np.bincount(self.weights.indices, minlength=self.weights.shape[1]).astype(np.int64)

    def drive(self, inputs: NDArray[Any]) -> FloatArray:
        """Pre-activations of a batch: (B, inputs) to (B, outputs)."""
        return np.asarray((self.weights @ inputs.T).T + self.bias, dtype=np.float64)


def qcfs_levels(x: FloatArray, lam: float, levels: int) -> NDArray[np.int64]:
    """Integer level n of QCFS, whose output is ``lam * n / L`` (Bu et al. 2022): ``n = floor(clip(x / lam, 0, 1) * L + 1/2)``."""
    return np.asarray(np.floor(np.clip(x / lam, 0.0, 1.0) * levels + 0.5), dtype=np.int64)


def fold_input(layer: AffineLayer, slope: FloatArray, offset: FloatArray) -> AffineLayer:
    """The layer that takes integers p where ``layer`` takes ``p * slope + offset``; both of shape (inputs,).

    ``W (p slope + offset) + b = (W diag(slope)) p + (b + W offset)``: the offset becomes a bias of each neuron, through the links
    that the neuron has.
    """
    return replace(layer, weights=sp.csr_matrix(layer.weights @ sp.diags(slope)), bias=layer.bias + layer.weights @ offset)


@dataclass(frozen=True, eq=False)
class FoldedNetwork:
    """A network without the hidden neurons that have no input.

    Attributes
    ----------
    layers : tuple of AffineLayer
    kept : tuple of int64 arrays
        For each layer the indices of its outputs that remain.
    silent, folded : tuple of int
        For each layer, removed outputs whose constant value was zero, and was not.
    links_removed : tuple of int
        For each layer, links lost because they came from a removed neuron of the layer before.
    """

    layers: tuple[AffineLayer, ...]
    kept: tuple[NDArray[np.int64], ...]
    silent: tuple[int, ...]
    folded: tuple[int, ...]
    links_removed: tuple[int, ...]


def fold_constants(layers: Sequence[AffineLayer], levels: int) -> FoldedNetwork:
    """Remove hidden neurons without fan-in (percolation leaves them behind), and fold their output into the next biases.

    Such a neuron's pre-activation is its bias b, whatever the image: in the ANN it outputs the constant ``lam n / L`` with
    ``n = qcfs_levels(b)``; as an integrate-and-fire neuron it would fire n times in L steps. Over time that is a rate, so what it
    sends along a link of weight w averages ``w lam n / L`` a step, and exactly this constant joins the next neuron's bias,
    which is added every step. The sum over T = L steps is the same; only the unevenness of the spikes is gone. With n = 0 nothing
    is folded. Removing links may leave a neuron of the next layer without fan-in; going from the input on, those are found too.

    Raises
    ------
    ModelError
        If a hidden layer, or the readout, has no link left: the network's output would not depend on its input.
    """
    remaining = list(layers)
    kept, silent, folded, links_removed = [], [], [], [0]
    for position, layer in enumerate(remaining):
        if layer.weights.nnz == 0:
            raise ModelError(f"layer {layer.name!r}: found no link that leads to the input, expected at least one")
        if layer.lam is None:
            kept.append(np.arange(layer.weights.shape[0]))
            silent.append(0)
            folded.append(0)
            continue
        alive = layer.fan_in > 0
        level = np.where(alive, 0, qcfs_levels(layer.bias, layer.lam, levels))
        following = remaining[position + 1]
        remaining[position] = replace(layer, weights=layer.weights[alive], bias=layer.bias[alive])
        remaining[position + 1] = replace(
            following,
            weights=following.weights[:, alive],
            bias=following.bias + following.weights @ (layer.lam * level / levels),
        )
        kept.append(np.flatnonzero(alive))
        silent.append(int(np.count_nonzero(~alive & (level == 0))))
        folded.append(int(np.count_nonzero(level)))
        links_removed.append(following.weights.nnz - remaining[position + 1].weights.nnz)
    return FoldedNetwork(tuple(remaining), tuple(kept), tuple(silent), tuple(folded), tuple(links_removed))
