"""Training: one entry, :func:`train`, from settings to a run folder with a trained model."""

from __future__ import annotations

import os

from sparsespike.ann import data
from sparsespike.ann.config import TrainConfig
from sparsespike.ann.device import torch_device
from sparsespike.ann.loop import TrainingInterrupted, TrainResult
from sparsespike.ann.progress import TrainProgress
from sparsespike.ann.run_folder import RunFolder
from sparsespike.ann.training import Training

__all__ = ["TrainResult", "TrainingInterrupted", "train"]


def train(
    config: TrainConfig,
    folder: str | os.PathLike[str],
    *,
    resume: bool = False,
    download: bool = False,
    progress: TrainProgress | None = None,
) -> TrainResult:
    """Train a network and write its run folder (see :mod:`sparsespike.ann.run_folder`).

    A checkpoint is written after every epoch. A run that was interrupted, at whatever moment, and resumed ends with the same
    weights, bit for bit, as one that was not (on the same machine with the same number of threads; a GPU does not promise the
    order of its sums).

    Parameters
    ----------
    config : TrainConfig
    folder : path
        Made if absent.
    resume : bool
        Continue the run that the folder holds, if it holds one.
    download : bool
        Whether the data set may be downloaded.
    progress : TrainProgress, optional

    Raises
    ------
    ConfigError
        If the folder cannot be written to or holds another run, or torch finds no such device.
    DataError
        If the data set is unknown, absent or malformed.
    ModelError
        If training diverges.
    TrainingInterrupted
        On Ctrl-C.
    """
    progress = progress or TrainProgress()
    torch_device(config.device)
    files = RunFolder(folder)
    files.open(config, resume=resume)
    splits = data.load(config.data, validation=config.validation, seed=config.seed, download=download, progress=progress.on_data)
    if resume and files.checkpoint.exists():
        run = Training.restored(config, splits, files)
    else:
        run = Training.started(config, splits, files)
    return run.complete(progress)
