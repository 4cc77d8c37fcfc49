"""At-most-two-spike exponential coding on numbers: the thresholds of every slot, and what a value is encoded as."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sparsespike.common.errors import ModelError

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class ExponentialCode:
    """Thresholds of a layer in the slots t = 0 .. T of its encode window (Chen et al., 2024).

    A value is sent as a primary spike in the first slot whose threshold it reaches and, in that slot at the earliest, a
    compensation spike in the first slot whose threshold is reached by what the primary spike left. A spike stands for its
    threshold.

    Parameters
    ----------
    primary, compensation : float64 array, shape (T + 1,)
        Positive and falling.
    force_compensation : bool
        Whether a neuron that has fired a primary spike fires a compensation spike in slot T even with too little left.

    Raises
    ------
    ModelError
        If the thresholds are of different lengths, not positive and finite, or not falling.
    """

    primary: FloatArray
    compensation: FloatArray
    force_compensation: bool = False

    def __post_init__(self) -> None:
        if self.primary.ndim != 1 or self.primary.shape != self.compensation.shape or not len(self.primary):
            raise ModelError(
                f"exponential code: found shapes {self.primary.shape} and {self.compensation.shape}, expected twice (T + 1,)"
            )
        for name, values in (("primary", self.primary), ("compensation", self.compensation)):
            if not np.all(np.isfinite(values) & (values > 0)) or np.any(np.diff(values) >= 0):
                raise ModelError(f"exponential code: found {name} thresholds {values}, expected positive, finite, falling ones")

    @property
    def slots(self) -> int:
        """T + 1."""
        return len(self.primary)

    @property
    def largest(self) -> float:
        """Largest value that can be sent: both spikes in slot 0."""
        return float(self.primary[0] + self.compensation[0])

    def scaled(self, factor: float) -> ExponentialCode:
        """The same code for values ``factor`` times as large."""
        return ExponentialCode(factor * self.primary, factor * self.compensation, self.force_compensation)

    def __call__(self, values: FloatArray) -> FloatArray:
        """What values of any shape are decoded as: the thresholds of their spikes."""
        first = _first_reached(self.primary, values)
        carried = np.append(self.primary, 0.0)[first]
        second = np.maximum(_first_reached(self.compensation, values - carried), first)
        if self.force_compensation:
            second = np.where((second == self.slots) & (first < self.slots), self.slots - 1, second)
        return np.asarray(carried + np.append(self.compensation, 0.0)[second], np.float64)


def _first_reached(thresholds: FloatArray, values: FloatArray) -> NDArray[np.int64]:
    """First slot whose threshold a value is at or above; the number of slots if there is none."""
    return np.asarray(np.searchsorted(-thresholds, -values, side="left"), np.int64)
