"""``sparsespike export``: a graph for another simulator, for those who do not have this package."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from sparsespike.backends.brian2.script import write_script
from sparsespike.backends.lava.exporting import write_program
from sparsespike.backends.lava.stock import write_stock_program
from sparsespike.cli.console import out
from sparsespike.common.errors import ConfigError
from sparsespike.export.graph import SpikingGraph
from sparsespike.export.graphfile import load_graph
from sparsespike.export.nir.writing import write_nir_folder

TARGETS: Mapping[str, Callable[[SpikingGraph, Path], list[Path]]] = {
    "brian2": write_script,
    "lava": write_program,
    "lava-fixed": partial(write_program, model="fixed_pt"),
    "lava-stock": write_stock_program,
    "nir": write_nir_folder,
}
"""What writes a graph into a folder, by the name of the simulator or format; each gives the files that it wrote."""


def export(
    graph: Annotated[Path, typer.Argument(help="A graph file (.safetensors).")],
    to: Annotated[str, typer.Option("--to", help=f"One of: {', '.join(TARGETS)}.")],
    folder: Annotated[Path, typer.Option("--out", help="The folder that the program and its data are written to.")],
    dt: Annotated[
        float | None,
        typer.Option(
            help="nir, neurons that leak: time of a step of the framework that will run it (Norse's from_nir: 1e-3, snnTorch: "
            "1e-4). They are written without the rounding of their decay."
        ),
    ] = None,
) -> None:
    """Write a graph as a program that runs without sparsespike and gives the same spikes, events and readout.

    The program says in its first lines what it needs and how it is run. nir writes no program but a network.nir, for the
    frameworks that read NIR; it takes graphs that reset to zero and start at zero, as most of those read from NIR do.

    Example: sparsespike export runs/sparse/graph.safetensors --to brian2 --out exported
    """
    if to not in TARGETS:
        raise ConfigError(f"--to {to!r}: expected one of {', '.join(TARGETS)}")
    if dt is not None and to != "nir":
        raise ConfigError(f"--dt is for --to nir: a program for {to} takes its decays from the graph, step by step")
    write = TARGETS[to] if dt is None else partial(write_nir_folder, dt=dt)
    for path in write(load_graph(graph), folder):
        out.print(str(path), highlight=False, markup=False)
