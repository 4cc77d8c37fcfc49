"""Trained models and training state as files: safetensors with a JSON header, read without running code.

A model file has the metadata key ``sparsespike-model``: a JSON object with ``format_version``, ``model`` (an
:class:`~sparsespike.ann.models.MLPSpec` or :class:`~sparsespike.ann.convnets.ConvNetSpec`), ``encoding`` (an
:class:`~sparsespike.ann.encoding.Encoding`), ``classes``, and what is known of its training. Tensors carry the names of the
module's ``state_dict``, which is the same whether sparse layers were trained truly sparse or masked dense.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from sparsespike.ann.networks import Network, build, spec_from_dict
from sparsespike.common.errors import ConfigError, ModelError
from sparsespike.common.files import atomic_path

FORMAT_VERSION = 1
MODEL_KEY = "sparsespike-model"


def save_tensors(path: str | os.PathLike[str], tensors: Mapping[str, Tensor], key: str, metadata: Mapping[str, Any]) -> None:
    """Write tensors and a JSON object to one safetensors file, atomically.

    Raises
    ------
    ConfigError
        If the file cannot be written; a file that was there stays as it was.
    """
    header = {key: json.dumps({"format_version": FORMAT_VERSION, **metadata})}
    content = save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, header)
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def load_tensors(path: str | os.PathLike[str], key: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what :func:`save_tensors` wrote.

    Raises
    ------
    ConfigError
        If there is no such file.
    ModelError
        If it is not such a file: damaged, of another kind or of a newer version.
    """
    file = Path(path)
    if not file.is_file():
        raise ConfigError(f"there is no file {file}; give a .safetensors file that was written by training")
    try:
        with safe_open(file, framework="pt") as content:
            header = content.metadata() or {}
            tensors = {name: content.get_tensor(name).clone() for name in content.keys()}  # noqa: SIM118  # not a mapping
        metadata = json.loads(header[key])
        version = metadata["format_version"]
    except KeyError as error:
        raise ModelError(f"file {file} has no {error} in its header; expected a file with {key!r} metadata") from error
    except (SafetensorError, OSError, ValueError, TypeError) as error:
        raise ModelError(f"file {file} is damaged ({error}); expected safetensors with {key!r} metadata") from error
    if version != FORMAT_VERSION:
        raise ModelError(f"file {file} has format version {version!r}; expected {FORMAT_VERSION}: use the version that wrote it")
    return tensors, metadata


def save_model(path: str | os.PathLike[str], model: Network, metadata: Mapping[str, Any]) -> None:
    """Write a trained model; ``metadata`` (plain values) is kept beside its description."""
    save_tensors(path, model.state_dict(), MODEL_KEY, {"model": model.spec.to_dict(), **metadata})


def load_model(path: str | os.PathLike[str]) -> tuple[Network, dict[str, Any]]:
    """Rebuild a trained model.

    Parameters
    ----------
    path : path
        A model file, or a run folder that holds ``model.safetensors``.

    Returns
    -------
    model : MLP or ConvNet
        On the CPU, in evaluation mode.
    metadata : dict
        ``encoding`` (for :meth:`~sparsespike.ann.encoding.Encoding.from_dict`), ``classes``, accuracies, and what else was saved.

    Raises
    ------
    ConfigError
        If there is no such file.
    ModelError
        If the file is damaged, its tensors do not fit its description, or a weight is not finite.
    """
    file = Path(path) / "model.safetensors" if Path(path).is_dir() else Path(path)
    tensors, metadata = load_tensors(file, MODEL_KEY)
    try:
        model = build(spec_from_dict(metadata["model"]))
        model.load_state_dict(tensors)
    except KeyError as error:
        raise ModelError(f"model file {file} has no {error} in its header; train the model again") from error
    except RuntimeError as error:
        raise ModelError(f"model file {file} has tensors that do not fit its description: {error}") from error
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise ModelError(f"model file {file} has a value in {name!r} that is not finite; train the model again")
    return model.eval(), metadata
