"""Where a network trains, and in which precision."""

from __future__ import annotations

import torch
from torch import Tensor

from sparsespike.common.errors import ConfigError


def torch_device(name: str) -> torch.device:
    """The device of that name.

    Raises
    ------
    ConfigError
        If torch finds no such device.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            f"device 'cuda' is not available to torch {torch.__version__}; use device 'cpu', or install a driver and a "
            "torch build for this machine's GPU"
        )
    return torch.device(name)


class Precision:
    """Mixed precision: weights and momentum stay float32, the products of the forward and backward pass do not.

    ``float16`` needs the loss scaled up so that small gradients do not vanish; the scale adapts and is part of the training
    state.

    Parameters
    ----------
    device : torch.device
    amp : str
        ``bfloat16``, ``float16``, or ``none``, which keeps everything in float32.
    """

    def __init__(self, device: torch.device, amp: str) -> None:
        dtype = torch.float16 if amp == "float16" else torch.bfloat16
        self._autocast = torch.autocast(device.type, dtype, enabled=amp != "none")
        self._scaler = torch.amp.GradScaler(device.type, enabled=amp == "float16")

    def autocast(self) -> torch.autocast:
        """The context of a forward pass."""
        return self._autocast

    def step(self, loss: Tensor, optimizer: torch.optim.Optimizer) -> None:
        """Backward pass and step of the optimizer."""
        optimizer.zero_grad()
        self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]  # torch
        self._scaler.step(optimizer)
        self._scaler.update()

    def state(self) -> dict[str, Tensor]:
        """The loss scale, as tensors; nothing in a precision without one."""
        state = self._scaler.state_dict()
        return {name: torch.tensor(state[name]) for name in ("scale", "_growth_tracker") if name in state}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Take the state that :meth:`state` gave."""
        if tensors:
            self._scaler.load_state_dict({**self._scaler.state_dict(), **{name: value.item() for name, value in tensors.items()}})
