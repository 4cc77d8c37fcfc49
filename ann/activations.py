"""Quantised activations that integrate-and-fire neurons reproduce: QCFS, and its forms with a softplus threshold."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from sparsespike.common.errors import ConfigError

LAMBDA_MIN = 1e-3


class QCFS(nn.Module):
    """Quantisation-clip-floor-shift activation ``y = lam * floor(clip(x / lam, 0, 1) * L + 1/2) / L`` (Bu et al., 2022).

    An integrate-and-fire neuron with threshold ``lam``, initial membrane ``lam / 2`` and soft reset, fed ``x`` for
    ``T = L`` steps, has exactly this mean output.

    Parameters
    ----------
    levels : int
        Number of quantisation steps L, fixed.
    lam : float
        Initial value of the learnable scalar ``lam``, the neurons' threshold.

    Notes
    -----
    Gradients are straight-through (floor has slope 1): dy/dx is 1 for 0 <= x <= lam and 0 elsewhere; dy/dlam is 1 for
    x > lam, 0 for x < 0 and ``(y - x) / lam`` between. ``lam`` is kept at or above ``LAMBDA_MIN``: weight decay and noise
    can otherwise drive it through zero, where the activation changes sign.

    Raises
    ------
    ConfigError
        If ``levels`` is below 1 or ``lam`` is not above ``LAMBDA_MIN``.
    """

    def __init__(self, levels: int = 8, lam: float = 4.0) -> None:
        super().__init__()
        if levels < 1 or not lam > LAMBDA_MIN:
            raise ConfigError(f"QCFS has levels {levels} and lam {lam}; expected levels >= 1 and lam > {LAMBDA_MIN}")
        self.levels = levels
        self.lam = nn.Parameter(torch.tensor(float(lam)))

    def forward(self, x: Tensor) -> Tensor:
        """Activate ``x`` of any shape; its memory layout is kept."""
        with torch.no_grad():
            self.lam.clamp_(min=LAMBDA_MIN)
        y: Tensor = _QCFSFunction.apply(x, self.lam, self.levels)  # type: ignore[no-untyped-call]  # torch
        return y

    def extra_repr(self) -> str:
        return f"levels={self.levels}, lam={self.lam.item():.4g}"


class SoftplusQCFS(nn.Module):
    """QCFS with the threshold ``lam = softplus(rho)``, which no training step can make negative (Yang et al., 2025).

    With one ``rho`` this is S-QCFS (layer-wise thresholds), with one a channel CS-QCFS.

    Parameters
    ----------
    levels : int
        Number of quantisation steps L, fixed.
    channels : int, optional
        Channels of ``[B, C, y, x]``, or features of ``[B, C]``; none for one threshold for the whole layer.
    lam : float
        Initial threshold, the same for all channels.

    Attributes
    ----------
    rho : Parameter, shape () or (C,)
        The raw parameter. It exists from the start, so that an optimizer and a saved state know it before the first batch.

    Notes
    -----
    Gradients to the input and to ``lam`` are those of :class:`QCFS`, the latter summed over a channel; and
    ``dlam/drho = sigmoid(rho)``. Below ``LAMBDA_MIN`` softplus is cut off: a threshold that vanishes would amplify noise.

    Raises
    ------
    ConfigError
        If ``levels`` or ``channels`` is below 1 or ``lam`` is not above ``LAMBDA_MIN``.
    """

    def __init__(self, levels: int = 8, channels: int | None = None, lam: float = 4.0) -> None:
        super().__init__()
        if levels < 1 or (channels is not None and channels < 1) or not LAMBDA_MIN < lam < math.inf:
            raise ConfigError(
                f"softplus QCFS has levels {levels}, channels {channels} and lam {lam}; expected levels and channels >= 1 and "
                f"a finite lam > {LAMBDA_MIN}"
            )
        self.levels, self.channels = levels, channels
        self.rho = nn.Parameter(torch.full(() if channels is None else (channels,), inverse_softplus(lam)))

    @property
    def lam(self) -> Tensor:
        """Thresholds, shape () or (C,); differentiable."""
        return nn.functional.softplus(self.rho).clamp(min=LAMBDA_MIN)

    def forward(self, x: Tensor) -> Tensor:
        """Activate ``x``, shape (B, C) or (B, C, y, x) if there is a threshold a channel; its memory layout is kept."""
        lam = self.lam if self.channels is None else self.lam.reshape(-1, *(1,) * (x.ndim - 2))
        y: Tensor = _QCFSFunction.apply(x, lam, self.levels)  # type: ignore[no-untyped-call]  # torch
        return y

    def extra_repr(self) -> str:
        with torch.no_grad():
            return f"levels={self.levels}, channels={self.channels}, mean lam={self.lam.mean().item():.4g}"


def inverse_softplus(lam: float) -> float:
    """``rho`` with ``ln(1 + exp(rho)) = lam > 0``."""
    return lam + math.log(-math.expm1(-lam))


class _QCFSFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, lam: Tensor, levels: int) -> Tensor:
        y = (x / lam).clamp_(0, 1).mul_(levels).add_(0.5).floor_().div_(levels).mul_(lam).to(x.dtype)
        ctx.save_for_backward(x, lam, y)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        x, lam, y = ctx.saved_tensors
        (grad,) = grads
        passed = grad * ((x >= 0) & (x <= lam))
        # Summed in lambda's own precision: in half precision a sum over all neurons would overflow.
        clipped, rounded = (grad * (x > lam)).to(lam.dtype), (passed * (y - x)).to(lam.dtype)
        return passed, clipped.sum_to_size(lam.shape) + rounded.sum_to_size(lam.shape) / lam, None
