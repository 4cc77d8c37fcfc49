"""S-QCFS and CS-QCFS: closed form, straight-through gradients by channel, thresholds that stay positive."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from sparsespike.ann.activations import LAMBDA_MIN, QCFS, SoftplusQCFS, inverse_softplus
from sparsespike.common.errors import ConfigError

LAMS = (0.4, 1.0, 2.5)


def channelwise(levels: int = 4) -> SoftplusQCFS:
    """Three channels with the thresholds ``LAMS``."""
    activation = SoftplusQCFS(levels, channels=3)
    with torch.no_grad():
        activation.rho.copy_(torch.tensor([inverse_softplus(lam) for lam in LAMS]))
    return activation


def straight_through(x: Tensor, lam: Tensor, levels: int) -> Tensor:
    """The formula in plain operations, floor with slope 1."""
    h = (x / lam).clamp(0, 1)
    return lam * (h + (torch.floor(h * levels + 0.5) / levels - h).detach())


@pytest.mark.parametrize(("rho", "lam"), [(0.5, 0.974), (1.0, 1.313), (2.0, 2.127), (4.0, 4.018), (8.0, 8.0003)])
def test_softplus_has_the_published_values_and_an_inverse(rho: float, lam: float) -> None:
    assert math.log1p(math.exp(rho)) == pytest.approx(lam, abs=6e-4)
    assert inverse_softplus(math.log1p(math.exp(rho))) == pytest.approx(rho)
    assert SoftplusQCFS(lam=math.log1p(math.exp(rho))).rho.item() == pytest.approx(rho, rel=1e-5)


@given(lam=st.floats(2 * LAMBDA_MIN, 1e3))
def test_the_threshold_asked_for_is_the_threshold_had(lam: float) -> None:
    assert SoftplusQCFS(lam=lam).lam.item() == pytest.approx(lam, rel=1e-3)  # near 0, rho in float32 is coarse for softplus


def test_one_threshold_is_qcfs() -> None:
    x = torch.randn(50, 7, generator=torch.Generator().manual_seed(0)) * 3
    layerwise = SoftplusQCFS(levels=8, lam=1.5)
    assert torch.equal(layerwise(x), QCFS(8, layerwise.lam.item())(x))


@pytest.mark.parametrize("shape", [(6, 3), (6, 3, 4, 5)])
def test_each_channel_is_a_qcfs_of_its_own(shape: tuple[int, ...]) -> None:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1)) * 2
    activation = channelwise()
    y = activation(x)
    for channel, lam in enumerate(activation.lam.tolist()):
        assert torch.equal(y[:, channel], QCFS(4, lam)(x[:, channel]))
    assert torch.equal(activation(x.mT.contiguous().mT), y)
    assert activation(x.mT.contiguous().mT).stride() == x.mT.contiguous().mT.stride()


@pytest.mark.parametrize("shape", [(40, 3), (8, 3, 4, 5)])
@pytest.mark.parametrize("channels", [None, 3])
def test_gradients_are_those_of_the_straight_through_graph(shape: tuple[int, ...], channels: int | None) -> None:
    draws = torch.Generator().manual_seed(2)
    activation = (channelwise() if channels else SoftplusQCFS(4, lam=1.0)).double()
    x = (torch.randn(shape, generator=draws, dtype=torch.float64) * 2).requires_grad_()
    slope = torch.randn(shape, generator=draws, dtype=torch.float64)
    activation(x).backward(slope)
    twin, rho = x.detach().clone().requires_grad_(), activation.rho.detach().clone().requires_grad_()
    lam = torch.nn.functional.softplus(rho)
    lam = lam if channels is None else lam.reshape(-1, *(1,) * (len(shape) - 2))
    expected_x, expected_rho = torch.autograd.grad(straight_through(twin, lam, 4), (twin, rho), slope)
    assert x.grad is not None
    assert activation.rho.grad is not None
    assert torch.allclose(x.grad, expected_x, rtol=1e-14, atol=0)  # automatic differentiation multiplies by lam and divides
    assert torch.allclose(activation.rho.grad, expected_rho, rtol=1e-12, atol=1e-12)
    assert activation.rho.grad.abs().min() > 0


def test_the_threshold_gradient_has_its_closed_form() -> None:
    """dy/dlam is 1 above lam, 0 below 0, and the rounding residual over lam between; dlam/drho is the logistic function."""
    activation = channelwise()
    x = torch.tensor([[9.0, -1.0, 0.7], [-2.0, 0.3, 5.0]])
    activation(x).sum().backward()
    residual = (activation(x) - x).detach() / activation.lam.detach()
    dlam = [1 + 0, 0 + residual[1, 1], residual[0, 2] + 1]
    expected = torch.tensor(dlam) * torch.sigmoid(activation.rho.detach())
    assert activation.rho.grad is not None
    assert torch.allclose(activation.rho.grad, expected, rtol=1e-6)


@given(levels=st.integers(1, 16), current=st.integers(-64, 640), channel=st.integers(0, 2))
def test_a_neuron_with_the_channels_threshold_has_the_same_mean_output(levels: int, current: int, channel: int) -> None:
    activation = SoftplusQCFS(levels, channels=3, lam=float(16 * levels))
    thresholds = [16 * levels * (factor + 1) for factor in range(3)]
    with torch.no_grad():
        activation.rho.copy_(torch.tensor(thresholds))  # softplus is the identity to float32 from 16 on
    membrane, spikes, threshold = thresholds[channel] // 2, 0, thresholds[channel]
    for _ in range(levels):
        membrane += current
        if membrane >= threshold:
            membrane -= threshold
            spikes += 1
    y = activation(torch.full((1, 3), float(current)))[0, channel]
    assert y.item() == pytest.approx(spikes * threshold / levels, rel=1e-5)


def test_the_threshold_stays_positive_whatever_rho_is() -> None:
    activation = SoftplusQCFS(4, channels=2)
    with torch.no_grad():
        activation.rho.copy_(torch.tensor([-200.0, -3.0]))
    assert activation.lam.tolist() == pytest.approx([LAMBDA_MIN, math.log1p(math.exp(-3.0))])
    assert torch.isfinite(activation(torch.randn(5, 2))).all()


def test_half_precision_keeps_its_type() -> None:
    x = torch.randn(6, 3).bfloat16().requires_grad_()
    activation = channelwise()
    y = activation(x)
    assert y.dtype == torch.bfloat16
    y.float().sum().backward()
    assert activation.rho.grad is not None
    assert activation.rho.grad.dtype == torch.float32


@pytest.mark.parametrize(
    "settings", [{"levels": 0}, {"channels": 0}, {"lam": 0.0}, {"lam": -1.0}, {"lam": float("nan")}, {"lam": float("inf")}]
)
def test_bad_settings_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="expected levels and channels >= 1 and a finite lam >"):
        SoftplusQCFS(**settings)  # type: ignore[arg-type]  # wrong on purpose
