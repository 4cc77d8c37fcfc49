"""What a graph is run on: a data set by its name, or a file of integers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, NamedTuple
from zipfile import BadZipFile

import numpy as np
import typer
from numpy.typing import NDArray

from sparsespike.cli.options import fetch, images_for
from sparsespike.common.errors import DataError, GraphError
from sparsespike.export.graph import SpikingGraph

FILES = (".npy", ".npz")
TestData = Annotated[
    str | None,
    typer.Option(
        "--data",
        help="digits, mnist, fashion-mnist, emnist, cifar10, cifar100 or imagefolder:PATH; or a file of integers as the graph's "
        "input takes them: inputs.npy, images first, or inputs.npz with 'images' and their 'labels'. Default: what the graph was "
        "trained on.",
    ),
]


class Inputs(NamedTuple):
    """Inputs of shape (B, N), integers of any width, and int64 labels of shape (B,) where they are known."""

    images: NDArray[Any]
    labels: NDArray[np.int64] | None


def is_file(data: str | None) -> bool:
    """Whether the option names a file, and no data set."""
    return data is not None and Path(data).suffix in FILES


def inputs_for(graph: SpikingGraph, data: str | None, images: int | None, *, download: bool = False) -> Inputs:
    """Images of a data set or file, evenly spread; of a file at most as many as it has.

    Raises
    ------
    ConfigError
        If nothing is named, and the graph does not say which data set it was trained on.
    DataError
        If the file or data set cannot be read, or does not fit the graph.
    """
    name = data or graph.provenance.get("dataset")
    if isinstance(name, str) and is_file(name):
        return _spread(_from_file(graph, Path(name)), images)
    if download:
        fetch(name)
    return Inputs(*images_for(graph, data, images))


def _spread(inputs: Inputs, images: int | None) -> Inputs:
    available = len(inputs.images)
    count = min(images or available, available)
    chosen = np.arange(count) * available // count
    return Inputs(inputs.images[chosen], None if inputs.labels is None else inputs.labels[chosen])


def _from_file(graph: SpikingGraph, path: Path) -> Inputs:
    """All of a file."""
    arrays = _arrays(path)
    if "images" not in arrays:
        raise DataError(f"{path}: found {', '.join(arrays) or 'nothing'}, expected 'images', and 'labels' if they are known")
    try:
        images = graph.flat_inputs(arrays["images"])
    except GraphError as error:
        raise DataError(f"{path}: {error}") from error
    if not len(images):
        raise DataError(f"{path}: found no image in it, expected at least one")
    labels = arrays.get("labels")
    if labels is not None and (labels.dtype.kind not in "iu" or labels.shape != (len(images),)):
        raise DataError(f"{path}: found labels {labels.dtype} {labels.shape}, expected {len(images)} integers, one an image")
    return Inputs(images, None if labels is None else labels.astype(np.int64))


def _arrays(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of a file by their names; that of a ``.npy`` file is ``images``."""
    if not path.is_file():
        raise DataError(f"{path}: found no file there, expected a .npy or .npz file; check the path")
    try:
        with path.open("rb") as file:
            found = np.load(file, allow_pickle=False)
            return dict(found) if isinstance(found, np.lib.npyio.NpzFile) else {"images": found}
    except (OSError, ValueError, EOFError, BadZipFile) as error:
        raise DataError(f"{path}: cannot be read ({error}); write it with numpy.save or numpy.savez, without objects") from error
