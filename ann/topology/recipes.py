"""Named ways to train a sparse network.

==========  ==================================================================================================
``cht``     magnitude removal with cosine zeta, highest CH3-L3p scores, early stop (Zhang et al., ICLR 2024)
``chts``    sampled magnitude removal, sampled CH2-L3n regrowth (Zhang et al., NeurIPS 2025)
``chtss``   ``chts`` with sigmoid density decay from 50 % (the same)
``static``  the initial topology, unchanged
``set``     magnitude removal, random regrowth (Mocanu et al., 2018)
``rigl``    magnitude removal with cosine zeta, regrowth by gradient (Evci et al., 2020)
``gmp``     gradual magnitude pruning from a dense network, cubic (Zhu and Gupta, 2017)
``granet``  gradual pruning from 50 % with regrowth by gradient (Liu et al., 2021)
==========  ==================================================================================================
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from sparsespike.ann.topology.config import EvolutionConfig
from sparsespike.ann.topology.schedules import SparsitySchedule
from sparsespike.common.errors import ConfigError

RECIPES: dict[str, Callable[[float], EvolutionConfig]] = {
    "cht": lambda _: EvolutionConfig(removal="wm", regrowth="top", rule="CH3-L3p", zeta_schedule="cosine", early_stop=0.9),
    "chts": lambda _: EvolutionConfig(),
    "chtss": lambda sparsity: EvolutionConfig(schedule=SparsitySchedule(min(0.5, sparsity), sparsity)),
    "static": lambda _: EvolutionConfig(regrowth="none", zeta=0.0, percolation=False, stop=0.0),
    "set": lambda _: EvolutionConfig(removal="wm", regrowth="random", percolation=False),
    "rigl": lambda _: EvolutionConfig(removal="wm", regrowth="gradient", zeta_schedule="cosine", percolation=False),
    "gmp": lambda sparsity: EvolutionConfig(
        removal="wm", regrowth="none", zeta=0.0, percolation=False, schedule=SparsitySchedule(0.0, sparsity, "cubic")
    ),
    "granet": lambda sparsity: EvolutionConfig(
        removal="wm",
        regrowth="gradient",
        zeta_schedule="cosine",
        percolation=False,
        schedule=SparsitySchedule(min(0.5, sparsity), sparsity, "cubic"),
    ),
}


def recipe(name: str, sparsity: float, **changes: Any) -> EvolutionConfig:
    """Return the configuration of a named recipe.

    Parameters
    ----------
    name : str
        One of :data:`RECIPES`.
    sparsity : float
        Final sparsity of the layers. (Recipes without a schedule keep the initial number of links.)
    **changes
        Fields of :class:`EvolutionConfig` that differ from the recipe.

    Raises
    ------
    ConfigError
        If the recipe or a field is unknown, or a value out of range.
    """
    if name not in RECIPES:
        raise ConfigError(f"training recipe is {name!r}, expected one of {', '.join(RECIPES)}")
    config = RECIPES[name](sparsity)
    unknown = sorted(set(changes) - set(EvolutionConfig.__dataclass_fields__))
    if unknown:
        raise ConfigError(
            f"recipe {name!r} got unknown settings {', '.join(unknown)}, expected fields of EvolutionConfig: "
            f"{', '.join(EvolutionConfig.__dataclass_fields__)}"
        )
    return replace(config, **changes)


def initial_sparsity(config: EvolutionConfig, sparsity: float) -> float:
    """Return the sparsity that a layer starts with so that it ends at ``sparsity``."""
    return sparsity if config.schedule is None else config.schedule.initial


def for_convolutions(config: EvolutionConfig, zeta: float = 0.1) -> EvolutionConfig:
    """Return a configuration for the convolutions of a network whose linear layers evolve by ``config``.

    Convolutions use CH3-L3n (Bao et al., 2026) and no percolation. Their zeta is not published; 0.1 is the value of
    derived code.
    """
    return replace(config, rule="CH3-L3n", percolation=False, zeta=min(zeta, config.zeta))
