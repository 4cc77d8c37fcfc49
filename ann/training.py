"""A training run from one epoch to the next."""

from __future__ import annotations

import math
import platform
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sparsespike.ann import checkpoint
from sparsespike.ann.augment import assemble, draw
from sparsespike.ann.config import TrainConfig
from sparsespike.ann.data import DataSplits
from sparsespike.ann.device import Precision, torch_device
from sparsespike.ann.evaluate import accuracy
from sparsespike.ann.evolution import active_share, evolve_model, initial_topologies, link_gradients, parameter_count, sparsity
from sparsespike.ann.momentum import momentum_tensors, restore_momentum
from sparsespike.ann.networks import Network, build, spec_of
from sparsespike.ann.progress import EpochRecord, TrainProgress
from sparsespike.ann.run_folder import Checkpoint, RunFolder
from sparsespike.common.errors import ModelError


class Stream(IntEnum):
    """Independent sources of randomness. An epoch's numbers follow from (seed, stream, epoch): there is no state to save."""

    TOPOLOGY = 1
    WEIGHTS = 2
    ORDER = 3
    AUGMENT = 4
    EVOLUTION = 5
    DROPOUT = 6

    def generator(self, seed: int, epoch: int = 0) -> np.random.Generator:
        """The stream's generator for one epoch."""
        return np.random.default_rng([seed, int(self), epoch])


@dataclass(frozen=True)
class TrainResult:
    """The outcome of a training run.

    Attributes
    ----------
    model : MLP or ConvNet
        Of the best epoch, on the CPU, in evaluation mode.
    folder : Path
        The run folder.
    best_epoch : int
        Counted from 1.
    validation_accuracy, test_accuracy : float
        Of that model; validation is none without a validation split.
    history : tuple of EpochRecord
    """

    model: Network
    folder: Path
    best_epoch: int
    validation_accuracy: float | None
    test_accuracy: float
    history: tuple[EpochRecord, ...]


