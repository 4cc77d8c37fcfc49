"""The one place where a weight is added to a current, and where that is counted."""

from __future__ import annotations

import functools
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


@functools.cache
def compile_gather(number: str) -> Callable[..., int]:
    """The function ``gather`` for currents and weights of a type, ``float64`` or ``int64``.

    To be called before Lava forks, so that every process has the machine code. ``gather(pointers, indices, values, emitted,
    current, events)`` gathers the rows of the neurons that emit, adds them to the currents, and counts every weight that it adds.
    Its arguments are:

    pointers : int64 array, shape (n_pre + 1,)
    indices : uint32 array, shape (nnz,)
        Unsigned, which spares the test for a negative one at every synapse.
    values : array of the type, shape (nnz,)
        Weights by row (presynaptic neuron).
    emitted : int32 array, shape (rows, n_pre)
        Spikes (+1, 0, -1), payloads or input values of one step.
    current : array of the type, shape (>= rows, n_post)
        Added to, in place.
    events : int64 array, shape (rows,)
        Added to, in place: synaptic events of each image.

    It returns the synaptic events of all images.
    """
    compiled: Callable[..., int] = njit(
        f"int64(int64[::1], uint32[::1], {number}[::1], int32[:, ::1], {number}[:, ::1], int64[:])"
    )(_gather)
    return compiled
