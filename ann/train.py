"""Training: one entry, :func:`train`, from settings to a run folder with a trained model."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import numba
import torch

from sparsespike.ann import data
from sparsespike.ann.config import TrainConfig
from sparsespike.ann.device import torch_device
from sparsespike.ann.progress import TrainProgress
from sparsespike.ann.run_folder import RunFolder
from sparsespike.ann.training import Training, TrainResult

__all__ = ["TrainResult", "TrainingInterrupted", "train"]


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


class TrainingInterrupted(KeyboardInterrupt):
    """Ctrl-C during training; the message says what is kept and how to go on."""


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
    progress.on_start(config, run.steps, len(run.history))
    try:
        with compute_threads(config.threads):
            while len(run.history) < config.epochs:
                progress.on_epoch(run.epoch(progress))
    except KeyboardInterrupt as interrupt:
        done = len(files.load_checkpoint().history)
        raise TrainingInterrupted(
            f"training stopped in epoch {done + 1} of {config.epochs}; folder {files.path} holds {done} complete epochs: "
            f"resume to go on with epoch {done + 1}"
        ) from interrupt
    return run.finish()
