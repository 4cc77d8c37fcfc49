"""Sparse linear layers against the masked dense ones: equal values and gradients, whatever kernel, batch and layout."""

from __future__ import annotations

import numba
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsespike.ann.kernels import Pattern, sparse_linear
from sparsespike.ann.masked import MaskedLinear
from sparsespike.ann.sparse import DenseLinear, SparseLinear, carry
from sparsespike.ann.topology import Topology, er
from sparsespike.common.errors import ConfigError, ModelError

KERNELS = ("numba", "torch")


def layer_of(topology: Topology, kernel: str, seed: int, *, integers: bool) -> SparseLinear:
    generator = np.random.default_rng(seed)
    layer = SparseLinear(topology, kernel)
    layer.reset_parameters(generator)
    if integers:
        with torch.no_grad():
            layer.values.copy_(torch.from_numpy(generator.integers(-9, 10, topology.nnz)))
            layer.bias.copy_(torch.from_numpy(generator.integers(-9, 10, topology.shape[0])))
    return layer


def gradients(layer: torch.nn.Module, x: torch.Tensor, slope: torch.Tensor) -> dict[str, torch.Tensor]:
    """Output and gradients of ``sum(slope * layer(x))``."""
    x = x.detach().requires_grad_()
    y = layer(x)
    names = [name for name, _ in layer.named_parameters()]
    values = torch.autograd.grad(y, [x, *layer.parameters()], slope)
    return {"y": y.detach(), "x": values[0], **dict(zip(names, values[1:], strict=True))}


def integer_tensor(generator: np.random.Generator, *shape: int) -> torch.Tensor:
    return torch.from_numpy(generator.integers(-8, 9, shape).astype(np.float32))


@pytest.mark.parametrize("kernel", KERNELS)
@settings(max_examples=40, deadline=None)
@given(
    m=st.integers(1, 40),
    n=st.integers(1, 40),
    batch=st.sampled_from([1, 3, 31, 32, 33, 64, 128, 130]),
    sparsity=st.sampled_from([0.0, 0.5, 0.9, 0.99]),
    feature_major=st.booleans(),
    seed=st.integers(0, 2**20),
)
def test_integer_valued_products_equal_the_masked_dense_ones(
    kernel: str, m: int, n: int, batch: int, sparsity: float, feature_major: bool, seed: int
) -> None:
    """Sums of integers are exact in float32, so every order of summation gives the same bits."""
    generator = np.random.default_rng(seed)
    layer = layer_of(er((m, n), sparsity, generator), kernel, seed, integers=True)
    masked = MaskedLinear.from_sparse(layer)
    x = integer_tensor(generator, n, batch).t() if feature_major else integer_tensor(generator, batch, n)
    slope = integer_tensor(generator, batch, m)
    ours, dense = gradients(layer, x, slope), gradients(masked, x, slope)
    assert torch.equal(ours["y"], dense["y"])
    assert torch.equal(ours["x"], dense["x"])
    assert torch.equal(ours["bias"], dense["bias"])
    assert torch.equal(ours["values"], dense["weight"][masked.mask])
    assert not dense["weight"][~masked.mask].any()


@pytest.mark.parametrize("kernel", KERNELS)
def test_random_floats_are_within_rounding_of_float64(kernel: str) -> None:
    generator = np.random.default_rng(3)
    layer = layer_of(er((300, 200), 0.9, generator), kernel, 3, integers=False)
    x, slope = torch.randn(96, 200), torch.randn(96, 300)
    ours = gradients(layer, x, slope)
    exact = gradients(MaskedLinear.from_sparse(layer).double(), x.double(), slope.double())
    exact["values"] = exact.pop("weight")[MaskedLinear.from_sparse(layer).mask]
    for name, value in ours.items():
        assert torch.allclose(value.double(), exact[name], rtol=1e-5, atol=2e-5), name


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_first_layer_needs_no_input_gradient(kernel: str) -> None:
    layer = layer_of(er((20, 30), 0.5, np.random.default_rng(0)), kernel, 0, integers=True)
    x = integer_tensor(np.random.default_rng(1), 40, 30)
    slope = integer_tensor(np.random.default_rng(2), 40, 20)
    with_input = gradients(layer, x, slope)["values"]
    (alone,) = torch.autograd.grad(layer(x), layer.values, slope)
    assert torch.equal(alone, with_input)


