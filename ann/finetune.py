"""Fine-tuning for conversion: one entry, :func:`finetune`, from a trained run to a run with other activations."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

from sparsespike.ann import data
from sparsespike.ann.checkpoint import load_model
from sparsespike.ann.config import TrainConfig
from sparsespike.ann.device import torch_device
from sparsespike.ann.encoding import Encoding
from sparsespike.ann.finetune_config import FinetuneConfig
from sparsespike.ann.finetuning import Finetuning
from sparsespike.ann.loop import TrainingInterrupted, TrainResult, compute_threads
from sparsespike.ann.networks import Network
from sparsespike.ann.progress import TrainProgress
from sparsespike.ann.run_folder import RunFolder
from sparsespike.common.errors import ConfigError, DataError, ModelError

__all__ = ["TrainResult", "TrainingInterrupted", "finetune", "settings_for"]

STARTS = ("relu", "qcfs")


def settings_for(source: str | os.PathLike[str], method: str, **changes: Any) -> FinetuneConfig:
    """Settings for fine-tuning a trained run: its data, validation split, batch and augmentation, and ``changes``.

    Raises
    ------
    ConfigError
        If there is no such run, a setting is unknown or out of its range.
    ModelError
        If the run's model is damaged, or does not say how it was trained.
    """
    _, metadata = load_source(source)
    return FinetuneConfig.of_run(os.fspath(source), TrainConfig.from_dict(metadata["training"]), method, **changes)


def finetune(
    config: FinetuneConfig,
    folder: str | os.PathLike[str],
    *,
    resume: bool = False,
    download: bool = False,
    progress: TrainProgress | None = None,
) -> TrainResult:
    """Fine-tune a trained network and write a run folder (see :mod:`sparsespike.ann.run_folder`).

    The topology is frozen: sparse layers train their links, and no other weight ever is. A checkpoint is written after every
    epoch; a run that was interrupted and resumed ends with the same weights, bit for bit. The epoch of highest validation
    accuracy in the last stage gives the model, and the test images are looked at once, at the end.

    Parameters
    ----------
    config : FinetuneConfig
        See :func:`settings_for`.
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
        If there is no source, the folder cannot be written to or holds another run, or torch finds no such device.
    DataError
        If the data set is unknown, absent or malformed, or does not fit the network.
    ModelError
        If the source cannot be fine-tuned, or training diverges.
    TrainingInterrupted
        On Ctrl-C.
    """
    progress = progress or TrainProgress()
    torch_device(config.device)
    source, metadata = load_source(config.source)
    if os.path.realpath(folder) == os.path.realpath(config.source):
        raise ConfigError(f"folder {folder} holds the run to start from; choose another folder for the outcome")
    files = RunFolder(folder)
    files.open(config, resume=resume)
    splits = data.load(
        config.data, validation=config.validation, seed=config.split_seed, download=download, progress=progress.on_data
    )
    if list(splits.shape) != list(metadata["shape"]) or len(splits.classes) != len(metadata["classes"]):
        raise DataError(
            f"data set {config.data!r} has images of shape {splits.shape} in {len(splits.classes)} classes, model "
            f"{config.source} was trained on {tuple(metadata['shape'])} in {len(metadata['classes'])}; name the data set that it "
            "was trained on"
        )
    splits = replace(splits, encoding=Encoding.from_dict(metadata["encoding"]))
    start = Finetuning.restored if resume and files.checkpoint.exists() else Finetuning.started
    with compute_threads(config.threads):
        return start(config, splits, files, source, metadata["training"]).complete(progress)


def load_source(source: str | os.PathLike[str]) -> tuple[Network, dict[str, Any]]:
    """The trained network to start from, and what its file says of it.

    Raises
    ------
    ConfigError
        If there is none.
    ModelError
        If it is damaged, has other activations than ReLU or QCFS, or does not say how it was trained.
    """
    network, metadata = load_model(source)
    if network.spec.activation not in STARTS:
        raise ModelError(
            f"model {source} has the activation {network.spec.activation}; expected {' or '.join(STARTS)}: "
            "start from the run that it was fine-tuned from"
        )
    if absent := [name for name in ("training", "encoding", "shape", "classes") if name not in metadata]:
        raise ModelError(f"model {source} does not say its {', '.join(absent)}; expected a run folder of training")
    return network, metadata
