"""The one place where a weight is added to a current, and where that is counted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import njit
from numpy.typing import NDArray


def _gather(
    pointers: NDArray[Any],
    indices: NDArray[Any],
    values: NDArray[Any],
    emitted: NDArray[Any],
    current: NDArray[Any],
    events: NDArray[Any],
) -> int:
    total = 0
    for image in range(emitted.shape[0]):
        added = 0
        for pre in range(emitted.shape[1]):
            value = emitted[image, pre]
            if value != 0:
                for synapse in range(pointers[pre], pointers[pre + 1]):
                    current[image, indices[synapse]] += values[synapse] * value
                    added += 1
        events[image] += added
        total += added
    return total


# Compiled when this module is imported: before Lava forks, so that every process has the machine code. Unsigned indices spare
# the test for a negative one at every synapse.
gather: Callable[..., int] = njit("int64(int64[::1], uint32[::1], float64[::1], int32[:, ::1], float64[:, ::1], int64[:])")(
    _gather
)
"""Gather the rows of the neurons that emit, add them to the currents, and count every weight that was added.

Parameters
----------
pointers : int64 array, shape (n_pre + 1,)
indices : uint32 array, shape (nnz,)
values : float64 array, shape (nnz,)
    Weights by row (presynaptic neuron).
emitted : int32 array, shape (rows, n_pre)
    Spikes (+1, 0, -1), payloads or input values of one step.
current : float64 array, shape (>= rows, n_post)
    Added to, in place.
events : int64 array, shape (rows,)
    Added to, in place: synaptic events of each image.

Returns
-------
int
    Synaptic events of all images.
"""
