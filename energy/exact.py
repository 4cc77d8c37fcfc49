"""Exact arithmetic for counts and constants: integers without bound and rationals, never a rounded difference."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from fractions import Fraction
from operator import mul
from typing import Any

import numpy as np
from numpy.typing import NDArray

Number = int | float | Decimal | Fraction
"""A constant as people write it; a float means its shortest decimal, so 4.6 is 46/10."""


def exact(value: Number) -> Fraction:
    """The rational that a person means by ``value``: ``exact(4.6) == Fraction(46, 10)``.

    Raises
    ------
    ValueError
        If the value is no finite number (OverflowError for an infinite Decimal).
    """
    return Fraction(str(value)) if isinstance(value, float) else Fraction(value)


def dot(left: Iterable[int], right: Iterable[int]) -> int:
    """Sum of products in integers without bound."""
    return sum(map(mul, left, right))


def total(counts: NDArray[np.integer[Any]]) -> int:
    """Sum over all elements in integers without bound."""
    return sum(counts.ravel().tolist())


def weighted_sum(spikes: NDArray[np.integer[Any]], fan_out: NDArray[np.integer[Any]]) -> int:
    """sum_i s_i d_i, exact.

    Parameters
    ----------
    spikes, fan_out : integer arrays, shape (N,)
    """
    return dot(spikes.tolist(), fan_out.tolist())


def covariance_term(spikes: NDArray[np.integer[Any]], fan_out: NDArray[np.integer[Any]]) -> Fraction:
    """N cov(s, d) = sum_i (s_i - mean s)(d_i - mean d), exact, from the deviations themselves.

    With s_i = mean s + a_i and d_i = mean d + b_i, sum_i s_i d_i = N mean(s) mean(d) + sum_i a_i b_i: the first part is the
    analytic count (mean d = nnz / N), the second is this term. Deviations are scaled by N, so that they are integers; their
    products leave 64 bits already for N = 65536, s = 64, d = 10^4, hence Python's integers.

    Parameters
    ----------
    spikes, fan_out : integer arrays, shape (N,), N >= 1
    """
    s, d = spikes.tolist(), fan_out.tolist()
    n, sum_s, sum_d = len(s), sum(s), sum(d)
    return Fraction(dot((n * x - sum_s for x in s), (n * y - sum_d for y in d)), n * n)
