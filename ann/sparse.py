"""Layers that hold a topology, and linear ones that do not.

:class:`SparseLayer` is what evolution knows of a layer, however it stores its weights: :class:`SparseLinear` keeps one value
a link; :mod:`sparsespike.ann.masked` keeps a full array that is zero outside a mask. All forms have one saved state.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from sparsespike.ann.kernels import Pattern, sparse_linear
from sparsespike.ann.topology import Topology, swi_std
from sparsespike.common.errors import ModelError

LinkGradient = Callable[[int, int], npt.NDArray[Any]]
"""``gradient(start, stop)``: magnitude of the loss gradient of every possible link of outputs start .. stop - 1."""


class SparseLayer(nn.Module):
    """A layer whose weights are the links of a topology, rows = outputs.

    Its saved state holds ``values`` (one weight a link, in link order), ``indptr`` and ``indices``.
    """

    @property
    @abstractmethod
    def topology(self) -> Topology:
        """The links."""

    @property
    @abstractmethod
    def parameter(self) -> nn.Parameter:
        """The parameter that holds the links' weights."""

    @abstractmethod
    def gather(self, tensor: Tensor) -> Tensor:
        """The entries of the links ``[nnz]``, in link order, of a tensor laid out as the parameter is."""

    @abstractmethod
    def scatter(self, values: Tensor) -> Tensor:
        """Inverse of :meth:`gather`: a tensor laid out as the parameter, zero where there is no link."""

    @abstractmethod
    def reset_parameters(self, generator: np.random.Generator) -> None:
        """Sparse weight initialisation (:func:`~sparsespike.ann.topology.swi_std`), and torch's usual biases."""

    @abstractmethod
    def link_gradient(self, x: Tensor, dy: Tensor) -> LinkGradient:
        """Gradient of every possible link, absent ones included, from an input and the gradient of its output."""

    @abstractmethod
    def _adopt(self, topology: Topology) -> None:
        """Take a topology; the parameter is replaced by the caller."""

    def reset_topology(self, topology: Topology) -> None:
        """Replace the links; all weights start at zero."""
        self._check(topology)
        self._adopt(topology)
        self.parameter.data = self.scatter(self.parameter.data.new_zeros(topology.nnz))

    def set_topology(self, topology: Topology, source: npt.NDArray[np.int64]) -> None:
        """Replace the links; kept ones carry their weight, new ones start at zero.

        Parameters
        ----------
        topology : Topology
            Of the same shape; the number of links may differ.
        source : array [nnz] int64
            For each new link its position among the old ones, or -1 for a link that was absent.
        """
        self._check(topology)
        values = carry(self.gather(self.parameter.data), source)
        self._adopt(topology)
        self.parameter.data = self.scatter(values)

    def _check(self, topology: Topology) -> None:
        if topology.shape != self.topology.shape:
            raise ModelError(f"layer of shape {self.topology.shape} got a topology of shape {topology.shape}; expected the same")

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        # The saved topology, with its own number of links, is adopted before torch compares the shapes.
        indptr, indices = state_dict.get(f"{prefix}indptr"), state_dict.get(f"{prefix}indices")
        if indptr is not None and indices is not None:
            self.reset_topology(Topology(self.topology.shape, indptr.cpu().numpy(), indices.cpu().numpy()))
        super()._load_from_state_dict(self._own_state(state_dict, prefix), prefix, *args)

    def _own_state(self, state_dict: dict[str, Any], prefix: str) -> dict[str, Any]:
        """The saved state by the names of this form's parameters and buffers."""
        return state_dict


class SparseLinear(SparseLayer):
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
        initialise(self.values, self.bias, link_std(self.topology), self.in_features, generator)

    @property
    def topology(self) -> Topology:
        return self._pattern.topology

    @property
    def parameter(self) -> nn.Parameter:
        return self.values

    def gather(self, tensor: Tensor) -> Tensor:
        return tensor

    def scatter(self, values: Tensor) -> Tensor:
        return values

    def link_gradient(self, x: Tensor, dy: Tensor) -> LinkGradient:
        return outer_product(x, dy)

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


def link_std(topology: Topology) -> float:
    """Standard deviation of the initial weights of a topology's links; 0 without any."""
    return swi_std(topology.shape[1], 1 - topology.density) if topology.nnz else 0.0


def initialise(weight: Tensor, bias: Tensor | None, std: float, fan_in: int, generator: np.random.Generator) -> None:
    """Draw ``weight ~ N(0, std^2)`` and ``bias ~ U(-1/sqrt(fan_in), 1/sqrt(fan_in))`` in place."""
    bound = fan_in**-0.5
    with torch.no_grad():
        weight.copy_(torch.from_numpy(generator.standard_normal(weight.shape, np.float32) * np.float32(std)))
        if bias is not None:
            bias.copy_(torch.from_numpy(generator.uniform(-bound, bound, bias.shape)))


def carry(values: Tensor, source: npt.NDArray[np.int64]) -> Tensor:
    """Values of the links after a change of topology: ``values[source]``, zero where ``source`` is -1."""
    index = torch.from_numpy(source).to(values.device)
    return torch.where(index >= 0, values[index.clamp(min=0)], values.new_zeros(()))


def outer_product(x: Tensor, dy: Tensor) -> LinkGradient:
    """Rows of ``|dy x^T|`` for a linear layer's input ``[B, n]``: the full matrix is never held."""
    inputs, slopes = x.cpu().numpy(), dy.t().cpu().numpy()
    return lambda start, stop: np.abs(slopes[start:stop] @ inputs)
