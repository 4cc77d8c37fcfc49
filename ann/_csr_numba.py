"""The numba kernels of a sparse linear layer, 32 or 128 batch columns at a time.

All arrays are C-contiguous; ``x``, ``y``, ``dx``, ``dy`` are feature-major float32 ``[neurons, batch]`` with a batch that is a multiple of the
lanes. Every output is written by one thread in one order, so results do not depend on the number of threads.
"""

from __future__ import annotations

import numba

from sparsespike.ann.lanes import axpy, dot, fill, lanes_32, lanes_128, load, store


@numba.njit(cache=True)
def _row_forward(indptr, indices, values, bias, x, y, row, column, zero):
    total = fill(bias[row], zero)
    for k in range(indptr[row], indptr[row + 1]):
        total = axpy(values[k], load(x, indices[k], column, zero), total)
    store(y, row, column, total)


@numba.njit(cache=True)
def _row_backward(indptr, indices, order, values, x, dy, dx, dvalues, row, column, zero):
    own = load(x, row, column, zero)
    total = zero
    for k in range(indptr[row], indptr[row + 1]):
        link = order[k]
        grad = load(dy, indices[k], column, zero)
        total = axpy(values[link], grad, total)
        share = dot(grad, own)
        dvalues[link] = share if column == 0 else dvalues[link] + share
    store(dx, row, column, total)


@numba.njit(cache=True)
def _row_weights(indptr, indices, x, dy, dvalues, row, column, zero):
    grad = load(dy, row, column, zero)
    for k in range(indptr[row], indptr[row + 1]):
        share = dot(grad, load(x, indices[k], column, zero))
        dvalues[k] = share if column == 0 else dvalues[k] + share


@numba.njit(cache=True, parallel=True)
def forward(indptr, indices, values, bias, x, y):
    """``y = W x + bias``: CSR rows are outputs."""
    rows, batch = y.shape
    if batch % 128 == 0:
        for column in range(0, batch, 128):
            for row in numba.prange(rows):
                _row_forward(indptr, indices, values, bias, x, y, row, column, lanes_128())
    else:
        for column in range(0, batch, 32):
            for row in numba.prange(rows):
                _row_forward(indptr, indices, values, bias, x, y, row, column, lanes_32())


@numba.njit(cache=True, parallel=True)
def backward(indptr, indices, order, values, x, dy, dx, dvalues):
    """``dx = W^T dy`` and ``dvalues = (dy x^T)`` on the links, in one pass over the transpose: CSR rows are inputs.

    ``order[k]`` is the position in ``values`` of the transpose's link ``k``.
    """
    rows, batch = x.shape
    if batch % 128 == 0:
        for column in range(0, batch, 128):
            for row in numba.prange(rows):
                _row_backward(indptr, indices, order, values, x, dy, dx, dvalues, row, column, lanes_128())
    else:
        for column in range(0, batch, 32):
            for row in numba.prange(rows):
                _row_backward(indptr, indices, order, values, x, dy, dx, dvalues, row, column, lanes_32())


@numba.njit(cache=True, parallel=True)
def backward_values(indptr, indices, x, dy, dvalues):
    """``dvalues = (dy x^T)`` on the links: CSR rows are outputs."""
    rows, batch = dy.shape
    if batch % 128 == 0:
        for column in range(0, batch, 128):
            for row in numba.prange(rows):
                _row_weights(indptr, indices, x, dy, dvalues, row, column, lanes_128())
    else:
        for column in range(0, batch, 32):
            for row in numba.prange(rows):
                _row_weights(indptr, indices, x, dy, dvalues, row, column, lanes_32())
