"""QCFS: its closed form, its straight-through gradients, and the neuron that it stands for."""

from __future__ import annotations

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from sparsespike.ann.activations import LAMBDA_MIN, QCFS
from sparsespike.common.errors import ConfigError


def test_values_at_the_steps() -> None:
    x = torch.tensor([-1.0, 0.0, 0.49, 0.5, 1.0, 1.49, 1.5, 3.49, 3.5, 4.0, 9.0])
    assert QCFS(levels=4, lam=4.0)(x).tolist() == [0, 0, 0, 1, 1, 1, 2, 3, 4, 4, 4]


@given(levels=st.integers(1, 16), current=st.integers(-64, 640))
def test_an_integrate_and_fire_neuron_has_the_same_mean_output(levels: int, current: int) -> None:
    """Threshold lam, membrane lam / 2 at first, soft reset, a constant current for T = L steps; all in integers."""
    threshold = 16 * levels
    # At the step itself x / lam has to be exact: it is where lam is a power of two.
    assume(current % 16 != 8 or levels & (levels - 1) == 0)
    membrane, spikes = threshold // 2, 0
    for _ in range(levels):
        membrane += current
        if membrane >= threshold:
            membrane -= threshold
            spikes += 1
    y = QCFS(levels, float(threshold))(torch.tensor(float(current)))
    assert y.item() == pytest.approx(spikes * threshold / levels, rel=1e-6)


def test_gradients_are_straight_through() -> None:
    activation = QCFS(levels=4, lam=2.0)
    x = torch.tensor([-0.5, 0.0, 0.3, 1.2, 2.0, 2.5], requires_grad=True)
    y = activation(x)
    slope = torch.tensor([1.0, 10.0, 100.0, 1000.0, 10000.0, 100000.0])
    y.backward(slope)
    assert x.grad is not None
    assert activation.lam.grad is not None
    assert x.grad.tolist() == [0, 10, 100, 1000, 10000, 0]
    inside = (y.detach() - x.detach()) / 2.0
    expected = (slope * torch.tensor([0.0, inside[1], inside[2], inside[3], inside[4], 1.0])).sum()
    assert activation.lam.grad.item() == pytest.approx(expected.item(), rel=1e-6)


def test_the_threshold_gradient_is_that_of_the_straight_through_graph() -> None:
    """The same derivative from automatic differentiation with floor replaced by floor forward, identity backward."""
    activation = QCFS(levels=8, lam=3.0)
    x = torch.linspace(-1, 5, 200)
    slope = torch.randn(200, generator=torch.Generator().manual_seed(0))
    activation(x).backward(slope)
    lam = torch.tensor(3.0, requires_grad=True)
    h = (x / lam).clamp(0, 1)
    quantised = torch.floor(h * 8 + 0.5) / 8
    (expected,) = torch.autograd.grad(lam * (h + (quantised - h).detach()), lam, slope)
    assert activation.lam.grad is not None
    assert activation.lam.grad.item() == pytest.approx(expected.item(), rel=1e-4)


def test_the_threshold_never_falls_to_zero() -> None:
    activation = QCFS(levels=4, lam=1.0)
    with torch.no_grad():
        activation.lam.fill_(-3.0)
    y = activation(torch.tensor([1.0]))
    assert activation.lam.item() == pytest.approx(LAMBDA_MIN)
    assert y.item() == pytest.approx(LAMBDA_MIN)


@pytest.mark.parametrize(("levels", "lam"), [(0, 1.0), (4, 0.0), (4, -1.0), (4, float("nan"))])
def test_bad_settings_are_refused(levels: int, lam: float) -> None:
    with pytest.raises(ConfigError, match="expected levels >= 1 and lam >"):
        QCFS(levels, lam)
