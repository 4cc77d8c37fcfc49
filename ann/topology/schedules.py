"""How zeta, the temperature and the sparsity change while the topology evolves.

``progress`` runs from 0 at the first update to 1 at the last one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from sparsespike.common.errors import ConfigError


def linear(start: float, end: float, progress: float) -> float:
    """Return the point ``progress`` of the way from ``start`` to ``end``."""
    return start + (end - start) * progress


def cosine(start: float, progress: float) -> float:
    """Return ``start`` at progress 0, falling to 0 at progress 1 along half a cosine."""
    return 0.5 * start * (1.0 + math.cos(math.pi * progress))


@dataclass(frozen=True)
class SparsitySchedule:
    """A layer's sparsity during evolution, from ``initial`` to ``final``, both reached exactly.

    Parameters
    ----------
    initial, final : float
        Sparsity at progress 0 and 1, in [0, 1).
    kind : {"sigmoid", "cubic"}
        ``sigmoid``: CHTss (Zhang et al., NeurIPS 2025, eq. 4, scaled to reach both ends). ``cubic``: gradual magnitude
        pruning (Zhu and Gupta, 2017), also used by GraNet.
    steepness : float
        Half the logit range that the sigmoid covers.
    """

    initial: float
    final: float
    kind: Literal["sigmoid", "cubic"] = "sigmoid"
    steepness: float = 6.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.initial <= self.final < 1.0:
            raise ConfigError(f"sparsity schedule runs from {self.initial} to {self.final}, expected 0 <= initial <= final < 1")
        if self.kind not in ("sigmoid", "cubic"):
            raise ConfigError(f"sparsity schedule is {self.kind!r}, expected 'sigmoid' or 'cubic'")
        if not self.steepness > 0.0:
            raise ConfigError(f"steepness of the sparsity schedule is {self.steepness}, expected a number above 0")

    def at(self, progress: float) -> float:
        """Return the sparsity at ``progress``."""
        if progress <= 0.0:
            return self.initial
        if progress >= 1.0:
            return self.final
        if self.kind == "cubic":
            return self.final + (self.initial - self.final) * (1.0 - progress) ** 3
        end = math.tanh(self.steepness / 2)
        share = 0.5 + 0.5 * math.tanh(self.steepness * (progress - 0.5)) / end
        return self.initial + (self.final - self.initial) * share
