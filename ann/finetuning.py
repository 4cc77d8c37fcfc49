"""A fine-tuning run from one epoch to the next: a trained network gets other activations; its topology stays as it is."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from sparsespike.ann.activations import LAMBDA_MIN, QCFS, SoftplusQCFS, inverse_softplus
from sparsespike.ann.aec import AEC
from sparsespike.ann.augment import assemble
from sparsespike.ann.data import DataSplits
from sparsespike.ann.evaluate import accuracy
from sparsespike.ann.finetune_config import STAGES, FinetuneConfig
from sparsespike.ann.loop import Run
from sparsespike.ann.networks import Network, build
from sparsespike.ann.progress import EpochRecord
from sparsespike.ann.ranges import ranges
from sparsespike.ann.replace import POOLS
from sparsespike.ann.run_folder import RunFolder

CALIBRATION_IMAGES = 512
"""Training images, evenly spread, that thresholds start from."""
FIXED_RHO = 4.0
ACTIVATIONS = (nn.ReLU, QCFS, SoftplusQCFS, AEC)


class Finetuning(Run):
    """A fine-tuning run between two epochs.

    Parameters
    ----------
    config : FinetuneConfig
    splits : DataSplits
        With the encoding that the network was trained with.
    files : RunFolder
    source : MLP or ConvNet
        The trained network, with ReLU or QCFS activations.
    training : dict
        What the model file says of its training.
    stage : int
        The stage that the run is in.
    """

    config: FinetuneConfig

    def __init__(
        self,
        config: FinetuneConfig,
        splits: DataSplits,
        files: RunFolder,
        source: Network,
        training: dict[str, Any],
        stage: int = 0,
    ) -> None:
        self.source, self.training, self.stage = source, training, stage
        super().__init__(config, splits, files, successor(source, config, stage, masked=config.device == "cuda"))

    @classmethod
    def started(
        cls, config: FinetuneConfig, splits: DataSplits, files: RunFolder, source: Network, training: dict[str, Any]
    ) -> Finetuning:
        """A new run."""
        run = cls(config, splits, files, source, training)
        run.set_thresholds(run.model)
        run.begin()
        return run

    @classmethod
    def restored(
        cls, config: FinetuneConfig, splits: DataSplits, files: RunFolder, source: Network, training: dict[str, Any]
    ) -> Finetuning:
        """The run as its last checkpoint left it."""
        state = files.load_checkpoint()
        done = len(state.history)
        run = cls(config, splits, files, source, training, config.place(done - 1)[0] if done else 0)
        run.take(state)
        return run

    def set_thresholds(self, model: Network) -> None:
        """Initial thresholds of a layer-wise successor of the source, from the source's values on training images."""
        pools = POOLS if self.config.method == "aec" else ()
        if self.config.initial == "fixed":
            if self.config.method == "cs-qcfs":
                _set_rho(model, [FIXED_RHO] * len(_softplus(model)))
            return
        images = self.splits.train.images
        count = min(CALIBRATION_IMAGES, len(images))
        index = np.arange(count) * len(images) // count
        x = torch.from_numpy(assemble(images, index, self.table)).t()
        largest = ranges(self.source, x, ACTIVATIONS + pools, self.config.percentile)
        if self.config.method == "cs-qcfs":
            _set_rho(model, [inverse_softplus(max(value, 2 * LAMBDA_MIN)) for value in largest])
        else:
            for layer, value in zip((m for m in model.modules() if isinstance(m, AEC)), largest, strict=True):
                layer.reach(value)

    def new_optimizer(self) -> torch.optim.Optimizer:
        config = self.config
        if config.method == "cs-qcfs":
            return torch.optim.SGD(
                self.model.parameters(), config.lr, config.momentum, weight_decay=config.weight_decay, fused=True
            )
        trained = []
        for module in self.model.modules():
            of_module = isinstance(module, AEC | _BatchNorm)
            for parameter in module.parameters(recurse=False):
                parameter.requires_grad_(of_module)
                if of_module:
                    trained.append(parameter)
        return torch.optim.Adam(trained, config.lr, eps=1e-10, weight_decay=config.weight_decay, fused=True)

    def before_epoch(self, number: int) -> float:
        """Go over to the next stage if it is time: weights and thresholds stay, momentum starts anew."""
        stage = self.config.place(number)[0]
        if stage != self.stage:
            layerwise, self.stage = self.model.cpu(), stage
            self.model = successor(layerwise, self.config, stage, masked=self.config.device == "cuda")
            _set_rho(self.model, [layer.rho.item() for layer in _softplus(layerwise)])
            self.prepare()
        return 0.0

    def loss(self, scores: Tensor, targets: Tensor) -> Tensor:
        """Cross-entropy; in CS-QCFS large thresholds cost something."""
        loss = super().loss(scores, targets)
        for layer in _softplus(self.model):
            loss = loss + self.config.penalty * layer.lam.sum()
        return loss

    def is_best(self, record: EpochRecord) -> bool:
        """Whether the model of the last epoch replaces the one kept; the last stage gives the model."""
        return self.config.place(record.epoch - 1)[1] == 0 or super().is_best(record)

    def origin(self) -> dict[str, Any]:
        return {"training": self.training, "finetuning": self.config.to_dict()}

    def outcome(self) -> dict[str, Any]:
        """Accuracies before fine-tuning, with the activations replaced, and after each stage."""
        replaced = successor(self.source, self.config, 0)
        self.set_thresholds(replaced)
        return {
            "source_activation": self.source.spec.activation,
            "source_validation_accuracy": self.validation_accuracy(self.source),
            "source_test_accuracy": accuracy(self.source, self.splits.test, self.splits.encoding),
            "replaced_validation_accuracy": self.validation_accuracy(replaced),
            "stages": [
                {"activation": activation, "epochs": epochs, "validation_accuracy": self.history[end - 1].validation_accuracy}
                for activation, epochs, end in zip(
                    STAGES[self.config.method], self.config.stages, np.cumsum(self.config.stages).tolist(), strict=True
                )
                if epochs
            ],
        }


def successor(model: Network, config: FinetuneConfig, stage: int, *, masked: bool = False) -> Network:
    """The network of a stage with another one's weights; its thresholds are still to be set."""
    activation = STAGES[config.method][stage]
    spec = replace(model.spec, activation=activation, levels=config.levels, steps=config.steps, quirks=config.quirks)
    after = build(spec, masked=masked)
    before = {f"{name}.{part}" for name, layer in model.named_modules() if isinstance(layer, ACTIVATIONS) for part in _own(layer)}
    own = {f"{name}.{part}" for name, layer in after.named_modules() if isinstance(layer, ACTIVATIONS) for part in _own(layer)}
    weights = {name: tensor for name, tensor in model.state_dict().items() if name not in before}
    missing, unexpected = after.load_state_dict(weights, strict=False)
    assert set(missing) == own, f"parameters {set(missing) ^ own} belong to neither network"
    assert not unexpected, f"parameters {unexpected} have no place in the {activation} network"
    return after


def _own(layer: nn.Module) -> list[str]:
    return [name for name, _ in layer.named_parameters()]


def _softplus(model: nn.Module) -> list[SoftplusQCFS]:
    return [layer for layer in model.modules() if isinstance(layer, SoftplusQCFS)]


def _set_rho(model: nn.Module, values: list[float]) -> None:
    """One raw threshold a layer, for all of its channels."""
    with torch.no_grad():
        for layer, rho in zip(_softplus(model), values, strict=True):
            layer.rho.fill_(rho)
