"""Linear layers with a topology: truly sparse (one value a link), and masked dense (a full matrix times a mask)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from sparsespike.ann.kernels import Pattern, sparse_linear
from sparsespike.ann.topology import Topology, swi_std
from sparsespike.common.errors import ModelError


class SparseLinear(nn.Module):
    """A linear layer that stores and trains only its links.

    Parameters
    ----------
    topology : Topology
        Links, rows = outputs. All values start at zero; see :meth:`reset_parameters`.
    kernel : str
        See :func:`sparsespike.ann.kernels.sparse_linear`.

    Attributes
    ----------
    values : Parameter [nnz]
        Weights in CSR order.
    bias : Parameter [out_features]
    indptr, indices : Tensor
        The topology (int64 ``[out_features + 1]``, int32 ``[nnz]``), part of the state.
    """

    indptr: Tensor
    indices: Tensor

    def __init__(self, topology: Topology, kernel: str = "auto") -> None:
        super().__init__()
        self.out_features, self.in_features = topology.shape
        self.kernel = kernel
        self.values = nn.Parameter(torch.zeros(topology.nnz))
        self.bias = nn.Parameter(torch.zeros(self.out_features))
        self._adopt(topology)

    def reset_parameters(self, generator: np.random.Generator) -> None:
        """Sparse weight initialisation (:func:`~sparsespike.ann.topology.swi_std`), and torch's usual biases."""
        std = swi_std(self.in_features, 1 - self.topology.density) if self.topology.nnz else 0.0
        initialise(self.values, self.bias, std, self.in_features, generator)

    @property
    def topology(self) -> Topology:
        """The links."""
        return self._pattern.topology

    def set_topology(self, topology: Topology, source: npt.NDArray[np.int64]) -> None:
        """Replace the links; kept ones carry their value, new ones start at zero.

        Parameters
        ----------
        topology : Topology
            Of the same shape; the number of links may differ.
        source : array [nnz] int64
            For each new link its position among the old ones, or -1 for a link that was absent.
        """
        if topology.shape != self.topology.shape:
            raise ModelError(f"layer of shape {self.topology.shape} got a topology of shape {topology.shape}; expected the same")
        self.values.data = carry(self.values.data, source)
        self._adopt(topology)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[B, in_features]`` to ``[B, out_features]``."""
        return sparse_linear(x, self.values, self.bias, self._pattern, self.kernel)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, links={len(self.values)}"

    def _adopt(self, topology: Topology) -> None:
        self._pattern = Pattern(topology)
        device = self.values.device
        self.register_buffer("indptr", torch.from_numpy(topology.indptr).to(device))
        self.register_buffer("indices", torch.from_numpy(topology.indices).to(device))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        # The saved topology, with its own number of links, is adopted before torch compares the shapes.
        indptr, indices = state_dict.get(f"{prefix}indptr"), state_dict.get(f"{prefix}indices")
        if indptr is not None and indices is not None:
            topology = Topology(self.topology.shape, indptr.cpu().numpy(), indices.cpu().numpy())
            self.values.data = self.values.data.new_zeros(topology.nnz)
            self._adopt(topology)
        super()._load_from_state_dict(state_dict, prefix, *args)


class DenseLinear(nn.Linear):
    """``torch.nn.Linear`` for feature-major activations: inputs and outputs are transposed views, as of :class:`SparseLinear`.

    For the ten rows of a classifier this is ten times faster than the same product on a transposed view of its input.
    """

    def reset_parameters(self, generator: np.random.Generator | None = None) -> None:
        """Variance 2 / fan-in, and torch's usual biases; left at zero until a generator is given."""
        if generator is None:
            nn.init.zeros_(self.weight)
            nn.init.zeros_(self.bias)
        else:
            initialise(self.weight, self.bias, swi_std(self.in_features, 0.0), self.in_features, generator)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[B, in_features]`` to ``[B, out_features]``."""
        return torch.addmm(self.bias[:, None], self.weight, x.t()).t()


class MaskedLinear(nn.Module):
    """The same layer as a full weight matrix times a mask: the reference for tests, and the faster form on a GPU.

    Attributes
    ----------
    weight : Parameter [out_features, in_features]
    mask : Tensor [out_features, in_features] bool
    bias : Parameter [out_features]
    """

    mask: Tensor

    def __init__(self, topology: Topology) -> None:
        super().__init__()
        self.out_features, self.in_features = topology.shape
        self.register_buffer("mask", torch.from_numpy(topology.to_dense()))
        self.weight = nn.Parameter(torch.zeros(topology.shape))
        self.bias = nn.Parameter(torch.zeros(self.out_features))

    @classmethod
    def from_sparse(cls, layer: SparseLinear) -> MaskedLinear:
        """The masked dense form of a sparse layer."""
        masked = cls(layer.topology)
        with torch.no_grad():
            masked.weight[masked.mask] = layer.values
            masked.bias.copy_(layer.bias)
        return masked

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[B, in_features]`` to ``[B, out_features]``."""
        return nn.functional.linear(x, self.weight * self.mask, self.bias)


def initialise(weight: Tensor, bias: Tensor, std: float, in_features: int, generator: np.random.Generator) -> None:
    """Draw ``weight ~ N(0, std^2)`` and ``bias ~ U(-1/sqrt(in_features), 1/sqrt(in_features))`` in place."""
    bound = in_features**-0.5
    with torch.no_grad():
        weight.copy_(torch.from_numpy(generator.standard_normal(weight.shape, np.float32) * np.float32(std)))
        bias.copy_(torch.from_numpy(generator.uniform(-bound, bound, bias.shape)))


def carry(values: Tensor, source: npt.NDArray[np.int64]) -> Tensor:
    """Values of the links after a change of topology: ``values[source]``, zero where ``source`` is -1."""
    index = torch.from_numpy(source).to(values.device)
    return torch.where(index >= 0, values[index.clamp(min=0)], values.new_zeros(()))
