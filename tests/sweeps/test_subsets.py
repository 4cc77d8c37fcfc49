"""``NAME@TRAIN,TEST``: a part of a data set, by name."""

from __future__ import annotations

import numpy as np
import pytest

from sparsespike.ann.data import load
from sparsespike.common.errors import DataError


def test_a_subset_is_spread_over_the_splits() -> None:
    whole, part = load("digits", validation=0.0), load("digits@100,30", validation=0.0)
    assert (len(part.train), len(part.test)) == (100, 30)
    positions = [i * len(whole.train) // 100 for i in range(100)]
    assert np.array_equal(part.train.images, whole.train.images[positions])
    assert np.array_equal(part.test.labels, whole.test.labels[[i * len(whole.test) // 30 for i in range(30)]])


def test_either_number_may_be_left_out() -> None:
    whole = load("digits", validation=0.0)
    assert len(load("digits@,30", validation=0.0).train) == len(whole.train)
    assert len(load("digits@100,", validation=0.0).test) == len(whole.test)


@pytest.mark.parametrize("name", ["digits@0,10", "digits@100000,10", "digits@100,5000"])
def test_a_subset_larger_than_the_split_is_refused(name: str) -> None:
    with pytest.raises(DataError, match="expected 1 to"):
        load(name)
