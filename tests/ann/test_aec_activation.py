"""AEC: the closed form is the event-driven neuron, its gradients are those of the straight-through ceiling, the quirks."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sparsespike.ann.aec import AEC, PUBLISHED, Exponentials
from sparsespike.common.errors import ConfigError

STEPS = st.sampled_from([1, 2, 4, 5, 16, 64])
VALUES = st.floats(-2.0, 4.0) | st.floats(1e-4, 0.1)
LAYERS = st.builds(Exponentials, st.floats(0.1, 5.0), st.floats(0.01, 3.0), st.floats(0.02, 5.0), st.floats(0.01, 3.0))


def neuron(u: float, layer: AEC) -> tuple[float, list[tuple[int, int]], float]:
    """One encode window of the event-driven neuron: what its spikes carry, (slot, which) of each, and what is left."""
    theta1, theta2 = layer.thresholds()
    v, primary, compensation, spikes, emitted = u, False, False, [], 0.0
    for t in range(layer.steps + 1):
        if not primary and v >= theta1[t]:
            primary = True
            v -= theta1[t]
            emitted += theta1[t]
            spikes.append((t, 1))
        threshold = 0.0 if layer.force_compensation and t == layer.steps else theta2[t]
        if primary and not compensation and v >= threshold:
            compensation = True
            v -= theta2[t]
            emitted += theta2[t]
            spikes.append((t, 2))
    return emitted, spikes, v


def closed_form(u: Tensor, threshold: Tensor, rate: Tensor, steps: int, *, force: bool = False) -> Tensor:
    """The published formulas in plain operations, ceiling with slope 1; masks where the released code adds 1e-20."""

    def slot(value: Tensor, which: int) -> Tensor:
        inside = torch.where(value > 0, value, 1.0)
        t = (threshold[which].log() - inside.log()) / rate[which]
        return torch.relu(torch.where(value > 0, t + (t.ceil() - t).detach(), steps + 1.0))

    t1 = slot(u, 0)
    fires = t1 <= steps
    s1 = torch.where(fires, threshold[0] * torch.exp(-rate[0] * t1), 0.0)
    t2 = slot(u - s1, 1)
    if force:
        t2 = torch.where(t2 > steps, float(steps), t2)
    t2 = torch.where(t2 <= t1, t1, t2)
    s2 = torch.where(fires & (t2 <= steps), threshold[1] * torch.exp(-rate[1] * t2), 0.0)
    return s1 + s2


@given(u=VALUES, initial=LAYERS, steps=STEPS, force=st.booleans())
@settings(max_examples=300)
def test_the_closed_form_is_the_event_driven_neuron(u: float, initial: Exponentials, steps: int, force: bool) -> None:
    layer = AEC(steps, initial, force_compensation=force)
    emitted, spikes, left = neuron(u, layer)
    assert layer(torch.tensor([u], dtype=torch.float64)).item() == emitted
    assert len(spikes) <= 2
    if not force:
        assert left >= 0 or not spikes
        assert emitted <= max(u, 0) * (1 + 1e-12)
    if u <= 0:
        assert not spikes


@given(slot=st.integers(0, 5))
def test_a_value_at_a_threshold_fires_in_its_slot(slot: int) -> None:
    layer = AEC(5)
    u = layer.thresholds()[0][slot]
    assert neuron(u, layer)[1][0] == (slot, 1)
    below = neuron(np.nextafter(u, 0), layer)[1]
    assert not below if slot == 5 else below[0] == (slot + 1, 1)
    for value in (u, np.nextafter(u, 0)):
        assert layer(torch.tensor([value])).item() == neuron(value, layer)[0]


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("steps", [1, 5, 16, 64])
def test_values_and_gradients_are_those_of_the_published_formulas(steps: int, force: bool) -> None:
    generator = torch.Generator().manual_seed(steps)
    u = torch.rand(4000, generator=generator, dtype=torch.float64) * 4 - 1
    slope = torch.randn(4000, generator=generator, dtype=torch.float64)
    layer = AEC(steps, force_compensation=force).double()
    x = u.clone().requires_grad_()
    layer(x).backward(slope)

    twin = u.clone().requires_grad_()
    logs = [parameter.detach().clone().requires_grad_() for parameter in (layer.log_threshold, layer.log_rate)]
    y = closed_form(twin, logs[0].exp(), logs[1].exp(), steps, force=force)
    assert torch.allclose(y, layer(u), rtol=1e-12, atol=0)
    expected = torch.autograd.grad(y, [twin, *logs], slope)
    found = (x.grad, layer.log_threshold.grad, layer.log_rate.grad)
    for ours, reference in zip(found, expected, strict=True):
        assert ours is not None
        assert torch.allclose(ours, reference, rtol=1e-9, atol=1e-12)
        assert ours.abs().max() > 0


def test_gradients_of_one_spike_have_their_closed_forms() -> None:
    """A spike whose slot moves teaches the rate, a saturated one the threshold, a silent neuron nothing."""
    never = Exponentials(1.0, 0.5, 1e-30, 1e-3)  # compensation carries nothing that counts
    layer = AEC(4, never).double()
    k = math.exp(layer.log_rate[0].item())
    cases = {0.5: math.ceil(math.log(1 / 0.5) / k), 3.0: 0, 0.01: 5}
    for u, slot in cases.items():
        layer.zero_grad()
        x = torch.tensor([u], dtype=torch.float64, requires_grad=True)
        layer(x).backward()
        assert x.grad is not None
        assert layer.log_threshold.grad is not None
        assert layer.log_rate.grad is not None
        s = math.exp(-k * slot) if slot <= 4 else 0.0
        assert x.grad.item() == pytest.approx(s / u if 0 < slot <= 4 else 0.0, rel=1e-9)
        assert layer.log_threshold.grad[0].item() == pytest.approx(1.0 if slot == 0 else 0.0)
        gap = slot - math.log(1 / u) / k if 0 < slot <= 4 else 0.0
        assert layer.log_rate.grad[0].item() == pytest.approx(-k * s * gap, rel=1e-6)


def test_the_published_layer_at_its_first_slots() -> None:
    theta1, theta2 = AEC(5).thresholds()
    assert theta1 == pytest.approx(0.8131 * np.exp(-0.9 * np.arange(6)), rel=1e-4)
    assert theta2 == pytest.approx(0.4493 * np.exp(-1.0 * np.arange(6)), rel=1e-4)
    assert PUBLISHED["cifar100"] == pytest.approx((1.5747, 0.95, 1.2131, 1.0), rel=1e-4)
    u = torch.tensor([9.0, 1.2, 0.8131 * math.exp(-0.9) + 0.001, 0.005, -1.0], dtype=torch.float64)
    expected = [theta1[0] + theta2[0], theta1[0] + theta2[1], theta1[1], 0.0, 0.0]
    assert AEC(5)(u).tolist() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("steps", [1, 4, 16, 64])
def test_another_window_keeps_the_dynamic_range(steps: int) -> None:
    """And with more slots the code gets finer: the relative error of one spike is at most 1 - exp(-rate)."""
    theta1, theta2 = AEC(steps).thresholds()
    published1, published2 = AEC(5).thresholds()
    assert (theta1[-1], theta2[-1]) == pytest.approx((published1[-1], published2[-1]), rel=1e-5)
    u = torch.linspace(0.02, 0.8, 2000, dtype=torch.float64)
    rate1 = 0.9 * 5 / steps
    assert ((u - AEC(steps)(u)) / u).max().item() <= 1 - math.exp(-rate1)


def test_the_largest_output_can_be_set() -> None:
    layer = AEC(16)
    before = layer.thresholds()
    layer.reach(10.0)
    theta1, theta2 = layer.thresholds()
    assert theta1[0] + theta2[0] == pytest.approx(10.0, rel=1e-6)
    assert theta1 / theta2 == pytest.approx(before[0] / before[1], rel=1e-5)
    assert layer(torch.tensor([1e6])).item() == pytest.approx(10.0, rel=1e-6)


def test_every_shape_keeps_its_layout() -> None:
    layer = AEC(5)
    x = torch.rand(4, 6, 5, 3)
    expected = layer(x)
    views = (x.permute(1, 0, 3, 2).contiguous().permute(1, 0, 3, 2), x.contiguous(memory_format=torch.channels_last))
    for view in views:
        y = layer(view)
        assert torch.equal(y, expected)
        assert y.stride() == view.stride()
    flat = torch.rand(8, 7).t()
    assert layer(flat).stride() == flat.stride()
    half = torch.rand(8, 7).bfloat16().requires_grad_()
    y = layer(half)
    assert y.dtype == torch.bfloat16
    y.sum().backward()
    assert layer.log_rate.grad is not None


def test_forced_compensation_gives_every_firing_neuron_two_spikes() -> None:
    u = np.random.default_rng(0).uniform(-1, 1.2, 300)
    plain, forced = AEC(5), AEC(5, force_compensation=True)
    for value in u:
        spikes, more = neuron(value, plain)[1], neuron(value, forced)[1]
        assert len(more) == (2 if spikes else 0)
        if len(spikes) == 1:
            assert more[1] == (5, 2)
    x = torch.from_numpy(u)
    _, theta2 = plain.thresholds()
    extra = (forced(x) - plain(x)).detach()
    assert set(np.round(extra.numpy() / theta2[5], 9).tolist()) == {0.0, 1.0}


def test_the_smallest_as_silent_quirk_depends_on_the_batch() -> None:
    layer, quirk = AEC(5), AEC(5, smallest_as_silent=True)
    with_silent = torch.tensor([-1.0, 0.3, 0.02, 0.7])
    assert torch.equal(quirk(with_silent), layer(with_silent))
    firing = torch.tensor([0.7, 0.3, 0.02])
    lost = quirk(firing)
    # The primary spike of the smallest is lost, and what it had is left to compensation.
    assert torch.equal(lost[:2], layer(firing)[:2])
    assert lost[2] != layer(firing)[2]
    quirk.zero_grad()
    x = firing.clone().requires_grad_()
    quirk(x).sum().backward()
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()


@pytest.mark.parametrize("steps", [0, -3])
def test_a_window_without_slots_is_refused(steps: int) -> None:
    with pytest.raises(ConfigError, match=rf"AEC has T = {steps}, expected at least 1"):
        AEC(steps)


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
def test_initial_values_are_positive(value: float) -> None:
    with pytest.raises(ConfigError, match="expected positive numbers"):
        AEC(5, Exponentials(1.0, value, 1.0, 1.0))
