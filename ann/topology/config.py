"""The settings of topology evolution."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from sparsespike.ann.topology.removal import REMOVALS, Removal
from sparsespike.ann.topology.rules import Rule, check_rule
from sparsespike.ann.topology.schedules import SparsitySchedule, cosine
from sparsespike.common.errors import ConfigError

Regrowth = Literal["sampled", "top", "random", "gradient", "none"]


@dataclass(frozen=True)
class EvolutionConfig:
    """How a topology evolves. Named configurations: :mod:`sparsespike.ann.topology.recipes`.

    Parameters
    ----------
    removal : {"wm", "ri", "wm_soft", "ri_soft"}
        Rule of removal (:mod:`sparsespike.ann.topology.removal`).
    regrowth : {"sampled", "top", "random", "gradient", "none"}
        ``sampled`` and ``top`` by Cannistraci-Hebb score, ``random`` (SET), ``gradient`` (RigL), ``none`` (pruning).
    rule : {"CH2-L3n", "CH3-L3n", "CH2-L3p", "CH3-L3p"}
        Score rule of ``sampled`` and ``top``.
    zeta : float
        Share of the links removed at an update, 0 .. 1.
    zeta_schedule : {"constant", "cosine"}
        ``cosine`` lets zeta fall to 0 at the last update.
    temperature : (float, float)
        Exponent of soft removal at the first and the last update, linear in between.
    percolation : bool
        Delete the links of inactive hidden neurons between removal and regrowth.
    stop : float
        Share of the training during which the topology evolves; 0 keeps it static.
    early_stop : float, optional
        Evolution ends once in every layer more than this share of the regrown links had just been removed.
    schedule : SparsitySchedule, optional
        Sparsity over the updates. Without one each layer keeps its number of links.

    Raises
    ------
    ConfigError
        If a value is out of its range.
    """

    removal: Removal = "wm_soft"
    regrowth: Regrowth = "sampled"
    rule: Rule = "CH2-L3n"
    zeta: float = 0.3
    zeta_schedule: Literal["constant", "cosine"] = "constant"
    temperature: tuple[float, float] = (1.0, 3.0)
    percolation: bool = True
    stop: float = 0.75
    early_stop: float | None = None
    schedule: SparsitySchedule | None = None

    def __post_init__(self) -> None:
        check_rule(self.rule)
        if self.removal not in REMOVALS:
            raise ConfigError(f"removal rule is {self.removal!r}, expected one of {', '.join(REMOVALS)}")
        if self.regrowth not in get_args(Regrowth):
            raise ConfigError(f"regrowth is {self.regrowth!r}, expected one of {', '.join(get_args(Regrowth))}")
        if self.zeta_schedule not in ("constant", "cosine"):
            raise ConfigError(f"zeta_schedule is {self.zeta_schedule!r}, expected 'constant' or 'cosine'")
        for name, value in (("zeta", self.zeta), ("stop", self.stop), ("early_stop", self.early_stop)):
            if value is not None and not 0.0 <= value <= 1.0:
                raise ConfigError(f"{name} is {value}, expected 0..1")
        if not all(0.0 <= value < math.inf for value in self.temperature):
            raise ConfigError(f"temperature is {self.temperature}, expected two finite numbers of at least 0")
        if self.regrowth == "none" and self.zeta > 0.0:
            raise ConfigError(f"zeta is {self.zeta} without regrowth, expected 0: only a schedule may lower the number of links")

    def updates(self, occasions: int) -> int:
        """Return how many of ``occasions`` (epochs, say) end with an update: the first ``stop`` share of them.

        A sparsity schedule needs at least one, to reach its final sparsity. Otherwise none follows the last occasion:
        its new links would never be trained.
        """
        if self.stop == 0.0:
            return 0
        count = min(math.floor(self.stop * occasions), occasions - 1)
        return max(count, 1 if self.schedule else 0)

    def progress(self, occasion: int, occasions: int) -> float | None:
        """Return the progress at the end of ``occasion`` (0 at the first update, 1 at the last); None without an update."""
        count = self.updates(occasions)
        if not 0 <= occasion < count:
            return None
        return occasion / (count - 1) if count > 1 else 1.0

    def zeta_at(self, progress: float) -> float:
        """Return the share of links removed at ``progress``."""
        return self.zeta if self.zeta_schedule == "constant" else cosine(self.zeta, progress)
