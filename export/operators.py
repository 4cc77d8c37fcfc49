"""Linear maps between populations in real numbers, and their composition: convolutions stay convolutions where they can.

Average pooling is linear, so it is composed into the next layer. A convolution after a k x k pool is one convolution: each weight
repeated k x k, stride and padding times k. Where the geometry does not fit, the sparse matrices are multiplied.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from sparsespike.common.errors import ModelError
from sparsespike.export.connections import Conv2dConnection
from sparsespike.export.network import AveragePool, Convolve, Dense, FloatArray, Normalise, Pair, Shape, spread

EXPANSION_LIMIT = 100_000_000
"""Synapses up to which a convolution is expanded to a sparse matrix: about 12 bytes each."""


@dataclass(frozen=True, eq=False)
class Matrix:
    """A sparse matrix. Rows are OUTPUTS, shape (outputs, inputs); no explicit zeros."""

    weights: sp.csr_matrix

    @property
    def size(self) -> tuple[int, int]:
        """(outputs, inputs)."""
        return int(self.weights.shape[0]), int(self.weights.shape[1])

    @property
    def nnz(self) -> int:
        """Synapses."""
        return int(self.weights.nnz)

    def matrix(self) -> sp.csr_matrix:
        """Itself, rows = outputs."""
        return self.weights

    def scaled(self, outputs: FloatArray, inputs: FloatArray) -> Matrix:
        """``diag(outputs) W diag(inputs)``; neither may hold a zero."""
        data = self.weights.data * np.repeat(outputs, np.diff(self.weights.indptr)) * inputs[self.weights.indices]
        return Matrix(sp.csr_matrix((data, self.weights.indices, self.weights.indptr), shape=self.weights.shape))


@dataclass(frozen=True, eq=False)
class Kernel:
    """A convolution.

    Parameters
    ----------
    kernel : float64 array, shape (c_out, c_in // groups, ky, kx)
        Zeros are absent synapses.
    input_shape, output_shape : (C, y, x)
    stride, padding, dilation : (int, int)
    groups : int
    """

    kernel: FloatArray
    input_shape: tuple[int, int, int]
    output_shape: tuple[int, int, int]
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1

    @property
    def size(self) -> tuple[int, int]:
        """(outputs, inputs)."""
        return int(np.prod(self.output_shape)), int(np.prod(self.input_shape))

    def pattern(self, values: NDArray[np.int32]) -> Conv2dConnection:
        """The convolution with other, integer kernel values."""
        return Conv2dConnection(values, self.input_shape, self.stride, self.padding, self.dilation, self.groups)

    @property
    def nnz(self) -> int:
        """Synapses, borders exact."""
        return self.pattern((self.kernel != 0).astype(np.int32)).nnz

    def matrix(self) -> sp.csr_matrix:
        """The same synapses as a sparse matrix, rows = outputs.

        Raises
        ------
        ModelError
            If there are more than ``EXPANSION_LIMIT``.
        """
        if self.nnz > EXPANSION_LIMIT:
            raise ModelError(
                f"convolution from {self.input_shape} to {self.output_shape}: has to be expanded into {self.nnz:,} synapses, "
                f"expected at most {EXPANSION_LIMIT:,}; use thresholds per channel, or pooling whose windows do not overlap"
            )
        # Each kernel entry is expanded as its number, counted from 1, and the numbers are then looked up.
        numbers = np.where(self.kernel != 0, np.arange(1, self.kernel.size + 1).reshape(self.kernel.shape), 0)
        expanded = self.pattern(numbers.astype(np.int32)).to_csr()
        values = self.kernel.ravel()[expanded.values - 1]
        return sp.csr_matrix(sp.csr_matrix((values, expanded.indices, expanded.pointers), shape=expanded.shape).T)

    def scaled(self, outputs: FloatArray, inputs: FloatArray) -> Kernel:
        """``diag(outputs) W diag(inputs)`` with one factor a channel, both of shape (C,)."""
        per_group = len(self.kernel) // self.groups
        grouped = inputs.reshape(self.groups, 1, -1)  # (group, output in it, input in it)
        factors = np.broadcast_to(grouped, (self.groups, per_group, grouped.shape[2])).reshape(len(self.kernel), -1)
        return replace(self, kernel=self.kernel * outputs[:, None, None, None] * factors[:, :, None, None])


Operator = Matrix | Kernel


def identity(shape: Shape) -> Operator:
    """What passes everything on: one synapse a neuron."""
    if len(shape) == 3:
        volume = (shape[0], shape[1], shape[2])
        return Kernel(np.ones((shape[0], 1, 1, 1)), volume, volume, groups=shape[0])
    return Matrix(_clean(sp.identity(shape[0], np.float64)))


def compose(layer: Dense | Convolve | Normalise | AveragePool, before: Operator, shape: Shape, after: Shape) -> Operator:
    """The linear part of ``layer`` applied after ``before``; ``shape`` and ``after`` are of the layer's input and output."""
    if isinstance(layer, Normalise):
        return _normalised(layer.gain, before, shape)
    if isinstance(layer, Dense):
        return _product(Matrix(layer.weights), before)
    own = _kernel(layer, shape, after)
    if isinstance(before, Kernel):
        gains = _block_gains(before)
        if gains is not None:
            return _after_blocks(own, before, gains)
    return _product(own, before)


def add(one: Operator, other: Operator) -> Operator:
    """The sum of two maps between the same populations; one kernel where both have the same geometry, else a matrix."""
    if isinstance(one, Kernel) and isinstance(other, Kernel):
        geometry = [
            (k.kernel.shape, k.input_shape, k.output_shape, k.stride, k.padding, k.dilation, k.groups) for k in (one, other)
        ]
        if geometry[0] == geometry[1]:
            return replace(one, kernel=one.kernel + other.kernel)
    return Matrix(_clean(one.matrix() + other.matrix()))


def _clean(matrix: Any) -> sp.csr_matrix:
    clean: sp.csr_matrix = sp.csr_matrix(matrix)
    clean.sum_duplicates()
    clean.eliminate_zeros()
    return clean


def _product(after: Operator, before: Operator) -> Operator:
    if _is_identity(before):
        return after
    second, first = after.matrix(), before.matrix()
    most = int(np.bincount(second.indices, minlength=first.shape[0]) @ np.diff(first.indptr))
    if most > EXPANSION_LIMIT:
        raise ModelError(
            f"two linear layers without an activation between them: composed they have up to {most:,} synapses, expected at most "
            f"{EXPANSION_LIMIT:,}; put an activation between them"
        )
    return Matrix(_clean(second @ first))


def _is_identity(operator: Operator) -> bool:
    if isinstance(operator, Kernel):
        gains = _block_gains(operator)
        return operator.kernel.shape[2:] == (1, 1) and gains is not None and bool(np.all(gains == 1))
    weights, (n, m) = operator.weights, operator.size
    return n == m == weights.nnz and bool(np.all(weights.data == 1) and np.array_equal(weights.indices, np.arange(n)))


def _normalised(gain: FloatArray, before: Operator, shape: Shape) -> Operator:
    if isinstance(before, Kernel) and before.output_shape[0] == len(gain):
        return before.scaled(gain, np.ones(before.input_shape[0]))
    each = np.repeat(gain, int(np.prod(shape[1:])))
    return Matrix(_clean(sp.diags(each) @ before.matrix()))


def _kernel(layer: Convolve | AveragePool, shape: Shape, after: Shape) -> Kernel:
    volumes = (shape[0], shape[1], shape[2]), (after[0], after[1], after[2])
    if isinstance(layer, Convolve):
        return Kernel(layer.kernel, *volumes, layer.stride, layer.padding, layer.dilation, layer.groups)
    window, stride, padding = layer.windows(shape)
    values = np.full((shape[0], 1, *window), 1 / (window[0] * window[1]))
    return Kernel(values, *volumes, stride, padding, groups=shape[0])


def _block_gains(operator: Kernel) -> FloatArray | None:
    """Weight of each channel if the operator sums blocks that tile its input (pools, identity), else None."""
    size = operator.kernel.shape[2:]
    tiles = operator.stride == size and operator.padding == (0, 0) and operator.dilation == (1, 1)
    divides = all(n % k == 0 for n, k in zip(operator.input_shape[1:], size, strict=True))
    each_channel = operator.groups == operator.input_shape[0] == len(operator.kernel)
    gains = operator.kernel[:, 0, 0, 0]
    if tiles and divides and each_channel and np.all(operator.kernel == gains[:, None, None, None]):
        return gains
    return None


def _after_blocks(own: Kernel, blocks: Kernel, gains: FloatArray) -> Kernel:
    """A convolution after block sums, as one convolution; dilated taps become blocks with zeros between."""
    weights = own.scaled(np.ones(len(own.kernel)), gains)
    k_y, k_x = blocks.kernel.shape[2:]
    if (k_y, k_x) == (1, 1):
        return weights
    return Kernel(
        kernel=np.repeat(np.repeat(spread(weights.kernel, own.dilation), k_y, axis=2), k_x, axis=3),
        input_shape=blocks.input_shape,
        output_shape=own.output_shape,
        stride=(own.stride[0] * k_y, own.stride[1] * k_x),
        padding=(own.padding[0] * k_y, own.padding[1] * k_x),
        groups=own.groups,
    )
