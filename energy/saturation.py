"""When a curve over time steps has saturated: the rule of the paper (section 2.3), for accuracy and for firing rates alike.

"If the relative improvement between time steps is continuously no greater than 1 % over 10 time steps, then the current time is
determined as saturation point."
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsespike.common.errors import ConfigError
from sparsespike.energy.exact import Number, exact

TOLERANCE = Fraction(1, 100)
WINDOW = 10


@dataclass(frozen=True)
class Saturation:
    """A window in which a curve no longer improves.

    Attributes
    ----------
    start : int
        Time step T after which the improvements are small: ``end - window``.
    end : int
        Time step at which the rule is fulfilled, the paper's saturation time.
    """

    start: int
    end: int


def saturation(
    curve: Sequence[Number] | NDArray[Any], *, tolerance: Number = TOLERANCE, window: int = WINDOW
) -> Saturation | None:
    """The first saturation of a curve, or None if there is none within it.

    Parameters
    ----------
    curve : numbers >= 0, shape (T,)
        Value at T = 1, 2, 3 ... Give counts (images classified correctly, spikes per step), or rationals, where a tie matters:
        all comparisons are exact, a float counts as its shortest decimal.
    tolerance : number
        Largest relative improvement (a[t] - a[t - 1]) / a[t - 1] that is still small. A fall is small; a rise from 0 is not.
    window : int
        Number of small improvements in a row.

    Raises
    ------
    ConfigError
        If the curve is not one of finite numbers >= 0, or a setting is out of range.
    """
    ends = saturated_steps(curve, tolerance=tolerance, window=window)
    return Saturation(ends[0] - window, ends[0]) if ends else None


def saturated_steps(
    curve: Sequence[Number] | NDArray[Any], *, tolerance: Number = TOLERANCE, window: int = WINDOW
) -> tuple[int, ...]:
    """All time steps at which the rule is fulfilled, rising; see :func:`saturation`."""
    if window < 1:
        raise ConfigError(f"saturation window: found {window}, expected at least 1 time step")
    values = _exact(curve)
    largest = _exact([tolerance])[0]
    ends, small = [], 0
    for t in range(2, len(values) + 1):
        before, now = values[t - 2], values[t - 1]
        small = small + 1 if now - before <= largest * before else 0
        if small >= window:
            ends.append(t)
    return tuple(ends)


def _exact(numbers: Sequence[Number] | NDArray[Any]) -> list[Fraction]:
    try:
        values = [exact(number.item() if isinstance(number, np.generic) else number) for number in numbers]
    except (TypeError, ValueError, OverflowError) as error:
        raise ConfigError(f"saturation: found a value that is no finite number ({error}); expected numbers >= 0") from error
    if values and min(values) < 0:
        raise ConfigError(f"saturation: found the value {float(min(values))}, expected numbers >= 0")
    return values
