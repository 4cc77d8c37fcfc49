"""CSR and convolutional connections, held against scipy, networkx-free counting, and torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from sparsespike.common.errors import GraphError
from sparsespike.export.connections import Conv2dConnection, CSRConnection

VALID: dict[str, Any] = {"pointers": [0, 2, 2, 3], "indices": [0, 3, 1], "values": [5, -1, 2], "n_post": 4}


def test_csr_shape_and_degrees() -> None:
    csr = CSRConnection(**VALID)
    assert csr.shape == (3, 4)
    assert csr.nnz == 3
    assert csr.fan_out.tolist() == [2, 0, 1]
    assert csr.fan_in.tolist() == [1, 1, 0, 1]
    assert csr.to_scipy().toarray().tolist() == [[5, 0, 0, -1], [0, 0, 0, 0], [0, 2, 0, 0]]
    assert csr.to_csr() is csr


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pointers": [1, 2, 2, 3]}, "csr pointers: found a first value other than 0 or a decrease"),
        ({"pointers": [0, 2, 1, 3]}, "csr pointers: found a first value other than 0 or a decrease"),
        ({"pointers": []}, "csr pointers: found dtype float64"),
        ({"pointers": np.zeros(0, int)}, "csr pointers: found a first value"),
        ({"pointers": [0, 2**63 - 1, -(2**63), -1, 3]}, "csr pointers: found a first value other than 0 or a decrease"),
        ({"pointers": [0, 2, 2, 2]}, "csr lengths: found 3 indices, 3 values and a last pointer of 2"),
        ({"values": [5, -1]}, "csr lengths: found 3 indices, 2 values and a last pointer of 3"),
        ({"indices": [0, 4, 1]}, "csr indices: found 0..4, expected 0..3 (postsynaptic neurons)"),
        ({"indices": [-1, 3, 1]}, "csr indices: found -1..3, expected 0..3"),
        ({"indices": [3, 0, 1]}, "csr indices: found unsorted or repeated indices in a row"),
        ({"indices": [3, 3, 1]}, "csr indices: found unsorted or repeated indices in a row"),
        ({"indices": [0, 2**31, 1]}, "csr indices: values do not fit int32"),
        ({"values": [5, 0, 2]}, "csr values: found 1 explicit zeros, expected none"),
        ({"values": [5.5, 1, 2]}, "csr values: found dtype float64, expected integers"),
        ({"values": [2**31, 1, 2]}, "csr values: values do not fit int32; rescale them"),
        ({"values": [[5, 1, 2]]}, "csr values: found 2 dimensions, expected 1"),
    ],
)
def test_csr_faults(change: dict[str, Any], message: str) -> None:
    with pytest.raises(GraphError) as caught:
        CSRConnection(**{**VALID, **change})
    assert message in str(caught.value)


def test_a_falling_index_is_fine_where_a_row_begins() -> None:
    csr = CSRConnection([0, 0, 1, 2, 2], [3, 0], [1, 1], 4)
    assert csr.fan_out.tolist() == [0, 1, 1, 0]


def test_from_scipy_leaves_its_argument_alone() -> None:
    matrix = sparse.csr_matrix((np.array([1, 2, 0, 3]), np.array([2, 2, 1, 0]), np.array([0, 3, 4])), shape=(2, 3))
    before = (matrix.data.copy(), matrix.indices.copy(), matrix.indptr.copy())
    csr = CSRConnection.from_scipy(matrix)
    assert csr.to_scipy().toarray().tolist() == [[0, 0, 3], [3, 0, 0]]
    assert csr.nnz == 2
    for now, then in zip((matrix.data, matrix.indices, matrix.indptr), before, strict=True):
        assert np.array_equal(now, then)


@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_csr_equals_the_dense_matrix(data: st.DataObject) -> None:
    shape = data.draw(st.tuples(st.integers(1, 6), st.integers(1, 6)))
    size = shape[0] * shape[1]
    dense = np.array(data.draw(st.lists(st.integers(-3, 3), min_size=size, max_size=size))).reshape(shape)
    csr = CSRConnection.from_scipy(dense)
    assert np.array_equal(csr.to_scipy().toarray(), dense)
    assert csr.nnz == np.count_nonzero(dense) == csr.fan_in.sum() == csr.fan_out.sum()
    assert np.array_equal(csr.fan_out, np.count_nonzero(dense, axis=1))
    assert np.array_equal(csr.fan_in, np.count_nonzero(dense, axis=0))
    positive, negative = csr.weight_sums
    assert np.array_equal(positive, np.where(dense > 0, dense, 0).sum(axis=0))
    assert np.array_equal(negative, np.where(dense < 0, dense, 0).sum(axis=0))


KERNEL = np.ones((4, 2, 3, 3), np.int64)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kernel": np.ones((4, 2, 3), int)}, "conv2d kernel: found 3 dimensions, expected 4 (c_out, c_in / groups, ky, kx)"),
        ({"kernel": KERNEL * 0.5}, "conv2d kernel: found dtype float64, expected integers"),
        ({"kernel": np.ones((4, 2, 0, 3), int)}, "expected a kernel that is not empty"),
        ({"input_shape": (3, 5, 5)}, "found kernel (4, 2, 3, 3) with groups 1 on input (3, 5, 5)"),
        ({"groups": 0}, "with groups 0"),
        ({"groups": 3, "input_shape": (6, 5, 5)}, "c_out divisible by groups"),
        ({"input_shape": (2, 5)}, "conv2d input_shape: found (2, 5), expected 3 integers"),
        ({"stride": (1,)}, "conv2d stride: found (1,), expected 2 integers"),
        ({"stride": (0, 1)}, "conv2d: found stride (0, 1)"),
        ({"dilation": (1, 0)}, "dilation (1, 0)"),
        ({"padding": (0, -1)}, "padding (0, -1)"),
        ({"padding": (0, 2**31)}, "expected 2 integers in 32 bits"),
        ({"input_shape": (2, 2, 5)}, "conv2d: found output shape (4, 0, 3), expected at least one position along each axis"),
    ],
)
def test_conv2d_faults(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(GraphError) as caught:
        Conv2dConnection(**{"kernel": KERNEL, "input_shape": (2, 5, 5), **fields})
    assert message in str(caught.value)


@st.composite
def convolutions(draw: st.DrawFn) -> Conv2dConnection:
    def pairs(low: int, high: int) -> tuple[int, int]:
        return draw(st.tuples(st.integers(low, high), st.integers(low, high)))

    groups = draw(st.integers(1, 3))
    c_in, c_out = groups * draw(st.integers(1, 2)), groups * draw(st.integers(1, 2))
    size, stride, padding, dilation = pairs(1, 3), pairs(1, 3), pairs(0, 3), pairs(1, 2)
    least = [max(1, d * (k - 1) + 1 - 2 * p) for d, k, p in zip(dilation, size, padding, strict=True)]
    height, width = (low + draw(st.integers(0, 3)) for low in least)
    kernel = np.random.default_rng(draw(st.integers(0, 2**16))).integers(-2, 3, (c_out, c_in // groups, *size))
    return Conv2dConnection(kernel, (c_in, height, width), stride, padding, dilation, groups)


@settings(max_examples=60, deadline=None)
@given(convolution=convolutions(), seed=st.integers(0, 2**16))
def test_conv2d_equals_torch(convolution: Conv2dConnection, seed: int) -> None:
    images = np.random.default_rng(seed).integers(-5, 6, (2, *convolution.input_shape))
    expected = torch.nn.functional.conv2d(
        torch.from_numpy(images).double(),
        torch.from_numpy(convolution.kernel.copy()).double(),
        stride=convolution.stride,
        padding=convolution.padding,
        dilation=convolution.dilation,
        groups=convolution.groups,
    )
    assert tuple(expected.shape[1:]) == convolution.output_shape
    csr = convolution.to_csr()
    assert csr.shape == convolution.shape
    product = images.reshape(2, -1) @ csr.to_scipy()
    assert np.array_equal(product, expected.reshape(2, -1).numpy())  # integers in float64: exact


@settings(max_examples=100, deadline=None)
@given(convolution=convolutions())
def test_conv2d_counts_equal_the_expanded_ones(convolution: Conv2dConnection) -> None:
    csr = convolution.to_csr()
    assert convolution.nnz == csr.nnz
    assert np.array_equal(convolution.fan_out, csr.fan_out)
    assert np.array_equal(convolution.fan_in, csr.fan_in)
    for borderless, exact in zip(convolution.weight_sums, csr.weight_sums, strict=True):
        assert np.all(np.abs(borderless) >= np.abs(exact))


def test_the_border_of_a_padded_convolution() -> None:
    """3 x 3 with padding 1 on H x H: (3H - 2)^2 of the nominal 9 H^2 taps are inside."""
    for height in (2, 4, 8, 32):
        convolution = Conv2dConnection(np.ones((1, 1, 3, 3), np.int64), (1, height, height), padding=(1, 1))
        assert convolution.nnz == (3 * height - 2) ** 2


def test_depthwise_convolution_joins_only_its_channel() -> None:
    convolution = Conv2dConnection(np.ones((3, 1, 1, 1), np.int64), (3, 2, 2), groups=3)
    assert np.array_equal(convolution.to_csr().to_scipy().toarray(), np.eye(12))
