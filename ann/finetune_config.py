"""The settings of fine-tuning for conversion: CS-QCFS (Yang et al., 2025) in two stages, AEC (Chen et al., 2024) in one."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from itertools import accumulate
from typing import Any

from sparsespike.ann.augment import AUGMENTATIONS
from sparsespike.ann.config import DEVICES, PRECISIONS, TrainConfig
from sparsespike.common.errors import ConfigError

STAGES = {"cs-qcfs": ("s-qcfs", "cs-qcfs"), "aec": ("aec",)}
"""The activation that each stage of a method trains with."""
STAGE_FACTOR = 0.1
"""Learning rate of a stage, relative to the one before."""
INITIAL = ("percentile", "fixed")
LEARNING_RATE = {"cs-qcfs": 5e-4, "aec": 1e-4}
"""Where they start by default; larger ones cost a network that is trained already more than a few epochs bring back."""
WEIGHT_DECAY = {"cs-qcfs": 5e-4, "aec": 0.0}
QUIRKS = ("smallest_as_silent", "force_compensation")
"""Differences between the released code of AEC and its description, see :class:`~sparsespike.ann.aec.AEC`."""


@dataclass(frozen=True)
class FinetuneConfig:
    """Everything that decides what fine-tuning computes. :meth:`of_run` takes over what the first training had.

    Parameters
    ----------
    source : str
        The run that it starts from, or a model file.
    method : str
        ``cs-qcfs`` trains everything, first with one threshold a layer, then with one a channel. ``aec`` freezes all weights and
        trains the thresholds, and the scale, shift and running statistics of batch normalisation.
    stages : tuple of int
        Epochs of each stage: two numbers for ``cs-qcfs``, one for ``aec``. With 0 epochs of the first stage, thresholds are
        channel-wise from the start; with 0 of the second, they stay layer-wise.
    levels : int
        Quantisation steps L of CS-QCFS.
    steps : int
        Last slot T of AEC.
    initial : str
        Where thresholds start: ``percentile`` of the positive activations of training images, or ``fixed``: rho = 4 (CS-QCFS),
        the published values (AEC).
    percentile : float
    penalty : float
        Factor on the sum of all thresholds, added to the loss of CS-QCFS.
    quirks : tuple of str
        Of :data:`QUIRKS`, those of the released code that AEC shall have.
    lr : float
        Learning rate of the first stage at its start; it falls to 0 as a cosine in each stage, and the second starts with a
        tenth.
    momentum, weight_decay : float
        Of stochastic gradient descent (``cs-qcfs``), on all parameters, thresholds included; Adam (``aec``) takes the weight
        decay only.
    batch : int
    augment : str
        ``none``, ``crop`` or ``crop-flip``.
    data, validation, split_seed
        Data set, and the validation split: that of the first training, so that no image it was trained on is validated on.
    seed : int
        Seeds the order of images, the augmentation and dropout.
    threads, device, amp
        See :class:`~sparsespike.ann.config.TrainConfig`.

    Raises
    ------
    ConfigError
        If a value is out of its range.
    """

    source: str = ""
    method: str = "cs-qcfs"
    stages: tuple[int, ...] = (10, 10)
    levels: int = 8
    steps: int = 16
    initial: str = "percentile"
    percentile: float = 99.9
    penalty: float = 5e-4
    quirks: tuple[str, ...] = ()
    lr: float = LEARNING_RATE["cs-qcfs"]
    momentum: float = 0.9
    weight_decay: float = WEIGHT_DECAY["cs-qcfs"]
    batch: int = 32
    augment: str = "none"
    data: str = "digits"
    validation: float = 0.1
    split_seed: int = 0
    seed: int = 0
    threads: int = 1
    device: str = "cpu"
    amp: str = "none"

    def __post_init__(self) -> None:
        object.__setattr__(self, "stages", tuple(self.stages))
        object.__setattr__(self, "quirks", tuple(self.quirks))
        count = len(STAGES.get(self.method, ()))
        quirks = QUIRKS if self.method == "aec" else ()
        rules = {
            "method": (self.method in STAGES, " or ".join(STAGES)),
            "stages": (
                len(self.stages) == count and min(self.stages) >= 0 and sum(self.stages) >= 1,
                f"{count} number{'s' * (count > 1)} of epochs, at least 0, and at least 1 in all",
            ),
            "levels": (self.levels >= 1, "at least 1"),
            "steps": (self.steps >= 1, "at least 1: T, the last slot"),
            "initial": (self.initial in INITIAL, " or ".join(INITIAL)),
            "percentile": (0 < self.percentile <= 100, "above 0, at most 100"),
            "penalty": (0 <= self.penalty < math.inf, "at least 0"),
            "quirks": (set(self.quirks) <= set(quirks), f"any of {', '.join(quirks)}" if quirks else f"none for {self.method}"),
            "lr": (0 < self.lr < math.inf, "above 0"),
            "momentum": (0 <= self.momentum < 1, "at least 0 and below 1"),
            "weight_decay": (0 <= self.weight_decay < math.inf, "at least 0"),
            "batch": (self.batch >= 1, "at least 1"),
            "augment": (self.augment in AUGMENTATIONS, ", ".join(AUGMENTATIONS)),
            "validation": (0 <= self.validation < 1, "at least 0 and below 1"),
            "split_seed": (self.split_seed >= 0, "at least 0"),
            "seed": (self.seed >= 0, "at least 0"),
            "threads": (self.threads >= 1, "at least 1"),
            "device": (self.device in DEVICES, " or ".join(DEVICES)),
            "amp": (self.amp in PRECISIONS, ", ".join(PRECISIONS)),
        }
        for name, (holds, expected) in rules.items():
            if not holds:
                raise ConfigError(f"fine-tuning setting {name} is {getattr(self, name)!r}; expected {expected}")

    @classmethod
    def of_run(cls, source: str, training: TrainConfig, method: str, **changes: Any) -> FinetuneConfig:
        """Settings for fine-tuning the outcome of a training run, with its data, validation split, batch and augmentation.

        Parameters
        ----------
        source : str
            The run folder or model file.
        training : TrainConfig
            What it was trained with.
        method : str
        **changes
            Settings that differ.

        Raises
        ------
        ConfigError
            If a setting is unknown or out of its range.
        """
        if unknown := sorted(set(changes) - {field.name for field in fields(cls)}):
            raise ConfigError(f"fine-tuning settings {', '.join(unknown)} are unknown; known are the fields of FinetuneConfig")
        inherited = {
            "stages": (10,) * len(STAGES.get(method, ())),
            "lr": LEARNING_RATE.get(method),
            "weight_decay": WEIGHT_DECAY.get(method),
            "batch": training.batch,
            "augment": training.augment,
            "data": training.data,
            "validation": training.validation,
            "split_seed": training.seed,
            "threads": training.threads,
        }
        return cls(**{**inherited, "source": source, "method": method, **changes})

    @property
    def epochs(self) -> int:
        """Epochs of all stages."""
        return sum(self.stages)

    def place(self, epoch: int) -> tuple[int, int]:
        """Stage of an epoch, and the epoch's number in it, both counted from 0."""
        ends = list(accumulate(self.stages))
        stage = next(i for i, end in enumerate(ends) if epoch < end)
        return stage, epoch - ends[stage] + self.stages[stage]

    def learning_rate(self, epoch: int) -> float:
        """Learning rate of an epoch, counted from 0."""
        stage, number = self.place(epoch)
        return self.lr * STAGE_FACTOR**stage * 0.5 * (1.0 + math.cos(math.pi * number / self.stages[stage]))

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)
