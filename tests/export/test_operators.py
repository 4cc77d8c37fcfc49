"""Composition of linear layers, held against torch: exact in integers and binary fractions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from sparsespike.common.errors import ModelError
from sparsespike.export import operators
from sparsespike.export.network import AveragePool, Convolve, Dense, Flatten, Normalise, Shape
from sparsespike.export.operators import Kernel, Matrix, Operator, add, compose, identity


def convolution(rng: np.random.Generator, channels: int, out: int, size: tuple[int, int], **geometry: Any) -> Convolve:
    groups = geometry.pop("groups", 1)
    kernel = rng.integers(-4, 5, (out, channels // groups, *size)) * (rng.random((out, channels // groups, *size)) < 0.7)
    defaults = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1)}
    return Convolve(kernel.astype(float), np.zeros(out), **{**defaults, **geometry}, groups=groups, links=kernel.size)


def through(layers: list[Any], shape: Shape) -> Operator:
    """The layers composed into one operator."""
    operator = identity(shape)
    for layer in layers:
        after = layer.shape(shape)
        if not isinstance(layer, Flatten):
            operator = compose(layer, operator, shape, after)
        shape = after
    return operator


def oracle(layers: list[Any], shape: Shape) -> np.ndarray:
    """The matrix of the layers, rows = outputs: what they make of every unit vector."""
    x = np.eye(int(np.prod(shape))).reshape(-1, *shape)
    for layer in layers:
        x = layer(x)
    return x.reshape(len(x), -1).T


geometries = st.fixed_dictionaries(
    {
        "stride": st.tuples(st.integers(1, 2), st.integers(1, 3)),
        "padding": st.tuples(st.integers(0, 2), st.integers(0, 1)),
        "dilation": st.tuples(st.integers(1, 2), st.integers(1, 2)),
        "groups": st.sampled_from([1, 2]),
    }
)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**16), geometry=geometries)
def test_a_convolution_expands_to_its_matrix(seed: int, geometry: dict[str, Any]) -> None:
    layer = convolution(np.random.default_rng(seed), 4, 6, (2, 3), **geometry)
    operator = through([layer], (4, 5, 6))
    assert isinstance(operator, Kernel)
    assert np.array_equal(operator.matrix().toarray(), oracle([layer], (4, 5, 6)))
    assert operator.nnz == operator.matrix().nnz == np.count_nonzero(oracle([layer], (4, 5, 6)))


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**16), geometry=geometries, pool=st.sampled_from([(2, 2), (2, 4), (4, 2), (1, 2)]))
def test_a_convolution_after_a_pool_is_one_convolution(seed: int, geometry: dict[str, Any], pool: tuple[int, int]) -> None:
    """Kernel repeated k x k, stride and padding times k; equal to pooling, then the convolution, and to the product W * P."""
    shape = (2, 12, 12)
    layers = [AveragePool(pool, pool), convolution(np.random.default_rng(seed), 2, 4, (2, 2), **geometry)]
    operator = through(layers, shape)
    assert isinstance(operator, Kernel)
    assert np.array_equal(operator.matrix().toarray(), oracle(layers, shape))
    pooled = layers[0].shape(shape)
    w, p = through(layers[1:], pooled).matrix(), through(layers[:1], shape).matrix()
    assert (operator.matrix() != w @ p).nnz == 0
    assert operator.nnz == w.nnz * pool[0] * pool[1]


@pytest.mark.parametrize(
    "pool",
    [
        AveragePool((2, 2), (1, 1)),  # windows overlap
        AveragePool((2, 2), (2, 2), (1, 1)),  # padding
        AveragePool((4, 4), (4, 4)),  # the last columns are left out
        AveragePool((1, 1), (2, 2)),  # subsampling
    ],
    ids=str,
)
def test_other_pools_become_a_sparse_product(pool: AveragePool) -> None:
    shape = (2, 6, 6)
    layers = [pool, convolution(np.random.default_rng(1), 2, 3, (1, 1))]
    operator = through(layers, shape)
    assert isinstance(operator, Matrix)
    assert np.array_equal(operator.matrix().toarray(), oracle(layers, shape))
    assert np.all(operator.weights.data != 0)


def test_pools_of_pools_and_of_whole_images() -> None:
    shape = (3, 8, 8)
    rng = np.random.default_rng(2)
    nested = [AveragePool((2, 2), (2, 2)), AveragePool(output=(2, 2)), convolution(rng, 3, 2, (2, 2))]
    operator = through(nested, shape)
    assert isinstance(operator, Kernel)
    assert np.array_equal(operator.matrix().toarray(), oracle(nested, shape))
    head = Dense(sparse.csr_matrix(rng.integers(-3, 4, (5, 3)).astype(float)), np.zeros(5), 15)
    whole = [AveragePool(output=(1, 1)), Flatten(), head]
    product = through(whole, shape)
    assert isinstance(product, Matrix)
    assert np.array_equal(product.matrix().toarray(), oracle(whole, shape))
    assert product.nnz == head.weights.nnz * 64


def test_dense_after_flatten_reads_in_the_order_channel_y_x() -> None:
    rng = np.random.default_rng(3)
    head = Dense(sparse.csr_matrix(rng.integers(-3, 4, (4, 18)).astype(float)), np.zeros(4), 72)
    operator = through([Flatten(), head], (2, 3, 3))
    assert isinstance(operator, Matrix)
    assert operator.weights is head.weights  # nothing is copied
    x = rng.integers(0, 9, (5, 2, 3, 3))
    with torch.no_grad():
        expected = torch.from_numpy(x).flatten(1).double() @ torch.from_numpy(head.weights.toarray()).T
    assert np.array_equal(x.reshape(5, -1) @ operator.matrix().toarray().T, expected.numpy())


def test_batch_norm_before_and_after_a_convolution() -> None:
    rng = np.random.default_rng(4)
    before, after = (Normalise(2.0 ** rng.integers(-2, 3, n) * [1, -1, 1, -1][:n], np.zeros(n)) for n in (2, 4))
    layers = [before, convolution(rng, 2, 4, (3, 3), padding=(1, 1), groups=2), after]
    operator = through(layers, (2, 5, 5))
    assert isinstance(operator, Kernel)
    assert np.array_equal(operator.matrix().toarray(), oracle(layers, (2, 5, 5)))
    flat = [Flatten(), Normalise(2.0 ** rng.integers(-2, 3, 50), np.zeros(50))]
    assert np.array_equal(through(flat, (2, 5, 5)).matrix().toarray(), oracle(flat, (2, 5, 5)))


def test_a_convolution_then_a_pool_is_a_sparse_product() -> None:
    layers = [convolution(np.random.default_rng(5), 2, 3, (3, 3), padding=(1, 1)), AveragePool((2, 2), (2, 2))]
    operator = through(layers, (2, 4, 4))
    assert isinstance(operator, Matrix)
    assert np.array_equal(operator.matrix().toarray(), oracle(layers, (2, 4, 4)))


def test_sums_of_maps() -> None:
    rng = np.random.default_rng(6)
    one, other = (through([convolution(rng, 2, 2, (3, 3), padding=(1, 1))], (2, 4, 4)) for _ in range(2))
    both = add(one, other)
    assert isinstance(both, Kernel)
    assert np.array_equal(both.matrix().toarray(), one.matrix().toarray() + other.matrix().toarray())
    skip = add(one, identity((2, 4, 4)))
    assert isinstance(skip, Matrix)
    assert np.array_equal(skip.matrix().toarray(), one.matrix().toarray() + np.eye(32))
    nothing = add(identity((3,)), Matrix(sparse.csr_matrix(-np.eye(3))))
    assert nothing.nnz == 0


def test_scaling_by_channel() -> None:
    operator = through([convolution(np.random.default_rng(7), 4, 6, (2, 2), groups=2)], (4, 3, 3))
    outputs, inputs = 2.0 ** np.arange(6), 2.0 ** -np.arange(4)
    expected = np.diag(np.repeat(outputs, 4)) @ operator.matrix().toarray() @ np.diag(np.repeat(inputs, 9))
    assert np.array_equal(operator.scaled(outputs, inputs).matrix().toarray(), expected)


def test_expansion_is_refused_above_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    operator = through([convolution(np.random.default_rng(8), 2, 2, (3, 3))], (2, 6, 6))
    monkeypatch.setattr(operators, "EXPANSION_LIMIT", operator.nnz)
    operator.matrix()
    monkeypatch.setattr(operators, "EXPANSION_LIMIT", operator.nnz - 1)
    with pytest.raises(ModelError, match=r"convolution from \(2, 6, 6\) to \(2, 4, 4\): has to be expanded into"):
        operator.matrix()
    dense = Dense(sparse.csr_matrix(np.ones((30, 30))), np.zeros(30), 900)
    with pytest.raises(ModelError, match="two linear layers without an activation between them: composed they have up to 27,000"):
        through([dense, dense], (30,))
