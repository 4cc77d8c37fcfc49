"""The activations that a network's description can name, and putting them in the place of others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from torch import nn

from sparsespike.ann.activations import QCFS, SoftplusQCFS
from sparsespike.ann.aec import AEC
from sparsespike.ann.finetune_config import QUIRKS
from sparsespike.common.errors import ConfigError

KINDS = ("relu", "qcfs", "s-qcfs", "cs-qcfs", "aec")
POOLS = (nn.AvgPool2d, nn.AdaptiveAvgPool2d)


class ActivationSettings(Protocol):
    """What a network's description says of its activations: the fields of that name of ``MLPSpec`` and ``ConvNetSpec``."""

    @property
    def activation(self) -> str: ...

    @property
    def levels(self) -> int: ...

    @property
    def lam(self) -> float: ...

    @property
    def steps(self) -> int: ...

    @property
    def quirks(self) -> tuple[str, ...]: ...


def check_activation(settings: ActivationSettings) -> None:
    """Raise ``ConfigError`` if the activation or a quirk is unknown, or there are quirks without AEC."""
    if settings.activation not in KINDS:
        raise ConfigError(f"activation {settings.activation!r} is unknown; expected one of {', '.join(KINDS)}")
    known = QUIRKS if settings.activation == "aec" else ()
    if unknown := [name for name in settings.quirks if name not in known]:
        raise ConfigError(
            f"activation {settings.activation} has the quirks {', '.join(unknown)}; expected {' or '.join(known) or 'none'}"
        )


def make_activation(settings: ActivationSettings, channels: int) -> nn.Module:
    """The activation of a layer with that many channels or features."""
    if settings.activation == "qcfs":
        return QCFS(settings.levels, settings.lam)
    if settings.activation in ("s-qcfs", "cs-qcfs"):
        return SoftplusQCFS(settings.levels, channels if settings.activation == "cs-qcfs" else None, settings.lam)
    if settings.activation == "aec":
        smallest_as_silent, force_compensation = (name in settings.quirks for name in QUIRKS)
        return AEC(settings.steps, smallest_as_silent=smallest_as_silent, force_compensation=force_compensation)
    return nn.ReLU()


def replace_modules(model: nn.Module, types: tuple[type[nn.Module], ...], make: Callable[[nn.Module], nn.Module]) -> None:
    """Put ``make(module)`` in the place of every module of these types, in place; not within what was put there."""
    for name, child in list(model.named_children()):
        if isinstance(child, types):
            setattr(model, name, make(child))
        else:
            replace_modules(child, types, make)


def with_spiking_pools(model: nn.Module, make: Callable[[], nn.Module]) -> None:
    """Let an activation follow every average pool, in place: in AEC a pool is a layer of spiking neurons.

    A graded spike is decoded once, by the layer after it; means of decoded values have to be encoded again.
    """
    replace_modules(model, POOLS, lambda pool: nn.Sequential(pool, make()))