def test_numba_kernels_do_not_depend_on_the_number_of_threads() -> None:
    layer = layer_of(er((500, 400), 0.95, np.random.default_rng(5)), "numba", 5, integers=False)
    x, slope = torch.randn(160, 400), torch.randn(160, 500)
    before = numba.get_num_threads()
    results = []
    try:
        for threads in (1, before):
            numba.set_num_threads(threads)
            results.append(gradients(layer, x, slope))
    finally:
        numba.set_num_threads(before)
    for name, value in results[0].items():
        assert torch.equal(value, results[1][name]), name


def test_auto_takes_torch_for_what_numba_cannot_do() -> None:
    topology = er((5, 4), 0.5, np.random.default_rng(0))
    values = torch.randn(topology.nnz, dtype=torch.float64)
    x, bias = torch.randn(3, 4, dtype=torch.float64), torch.zeros(5, dtype=torch.float64)
    y = sparse_linear(x, values, bias, Pattern(topology))
    weight = torch.zeros(5, 4, dtype=torch.float64)
    weight[torch.from_numpy(topology.to_dense())] = values
    assert torch.allclose(y, x @ weight.t())
    with pytest.raises(ConfigError, match=r"kernel .numba. got torch\.float64 on cpu; expected float32 on the CPU"):
        sparse_linear(x, values, bias, Pattern(topology), "numba")
    with pytest.raises(ConfigError, match="kernel 'fast' is unknown; expected one of auto, numba, torch"):
        sparse_linear(x, values, bias, Pattern(topology), "fast")


def test_outputs_stay_feature_major() -> None:
    """Between layers nothing is copied: outputs and input gradients are transposed views, and element-wise functions keep it."""
    layer = layer_of(er((6, 5), 0.5, np.random.default_rng(0)), "numba", 0, integers=False)
    x = torch.randn(5, 32).t().requires_grad_()
    y = layer(x)
    assert y.t().is_contiguous()
    assert torch.relu(y).t().is_contiguous()
    assert DenseLinear(6, 3)(y).t().is_contiguous()
    (grad,) = torch.autograd.grad(y.sum(), x)
    assert grad.t().is_contiguous()


def test_a_dense_layer_equals_torchs() -> None:
    layer = DenseLinear(7, 4)
    layer.reset_parameters(np.random.default_rng(0))
    twin = torch.nn.Linear(7, 4)
    twin.load_state_dict(layer.state_dict())
    x, slope = torch.randn(9, 7), torch.randn(9, 4)
    for name, value in gradients(layer, x, slope).items():
        assert torch.allclose(value, gradients(twin, x, slope)[name], atol=1e-6), name


def test_a_new_topology_carries_kept_values_and_starts_new_links_at_zero() -> None:
    layer = SparseLinear(Topology.from_links((2, 3), [0, 2, 4]))
    with torch.no_grad():
        layer.values.copy_(torch.tensor([1.0, 2.0, 3.0]))
    parameter = layer.values
    layer.set_topology(Topology.from_links((2, 3), [1, 2, 4, 5]), np.array([-1, 1, 2, -1]))
    assert layer.values is parameter
    assert layer.values.tolist() == [0.0, 2.0, 3.0, 0.0]
    assert layer(torch.eye(3)).tolist() == [[0.0, 0.0], [0.0, 3.0], [2.0, 0.0]]
    assert carry(torch.tensor([5.0]), np.array([-1, 0, -1])).tolist() == [0.0, 5.0, 0.0]
    with pytest.raises(ModelError, match=r"layer of shape \(2, 3\) got a topology of shape \(3, 2\)"):
        layer.set_topology(Topology.from_links((3, 2), [0]), np.array([0]))


def test_a_state_dict_brings_its_own_topology() -> None:
    saved = layer_of(er((8, 9), 0.5, np.random.default_rng(1)), "auto", 1, integers=False)
    fresh = SparseLinear(er((8, 9), 0.9, np.random.default_rng(2)))
    parameter = fresh.values
    fresh.load_state_dict(saved.state_dict())
    assert fresh.topology == saved.topology
    assert fresh.values is parameter
    x = torch.randn(4, 9)
    assert torch.equal(fresh(x), saved(x))


def test_sparse_weights_have_the_variance_of_their_fan_in() -> None:
    layer = layer_of(er((1000, 800), 0.9, np.random.default_rng(0)), "auto", 0, integers=False)
    assert layer.values.std().item() == pytest.approx((2 / 80) ** 0.5, rel=0.01)
    assert layer.bias.abs().max().item() <= 800**-0.5
