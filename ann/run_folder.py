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
import os
import shutil
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from sparsespike.ann.checkpoint import load_tensors, save_tensors
from sparsespike.ann.config import RunConfig
from sparsespike.ann.progress import EpochRecord
from sparsespike.common.errors import ConfigError, ModelError
from sparsespike.common.files import write_text

CHECKPOINT_KEY = "sparsespike-checkpoint"


class Checkpoint(NamedTuple):
    """Everything needed to go on after a complete epoch.

    Attributes
    ----------
    tensors : dict
        Weights, topology, momentum and, of an MLP, the links explored so far.
    history : list of EpochRecord
    best : int
        Position in ``history`` of the epoch whose model is kept.
    settled : bool
        Whether the topology no longer changes, by early stop.
    """

    tensors: dict[str, Tensor]
    history: list[EpochRecord]
    best: int
    settled: bool


class RunFolder:
    """The files of one training run."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.checkpoint = self.path / "checkpoint.safetensors"
        self.model = self.path / "model.safetensors"
        self.summary = self.path / "summary.json"

    def open(self, config: RunConfig, *, resume: bool) -> None:
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
            # A setting that an older version did not know had the value that is now the default.
            stored = _plain(type(config)()) | self._settings(file)
            wanted = _plain(config)
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
                f"folder {self.path} has {free / 1e6:.0f} MB free; this run needs {size / 1e6:.0f} MB: "
                "free space or choose another folder"
            )

    def save_checkpoint(self, state: Checkpoint) -> None:
        """Write the state after the last epoch of its history, then the metrics."""
        rows = [asdict(record) for record in state.history]
        metadata = {"history": rows, "best": state.best, "settled": state.settled}
        save_tensors(self.checkpoint, state.tensors, CHECKPOINT_KEY, metadata)
        self._write_metrics(state.history)

    def load_checkpoint(self) -> Checkpoint:
        """Read the state, and bring the metrics in line with it.

        Raises
        ------
        ModelError
            If the file is damaged.
        """
        tensors, metadata = load_tensors(self.checkpoint, CHECKPOINT_KEY)
        try:
            history = [EpochRecord(**row) for row in metadata["history"]]
            state = Checkpoint(tensors, history, int(metadata["best"]), bool(metadata["settled"]))
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(f"checkpoint {self.checkpoint} is malformed ({error!r}); start again in another folder") from error
        self._write_metrics(history)
        return state

    def save_summary(self, values: dict[str, Any]) -> None:
        """Write the result, which marks the run as complete."""
        write_text(self.summary, json.dumps(values, indent=2) + "\n")

    def _write_metrics(self, history: list[EpochRecord]) -> None:
        text = io.StringIO()
        writer = csv.DictWriter(text, [field.name for field in fields(EpochRecord)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(record) for record in history)
        write_text(self.path / "metrics.csv", text.getvalue())


def _plain(config: RunConfig) -> dict[str, Any]:
    """The settings as JSON gives them back."""
    return dict(json.loads(json.dumps(config.to_dict())))
