"""The three products of a sparse linear layer: forward, gradient to the input, gradient to the weights.

Two implementations of one interface: ``numba`` (float32 on a CPU, the fast one) and ``torch`` (CSR tensors and
``sampled_addmm``; any device and dtype, the reference). Neither holds an array of outputs x inputs.

Activations are feature-major inside, ``[neurons, batch]`` and contiguous; outside they are the transposed view
``[batch, neurons]``, which element-wise functions keep, so nothing is copied between layers.
"""

from __future__ import annotations

import warnings
from functools import cached_property
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sparsespike.ann import _csr_numba
from sparsespike.ann.topology.pattern import Topology
from sparsespike.common.errors import ConfigError

KERNELS = ("auto", "numba", "torch")
LANES = 32


class Transpose(NamedTuple):
    """A pattern read by inputs: CSR with rows = inputs, and where each of its links lies in the values."""

    indptr: npt.NDArray[np.int64]
    indices: npt.NDArray[np.int32]
    order: npt.NDArray[np.int64]


class Pattern:
    """A topology with what the kernels derive from it, each computed once and only when needed."""

    def __init__(self, topology: Topology) -> None:
        self.topology = topology

    @cached_property
    def rows(self) -> npt.NDArray[np.int32]:
        """Output of each link ``[nnz]``."""
        return np.repeat(np.arange(self.topology.shape[0], dtype=np.int32), np.diff(self.topology.indptr))

    @cached_property
    def transpose(self) -> Transpose:
        """The pattern read by inputs."""
        order = np.argsort(self.topology.indices, kind="stable")
        counts = np.bincount(self.topology.indices, minlength=self.topology.shape[1])
        return Transpose(np.concatenate([[0], np.cumsum(counts)]), self.rows[order], order)


class Kernel(Protocol):
    """Products of the weights W ``[m, n]``, given by ``values`` on the links of a pattern, with feature-major activations."""

    def forward(self, pattern: Pattern, values: Tensor, bias: Tensor, x: Tensor) -> Tensor:
        """``W x + bias``: x ``[n, B]`` to ``[m, B]``."""
        ...

    def backward(
        self, pattern: Pattern, values: Tensor, x: Tensor, dy: Tensor, *, input_grad: bool
    ) -> tuple[Tensor | None, Tensor]:
        """``W^T dy`` ``[n, B]`` (none unless ``input_grad``) and ``dy x^T`` on the links ``[nnz]``."""
        ...


class NumbaKernel:
    """Compiled loops over links with the batch in vector registers; float32 on the CPU."""

    def forward(self, pattern: Pattern, values: Tensor, bias: Tensor, x: Tensor) -> Tensor:
        topology = pattern.topology
        batch = x.shape[1]
        x = _padded(x)
        y = torch.empty(topology.shape[0], x.shape[1])
        _csr_numba.forward(topology.indptr, topology.indices, values.numpy(), bias.numpy(), x.numpy(), y.numpy())
        return y[:, :batch].contiguous()

    def backward(
        self, pattern: Pattern, values: Tensor, x: Tensor, dy: Tensor, *, input_grad: bool
    ) -> tuple[Tensor | None, Tensor]:
        batch = x.shape[1]
        x, dy = _padded(x), _padded(dy)
        grad = torch.empty_like(values)
        if not input_grad:
            topology = pattern.topology
            _csr_numba.backward_values(topology.indptr, topology.indices, x.numpy(), dy.numpy(), grad.numpy())
            return None, grad
        dx = torch.empty_like(x)
        _csr_numba.backward(*pattern.transpose, values.numpy(), x.numpy(), dy.numpy(), dx.numpy(), grad.numpy())
        return dx[:, :batch].contiguous(), grad


class TorchKernel:
    """torch's CSR products and ``torch.sparse.sampled_addmm``."""

    def forward(self, pattern: Pattern, values: Tensor, bias: Tensor, x: Tensor) -> Tensor:
        topology = pattern.topology
        weight = _csr(topology.indptr, topology.indices, values, topology.shape)
        return torch.addmm(bias[:, None], weight, x)

    def backward(
        self, pattern: Pattern, values: Tensor, x: Tensor, dy: Tensor, *, input_grad: bool
    ) -> tuple[Tensor | None, Tensor]:
        topology = pattern.topology
        m, n = topology.shape
        zero = _csr(topology.indptr, topology.indices, torch.zeros_like(values), (m, n))
        grad = torch.sparse.sampled_addmm(zero, dy, x.t()).values()
        if not input_grad:
            return None, grad
        indptr, indices, order = pattern.transpose
        transposed = _csr(indptr, indices, values[torch.from_numpy(order).to(values.device)], (n, m))
        return transposed @ dy, grad


_KERNELS: dict[str, Kernel] = {"numba": NumbaKernel(), "torch": TorchKernel()}


def sparse_linear(x: Tensor, values: Tensor, bias: Tensor, pattern: Pattern, kernel: str = "auto") -> Tensor:
    """Apply a sparse linear layer, differentiable in ``x``, ``values`` and ``bias``.

    Parameters
    ----------
    x : Tensor [B, n]
    values : Tensor [nnz]
        Weights in the pattern's link order.
    bias : Tensor [m]
    pattern : Pattern
        Rows = outputs.
    kernel : str
        ``numba``, ``torch``, or ``auto``: numba for float32 on the CPU, torch for anything else.

    Returns
    -------
    Tensor [B, m]
        A transposed view of a contiguous ``[m, B]`` tensor.

    Raises
    ------
    ConfigError
        If the kernel is unknown, or cannot work on these tensors.
    """
    fits = x.device.type == "cpu" and x.dtype == values.dtype == bias.dtype == torch.float32
    if kernel not in KERNELS:
        raise ConfigError(f"kernel {kernel!r} is unknown; expected one of {', '.join(KERNELS)}")
    if kernel == "numba" and not fits:
        raise ConfigError(f"kernel 'numba' got {x.dtype} on {x.device}; expected float32 on the CPU: use 'auto' or 'torch'")
    if kernel == "auto":
        kernel = "numba" if fits else "torch"
    y: Tensor = _SparseLinearFunction.apply(x, values, bias, pattern, _KERNELS[kernel])  # type: ignore[no-untyped-call]  # torch
    return y


class _SparseLinearFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, values: Tensor, bias: Tensor, pattern: Pattern, kernel: Kernel) -> Tensor:
        x = x.t().contiguous()
        ctx.save_for_backward(x, values)
        ctx.pattern, ctx.kernel = pattern, kernel
        return kernel.forward(pattern, values.detach(), bias.detach(), x).t()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor, Tensor, None, None]:
        x, values = ctx.saved_tensors
        dy = grads[0].t().contiguous()
        dx, dvalues = ctx.kernel.backward(ctx.pattern, values, x, dy, input_grad=ctx.needs_input_grad[0])
        return dx if dx is None else dx.t(), dvalues, dy.sum(1), None, None


def _padded(x: Tensor) -> Tensor:
    """``x`` ``[n, B]`` with zero columns up to a multiple of the vector lanes."""
    missing = -x.shape[1] % LANES
    return torch.nn.functional.pad(x, (0, missing)) if missing else x


def _csr(indptr: npt.NDArray[np.int64], indices: npt.NDArray[np.int32], values: Tensor, shape: tuple[int, int]) -> Tensor:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta state")
        return torch.sparse_csr_tensor(
            torch.from_numpy(indptr).to(values.device),
            torch.from_numpy(indices.astype(np.int64)).to(values.device),
            values,
            shape,
            check_invariants=False,
        )
