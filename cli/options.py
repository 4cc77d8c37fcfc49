"""Options that several commands share, and what they stand for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from sparsespike.ann.data import Split, load
from sparsespike.backends.base import Backend
from sparsespike.backends.registry import TIMED, get_backend
from sparsespike.cli.console import err
from sparsespike.common.errors import BackendError, ConfigError, DataError
from sparsespike.export.graph import SpikingGraph

DEFAULT_STEPS = 32

Data = Annotated[
    str | None,
    typer.Option(
        help="digits, mnist, fashion-mnist, emnist, cifar10, cifar100 or imagefolder:PATH. "
        "Default: what the graph was trained on."
    ),
]
Images = Annotated[int | None, typer.Option(help="How many test images, evenly spread over them. Default: all.", min=1)]
Steps = Annotated[int, typer.Option(help="Time steps T.", min=1)]
Backends = Annotated[
    list[str],
    typer.Option(
        help="native, brian2, brian2-cython, brian2-cpp, lava, lava-fixed, or one of another package (see doctor); may be given "
        "several times."
    ),
]
MaxSynapses = Annotated[
    int | None,
    typer.Option(help="Limit of Brian2 and Lava, which expand convolutions into single synapses; the refusal says the size."),
]
TimeLimit = Annotated[
    float | None,
    typer.Option(
        "--time-limit",
        metavar="SECONDS",
        help=f"After which a run of {', '.join(TIMED)} is ended, start and build included; inf: never. Default: 600 of Lava, "
        "else inf.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
Download = Annotated[bool, typer.Option("--download", help="Allow torchvision to download the data set.")]


@contextmanager
def counted_progress() -> Iterator[Callable[[str, int, int], None]]:
    """A progress bar on standard error, driven by ``update(what, done, total)``."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err, transient=True, disable=not err.is_interactive) as bar:
        tasks: dict[str, Any] = {}

        def update(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(what, total=total)
            bar.update(tasks[what], completed=done, total=total)

        yield update


def whole_numbers(option: str, text: str, example: str) -> tuple[int, ...]:
    """The value of an option that takes whole numbers with commas between.

    Raises
    ------
    ConfigError
        If one of them is not a whole number.
    """
    try:
        return tuple(int(number) for number in text.split(","))
    except ValueError:
        raise ConfigError(f"{option} {text!r}: expected whole numbers with commas between, such as {example}") from None


def chosen_backends(
    names: Sequence[str], graph: SpikingGraph, max_synapses: int | None = None, time_limit: float | None = None
) -> list[Backend]:
    """The backends named, all of them known to run the graph before the first starts; a time limit is for those that have one.

    Raises
    ------
    ConfigError
        If a name is unknown or given twice, or a time limit is given and no backend has one.
    MissingExtraError
        If a package is not installed.
    BackendError
        If a backend cannot run the graph.
    """
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"--backend {twice[0]}: found {names.count(twice[0])} times, expected each backend once")
    limits = [time_limit if name in TIMED else None for name in names]
    if time_limit is not None and limits == [None] * len(names):
        raise ConfigError(f"--time-limit: found backends {', '.join(names)}, which have none; it is for {', '.join(TIMED)}")
    backends = [get_backend(name, max_synapses=max_synapses, time_limit=limit) for name, limit in zip(names, limits, strict=True)]
    for backend in backends:
        if reasons := backend.check(graph):
            raise BackendError(f"backend {backend.name!r} cannot run this graph: {'; '.join(reasons)}")
    return backends


def images_for(graph: SpikingGraph, data: str | None, images: int | None) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Test images as integers (B, N), of the data set's own type, and their labels (B,).

    Raises
    ------
    ConfigError
        If no data set is named and the graph does not say which one it was trained on.
    DataError
        If the data set does not fit the graph.
    """
    name = data or graph.provenance.get("dataset")
    if not isinstance(name, str):
        raise ConfigError("the graph does not say which data set it was trained on; name one with --data")
    with counted_progress() as progress:
        split = load(name, progress=progress).test
    if split.images[0].size != graph.input.size:
        raise DataError(
            f"data set {name!r} has images of {split.images[0].size} values, the graph's input has {graph.input.size}; "
            "name the data set that the network was trained on with --data"
        )
    return spread(split, images)


def fetch(name: object) -> None:
    """Download a data set, if it is not there, so that it can be loaded; without a name, what loads it asks for one."""
    if isinstance(name, str):
        load(name, download=True)


def spread(split: Split, images: int | None) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """That many images, evenly spread over the split (it may be sorted by class), as integers (B, N), and their labels (B,).

    Pixels stay bytes: a backend widens those of one block at a time.
    """
    if images is not None and images > len(split):
        raise ConfigError(f"--images {images}: the test split has {len(split)}; ask for at most that many")
    count = images or len(split)
    chosen = split.take(np.arange(count) * len(split) // count)
    return chosen.images.reshape(count, -1), chosen.labels
