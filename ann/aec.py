"""At-most-two-spike exponential coding (AEC; Chen et al., 2024) as an activation, in closed form.

A neuron that has summed up ``u`` encodes it in slots t = 0 .. T: a primary spike in the first slot with ``u >= theta1(t)``, which
takes ``theta1(t)`` off, and once after it, the same slot allowed, a compensation spike with what is left at or above
``theta2(t)``. Both thresholds decay exponentially. The activation is what the spikes carry: the sum of their thresholds.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sparsespike.common.errors import ConfigError


class Exponentials(NamedTuple):
    """``theta1(t) = threshold1 * exp(-rate1 t)`` and ``theta2(t) = threshold2 * exp(-rate2 t)``.

    The six scalars of the paper are redundant: its ``sita`` and ``t_d`` act only as ``sita * exp(t_d)``, the threshold here.
    """

    threshold1: float
    rate1: float
    threshold2: float
    rate2: float

    def over(self, steps: int) -> Exponentials:
        """The published values, which are for T = 5, for another T: rates times 5 / T.

        The thresholds then fall to the same last value, and a larger T makes the slots finer. (With fixed rates the slots
        added at the end would lie below anything that matters.)
        """
        factor = PUBLISHED_STEPS / steps
        return self._replace(rate1=self.rate1 * factor, rate2=self.rate2 * factor)


PUBLISHED_STEPS = 5
PUBLISHED = {
    "cifar10": Exponentials(2.0 * math.exp(-0.9), 0.9, 1.0 * math.exp(-0.8), 1.0),
    "cifar100": Exponentials(4.5 * math.exp(-1.05), 0.95, 2.0 * math.exp(-0.5), 1.0),
}
"""Initial values of the released code, by data set."""


class AEC(nn.Module):
    """``y = s1 + s2``: the thresholds at the slots in which the spikes fall; 0 if there is none.

    Parameters
    ----------
    steps : int
        Last slot T; there are T + 1.
    initial : Exponentials, optional
        Of the layer, before training. Default: ``PUBLISHED["cifar10"].over(steps)``.
    smallest_as_silent : bool
        A quirk of the released code, which finds silent neurons by comparing with the smallest value of the whole batch: where
        none is silent, the smallest spikes are lost. It makes the output depend on the batch, which no spiking neuron does.
    force_compensation : bool
        Another: every neuron that fired a primary spike fires a compensation spike, in slot T if it has not before, even
        with less left than ``theta2(T)``. Twice the spikes.

    Attributes
    ----------
    log_threshold, log_rate : Parameter, shape (2,)
        Logarithms of (threshold1, threshold2) and (rate1, rate2), so that these stay positive.

    Notes
    -----
    The slots are found by comparison with the thresholds, as the neuron does; gradients are those of the closed form
    ``t1 = max(0, ceil((ln threshold1 - ln u) / rate1))`` and ``t2 = max(t1, ceil((ln threshold2 - ln(u - s1)) / rate2))``,
    straight through the ceiling. A spike whose slot moves with ``u`` gives ``ds/du = s / u`` and nothing to its threshold; one
    in slot 0 gives ``ds/dthreshold = 1`` and nothing to ``u``.

    Raises
    ------
    ConfigError
        If ``steps`` is below 1 or a value of ``initial`` is not positive.
    """

    def __init__(
        self,
        steps: int,
        initial: Exponentials | None = None,
        *,
        smallest_as_silent: bool = False,
        force_compensation: bool = False,
    ) -> None:
        super().__init__()
        if steps < 1:
            raise ConfigError(f"AEC has T = {steps}, expected at least 1: slots 0 .. T")
        values = PUBLISHED["cifar10"].over(steps) if initial is None else initial
        if not all(0 < value < math.inf for value in values):
            raise ConfigError(f"AEC has the initial values {values}, expected positive numbers")
        self.steps = steps
        self.smallest_as_silent, self.force_compensation = smallest_as_silent, force_compensation
        self.log_threshold = nn.Parameter(torch.tensor([math.log(values.threshold1), math.log(values.threshold2)]))
        self.log_rate = nn.Parameter(torch.tensor([math.log(values.rate1), math.log(values.rate2)]))

    def thresholds(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """``theta1`` and ``theta2``, float64, shape (T + 1,)."""
        with torch.no_grad():
            primary, compensation = _tables(self.log_threshold, self.log_rate, self.steps).cpu().numpy()
        return primary, compensation

    def reach(self, largest: float) -> None:
        """Scale both thresholds so that ``largest`` is the largest output, threshold1 + threshold2."""
        with torch.no_grad():
            self.log_threshold.add_(math.log(largest) - self.log_threshold.logsumexp(0))

    def forward(self, x: Tensor) -> Tensor:
        """Encode ``x`` of any shape; its memory layout is kept."""
        # Slots are looked up in memory order: activations of a sparse layer are transposed views.
        order = sorted(range(x.ndim), key=x.stride, reverse=True)
        u = x.permute(order).contiguous()
        if u.dtype in (torch.float16, torch.bfloat16):  # too coarse for neighbouring thresholds
            u = u.float()
        y: Tensor = _AECFunction.apply(  # type: ignore[no-untyped-call]  # torch
            u, self.log_threshold, self.log_rate, self.steps, self.smallest_as_silent, self.force_compensation
        )
        return y.permute(np.argsort(order).tolist()).to(x.dtype)

    def extra_repr(self) -> str:
        first, last = zip(*((table[0], table[-1]) for table in self.thresholds()), strict=True)
        return f"steps={self.steps}, thresholds {first[0]:.4g}..{last[0]:.4g} and {first[1]:.4g}..{last[1]:.4g}"


def _tables(log_threshold: Tensor, log_rate: Tensor, steps: int) -> Tensor:
    """Thresholds in every slot, float64, shape (2, T + 1)."""
    slots = torch.arange(steps + 1, dtype=torch.float64, device=log_rate.device)
    return (log_threshold.double()[:, None] - log_rate.double().exp()[:, None] * slots).exp()


def _first_slot(values: Tensor, thresholds: Tensor) -> Tensor:
    """First slot whose threshold a value reaches, int32; the number of slots if there is none."""
    return len(thresholds) - torch.bucketize(values, thresholds.flip(0), out_int32=True, right=True)


def _carried(slots: Tensor, thresholds: Tensor) -> Tensor:
    """What a spike in each slot carries: its threshold, or 0 without a spike."""
    return torch.cat([thresholds, thresholds.new_zeros(1)])[slots]


class _AECFunction(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, u: Tensor, log_threshold: Tensor, log_rate: Tensor, steps: int, smallest_as_silent: bool, force: bool
    ) -> Tensor:
        theta1, theta2 = _tables(log_threshold, log_rate, steps).to(u.dtype)
        t1 = _first_slot(u, theta1)
        s1 = _carried(t1, theta1)
        if smallest_as_silent:
            s1.masked_fill_(s1 == s1.min(), 0)
        t2 = torch.maximum(_first_slot(u - s1, theta2), t1)
        forced = (t2 > steps) & (t1 <= steps) if force else torch.zeros_like(t2, dtype=torch.bool)
        t2 = t2.masked_fill(forced, steps)
        s2 = _carried(t2, theta2)
        if smallest_as_silent:
            s2.masked_fill_(s2 == s2.min(), 0)
        ctx.save_for_backward(u, log_threshold, log_rate, t1, s1, t2, s2, forced)
        return s1 + s2

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        u, log_threshold, log_rate, t1, s1, t2, s2, forced = ctx.saved_tensors
        (grad,) = grads
        rate1, rate2 = log_rate.exp()
        zero = u.new_zeros(())
        fired1, fired2 = s1 > 0, s2 > 0
        moves = (t1 > 0) & (u > 0)  # the primary slot follows u; the values of silent neurons are never used
        with_primary = fired2 & (t2 == t1)
        at_end = fired2 & forced & ~with_primary
        follows = fired2 & ~with_primary & ~at_end  # the compensation slot follows what is left
        log_u = torch.where(moves, u, 1.0).log()
        left = torch.where(follows, u - s1, 1.0)

        ds1_du = torch.where(fired1 & moves, s1 / u, zero)
        ds2_dleft = torch.where(follows, s2 / left, zero)
        # A compensation spike in the primary's slot t1 = (ln threshold1 - ln u) / rate1 moves with it.
        moved = torch.where(with_primary & moves, s2 * rate2 / rate1, zero)
        kept = 1 - ds2_dleft
        du = grad * (ds1_du * kept + ds2_dleft + torch.where(moves, moved / u, zero))

        primary = torch.where(fired1 & ~moves, s1, zero) * kept - moved
        log_s1 = torch.where(fired1, s1, 1.0).log()
        primary_rate = torch.where(fired1 & moves, s1 * (log_s1 - log_u), zero) * kept + moved * (log_threshold[0] - log_u)
        compensation = torch.where(with_primary | at_end, s2, zero)
        ln_left_s2 = torch.where(follows, left / s2, 1.0).log()
        compensation_rate = -compensation * rate2 * t2 - torch.where(follows, s2 * ln_left_s2, zero)

        def total(slope: Tensor) -> Tensor:
            return (grad * slope).sum(dtype=log_rate.dtype)

        to_threshold = torch.stack([total(primary), total(compensation)])
        return du, to_threshold, torch.stack([total(primary_rate), total(compensation_rate)]), None, None, None