class Training:
    """A training run between two epochs: network, momentum, history, and the folder they are kept in."""

    def __init__(self, config: TrainConfig, splits: DataSplits, files: RunFolder) -> None:
        self.config = config
        self.splits = splits
        self.files = files
        self.table = splits.encoding.table()
        self.spec = spec_of(config, splits.shape, len(splits.classes))
        self.device = torch_device(config.device)
        self.precision = Precision(self.device, config.amp)
        self.steps = math.ceil(len(splits.train) / config.batch)
        self.history: list[EpochRecord] = []
        self.best = 0
        self.settled = False
        self.model = build(self.spec, masked=self.device.type == "cuda")
        self.optimizer: torch.optim.Optimizer

    @classmethod
    def started(cls, config: TrainConfig, splits: DataSplits, files: RunFolder) -> Training:
        """A new run; its first checkpoint shows that the folder takes one before any time is spent."""
        run = cls(config, splits, files)
        if run.spec.sparse:
            topologies = initial_topologies(config, run.spec, splits, Stream.TOPOLOGY.generator(config.seed))
            for layer, topology in zip(run.model.sparse_layers, topologies, strict=True):
                layer.reset_topology(topology)
        run.model.reset_parameters(Stream.WEIGHTS.generator(config.seed))
        run._prepare()
        # Checkpoint (weights, topology, momentum) and model, and once more the checkpoint while it is replaced.
        files.require_space(5 * sum(tensor.nbytes for tensor in run.model.state_dict().values()))
        files.save_checkpoint(run.state())
        return run

    @classmethod
    def restored(cls, config: TrainConfig, splits: DataSplits, files: RunFolder) -> Training:
        """The run as its last checkpoint left it."""
        run = cls(config, splits, files)
        tensors, run.history, run.best, run.settled = files.load_checkpoint()
        try:
            run.model.load_state_dict(_named(tensors, "model."))
        except RuntimeError as error:
            raise ModelError(f"checkpoint {files.checkpoint} does not fit its settings: {error}") from error
        run._prepare()
        restore_momentum(run.model, run.optimizer, _named(tensors, "momentum."))
        run.precision.restore(_named(tensors, "precision."))
        return run

    def _prepare(self) -> None:
        config = self.config
        self.model.to(self.device)
        self.optimizer = torch.optim.SGD(
            self.model.parameters(), config.lr, config.momentum, weight_decay=config.weight_decay, fused=True
        )

    def state(self) -> Checkpoint:
        """All that a resumed run needs."""
        parts = {
            "model.": self.model.state_dict(),
            "momentum.": momentum_tensors(self.model, self.optimizer),
            "precision.": self.precision.state(),
        }
        tensors = {prefix + name: value for prefix, part in parts.items() for name, value in part.items()}
        return Checkpoint(tensors, self.history, self.best, self.settled)

    def epoch(self, progress: TrainProgress) -> EpochRecord:
        """Train one epoch: change the topology if it is time, all batches, validation, checkpoint."""
        config, number = self.config, len(self.history)
        began = time.perf_counter()
        overlap = self.evolve(number)
        updated = time.perf_counter()
        lr = config.learning_rate(number)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        with self._dropout(number):
            loss, train_accuracy = self.pass_over_data(number, progress)
        record = EpochRecord(
            epoch=number + 1,
            loss=loss,
            train_accuracy=train_accuracy,
            validation_accuracy=self.validation_accuracy(),
            sparsity=sparsity(self.model),
            anp=active_share(self.model),
            overlap=overlap,
            lr=lr,
            seconds=round(time.perf_counter() - began, 3),
            update_seconds=round(updated - began, 3),
        )
        self.history.append(record)
        if self._is_best(record):
            self.best = number
            self.save_model({})
        self.files.save_checkpoint(self.state())
        return record

    def _is_best(self, record: EpochRecord) -> bool:
        """Whether an epoch's model replaces the one kept: as sparse (a schedule reaches its goal late), and not less accurate."""
        kept = self.history[self.best]
        return (record.sparsity, record.validation_accuracy or 0.0) >= (kept.sparsity, kept.validation_accuracy or 0.0)

    def validation_accuracy(self) -> float | None:
        """Accuracy on the validation split; none if it is empty."""
        validation = self.splits.validation
        return accuracy(self.model, validation, self.splits.encoding) if len(validation) else None

    def batches(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The epoch's batches in random order: real inputs ``[B, inputs]`` and labels ``[B]``."""
        config, images, labels = self.config, self.splits.train.images, self.splits.train.labels
        order = Stream.ORDER.generator(config.seed, epoch).permutation(len(labels))
        draws = draw(config.augment, len(labels), Stream.AUGMENT.generator(config.seed, epoch))
        targets = torch.from_numpy(labels[order])
        for start in range(0, len(labels), config.batch):
            part = slice(start, start + config.batch)
            x = torch.from_numpy(assemble(images, order[part], self.table, draws[part]))
            yield x.to(self.device).t(), targets[part].to(self.device)

    def pass_over_data(self, epoch: int, progress: TrainProgress) -> tuple[float, float]:
        """Train on all images once; mean loss and accuracy, as they were trained on."""
        self.model.train()
        total, correct = 0.0, 0
        for step, (x, targets) in enumerate(self.batches(epoch), 1):
            with self.precision.autocast():
                scores = self.model(x)
                loss = nn.functional.cross_entropy(scores, targets)
            self.precision.step(loss, self.optimizer)
            value = loss.item()
            if not math.isfinite(value):
                raise ModelError(
                    f"the loss is {value} in epoch {epoch + 1}, step {step}, at learning rate "
                    f"{self.config.learning_rate(epoch):.3g}; training diverged: lower the learning rate"
                )
            total += value * len(targets)
            correct += int((scores.detach().argmax(1) == targets).sum())
            progress.on_step(step, value)
        n = len(self.splits.train)
        return total / n, correct / n

    @contextmanager
    def _dropout(self, epoch: int) -> Iterator[None]:
        """Let dropout, which draws from torch's global generator, draw the epoch's own numbers."""
        with torch.random.fork_rng([0] if self.device.type == "cuda" else []):
            torch.manual_seed(int(Stream.DROPOUT.generator(self.config.seed, epoch).integers(2**63)))
            yield

    def evolve(self, epoch: int) -> float:
        """Change the topology if it is time; the share of regrown links that had just been removed (0 without a change)."""
        evolution = self.config.evolution_config()
        progress = evolution.progress(epoch - 1, self.config.epochs) if self.spec.sparse and epoch > 0 else None
        if progress is None or self.settled:
            return 0.0
        gradients = None
        if evolution.regrowth == "gradient":
            with self._dropout(epoch):
                gradients = link_gradients(self.model, *next(self.batches(epoch)))
        generator = Stream.EVOLUTION.generator(self.config.seed, epoch)
        overlap, self.settled = evolve_model(
            self.model, self.optimizer, evolution, progress, generator, gradients, self.config.conv_mode
        )
        return overlap

    def save_model(self, outcome: dict[str, Any]) -> None:
        """Write the model of the best epoch, which is the present one."""
        best = self.history[self.best]
        checkpoint.save_model(
            self.files.model,
            self.model,
            {
                "classes": list(self.splits.classes),
                "shape": list(self.splits.shape),
                "encoding": self.splits.encoding.to_dict(),
                "training": self.config.to_dict(),
                "epoch": best.epoch,
                "validation_accuracy": best.validation_accuracy,
                "versions": {
                    "sparsespike": version("sparsespike"),
                    "torch": torch.__version__,
                    "python": platform.python_version(),
                },
                **outcome,
            },
        )

    def finish(self) -> TrainResult:
        """Measure the best epoch's model on the test split, once, and write the summary."""
        self.model, _ = checkpoint.load_model(self.files.model)
        best = self.history[self.best]
        test_accuracy = accuracy(self.model.to(self.device), self.splits.test, self.splits.encoding)
        self.save_model({"test_accuracy": test_accuracy})
        self.files.save_summary(
            {
                "best_epoch": best.epoch,
                "epochs": len(self.history),
                "validation_accuracy": best.validation_accuracy,
                "test_accuracy": test_accuracy,
                "train_accuracy": best.train_accuracy,
                "sparsity": best.sparsity,
                "anp": best.anp,
                "parameters": parameter_count(self.model),
                "seconds": round(sum(record.seconds for record in self.history), 3),
                "config": self.config.to_dict(),
            }
        )
        return TrainResult(
            self.model.cpu(), self.files.path, best.epoch, best.validation_accuracy, test_accuracy, tuple(self.history)
        )


def _named(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names start with ``prefix``, without it."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
