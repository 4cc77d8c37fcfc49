"""Thresholds from data: how large the activations of a ReLU network get on training images.

Only maxima and percentiles over all images are taken, each neuron, channel or layer on its own: nothing depends on how the images
are cut into batches, nor on their order.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from sparsespike.ann.encoding import Encoding
from sparsespike.common.errors import ConfigError, DataError
from sparsespike.export.network import FloatArray, Network

Granularity = Literal["neuron", "channel", "layer"]
Progress = Callable[[str, int, int], None]
MIN_IMAGES = 16
"""Fewer images say nothing about how large an activation gets."""


def real_inputs(network: Network, encoding: Encoding, pixels: NDArray[Any]) -> FloatArray:
    """Real inputs ``(B, *input_shape)`` of integer pixels (B, N) or (B, C, y, x), as the network was trained on.

    Raises
    ------
    DataError
        If they do not fit the network or leave the encoding's range.
    """
    found = np.asarray(pixels)
    size = math.prod(network.input_shape)
    low, high = encoding.value_range
    if found.ndim < 2 or math.prod(found.shape[1:]) != size or found.dtype.kind not in "iu":
        raise DataError(
            f"images: found {found.dtype} of shape {found.shape}, expected integers (images, {size}) or "
            f"(images, {', '.join(map(str, network.input_shape))})"
        )
    if found.size and (found.min() < low or found.max() > high):
        raise DataError(f"images: found values {found.min()}..{found.max()}, expected {low}..{high}, the encoding's range")
    channels = found.reshape(len(found), len(encoding.mean), -1)
    real = channels * encoding.scale[:, None] + encoding.offset[:, None]
    return np.asarray(real.reshape(len(found), *network.input_shape), np.float64)


@dataclass(frozen=True, eq=False)
class Calibration:
    """Training images to calibrate with.

    Parameters
    ----------
    pixels : integer array, shape (B, N) or (B, C, y, x)
        Images of the TRAINING split: thresholds from test images would make the reported accuracy too high.
    percentile : float
        100 takes the largest activation; 99.9, say, leaves out the largest 0.1 % of the positive ones.
    batch : int
        Images evaluated at a time; for memory and speed only.

    Raises
    ------
    ConfigError
        If the percentile or the batch is out of range.
    DataError
        If there are too few images.
    """

    pixels: NDArray[Any]
    percentile: float = 100.0
    batch: int = 32

    def __post_init__(self) -> None:
        if not 0 < self.percentile <= 100:
            raise ConfigError(
                f"percentile: found {self.percentile}, expected more than 0 and at most 100 (the largest activation)"
            )
        if self.batch < 1:
            raise ConfigError(f"calibration batch: found {self.batch}, expected at least 1")
        if len(self.pixels) < MIN_IMAGES:
            raise DataError(
                f"calibration: found {len(self.pixels)} images, expected at least {MIN_IMAGES}; give more training images "
                "(some hundred are usual)"
            )


def calibrate(
    network: Network,
    encoding: Encoding,
    calibration: Calibration,
    granularity: Mapping[str, Granularity],
    progress: Progress | None = None,
) -> dict[str, FloatArray]:
    """The given percentile of each neuron's positive activations, pooled over a channel or layer where asked.

    Parameters
    ----------
    network : Network
        With ReLU activations.
    encoding : Encoding
    calibration : Calibration
    granularity : mapping of activation to {"neuron", "channel", "layer"}
        What shares one value; for vectors a channel is a neuron.
    progress : callable, optional
        Called with ("calibration", images done, images).

    Returns
    -------
    dict of activation to float64 array, shape (N,)
        0 where no image made the neuron (or its channel, its layer) active.
    """
    images = len(calibration.pixels)
    real_inputs(network, encoding, calibration.pixels[:1])  # a wrong shape is found before the work
    largest = {
        node.name: _Largest(_groups(node.shape, granularity[node.name]), math.prod(node.shape), images, calibration.percentile)
        for node in network.activations
    }
    for start in range(0, images, calibration.batch):
        part = calibration.pixels[start : start + calibration.batch]
        outputs = network.evaluate(real_inputs(network, encoding, part))
        for name, seen in largest.items():
            seen.add(outputs[name].reshape(len(part), -1))
        if progress is not None:
            progress("calibration", start + len(part), images)
    return {
        node.name: np.repeat(largest[node.name].percentile(), math.prod(node.shape) // largest[node.name].groups)
        for node in network.activations
    }


def _groups(shape: tuple[int, ...], granularity: Granularity) -> int:
    return {"neuron": math.prod(shape), "channel": shape[0], "layer": 1}[granularity]


class _Largest:
    """The largest activations of each group of neighbouring neurons: as many as the percentile needs."""

    def __init__(self, groups: int, neurons: int, images: int, percentile: float) -> None:
        self.groups = groups
        self._rank = 1 - percentile / 100
        """Place of the percentile among n sorted values, from the largest on, in units of n - 1."""
        samples = images * (neurons // groups)
        self._top = np.zeros((groups, math.floor((samples - 1) * self._rank) + 2))
        self._positive = np.zeros(groups, np.int64)

    def add(self, activations: FloatArray) -> None:
        """Take in activations of shape (B, N)."""
        batch, keep = len(activations), self._top.shape[1]
        found = activations.reshape(batch, self.groups, -1).transpose(1, 0, 2).reshape(self.groups, -1)
        self._positive += np.count_nonzero(found > 0, axis=1)
        both = np.concatenate([self._top, found], axis=1)
        self._top = np.partition(both, both.shape[1] - keep, axis=1)[:, -keep:]

    def percentile(self) -> FloatArray:
        """Of the positive activations of each group, with linear interpolation; 0 if there is none."""
        descending = -np.sort(-self._top, axis=1)
        place = np.maximum(self._positive - 1, 0) * self._rank
        below = np.floor(place).astype(np.int64)
        each = np.arange(self.groups)
        upper = descending[each, below]
        lower = descending[each, np.minimum(below + 1, np.maximum(self._positive - 1, 0))]
        return np.asarray(upper + (place - below) * (lower - upper), np.float64)
