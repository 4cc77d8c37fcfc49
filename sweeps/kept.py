"""A run over many images whose finished blocks are files: what fails or is killed takes no other block's results with it."""

from __future__ import annotations

import os
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsespike.backends.base import Backend, InputMode
from sparsespike.backends.bulk import BulkResult, join, run_blocks
from sparsespike.common.errors import BackendError
from sparsespike.export.graph import SpikingGraph
from sparsespike.sweeps.bulkfile import load_bulk, save_bulk


def run_kept(
    backend: Backend,
    graph: SpikingGraph,
    inputs: NDArray[Any],
    steps: int,
    *,
    folder: str | os.PathLike[str],
    block: int,
    input: InputMode = "current",
    progress: Callable[[int], None] | None = None,
) -> BulkResult:
    """As ``backends.bulk.run_blocks``, with a file in ``folder`` for every finished block; blocks that have one are not run.

    A block is known by its graph, backend, steps, input mode and images, so runs of all kinds may share a folder, and one that
    was killed goes on where it was. A block that fails does not stop the others.

    Parameters
    ----------
    backend, graph, inputs, steps, input, progress
        As in ``run_blocks``.
    folder : path
        Is made if it is absent.
    block : int
        Images in one run, and in one file.

    Raises
    ------
    BackendError
        As ``run_blocks``; of the class that the first failing block raised, once all others are kept.
    ConfigError
        If ``folder`` cannot be written to.
    """
    if block < 1:
        raise BackendError(f"run_kept: found block = {block}, expected at least 1")
    parts, failures = [], list[tuple[int, BackendError]]()
    for start in range(0, len(inputs), block):
        images = inputs[start : start + block]
        path = Path(folder, f"{_name(backend, graph, images, steps, input)}.safetensors")
        try:
            if not path.exists():
                save_bulk(path, run_blocks(backend, graph, images, steps, block=block, input=input), times=True)
        except BackendError as error:
            failures.append((start, error))
            continue
        parts.append(load_bulk(path))
        if progress is not None:
            progress(parts[-1].images)
    if failures:
        raise _told(failures, sum(part.images for part in parts), len(inputs), block, folder)
    return join(parts)


def _told(
    failures: list[tuple[int, BackendError]], kept: int, images: int, block: int, folder: str | os.PathLike[str]
) -> BackendError:
    """The first error; if anything is kept, it now says what, and where it happened itself."""
    (start, error), *others = failures
    if not kept:
        return error
    last = min(start + block, images) - 1
    also = f", and {len(others)} blocks after it" if others else ""
    error.args = (
        f"{error}\nThis was the block of images {start} to {last}{also}. The results of the other {kept} of {images} images are "
        f"kept in {folder}: the same run does what is missing.",
    )
    return error


def _name(backend: Backend, graph: SpikingGraph, images: NDArray[Any], steps: int, input: InputMode) -> str:
    """Differs where anything differs that the block's results depend on."""
    counting = getattr(backend, "counting", None)  # native has two
    settings = (graph.digest(), backend.name, counting, steps, input, images.shape)
    return sha256(repr(settings).encode() + np.ascontiguousarray(images, np.int64).tobytes()).hexdigest()[:32]
