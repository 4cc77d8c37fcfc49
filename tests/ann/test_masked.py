"""Masked dense layers: the truly sparse layer and the plain dense one with zeros, bit for bit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from sparsespike.ann.evolution import evolve_model, link_gradients
from sparsespike.ann.masked import DenseConv2d, MaskedConv2d, MaskedLinear
from sparsespike.ann.models import MLP, MLPSpec
from sparsespike.ann.momentum import momentum_tensors, restore_momentum
from sparsespike.ann.sparse import SparseLinear
from sparsespike.ann.topology import RECIPES, Topology, conv_er, conv_mask, er, recipe
from sparsespike.common.errors import ModelError


def rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def sgd(model: nn.Module, lr: float = 0.05) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr, 0.9, weight_decay=5e-4, fused=True)


def convolution(stride: int = 1) -> MaskedConv2d:
    layer = MaskedConv2d((6, 5, 3, 3), stride, conv_er((6, 5, 3, 3), 0.5, rng(0)))
    layer.reset_parameters(rng(1))
    return layer


@pytest.mark.parametrize("stride", [1, 2])
def test_a_masked_convolution_is_the_plain_one_with_zeros(stride: int) -> None:
    layer = convolution(stride)
    weight = layer.weight.detach().clone().requires_grad_()
    assert torch.equal(weight != 0, layer.mask)
    assert np.array_equal(layer.mask.numpy(), conv_mask(layer.topology, layer.shape))
    x = torch.randn(4, 5, 8, 8, generator=torch.Generator().manual_seed(0)).requires_grad_()
    y = layer(x)
    expected = nn.functional.conv2d(x, weight, stride=stride, padding=1)
    assert torch.equal(y, expected)
    slope = torch.randn(y.shape, generator=torch.Generator().manual_seed(1))
    dx, dweight = torch.autograd.grad(y, [x, layer.weight], slope)
    plain_dx, plain = torch.autograd.grad(expected, [x, weight], slope)
    assert torch.equal(dx, plain_dx)
    assert torch.equal(dweight[layer.mask], plain[layer.mask])
    assert not dweight[~layer.mask].any()
    assert plain[~layer.mask].all()
    possible = torch.from_numpy(layer.link_gradient(x.detach(), slope)(0, 6)).reshape(layer.shape)
    assert torch.allclose(possible, plain.abs(), rtol=1e-4, atol=1e-4)
    assert np.array_equal(layer.link_gradient(x.detach(), slope)(2, 4), possible[2:4].reshape(2, -1))


def test_weights_and_momentum_stay_zero_outside_the_mask() -> None:
    layer = convolution()
    optimizer = sgd(layer)
    for step in range(5):
        optimizer.zero_grad()
        layer(torch.randn(4, 5, 8, 8, generator=torch.Generator().manual_seed(step))).square().mean().backward()
        optimizer.step()
    momentum = optimizer.state[layer.weight]["momentum_buffer"]
    assert not layer.weight[~layer.mask].any()
    assert not momentum[~layer.mask].any()
    assert momentum[layer.mask].all()


def test_gather_and_scatter_follow_the_link_order() -> None:
    layer = convolution()
    values = torch.arange(1.0, layer.topology.nnz + 1)
    full = layer.scatter(values)
    assert torch.equal(full.reshape(-1)[torch.from_numpy(layer.topology.links)], values)
    assert torch.equal(layer.gather(full), values)


def both(seed: int, *, integers: bool) -> tuple[SparseLinear, MaskedLinear]:
    topology = er((33, 21), 0.8, rng(seed))
    layers = SparseLinear(topology), MaskedLinear(topology)
    for layer in layers:
        layer.reset_parameters(rng(seed))
        if integers:
            layer.parameter.data = layer.scatter(torch.from_numpy(rng(seed).integers(-9, 10, topology.nnz)).float())
            layer.bias.data.round_()
    return layers


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**20), batch=st.integers(1, 70))
def test_masked_and_truly_sparse_linear_layers_are_equal(seed: int, batch: int) -> None:
    """Sums of integers are exact in float32, so the order of summation does not matter."""
    sparse, masked = both(seed, integers=True)
    x = torch.from_numpy(rng(seed + 1).integers(-8, 9, (batch, 21))).float()
    assert torch.equal(sparse(x), masked(x))


def test_both_forms_start_equal_and_share_their_state() -> None:
    sparse, masked = both(3, integers=False)
    assert torch.equal(sparse.values, masked.gather(masked.weight))
    assert torch.equal(sparse.bias, masked.bias)
    states = sparse.state_dict(), masked.state_dict()
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    other = MaskedLinear(er((33, 21), 0.5, rng(9)))
    other.load_state_dict(states[0])
    assert other.topology == sparse.topology
    assert torch.equal(other.weight, masked.weight)
    broken = {**states[0], "values": states[0]["values"][1:]}
    with pytest.raises(RuntimeError):
        other.load_state_dict(broken)
    with pytest.raises(RuntimeError, match="weight"):
        other.load_state_dict({name: value for name, value in states[0].items() if name != "values"})


@pytest.mark.parametrize("method", sorted(RECIPES))
def test_one_update_gives_the_same_network_on_both_paths(method: str) -> None:
    spec = MLPSpec((20, 40, 30, 5))
    config = recipe(method, 0.7)
    if config.regrowth != "none":
        config = replace(config, zeta=0.3)
    topologies = [er((40, 20), 0.4, rng(0)), er((30, 40), 0.4, rng(1))]
    x, targets = torch.randn(16, 20, generator=torch.Generator().manual_seed(0)), torch.arange(16) % 5
    sparse = MLP(spec, topologies)
    sparse.reset_parameters(rng(2))
    optimizer = sgd(sparse)
    nn.functional.cross_entropy(sparse(x), targets).backward()
    optimizer.step()
    masked = MLP(spec, masked=True)
    masked.load_state_dict(sparse.state_dict())
    twin = sgd(masked)
    restore_momentum(masked, twin, momentum_tensors(sparse, optimizer))
    gradients = link_gradients(sparse, x, targets) if config.regrowth == "gradient" else None
    reports = [evolve_model(model, sgd_, config, 0.5, rng(3), gradients) for model, sgd_ in ((sparse, optimizer), (masked, twin))]
    assert reports[0] == reports[1]
    assert [layer.topology for layer in sparse.sparse_layers] == [layer.topology for layer in masked.sparse_layers]
    if method != "static":
        assert [layer.topology for layer in sparse.sparse_layers] != topologies
    for ours, theirs in (
        (sparse.state_dict(), masked.state_dict()),
        (momentum_tensors(sparse, optimizer), momentum_tensors(masked, twin)),
    ):
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    for layer in masked.sparse_layers:
        assert not layer.parameter[~layer.mask].any()
        assert not twin.state[layer.parameter]["momentum_buffer"][~layer.mask].any()


def test_link_gradients_are_equal_within_rounding_on_both_paths() -> None:
    spec = MLPSpec((20, 40, 30, 5), activation="qcfs")
    sparse = MLP(spec, [er((40, 20), 0.4, rng(0)), er((30, 40), 0.4, rng(1))])
    sparse.reset_parameters(rng(2))
    masked = MLP(spec, masked=True)
    masked.load_state_dict(sparse.state_dict())
    x, targets = torch.randn(16, 20, generator=torch.Generator().manual_seed(0)), torch.arange(16) % 5
    pairs = zip(link_gradients(sparse, x, targets), link_gradients(masked, x, targets), strict=True)
    for ours, theirs in pairs:
        assert np.allclose(ours(0, 30), theirs(0, 30), atol=1e-6)


def test_wrong_topologies_are_refused() -> None:
    with pytest.raises(ModelError, match=r"expected \(6, 45\) for a convolution"):
        MaskedConv2d((6, 5, 3, 3), 1, Topology.full((6, 44)))
    with pytest.raises(ModelError, match=r"layer of shape \(6, 45\) got a topology of shape \(6, 44\)"):
        convolution().reset_topology(Topology.full((6, 44)))


def test_a_dense_convolution_is_initialised_by_its_fan_in() -> None:
    layer = DenseConv2d((64, 32, 3, 3))
    assert not layer.weight.any()
    layer.reset_parameters(rng(0))
    assert layer.weight.std().item() == pytest.approx((2 / 288) ** 0.5, rel=0.02)
    masked = MaskedConv2d((64, 32, 3, 3), 1, conv_er((64, 32, 3, 3), 0.5, rng(1)))
    masked.reset_parameters(rng(0))
    assert masked.weight[masked.mask].std().item() == pytest.approx((2 / 144) ** 0.5, rel=0.02)
