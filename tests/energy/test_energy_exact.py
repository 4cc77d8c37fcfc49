"""The covariance term, exact for any size."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparsespike.energy.exact import covariance_term, exact, weighted_sum

pairs = st.lists(st.tuples(st.integers(0, 2**20), st.integers(0, 70_000)), min_size=1, max_size=40)


def by_definition(s: list[int], d: list[int]) -> Fraction:
    """N cov(s, d) in rationals, deviation by deviation."""
    mean_s, mean_d = Fraction(sum(s), len(s)), Fraction(sum(d), len(d))
    return sum(((x - mean_s) * (y - mean_d) for x, y in zip(s, d, strict=True)), Fraction(0))


@given(pairs)
def test_covariance_term_is_the_definition_and_completes_the_analytic_count(values):
    s, d = ([pair[i] for pair in values] for i in (0, 1))
    term = covariance_term(np.array(s), np.array(d))
    assert term == by_definition(s, d)
    assert Fraction(sum(s) * sum(d), len(s)) + term == weighted_sum(np.array(s), np.array(d))


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=50), st.integers(0, 5000))
def test_covariance_is_zero_for_equal_fan_outs(s, d):
    assert covariance_term(np.array(s), np.full(len(s), d)) == 0


def test_numbers_that_leave_64_bits_stay_exact():
    n = 65_536
    s = np.where(np.arange(n) % 2, 64, 0) * 10_000  # 10,000 images of 64 steps
    d = np.where(np.arange(n) % 2, 10_000, 1)
    half = n // 2
    assert weighted_sum(s, d) == half * 640_000 * 10_000
    # Deviations are +-320,000 and +-4,999.5, always of one sign: their scaled products sum to 2^99.
    assert covariance_term(s, d) == n * 320_000 * Fraction(9_999, 2)
    scaled = n * n * covariance_term(s, d)
    assert scaled > 2**63


def test_sums_beyond_64_bits():
    s, d = np.array([2**62, 2**62]), np.array([2**40, 2**41])
    assert weighted_sum(s, d) == 2**102 + 2**103
    assert covariance_term(s, d) == 0


@pytest.mark.parametrize(
    ("value", "rational"), [(4.6, Fraction(46, 10)), (0.1, Fraction(1, 10)), (3, 3), (Fraction(1, 3), Fraction(1, 3))]
)
def test_exact_reads_a_float_as_it_is_written(value, rational):
    assert exact(value) == rational
