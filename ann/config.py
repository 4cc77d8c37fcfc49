"""The settings of a training run; the defaults are the published recipe (Zhang et al., NeurIPS 2025, Table 4)."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from sparsespike.ann.augment import AUGMENTATIONS
from sparsespike.ann.topology import EvolutionConfig, recipe
from sparsespike.common.errors import ConfigError

ACTIVATIONS = ("relu", "qcfs")
TOPOLOGIES = ("csti", "er", "bsw", "brf")


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides what a training run computes; equal settings give equal weights.

    Parameters
    ----------
    data : str
        Data set, see :func:`sparsespike.ann.data.load`.
    hidden : tuple of int
        Widths of the hidden layers.
    sparsity : float
        Fraction of absent links in every layer before the classifier; 0 trains the dense counterpart by the same recipe.
    method : str
        How the topology evolves, once an epoch: a recipe of :mod:`sparsespike.ann.topology`, such as ``chts`` or ``set``.
    topology : str
        Initial topology: ``csti`` (correlated features), ``er`` (random), ``bsw`` (small world) or ``brf`` (receptive fields).
    activation, levels, lam
        See :class:`sparsespike.ann.models.MLPSpec`.
    epochs, batch : int
    lr, lr_final, lr_decay : float
        The learning rate falls linearly from ``lr`` to ``lr_final`` over the first ``lr_decay`` of the epochs and stays there.
    momentum, weight_decay : float
        Of stochastic gradient descent, on all parameters.
    evolution : dict
        Settings of :class:`~sparsespike.ann.topology.EvolutionConfig` that differ from the method's: ``{"zeta": 0.2}``.
    augment : str
        ``none``, ``crop`` or ``crop-flip``.
    validation : float
        Fraction of the training images held out. The epoch of highest validation accuracy gives the model; without validation,
        the last one does.
    seed : int
        Seeds the validation split, the initial network, the order of images, the augmentation and the evolution, each apart.
    threads : int
        Threads of a training step. A step of a sparse network is so short that a second thread helps little, and on a busy
        machine waiting for it costs far more; give dense networks all cores.

    Raises
    ------
    ConfigError
        If a value is out of its range.
    """

    data: str = "digits"
    hidden: tuple[int, ...] = (1024, 1024, 1024)
    sparsity: float = 0.99
    method: str = "chts"
    topology: str = "er"
    activation: str = "relu"
    levels: int = 8
    lam: float = 4.0
    epochs: int = 100
    batch: int = 32
    lr: float = 0.025
    lr_final: float = 2.5e-4
    lr_decay: float = 0.9
    momentum: float = 0.9
    weight_decay: float = 5e-4
    evolution: dict[str, Any] = field(default_factory=dict)
    augment: str = "none"
    validation: float = 0.1
    seed: int = 0
    threads: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "hidden", tuple(self.hidden))
        rules = {
            "hidden": (bool(self.hidden) and min(self.hidden) >= 1, "at least one width, each at least 1"),
            "sparsity": (0 <= self.sparsity < 1, "at least 0 (dense) and below 1"),
            "topology": (self.topology in TOPOLOGIES, ", ".join(TOPOLOGIES)),
            "activation": (self.activation in ACTIVATIONS, " or ".join(ACTIVATIONS)),
            "levels": (self.levels >= 1, "at least 1"),
            "lam": (0 < self.lam < math.inf, "above 0"),
            "epochs": (self.epochs >= 1, "at least 1"),
            "batch": (self.batch >= 1, "at least 1"),
            "lr": (0 < self.lr < math.inf, "above 0"),
            "lr_final": (0 <= self.lr_final <= self.lr, "between 0 and lr"),
            "lr_decay": (0 < self.lr_decay <= 1, "above 0, at most 1"),
            "momentum": (0 <= self.momentum < 1, "at least 0 and below 1"),
            "weight_decay": (0 <= self.weight_decay < math.inf, "at least 0"),
            "augment": (self.augment in AUGMENTATIONS, ", ".join(AUGMENTATIONS)),
            "validation": (0 <= self.validation < 1, "at least 0 and below 1"),
            "seed": (self.seed >= 0, "at least 0"),
            "threads": (self.threads >= 1, "at least 1"),
        }
        for name, (holds, expected) in rules.items():
            if not holds:
                raise ConfigError(f"training setting {name} is {getattr(self, name)!r}; expected {expected}")
        self.evolution_config()

    def learning_rate(self, epoch: int) -> float:
        """Learning rate of an epoch, counted from 0."""
        return self.lr + (self.lr_final - self.lr) * min(epoch / (self.lr_decay * self.epochs), 1.0)

    def evolution_config(self) -> EvolutionConfig:
        """How the topology evolves: the method's settings with the changes."""
        return recipe(self.method, self.sparsity, **self.evolution)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> TrainConfig:
        """Build from plain values, for example read from JSON.

        Raises
        ------
        ConfigError
            If a setting is unknown or of the wrong type.
        """
        unknown = sorted(set(values) - {known.name for known in fields(cls)})
        if unknown:
            raise ConfigError(
                f"training settings {', '.join(unknown)} are unknown; known are {', '.join(known.name for known in fields(cls))}"
            )
        try:
            return cls(**values)
        except TypeError as error:
            raise ConfigError(f"training settings {values!r} are malformed: {error}") from error
