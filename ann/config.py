"""The settings of a training run; the defaults are the published recipe (Zhang et al., NeurIPS 2025, Table 4)."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Protocol, get_args

from sparsespike.ann.augment import AUGMENTATIONS
from sparsespike.ann.masks import takes_masks
from sparsespike.ann.topology import EvolutionConfig, SparsitySchedule, for_convolutions, recipe
from sparsespike.ann.topology.conv import ConvMode
from sparsespike.ann.topology.rules import is_path_rule
from sparsespike.common.errors import ConfigError

ACTIVATIONS = ("relu", "qcfs")
TOPOLOGIES = ("csti", "er", "bsw", "brf")
MODELS = ("mlp", "vgg-small", "vgg16", "resnet18", "resnet20")
SCHEDULES = ("linear", "cosine")
CONV_MODES = get_args(ConvMode)
DEVICES = ("cpu", "cuda")
PRECISIONS = ("none", "bfloat16", "float16")


class RunConfig(Protocol):
    """The settings that every run has, whatever it trains."""

    @property
    def epochs(self) -> int: ...

    @property
    def batch(self) -> int: ...

    @property
    def augment(self) -> str: ...

    @property
    def seed(self) -> int: ...

    @property
    def threads(self) -> int: ...

    @property
    def device(self) -> str: ...

    @property
    def amp(self) -> str: ...

    def learning_rate(self, epoch: int) -> float:
        """Learning rate of an epoch, counted from 0."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides what a training run computes; equal settings give equal weights.

    Parameters
    ----------
    data : str
        Data set, see :func:`sparsespike.ann.data.load`.
    hidden : tuple of int
        Widths of the hidden layers of an MLP.
    model : str
        ``mlp``, or a convolutional network of :mod:`sparsespike.ann.convnets`.
    width : float
        Factor on the numbers of channels of a convolutional network.
    sparsity : float
        Fraction of absent links in every layer before the classifier (in a convolution: of absent weights in each output
        channel); 0 trains the dense counterpart by the same recipe.
    sparse_stem : bool
        Whether the first convolution is sparse too.
    method : str
        How the topology evolves, once an epoch: a recipe of :mod:`sparsespike.ann.topology`, such as ``chts`` or ``set``.
    topology : str
        Initial topology: ``csti`` (correlated features), ``er`` (random), ``bsw`` (small world) or ``brf`` (receptive fields);
        convolutions start from ``er``.
    conv_mode : str
        Which unfolding of a convolution the scores stand for (:mod:`sparsespike.ann.topology.conv`). A 1 x 1 convolution has
        nothing to unfold and is scored as a linear layer.
    dropout : float
        Probability: in an MLP of dropping an output of a hidden layer, in a convolutional network an input of the classifier.
    activation, levels, lam
        See :class:`sparsespike.ann.models.MLPSpec`.
    epochs, batch : int
    schedule : str
        ``linear`` or ``cosine``.
    lr, lr_final, lr_decay : float
        The learning rate falls from ``lr`` to ``lr_final`` over the first ``lr_decay`` of the epochs and stays there.
    momentum, weight_decay : float
        Of stochastic gradient descent, on all parameters.
    evolution : dict
        Settings of :class:`~sparsespike.ann.topology.EvolutionConfig` that differ from the method's: ``{"zeta": 0.2}``, or
        ``{"schedule": {"initial": 0.2, "final": 0.78}}``. Convolutions start from the method's settings with the rule CH3-L3n
        and zeta 0.1.
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
    device : str
        ``cpu`` or ``cuda``.
    amp : str
        Mixed precision: ``none``, ``bfloat16``, or on a GPU ``float16``.

    Raises
    ------
    ConfigError
        If a value is out of its range.
    """

    data: str = "digits"
    hidden: tuple[int, ...] = (1024, 1024, 1024)
    model: str = "mlp"
    width: float = 1.0
    sparsity: float = 0.99
    sparse_stem: bool = True
    method: str = "chts"
    topology: str = "er"
    conv_mode: ConvMode = "kernel"
    dropout: float = 0.0
    activation: str = "relu"
    levels: int = 8
    lam: float = 4.0
    epochs: int = 100
    batch: int = 32
    schedule: str = "linear"
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
    device: str = "cpu"
    amp: str = "none"

    def __post_init__(self) -> None:
        object.__setattr__(self, "hidden", tuple(self.hidden))
        mlp = self.model == "mlp"
        rules = {
            "model": (self.model in MODELS, ", ".join(MODELS)),
            "width": (0 < self.width < math.inf, "above 0"),
            "hidden": (bool(self.hidden) and min(self.hidden) >= 1, "at least one width, each at least 1"),
            "sparsity": (0 <= self.sparsity < 1, "at least 0 (dense) and below 1"),
            "topology": (
                self.topology in (TOPOLOGIES if mlp else ("er",)),
                ", ".join(TOPOLOGIES) if mlp else f"er: the only initial topology of the convolutions of {self.model}",
            ),
            "conv_mode": (self.conv_mode in CONV_MODES, ", ".join(CONV_MODES)),
            "dropout": (0 <= self.dropout < 1, "at least 0 and below 1"),
            "activation": (self.activation in ACTIVATIONS, " or ".join(ACTIVATIONS)),
            "levels": (self.levels >= 1, "at least 1"),
            "lam": (0 < self.lam < math.inf, "above 0"),
            "epochs": (self.epochs >= 1, "at least 1"),
            "batch": (self.batch >= 1, "at least 1"),
            "schedule": (self.schedule in SCHEDULES, " or ".join(SCHEDULES)),
            "lr": (0 < self.lr < math.inf, "above 0"),
            "lr_final": (0 <= self.lr_final <= self.lr, "between 0 and lr"),
            "lr_decay": (0 < self.lr_decay <= 1, "above 0, at most 1"),
            "momentum": (0 <= self.momentum < 1, "at least 0 and below 1"),
            "weight_decay": (0 <= self.weight_decay < math.inf, "at least 0"),
            "augment": (self.augment in AUGMENTATIONS, ", ".join(AUGMENTATIONS)),
            "validation": (0 <= self.validation < 1, "at least 0 and below 1"),
            "seed": (self.seed >= 0, "at least 0"),
            "threads": (self.threads >= 1, "at least 1"),
            "device": (self.device in DEVICES, " or ".join(DEVICES)),
            "amp": (self.amp in self._precisions, f"{' or '.join(self._precisions)} for this {self.model} on {self.device}"),
        }
        for name, (holds, expected) in rules.items():
            if not holds:
                raise ConfigError(f"training setting {name} is {getattr(self, name)!r}; expected {expected}")
        evolution = self.evolution_config()
        if not mlp and evolution.percolation:
            raise ConfigError(f"evolution of {self.model} has percolation, expected none: channels are not percolated")
        if not mlp and is_path_rule(evolution.rule) and self.conv_mode != "im2col":
            raise ConfigError(
                f"evolution of {self.model} has the rule {evolution.rule} in mode {self.conv_mode!r}; choose CH2-L3n or CH3-L3n, "
                "or conv_mode 'im2col'"
            )

    def learning_rate(self, epoch: int) -> float:
        """Learning rate of an epoch, counted from 0."""
        share = min(epoch / (self.lr_decay * self.epochs), 1.0)
        if self.schedule == "cosine":
            share = 0.5 * (1.0 - math.cos(math.pi * share))
        return self.lr + (self.lr_final - self.lr) * share

    def evolution_config(self) -> EvolutionConfig:
        """How the topology evolves: the method's settings with the changes."""
        changes = dict(self.evolution)
        if isinstance(changes.get("schedule"), dict):
            try:
                changes["schedule"] = SparsitySchedule(**changes["schedule"])
            except TypeError as error:
                raise ConfigError(f"sparsity schedule {changes['schedule']!r} is malformed: {error}") from error
        config = recipe(self.method, self.sparsity, **changes)
        return config if self.model == "mlp" else replace(for_convolutions(recipe(self.method, self.sparsity)), **changes)

    @property
    def _precisions(self) -> tuple[str, ...]:
        """The values of ``amp`` that the network and the device take: the truly sparse kernels of an MLP are float32."""
        if self.device == "cuda":
            return PRECISIONS
        truly_sparse = self.model == "mlp" and not takes_masks(self.device, self.sparsity)
        return ("none",) if truly_sparse else ("none", "bfloat16")

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
