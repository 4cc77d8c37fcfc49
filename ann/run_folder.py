"""The folder of a training run: what is in it, written so that a reader or a restarted run never meets a half file.

::

    config.json              the settings
    metrics.csv              one row an epoch
    checkpoint.safetensors   everything needed to continue: weights, topology, momentum, epoch, history
    model.safetensors        the model of the best epoch so far
    summary.json             the result, once training is complete
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
import shutil
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from torch import Tensor

from sparsespike.ann.checkpoint import load_tensors, save_tensors
from sparsespike.ann.config import TrainConfig
from sparsespike.common.errors import ConfigError, ModelError
from sparsespike.common.files import write_text

CHECKPOINT_KEY = "sparsespike-checkpoint"


@dataclass(frozen=True)
class EpochRecord:
    """One row of ``metrics.csv``.

    Attributes
    ----------
    epoch : int
        Counted from 1.
    loss, train_accuracy : float
        Means over the epoch's batches, as they were trained on.
    validation_accuracy : float
        After the epoch; NaN without validation.
    sparsity : float
        Fraction of absent links over all layers that hold a topology, 0 for a dense network.
    anp : float
        Active neuron percolation: fraction of neurons, from inputs to the last hidden layer, that take part.
    overlap : float
        Share of the links added before the epoch that had just been removed.
    lr : float
    seconds : float
        The whole epoch, change of topology and evaluation included.
    update_seconds : float
        The change of topology before the epoch; 0 if there was none.
    """

    epoch: int
    loss: float
    train_accuracy: float
    validation_accuracy: float
    sparsity: float
    anp: float
    overlap: float
    lr: float
    seconds: float
    update_seconds: float


class RunFolder:
    """The files of one training run."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.checkpoint = self.path / "checkpoint.safetensors"
        self.model = self.path / "model.safetensors"
        self.summary = self.path / "summary.json"

    def open(self, config: TrainConfig, *, resume: bool) -> None:
        """Make the folder ready, or make sure that it holds the same run.

        Raises
        ------
        ConfigError
            If the folder cannot be written to, holds a run and ``resume`` is false, or holds a run with other settings.
        """
        file = self.path / "config.json"
        if self.checkpoint.exists():
            if not resume:
                raise ConfigError(f"folder {self.path} holds a run already; resume it, or choose another folder")
            stored = self._settings(file)
            wanted = json.loads(json.dumps(config.to_dict()))
            other = sorted(name for name in {*stored, *wanted} if stored.get(name) != wanted.get(name))
            if other:
                found = ", ".join(f"{name} = {stored.get(name)!r} (now {wanted.get(name)!r})" for name in other)
                raise ConfigError(f"folder {self.path} holds a run with other settings: {found}; choose another folder")
        write_text(file, json.dumps(config.to_dict(), indent=2) + "\n")

    def _settings(self, file: Path) -> dict[str, Any]:
        try:
            return dict(json.loads(file.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise ConfigError(f"run settings {file} cannot be read ({error}); choose another folder") from error

    def require_space(self, size: int) -> None:
        """Raise ``ConfigError`` unless ``size`` bytes fit on the disk."""
        free = shutil.disk_usage(self.path).free
        if free < size:
            raise ConfigError(
                f"folder {self.path} has {free / 1e6:.0f} MB free; this run needs {size / 1e6:.0f} MB: free space or choose another"
            )

    def save_checkpoint(self, tensors: dict[str, Tensor], history: list[EpochRecord], best: int, settled: bool) -> None:
        """Write the state after the last epoch of ``history``, then the metrics."""
        rows = [{name: None if _is_nan(value) else value for name, value in asdict(row).items()} for row in history]
        save_tensors(self.checkpoint, tensors, CHECKPOINT_KEY, {"history": rows, "best": best, "settled": settled})
        self._write_metrics(history)

    def load_checkpoint(self) -> tuple[dict[str, Tensor], list[EpochRecord], int, bool]:
        """Read the state, the history, the position of the best epoch in it, and whether the topology has settled.

        Raises
        ------
        ModelError
            If the file is damaged.
        """
        tensors, metadata = load_tensors(self.checkpoint, CHECKPOINT_KEY)
        try:
            history = [
                EpochRecord(**{name: math.nan if value is None else value for name, value in row.items()})
                for row in metadata["history"]
            ]
            best, settled = int(metadata["best"]), bool(metadata["settled"])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ModelError(f"checkpoint {self.checkpoint} is malformed ({error!r}); start again in another folder") from error
        self._write_metrics(history)
        return tensors, history, best, settled

    def save_summary(self, values: dict[str, Any]) -> None:
        """Write the result, which marks the run as complete."""
        write_text(self.summary, json.dumps(values, indent=2) + "\n")

    def _write_metrics(self, history: list[EpochRecord]) -> None:
        text = io.StringIO()
        writer = csv.DictWriter(text, [field.name for field in fields(EpochRecord)], lineterminator="\n")
        writer.writeheader()
        for row in history:
            writer.writerow({name: "" if _is_nan(value) else value for name, value in asdict(row).items()})
        write_text(self.path / "metrics.csv", text.getvalue())


def _is_nan(value: object) -> bool:
    return isinstance(value, float) and math.isnan(value)
