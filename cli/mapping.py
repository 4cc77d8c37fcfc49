"""``sparsespike mapping``: what a graph would take of a neuromorphic chip."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sparsespike.backends.bulk import run_blocks
from sparsespike.backends.mapping import CHIPS, Estimate, estimate
from sparsespike.backends.native import NativeBackend
from sparsespike.cli.console import out, print_json, print_table
from sparsespike.cli.inputs import TestData, inputs_for
from sparsespike.cli.options import DEFAULT_STEPS, Download, Json
from sparsespike.common.errors import ConfigError
from sparsespike.export.graphfile import load_graph


def mapping(
    graph: Annotated[Path, typer.Argument(help="A graph file (.safetensors).")],
    chip: Annotated[list[str], typer.Option(help=f"{' or '.join(CHIPS)}; may be given several times.")] = list(CHIPS),  # noqa: B006  # typer copies the default
    images: Annotated[
        int | None,
        typer.Option(help="Run so many test images (native), evenly spread, and count the messages of the mean image.", min=1),
    ] = None,
    data: TestData = None,
    download: Download = False,
    steps: Annotated[
        int | None, typer.Option(help="With --images: time steps T. Default: 32; of an AEC graph, its slots.", min=1)
    ] = None,
    as_json: Json = False,
) -> None:
    """Estimate cores, synaptic memory, axons and messages on Loihi 1, and a lower bound of cores on Loihi 2.

    Each limit is shown with its source; what Loihi 2 holds in a core is not published.

    Examples:

    sparsespike mapping runs/demo/sparse/graph.safetensors --chip loihi1

    sparsespike mapping runs/demo/sparse/graph.safetensors --chip loihi1 --images 20
    """
    unknown = [name for name in chip if name not in CHIPS]
    if unknown:
        raise ConfigError(f"--chip {unknown[0]!r}: expected one of {', '.join(CHIPS)}")
    if images is None and (data is not None or download or steps is not None):
        raise ConfigError("--data, --download and --steps are for counting messages: say how many --images are run for that")
    loaded = load_graph(graph)
    spikes = None
    if images is not None:
        inputs = inputs_for(loaded, data, images, download=download).images
        run = run_blocks(NativeBackend(counting="computed"), loaded, inputs, steps or loaded.slots or DEFAULT_STEPS)
        spikes = {name: run.spikes[name].events[0] / run.images for name in loaded.spiking}
    estimates = [estimate(loaded, CHIPS[name], spikes=spikes) for name in chip]
    if as_json:
        print_json([found.to_dict() for found in estimates])
        return
    for found in estimates:
        _print(found)


def _print(found: Estimate) -> None:
    rows = found.rows()
    columns = [name for name in rows[0] if any(row[name] is not None for row in rows)]
    print_table(_title(found), columns, [[row[name] for name in columns] for row in rows])
    limits = [
        (name, "not published", None, "") if limit is None else (name, f"{limit.value:,}", limit.verified, limit.source)
        for name, limit in found.chip.limits.items()
    ]
    print_table(
        f"Limits of {found.chip.name}",
        ("of a core, or the chip", "value", "verified", "source"),
        limits,
        caption="verified: the source states the number plainly; otherwise it is derived, or known at second hand.",
    )
    for title, lines in (("Assumed", found.assumptions), ("Obstacles", found.obstacles)):
        for line in lines:
            out.print(f"{title}: {line}", highlight=False, markup=False, soft_wrap=True)


def _title(found: Estimate) -> str:
    if found.cores is None:
        return f"{found.chip.name}: does not fit"
    cores = f"{found.cores} of {found.chip.cores.value} cores"
    return (
        f"{found.chip.name}: at least {cores}, a lower bound of cores alone"
        if found.lower_bound
        else f"{found.chip.name}: {cores}"
    )
