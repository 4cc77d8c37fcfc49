"""``sparsespike mapping``: what a graph would take of a neuromorphic chip."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sparsespike.backends.mapping import CHIPS, Estimate, estimate
from sparsespike.cli.console import out, print_json, print_table
from sparsespike.common.errors import ConfigError
from sparsespike.export.graphfile import load_graph


def mapping(
    graph: Annotated[Path, typer.Argument(help="A graph file (.safetensors).")],
    chip: Annotated[list[str], typer.Option(help=f"{' or '.join(CHIPS)}; may be given several times.")] = list(CHIPS),  # noqa: B006  # typer copies the default
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Estimate cores, synaptic memory, axons and messages on Loihi 1 and 2, from published limits, each with its source.

    Where a limit is not published, only a lower bound is given.

    Example: sparsespike mapping runs/demo/sparse/graph.safetensors --chip loihi1
    """
    unknown = [name for name in chip if name not in CHIPS]
    if unknown:
        raise ConfigError(f"--chip {unknown[0]!r}: expected one of {', '.join(CHIPS)}")
    loaded = load_graph(graph)
    estimates = [estimate(loaded, CHIPS[name]) for name in chip]
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
        (name, "not published" if limit is None else f"{limit.value:,}", "" if limit is None else limit.source)
        for name, limit in found.chip.limits.items()
    ]
    print_table(f"Limits of {found.chip.name}", ("of a core, or the chip", "value", "source"), limits)
    for title, lines in (("Assumed", found.assumptions), ("Obstacles", found.obstacles)):
        for line in lines:
            out.print(f"{title}: {line}", highlight=False, markup=False, soft_wrap=True)


def _title(found: Estimate) -> str:
    if found.cores is None:
        return f"{found.chip.name}: does not fit"
    return f"{found.chip.name}: {'at least ' if found.lower_bound else ''}{found.cores} of {found.chip.cores.value} cores"
