"""Masked dense layers: a full array of weights that is zero wherever the topology has no link.

The form for convolutions, and for linear layers where CSR loses: on a GPU, and at high density. Weights, gradients and
momentum are exactly zero outside the mask, so a network trains as its truly sparse form does, and one update of the topology
from equal weights gives equal links.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.grad import conv2d_weight

from sparsespike.ann.sparse import LinkGradient, SparseLayer, SparseLinear, initialise, link_std, outer_product
from sparsespike.ann.topology import Topology, conv_mask, swi_std
from sparsespike.ann.topology.conv_evolution import ConvShape


class MaskedLayer(SparseLayer):
    """A full array of weights and a mask of the same shape; its flattened order is the topology's link order.

    Attributes
    ----------
    weight : Parameter
        Zero outside the mask.
    mask : Tensor bool
    """

    mask: Tensor

    def __init__(self, topology: Topology, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(shape))
        self._adopt(topology)

    @property
    def topology(self) -> Topology:
        return self._topology

    @property
    def parameter(self) -> nn.Parameter:
        return self.weight

    def gather(self, tensor: Tensor) -> Tensor:
        return tensor[self.mask]

    def scatter(self, values: Tensor) -> Tensor:
        full = values.new_zeros(self.mask.shape)
        full[self.mask] = values
        return full

    @property
    def effective(self) -> Tensor:
        """The weights times the mask: the product keeps the gradient of absent links at zero, and so their momentum."""
        return self.weight * self.mask

    def _adopt(self, topology: Topology) -> None:
        self._topology = topology
        mask = torch.from_numpy(topology.to_dense()).reshape(self.weight.shape)
        self.register_buffer("mask", mask.to(self.weight.device), persistent=False)

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[f"{prefix}values"] = self.gather(destination.pop(f"{prefix}weight"))
        destination[f"{prefix}indptr"] = torch.from_numpy(self.topology.indptr)
        destination[f"{prefix}indices"] = torch.from_numpy(self.topology.indices)

    def _own_state(self, state_dict: dict[str, Any], prefix: str) -> dict[str, Any]:
        links = {f"{prefix}{name}" for name in ("values", "indptr", "indices")}
        own = {name: value for name, value in state_dict.items() if name not in links}
        if f"{prefix}values" in state_dict:
            own[f"{prefix}weight"] = self.scatter(state_dict[f"{prefix}values"].to(self.mask.device))
        return own


class MaskedLinear(MaskedLayer):
    """:class:`~sparsespike.ann.sparse.SparseLinear` as a full weight matrix times a mask.

    Parameters
    ----------
    topology : Topology
        Links, rows = outputs. All weights start at zero; :meth:`reset_parameters` draws those of the truly sparse form.

    Attributes
    ----------
    weight : Parameter [out_features, in_features]
    mask : Tensor [out_features, in_features] bool
    bias : Parameter [out_features]
    """

    def __init__(self, topology: Topology) -> None:
        super().__init__(topology, topology.shape)
        self.out_features, self.in_features = topology.shape
        self.bias = nn.Parameter(torch.zeros(self.out_features))

    @classmethod
    def from_sparse(cls, layer: SparseLinear) -> MaskedLinear:
        """The masked dense form of a sparse layer."""
        masked = cls(layer.topology)
        masked.load_state_dict(layer.state_dict())
        return masked

    def reset_parameters(self, generator: np.random.Generator) -> None:
        values = torch.empty(self.topology.nnz)
        initialise(values, self.bias, link_std(self.topology), self.in_features, generator)
        self.weight.data = self.scatter(values.to(self.weight.device))

    def link_gradient(self, x: Tensor, dy: Tensor) -> LinkGradient:
        return outer_product(x, dy)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[B, in_features]`` to ``[B, out_features]``."""
        return nn.functional.linear(x, self.effective, self.bias)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, links={self.topology.nnz}"


class MaskedConv2d(MaskedLayer):
    """A convolution with a mask and no bias (normalisation follows it); odd kernels are padded to keep the image's size.

    Its topology has one row for each output channel and one column for each of its ``c_in kh kw`` weights, the matrix that
    im2col multiplies with.

    Parameters
    ----------
    shape : (int, int, int, int)
        ``(c_out, c_in, kh, kw)``.
    stride : int
    topology : Topology, optional
        From :func:`~sparsespike.ann.topology.conv_er` or :func:`~sparsespike.ann.topology.conv_topology`; none without it,
        to be loaded or set.

    Attributes
    ----------
    weight : Parameter [c_out, c_in, kh, kw]
    mask : Tensor [c_out, c_in, kh, kw] bool

    Raises
    ------
    ModelError
        If the topology does not belong to that shape.
    """

    def __init__(self, shape: ConvShape, stride: int = 1, topology: Topology | None = None) -> None:
        topology = topology or Topology.from_links((shape[0], shape[1] * shape[2] * shape[3]), [])
        conv_mask(topology, shape)
        super().__init__(topology, shape)
        self.shape, self.stride, self.padding = shape, stride, (shape[2] // 2, shape[3] // 2)

    def reset_parameters(self, generator: np.random.Generator) -> None:
        values = torch.empty(self.topology.nnz)
        initialise(values, None, link_std(self.topology), self.topology.shape[1], generator)
        self.weight.data = self.scatter(values.to(self.weight.device))

    def link_gradient(self, x: Tensor, dy: Tensor) -> LinkGradient:
        full: Tensor = conv2d_weight(x, self.shape, dy, self.stride, self.padding)  # type: ignore[no-untyped-call]  # torch
        magnitude = full.abs().reshape(self.topology.shape).cpu().numpy()
        return lambda start, stop: magnitude[start:stop]

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[B, c_in, y, x]`` to ``[B, c_out, y', x']``."""
        return nn.functional.conv2d(x, self.effective, stride=self.stride, padding=self.padding)

    def extra_repr(self) -> str:
        return f"shape={self.shape}, stride={self.stride}, links={self.topology.nnz}"


class DenseConv2d(nn.Conv2d):
    """The dense counterpart of :class:`MaskedConv2d`: no bias, the image's size kept; zero until a generator is given."""

    def __init__(self, shape: ConvShape, stride: int = 1) -> None:
        padding = (shape[2] // 2, shape[3] // 2)
        super().__init__(shape[1], shape[0], (shape[2], shape[3]), stride, padding, bias=False)

    def reset_parameters(self, generator: np.random.Generator | None = None) -> None:
        """Variance 2 / fan-in."""
        if generator is None:
            nn.init.zeros_(self.weight)
        else:
            fan_in = self.weight[0].numel()
            initialise(self.weight, None, swi_std(fan_in, 0.0), fan_in, generator)
