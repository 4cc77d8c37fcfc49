"""Activations of a network that is to be converted: ReLU, and QCFS, which a spiking neuron reproduces in L steps."""

from __future__ import annotations

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


class _QCFSFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, lam: Tensor, levels: int) -> Tensor:
        y = (x / lam).clamp_(0, 1).mul_(levels).add_(0.5).floor_().div_(levels).mul_(lam)
        ctx.save_for_backward(x, lam, y)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        x, lam, y = ctx.saved_tensors
        (grad,) = grads
        passed = grad * ((x >= 0) & (x <= lam))
        # Summed in lambda's own precision: in half precision a sum over all neurons would overflow.
        grad_lam = (grad * (x > lam)).sum(dtype=lam.dtype) + (passed * (y - x)).sum(dtype=lam.dtype) / lam
        return passed, grad_lam.reshape(lam.shape), None
