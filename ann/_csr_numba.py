"""The numba kernels of a sparse linear layer, 32 or 128 batch columns at a time.

All arrays are C-contiguous; ``x``, ``y``, ``dx``, ``dy`` are feature-major float32 ``[neurons, batch]`` with a batch that is a
multiple of 32. Every output is written by one thread in one order, so results do not depend on the number of threads.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, cast

import numba
import numpy as np
import numpy.typing as npt

from sparsespike.ann.lanes import axpy, dot, fill, lanes_32, lanes_128, load, store

P = ParamSpec("P")
R = TypeVar("R")
Pointers = npt.NDArray[np.int64]
Indices = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float32]


def inlined(function: Callable[P, R]) -> Callable[P, R]:
    """Compile the work on one row, to be inlined."""
    return cast("Callable[P, R]", numba.njit(cache=True)(function))


def kernel(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a loop over rows, spread over numba's threads."""
    return cast("Callable[P, R]", numba.njit(cache=True, parallel=True)(function))


@inlined
def _row_forward(
    indptr: Pointers, indices: Indices, values: Floats, bias: Floats, x: Floats, y: Floats, row: int, column: int, zero: Any
) -> None:
    total = fill(bias[row], zero)
    for k in range(indptr[row], indptr[row + 1]):
        total = axpy(values[k], load(x, indices[k], column, zero), total)
    store(y, row, column, total)


@inlined
def _row_backward(
    indptr: Pointers,
    indices: Indices,
    order: Pointers,
    values: Floats,
    x: Floats,
    dy: Floats,
    dx: Floats,
    dvalues: Floats,
    row: int,
    column: int,
    zero: Any,
) -> None:
    own = load(x, row, column, zero)
    total = zero
    for k in range(indptr[row], indptr[row + 1]):
        link = order[k]
        grad = load(dy, indices[k], column, zero)
        total = axpy(values[link], grad, total)
        share = dot(grad, own)
        dvalues[link] = share if column == 0 else dvalues[link] + share
    store(dx, row, column, total)


@inlined
def _row_weights(
    indptr: Pointers, indices: Indices, x: Floats, dy: Floats, dvalues: Floats, row: int, column: int, zero: Any
) -> None:
    grad = load(dy, row, column, zero)
    for k in range(indptr[row], indptr[row + 1]):
        share = dot(grad, load(x, indices[k], column, zero))
        dvalues[k] = share if column == 0 else dvalues[k] + share


@kernel
def forward(indptr: Pointers, indices: Indices, values: Floats, bias: Floats, x: Floats, y: Floats) -> None:
    """``y = W x + bias``: CSR rows are outputs."""
    rows, batch = y.shape
    if batch % 128 == 0:
        for column in range(0, batch, 128):
            for i in numba.prange(rows):
                _row_forward(indptr, indices, values, bias, x, y, i, column, lanes_128())
    else:
        for column in range(0, batch, 32):
            for i in numba.prange(rows):
                _row_forward(indptr, indices, values, bias, x, y, i, column, lanes_32())


@kernel
def backward(
    indptr: Pointers, indices: Indices, order: Pointers, values: Floats, x: Floats, dy: Floats, dx: Floats, dvalues: Floats
) -> None:
    """``dx = W^T dy`` and ``dvalues = (dy x^T)`` on the links, in one pass over the transpose: CSR rows are inputs.

    ``order[k]`` is the position in ``values`` of the transpose's link ``k``.
    """
    rows, batch = x.shape
    if batch % 128 == 0:
        for column in range(0, batch, 128):
            for i in numba.prange(rows):
                _row_backward(indptr, indices, order, values, x, dy, dx, dvalues, i, column, lanes_128())
    else:
        for column in range(0, batch, 32):
            for i in numba.prange(rows):
                _row_backward(indptr, indices, order, values, x, dy, dx, dvalues, i, column, lanes_32())


@kernel
def backward_values(indptr: Pointers, indices: Indices, x: Floats, dy: Floats, dvalues: Floats) -> None:
    """``dvalues = (dy x^T)`` on the links: CSR rows are outputs."""
    rows, batch = dy.shape
    if batch % 128 == 0:
        for column in range(0, batch, 128):
            for i in numba.prange(rows):
                _row_weights(indptr, indices, x, dy, dvalues, i, column, lanes_128())
    else:
        for column in range(0, batch, 32):
            for i in numba.prange(rows):
                _row_weights(indptr, indices, x, dy, dvalues, i, column, lanes_32())
