"""A bulk run as a file, and the parts of a test set joined: sums of integers, so that shards and the whole are equal."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from sparsespike.backends.base import SpikeCounts
from sparsespike.backends.bulk import BulkResult
from sparsespike.common.errors import BackendError
from sparsespike.common.files import atomic_path

KEY = "sparsespike-bulk"
SPIKES = ("spikes", "spikes_by_image", "spikes_by_step")
BY_PROJECTION = ("events", "events_by_step")
BY_POPULATION = ("neuron_updates", "bias_additions", "messages")


def save_bulk(path: str | os.PathLike[str], result: BulkResult, *, times: bool = False) -> None:
    """Write a bulk run to a safetensors file, atomically; without wall times equal runs give equal bytes."""
    tensors: dict[str, NDArray[np.int64]] = {"predictions": result.predictions}
    for field in SPIKES:
        for name, counts in getattr(result, field).items():
            tensors[f"{field}/{name}/positive"], tensors[f"{field}/{name}/negative"] = counts.positive, counts.negative
    for field in BY_PROJECTION:
        tensors |= {f"{field}/{pre}/{post}": array for (pre, post), array in getattr(result, field).items()}
    for field in BY_POPULATION:
        tensors |= {f"{field}/{name}": array for name, array in getattr(result, field).items()}
    header = {name: getattr(result, name) for name in ("backend", "version", "dtype", "steps", "images")}
    header["counting"] = [[*key, how] for key, how in result.counting.items()]
    if times:
        header["wall_seconds"] = dict(result.wall_seconds)
    content = save({name: np.ascontiguousarray(array) for name, array in sorted(tensors.items())}, {KEY: json.dumps(header)})
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def load_bulk(path: str | os.PathLike[str]) -> BulkResult:
    """Read what :func:`save_bulk` wrote.

    Raises
    ------
    BackendError
        If the file is none of these, or damaged.
    """
    try:
        with safe_open(Path(path), framework="numpy") as file:
            header: dict[str, Any] = json.loads((file.metadata() or {})[KEY])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a mapping
        fields: dict[str, Any] = {name: header[name] for name in ("backend", "version", "dtype", "steps", "images")}
        fields |= {field: _spikes(tensors, field) for field in SPIKES}
        fields |= {field: {_pair(rest): array for rest, array in _below(tensors, field).items()} for field in BY_PROJECTION}
        fields |= {field: _below(tensors, field) for field in BY_POPULATION}
        counting = {(pre, post): how for pre, post, how in header["counting"]}
        fields |= {"predictions": tensors["predictions"], "wall_seconds": header.get("wall_seconds", {})}
        return BulkResult(**fields, counting=counting)
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise BackendError(
            f"counts {path}: cannot be read ({error!r}); remove it (in a sweep, its folder) and simulate again"
        ) from error


def _below(tensors: Mapping[str, NDArray[np.int64]], field: str) -> dict[str, NDArray[np.int64]]:
    return {name.removeprefix(f"{field}/"): array for name, array in tensors.items() if name.startswith(f"{field}/")}


def _spikes(tensors: Mapping[str, NDArray[np.int64]], field: str) -> dict[str, SpikeCounts]:
    names = dict.fromkeys(name.rpartition("/")[0] for name in _below(tensors, field))
    return {name: SpikeCounts(tensors[f"{field}/{name}/positive"], tensors[f"{field}/{name}/negative"]) for name in names}


def _pair(name: str) -> tuple[str, str]:
    pre, _, post = name.partition("/")
    return pre, post


def part_of(images: int, shard: int, shards: int) -> slice:
    """The images of one shard: all shards together are all images, in order, and differ by at most one in size."""
    return slice(shard * images // shards, (shard + 1) * images // shards)
