"""How integer pixels stand for real inputs: the affine map that conversion later folds into the first projection."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sparsespike.common.errors import DataError


@dataclass(frozen=True)
class Encoding:
    """Integer pixels to real inputs: ``real = (pixel / unit - mean[c]) / std[c]`` for a pixel of channel ``c``.

    Parameters
    ----------
    value_range : tuple of int
        Smallest and largest pixel value, both included.
    unit : int
        Pixel value that stands for 1.0 before the mean and standard deviation are applied.
    mean, std : tuple of float
        One entry a channel, in units of ``unit``.

    Raises
    ------
    DataError
        If the range is empty, a standard deviation is not positive, or the lengths differ.
    """

    value_range: tuple[int, int]
    unit: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        low, high = self.value_range
        if not 0 <= low < high or self.unit <= 0:
            raise DataError(f"encoding has value range {low}..{high} and unit {self.unit}; expected 0 <= low < high, unit > 0")
        if len(self.mean) != len(self.std) or not self.std or not all(np.isfinite(self.mean)) or not min(self.std) > 0:
            raise DataError(
                f"encoding has mean {self.mean} and std {self.std}; expected one finite mean and one positive std a channel"
            )

    @classmethod
    def fit(cls, images: npt.NDArray[np.uint8], value_range: tuple[int, int]) -> Encoding:
        """Per-channel mean and standard deviation of integer images ``[n, C, y, x]``, from exact integer sums.

        The unit is the largest value of the range. A constant channel gets a standard deviation of 1.
        """
        unit = value_range[1]
        mean, std = [], []
        for c in range(images.shape[1]):
            counts = np.bincount(images[:, c].reshape(-1), minlength=unit + 1)
            values = np.arange(len(counts))
            n, total, squares = int(counts.sum()), int(counts @ values), int(counts @ values**2)
            variance = (n * squares - total * total) / (n * n * unit * unit)
            mean.append(round(total / (n * unit), 6))
            std.append(max(round(variance**0.5, 6), 1e-6) if variance > 0 else 1.0)
        return cls(value_range, unit, tuple(mean), tuple(std))

    @property
    def scale(self) -> npt.NDArray[np.float64]:
        """Slope of the affine map, one entry a channel: ``real = pixel * scale + offset``."""
        return 1.0 / (self.unit * np.asarray(self.std, np.float64))

    @property
    def offset(self) -> npt.NDArray[np.float64]:
        """Intercept of the affine map, one entry a channel."""
        return -np.asarray(self.mean, np.float64) / np.asarray(self.std, np.float64)

    def table(self) -> npt.NDArray[np.float32]:
        """Real value of every pixel value, ``[C, high + 1]`` float32."""
        values = np.arange(self.value_range[1] + 1)
        return np.asarray(values * self.scale[:, None] + self.offset[:, None], np.float32)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Encoding:
        """Inverse of :meth:`to_dict`, for values read back from JSON.

        Raises
        ------
        DataError
            If a field is absent, unknown or of the wrong type.
        """
        try:
            low, high = fields["value_range"]
            return cls(
                (int(low), int(high)),
                int(fields["unit"]),
                tuple(float(value) for value in fields["mean"]),
                tuple(float(value) for value in fields["std"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"encoding {fields!r} is malformed ({error!r}); expected value_range, unit, mean and std") from error
