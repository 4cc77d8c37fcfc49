"""Connections between two populations: integer weights as CSR or as a convolution kernel.

Rows are PRESYNAPTIC neurons: one spike gathers one row, and a row's length is the neuron's fan-out. (torch and the ``ann``
package hold the transpose, rows = outputs.)
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from sparsespike.common.errors import GraphError

IntArray = NDArray[np.integer[Any]]

WEIGHT_LIMIT = 2**31 - 1
"""Largest weight magnitude, and largest size along an axis: both are stored as int32."""


def frozen_array(values: Any, dtype: type[np.generic], label: str) -> NDArray[Any]:
    """Copy ``values`` to a read-only C-contiguous array of ``dtype``, refusing values that would change."""
    found = np.asarray(values)
    if found.dtype.kind not in "iub":
        raise GraphError(f"{label}: found dtype {found.dtype}, expected integers; round the values first")
    array = np.array(found, dtype=dtype, order="C")
    if found.size and not np.array_equal(found, array):
        raise GraphError(f"{label}: values do not fit {np.dtype(dtype).name}; rescale them")
    array.flags.writeable = False
    return array


@dataclass(frozen=True, eq=False)
class CSRConnection:
    """Sparse integer weights, rows = presynaptic neurons.

    Parameters
    ----------
    pointers : int64 array, shape (n_pre + 1,)
        Row ``i`` occupies ``pointers[i]:pointers[i + 1]`` of the two arrays below.
    indices : int32 array, shape (nnz,)
        Postsynaptic neuron of each synapse, strictly increasing within a row.
    values : int32 array, shape (nnz,)
        Weights, never zero.
    n_post : int
        Number of postsynaptic neurons.

    Raises
    ------
    GraphError
        If the arrays are not a valid CSR matrix without explicit zeros.
    """

    pointers: NDArray[np.int64]
    indices: NDArray[np.int32]
    values: NDArray[np.int32]
    n_post: int

    def __post_init__(self) -> None:
        for field, dtype in (("pointers", np.int64), ("indices", np.int32), ("values", np.int32)):
            array = frozen_array(getattr(self, field), dtype, f"csr {field}")
            if array.ndim != 1:
                raise GraphError(f"csr {field}: found {array.ndim} dimensions, expected 1")
            object.__setattr__(self, field, array)
        nnz = len(self.indices)
        if len(self.pointers) < 1 or self.pointers[0] != 0 or np.any(self.pointers[1:] < self.pointers[:-1]):
            raise GraphError(
                "csr pointers: found a first value other than 0 or a decrease, expected 0 <= ... <= nnz in rising order"
            )
        if self.pointers[-1] != nnz or len(self.values) != nnz:
            raise GraphError(
                f"csr lengths: found {nnz} indices, {len(self.values)} values and a last pointer of {self.pointers[-1]}, "
                "expected three times the same"
            )
        if nnz and (self.indices.min() < 0 or self.indices.max() >= self.n_post):
            raise GraphError(
                f"csr indices: found {self.indices.min()}..{self.indices.max()}, expected 0..{self.n_post - 1} "
                "(postsynaptic neurons)"
            )
        inside = np.ones(nnz, dtype=bool)
        inside[self.pointers[:-1][self.pointers[:-1] < nnz]] = False  # a row's first index has nothing to rise from
        if np.any(np.diff(self.indices.astype(np.int64))[inside[1:]] <= 0):
            raise GraphError("csr indices: found unsorted or repeated indices in a row, expected strictly increasing ones")
        if np.any(self.values == 0):
            raise GraphError(
                f"csr values: found {int(np.sum(self.values == 0))} explicit zeros, expected none; a weight that is not zero "
                "must not round to zero, and an absent synapse is not stored"
            )

    @property
    def shape(self) -> tuple[int, int]:
        """(n_pre, n_post)."""
        return len(self.pointers) - 1, self.n_post

    @property
    def nnz(self) -> int:
        """Number of synapses."""
        return len(self.indices)

    @cached_property
    def fan_out(self) -> NDArray[np.int64]:
        """Synapses leaving each presynaptic neuron, shape (n_pre,)."""
        return np.diff(self.pointers)

    @cached_property
    def fan_in(self) -> NDArray[np.int64]:
        """Synapses arriving at each postsynaptic neuron, shape (n_post,)."""
        return np.bincount(self.indices, minlength=self.n_post).astype(np.int64)

    @cached_property
    def weight_sums(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Sums of the positive and of the negative weights that arrive at each postsynaptic neuron: two arrays (n_post,)."""
        matrix, ones = self.to_scipy(), np.ones(self.shape[0], np.int64)
        total, size = ones @ matrix, ones @ abs(matrix)
        return (size + total) // 2, (total - size) // 2

    def to_csr(self) -> CSRConnection:
        """Itself."""
        return self

    def to_scipy(self) -> sp.csr_matrix:
        """The weights as a scipy CSR matrix of int64, shape (n_pre, n_post)."""
        return sp.csr_matrix((self.values.astype(np.int64), self.indices, self.pointers), shape=self.shape)

    @classmethod
    def from_scipy(cls, matrix: Any) -> CSRConnection:
        """From any scipy sparse or dense integer matrix of shape (n_pre, n_post); duplicates are summed, zeros dropped."""
        csr = sp.csr_matrix(matrix, copy=True)  # the steps below work in place
        csr.sum_duplicates()
        csr.eliminate_zeros()
        csr.sort_indices()
        return cls(np.asarray(csr.indptr, np.int64), np.asarray(csr.indices, np.int32), csr.data, csr.shape[1])


