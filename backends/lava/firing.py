"""Thresholds, resets and the counting of spikes of a whole block of images in one pass over memory."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from numba import njit
from numpy.typing import NDArray


def _fire(
    v: NDArray[Any],
    threshold: NDArray[Any],
    to_zero: bool,
    emitted: NDArray[Any],
    spikes: NDArray[Any],
    spikes_in_step: NDArray[Any],
) -> None:
    zero = v.dtype.type(0)
    for image in range(v.shape[0]):
        fired = 0
        for neuron in range(v.shape[1]):
            membrane = v[image, neuron]
            spike = membrane >= threshold[neuron]
            after = zero if to_zero else membrane - threshold[neuron]
            v[image, neuron] = after if spike else membrane
            emitted[image, neuron] = spike
            spikes[image, neuron] += spike
            fired += spike
        spikes_in_step[image] += fired


@functools.cache
def compile_fire(number: str) -> Callable[..., None]:
    """The function ``fire`` for membranes of a type, ``float64`` or ``int32``.

    To be called before Lava forks, so that every process has the machine code. ``fire(v, threshold, to_zero, emitted, spikes,
    spikes_in_step)`` fires where a membrane reaches its threshold and resets there. Its arguments are:

    v : array of the type, shape (rows, N)
        Membranes; reset in place.
    threshold : array of the type, shape (N,)
    to_zero : bool
        Whether a reset is to zero, or by subtraction of the threshold.
    emitted : int32 array, shape (rows, N)
        Set to 1 where a neuron fires, to 0 elsewhere.
    spikes : int64 array, shape (rows, N)
        Added to.
    spikes_in_step : int64 array, shape (rows,)
        Added to: spikes of each image.
    """
    compiled: Callable[..., None] = njit(
        f"void({number}[:, ::1], {number}[::1], boolean, int32[:, ::1], int64[:, ::1], int64[:])"
    )(_fire)
    return compiled
