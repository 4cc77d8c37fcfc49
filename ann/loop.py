"""The epochs of any run that ends in a run folder: batches, checkpoints, the best model, an end that can be resumed from."""

from __future__ import annotations

import math
import platform
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor, nn

from sparsespike.ann import checkpoint
from sparsespike.ann.augment import assemble, draw
from sparsespike.ann.config import RunConfig
from sparsespike.ann.data import DataSplits
from sparsespike.ann.device import Precision, torch_device
from sparsespike.ann.evaluate import accuracy
from sparsespike.ann.evolution import active_share, parameter_count, sparsity
from sparsespike.ann.momentum import momentum_tensors, restore_momentum
from sparsespike.ann.networks import Network
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


class TrainingInterrupted(KeyboardInterrupt):
    """Ctrl-C during training; the message says what is kept and how to go on."""


@dataclass(frozen=True)
class TrainResult:
    """The outcome of a run.

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


@contextmanager
def compute_threads(count: int) -> Iterator[None]:
    """Let torch and numba use ``count`` threads (numba not more than before)."""
    before = torch.get_num_threads(), numba.get_num_threads()
    torch.set_num_threads(count)
    numba.set_num_threads(min(count, before[1]))
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        numba.set_num_threads(before[1])


class Run(ABC):
    """A run between two epochs: network, optimizer, history, and the folder they are kept in."""

    optimizer: torch.optim.Optimizer

    def __init__(self, config: RunConfig, splits: DataSplits, files: RunFolder, model: Network) -> None:
        self.config = config
        self.splits = splits
        self.files = files
        self.table = splits.encoding.table()
        self.device = torch_device(config.device)
        self.precision = Precision(self.device, config.amp)
        self.steps = math.ceil(len(splits.train) / config.batch)
        self.history: list[EpochRecord] = []
        self.best = 0
        self.settled = False
        self.model = model

    @abstractmethod
    def new_optimizer(self) -> torch.optim.Optimizer:
        """The optimizer of the model's trained parameters, without a state."""

    def before_epoch(self, number: int) -> float:
        """Change the model if it is time; the share of regrown links that had just been removed."""
        return 0.0

    def itop(self) -> float | None:
        """Share of the possible links that were ever active; none where it is not followed."""
        return None

    def own_state(self) -> dict[str, Tensor]:
        """What a kind of run keeps in its checkpoint besides what every run does."""
        return {}

    def loss(self, scores: Tensor, targets: Tensor) -> Tensor:
        """What a step makes smaller."""
        return nn.functional.cross_entropy(scores, targets)

    def is_best(self, record: EpochRecord) -> bool:
        """Whether the model of the last epoch replaces the one kept."""
        return (record.validation_accuracy or 0.0) >= (self.history[self.best].validation_accuracy or 0.0)

    @abstractmethod
    def origin(self) -> dict[str, Any]:
        """The settings, as the model file keeps them."""

    def outcome(self) -> dict[str, Any]:
        """What the summary says besides what every summary says."""
        return {}

    def begin(self) -> None:
        """Start: the first checkpoint shows that the folder takes one before any time is spent."""
        self.prepare()
        # Checkpoint (weights, topology, momentum) and model, and once more the checkpoint while it is replaced.
        shared, own = (sum(tensor.nbytes for tensor in part.values()) for part in (self.model.state_dict(), self.own_state()))
        self.files.require_space(5 * shared + 2 * own)
        self.files.save_checkpoint(self.state())

    def take(self, state: Checkpoint) -> None:
        """Go on from a checkpoint with a model of the same description."""
        tensors, self.history, self.best, self.settled = state
        try:
            self.model.load_state_dict(_named(tensors, "model."))
        except RuntimeError as error:
            raise ModelError(f"checkpoint {self.files.checkpoint} does not fit its settings: {error}") from error
        self.prepare()
        restore_momentum(self.model, self.optimizer, _named(tensors, "momentum."))
        self.precision.restore(_named(tensors, "precision."))

    def prepare(self) -> None:
        """Bring the model to the device, and give it an optimizer."""
        self.model.to(self.device)
        self.optimizer = self.new_optimizer()

    def state(self) -> Checkpoint:
        """All that a resumed run needs."""
        parts = {
            "model.": self.model.state_dict(),
            "momentum.": momentum_tensors(self.model, self.optimizer),
            "precision.": self.precision.state(),
        }
        tensors = {prefix + name: value for prefix, part in parts.items() for name, value in part.items()}
        return Checkpoint(tensors | self.own_state(), self.history, self.best, self.settled)

    def complete(self, progress: TrainProgress) -> TrainResult:
        """All epochs that are left, and the end.

        Raises
        ------
        ModelError
            If training diverges.
        TrainingInterrupted
            On Ctrl-C.
        """
        epochs = self.config.epochs
        progress.on_start(self.config, self.steps, len(self.history))
        with compute_threads(self.config.threads):
            try:
                while len(self.history) < epochs:
                    progress.on_epoch(self.epoch(progress))
            except KeyboardInterrupt as interrupt:
                done = len(self.files.load_checkpoint().history)
                raise TrainingInterrupted(
                    f"training stopped in epoch {done + 1} of {epochs}; folder {self.files.path} holds {done} complete epochs: "
                    f"resume to go on with epoch {done + 1}"
                ) from interrupt
            return self.finish()

    def epoch(self, progress: TrainProgress) -> EpochRecord:
        """Train one epoch: change the model if it is time, all batches, validation, checkpoint."""
        number = len(self.history)
        began = time.perf_counter()
        overlap = self.before_epoch(number)
        updated = time.perf_counter()
        lr = self.config.learning_rate(number)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        with self.dropout(number):
            loss, train_accuracy = self.pass_over_data(number, progress)
        record = EpochRecord(
            epoch=number + 1,
            loss=loss,
            train_accuracy=train_accuracy,
            validation_accuracy=self.validation_accuracy(self.model),
            sparsity=sparsity(self.model),
            anp=active_share(self.model),
            overlap=overlap,
            lr=lr,
            seconds=round(time.perf_counter() - began, 3),
            update_seconds=round(updated - began, 3),
            itop=self.itop(),
        )
        self.history.append(record)
        if self.is_best(record):
            self.best = number
            self.save_model({})
        self.files.save_checkpoint(self.state())
        return record

    def validation_accuracy(self, model: nn.Module) -> float | None:
        """Accuracy of a model on the validation split; none if it is empty."""
        validation = self.splits.validation
        return accuracy(model, validation, self.splits.encoding) if len(validation) else None

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
                loss = self.loss(scores, targets)
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
    def dropout(self, epoch: int) -> Iterator[None]:
        """Let dropout, which draws from torch's global generator, draw the epoch's own numbers."""
        with torch.random.fork_rng([0] if self.device.type == "cuda" else []):
            torch.manual_seed(int(Stream.DROPOUT.generator(self.config.seed, epoch).integers(2**63)))
            yield

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
                **self.origin(),
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
                **self.outcome(),
                "config": self.config.to_dict(),
            }
        )
        return TrainResult(
            self.model.cpu(), self.files.path, best.epoch, best.validation_accuracy, test_accuracy, tuple(self.history)
        )


def _named(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names start with ``prefix``, without it."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
