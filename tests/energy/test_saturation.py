"""The paper's saturation rule: closed forms, ties, and the definition written out a second time."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsespike.common.errors import ConfigError
from sparsespike.energy.saturation import Saturation, saturated_steps, saturation


def test_a_curve_that_is_flat_from_the_start() -> None:
    assert saturation([50] * 11) == Saturation(start=1, end=11)
    assert saturation([50] * 10) is None


def test_a_curve_that_rises_and_then_stays() -> None:
    curve = [10, 20, 40, 80, 90, *[90] * 20]
    assert saturation(curve) == Saturation(start=5, end=15)
    assert saturation(curve, window=3) == Saturation(start=5, end=8)
    assert saturation(curve, tolerance=Fraction(1, 8)) == Saturation(start=4, end=14)


def test_one_step_of_more_than_a_percent_begins_the_window_anew() -> None:
    curve = [100] * 10 + [102] * 11
    assert saturation(curve) == Saturation(start=11, end=21)
    assert saturation(curve[:20]) is None


def test_exactly_one_percent_is_small_and_the_least_more_is_not() -> None:
    """Ties are decided in exact arithmetic: 0.505 - 0.5 is more than 0.01 * 0.5 in floating point."""
    assert 0.505 - 0.5 > 0.01 * 0.5
    for tie, more in (([100, 101], [1000, 1011]), ([0.5, 0.505], [0.5, 0.505001])):
        assert saturation(tie, window=1) == Saturation(1, 2)
        assert saturation(more, window=1) is None
    assert saturation(np.array([0.5, 0.505]), window=1) == Saturation(1, 2)
    assert saturation([Fraction(1, 3), Fraction(101, 300)], window=1) == Saturation(1, 2)
    assert saturation([10**20, 101 * 10**18 + 1], window=1) is None


def test_a_fall_is_no_improvement_and_a_rise_from_nothing_is_one() -> None:
    assert saturation([90, 50, 40, 30], window=3) == Saturation(1, 4)
    assert saturation([0, 0, 1, 1], window=2) is None
    assert saturation([0, 0, 0], window=2) == Saturation(1, 3)


def test_small_steps_may_add_up() -> None:
    """The rule looks at single steps, as published: 0.9 % a step is small, though ten of them are 9 %."""
    assert saturation([1000 * 1.009**t for t in range(11)]) == Saturation(1, 11)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 300), max_size=30), st.integers(1, 5), st.integers(0, 5))
def test_against_the_definition(curve: list[int], window: int, percent: int) -> None:
    expected = [
        t
        for t in range(window + 1, len(curve) + 1)
        if all(100 * (curve[u - 1] - curve[u - 2]) <= percent * curve[u - 2] for u in range(t - window + 1, t + 1))
    ]
    found = saturated_steps(np.array(curve, np.int64), tolerance=Fraction(percent, 100), window=window)
    assert list(found) == expected
    first = saturation(curve, tolerance=Fraction(percent, 100), window=window)
    assert first == (Saturation(expected[0] - window, expected[0]) if expected else None)


@pytest.mark.parametrize(
    ("curve", "options", "message"),
    [
        ([1, float("nan")], {}, "found a value that is no finite number"),
        ([1, float("inf")], {}, "found a value that is no finite number"),
        ([[1, 2], [3, 4]], {}, "found a value that is no finite number"),
        ([1, -0.5], {}, "found the value -0.5, expected numbers >= 0"),
        ([1, 2], {"window": 0}, "saturation window: found 0, expected at least 1"),
        ([1, 2], {"tolerance": -0.01}, "found the value -0.01"),
    ],
)
def test_what_is_no_curve(curve: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        saturation(curve, **options)
    assert message in str(caught.value)