@dataclass(frozen=True, eq=False)
class Conv2dConnection:
    """A two-dimensional convolution (cross-correlation, as in torch) with integer weights.

    Parameters
    ----------
    kernel : int32 array, shape (c_out, c_in // groups, ky, kx)
        Weights, zeros included: a zero is an absent synapse.
    input_shape : (c_in, y, x)
        Shape of the presynaptic population.
    stride, padding, dilation : (int, int)
        Along y and x.
    groups : int
        Channel groups.

    Raises
    ------
    GraphError
        If the geometry is not possible.
    """

    kernel: NDArray[np.int32]
    input_shape: tuple[int, int, int]
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1

    def __post_init__(self) -> None:
        kernel = frozen_array(self.kernel, np.int32, "conv2d kernel")
        if kernel.ndim != 4:
            raise GraphError(f"conv2d kernel: found {kernel.ndim} dimensions, expected 4 (c_out, c_in / groups, ky, kx)")
        object.__setattr__(self, "kernel", kernel)
        for name, length in (("input_shape", 3), ("stride", 2), ("padding", 2), ("dilation", 2)):
            found = tuple(int(n) for n in getattr(self, name))
            if len(found) != length or max(found) > WEIGHT_LIMIT:
                raise GraphError(f"conv2d {name}: found {found}, expected {length} integers in 32 bits")
            object.__setattr__(self, name, found)
        c_out, c_per_group = kernel.shape[:2]
        if min(kernel.shape) < 1 or self.groups < 1 or c_out % self.groups or self.input_shape[0] != c_per_group * self.groups:
            raise GraphError(
                f"conv2d: found kernel {kernel.shape} with groups {self.groups} on input {self.input_shape}, "
                "expected a kernel that is not empty, c_in = kernel.shape[1] * groups and c_out divisible by groups"
            )
        if min(self.stride) < 1 or min(self.dilation) < 1 or min(self.padding) < 0:
            raise GraphError(
                f"conv2d: found stride {self.stride}, padding {self.padding}, dilation {self.dilation}, "
                "expected stride and dilation >= 1 and padding >= 0"
            )
        if min(self.output_shape) < 1:
            raise GraphError(f"conv2d: found output shape {self.output_shape}, expected at least one position along each axis")

    @property
    def output_shape(self) -> tuple[int, int, int]:
        """(c_out, y, x) of the postsynaptic population."""
        y, x = (
            (size + 2 * pad - dilation * (k - 1) - 1) // stride + 1
            for size, pad, dilation, k, stride in zip(
                self.input_shape[1:], self.padding, self.dilation, self.kernel.shape[2:], self.stride, strict=True
            )
        )
        return self.kernel.shape[0], y, x

    @property
    def shape(self) -> tuple[int, int]:
        """(n_pre, n_post)."""
        return int(np.prod(self.input_shape)), int(np.prod(self.output_shape))

    def _tap(self, axis: int, offset: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Output and input positions that kernel offset ``offset`` joins along an axis (0 = y, 1 = x), borders excluded."""
        out = np.arange(self.output_shape[1 + axis], dtype=np.int64)
        into = out * self.stride[axis] - self.padding[axis] + offset * self.dilation[axis]
        valid = (into >= 0) & (into < self.input_shape[1 + axis])
        return out[valid], into[valid]

    @cached_property
    def _fans(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Fan-out (n_pre,) and fan-in (n_post,), summed over kernel offsets without expanding."""
        fan_out = np.zeros(self.input_shape, dtype=np.int64)
        fan_in = np.zeros(self.output_shape, dtype=np.int64)
        c_out, c_per_group, ky, kx = self.kernel.shape
        grouped = (self.kernel != 0).reshape(self.groups, c_out // self.groups, c_per_group, ky, kx)
        leaving = grouped.sum(axis=1).reshape(-1, ky, kx)
        arriving = grouped.sum(axis=2).reshape(-1, ky, kx)
        for dy in range(ky):
            out_y, in_y = self._tap(0, dy)
            for dx in range(kx):
                out_x, in_x = self._tap(1, dx)
                fan_out[:, in_y[:, None], in_x] += leaving[:, dy, dx, None, None]
                fan_in[:, out_y[:, None], out_x] += arriving[:, dy, dx, None, None]
        return fan_out.ravel(), fan_in.ravel()

    @property
    def fan_out(self) -> NDArray[np.int64]:
        """Synapses leaving each presynaptic neuron, borders exact, shape (n_pre,)."""
        return self._fans[0]

    @property
    def fan_in(self) -> NDArray[np.int64]:
        """Synapses arriving at each postsynaptic neuron, borders exact, shape (n_post,)."""
        return self._fans[1]

    @cached_property
    def weight_sums(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """As of ``CSRConnection``, but as if there were no borders, which can only enlarge a magnitude."""
        kernel = self.kernel.astype(np.int64).reshape(len(self.kernel), -1)
        positions = int(np.prod(self.output_shape[1:]))
        positive, negative = np.maximum(kernel, 0).sum(axis=1), np.minimum(kernel, 0).sum(axis=1)
        return np.repeat(positive, positions), np.repeat(negative, positions)

    @cached_property
    def nnz(self) -> int:
        """Number of synapses of the expanded matrix."""
        return int(self.fan_out.sum())

    def to_csr(self) -> CSRConnection:
        """The same synapses, expanded exactly."""
        c_out, c_per_group, ky, kx = self.kernel.shape
        _, in_height, in_width = self.input_shape
        _, out_height, out_width = self.output_shape
        rows, columns, values = [], [], []
        for dy in range(ky):
            out_y, in_y = self._tap(0, dy)
            for dx in range(kx):
                out_x, in_x = self._tap(1, dx)
                o, i = np.nonzero(self.kernel[:, :, dy, dx])
                source = i + (o // (c_out // self.groups)) * c_per_group
                position_in = (in_y[:, None] * in_width + in_x).ravel()
                position_out = (out_y[:, None] * out_width + out_x).ravel()
                rows.append((source[:, None] * (in_height * in_width) + position_in).ravel())
                columns.append((o[:, None] * (out_height * out_width) + position_out).ravel())
                values.append(np.repeat(self.kernel[o, i, dy, dx], len(position_in)))
        row, column, value = (np.concatenate(parts) for parts in (rows, columns, values))
        order = np.lexsort((column, row))
        pointers = np.concatenate(([0], np.cumsum(np.bincount(row, minlength=self.shape[0]))))
        return CSRConnection(pointers, column[order], value[order], self.shape[1])


Connection = CSRConnection | Conv2dConnection
