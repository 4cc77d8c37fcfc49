"""``sparsespike inspect``: what is in a graph file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from sparsespike.cli.console import out, print_json, print_table
from sparsespike.export.bounds import bounds
from sparsespike.export.connections import CSRConnection
from sparsespike.export.graph import SpikingGraph
from sparsespike.export.graphfile import load_graph


def inspect(
    graph: Annotated[Path, typer.Argument(help="A graph file (.safetensors).")],
    steps: Annotated[int, typer.Option(help="Steps T for which the membrane bounds are given.", min=1)] = 32,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Check a graph file and show its populations, projections, proven bounds and provenance.

    Example: sparsespike inspect runs/demo/sparse/graph.safetensors
    """
    document = describe(load_graph(graph), steps)
    if as_json:
        print_json(document)
        return
    out.print(f"[bold]{graph}[/]  {document['synapses']:,} synapses, digest {document['digest'][:16]}")
    for title, key in (("Populations", "populations"), ("Projections", "projections")):
        rows = document[key]
        print_table(title, list(rows[0]), [row.values() for row in rows])
    print_table("Provenance", ("what", "value"), list(_readable(document["provenance"])))


def _readable(known: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Nested mappings as lines ``a.b: value``; lists of mappings, which are tables, are left to ``--json``."""
    for name, value in known.items():
        if isinstance(value, Mapping):
            yield from _readable(value, f"{prefix}{name}.")
        elif isinstance(value, list) and any(isinstance(each, Mapping) for each in value):
            yield f"{prefix}{name}", f"{len(value)} entries, shown by --json"
        else:
            yield f"{prefix}{name}", ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def describe(graph: SpikingGraph, steps: int) -> dict[str, Any]:
    """The tables of ``inspect`` as one JSON-ready document."""
    bound = bounds(graph, steps)
    populations = []
    for name in graph.order:
        p = graph.population(name)
        populations.append(
            {
                "name": name,
                "kind": p.kind,
                "shape": "x".join(map(str, p.shape)),
                "depth": graph.depth[name],
                "threshold": None if p.threshold is None else f"{p.threshold.min():,}..{p.threshold.max():,}",
                "bias": f"{p.bias.min():,}..{p.bias.max():,}" if p.bias.any() else None,
                "values": None if p.value_range is None else f"{p.value_range[0]}..{p.value_range[1]}",
                f"|membrane| bound, T={steps}": bound[name].membrane if name in bound else None,
            }
        )
    projections = []
    for projection in graph.projections:
        c = projection.connection
        weights = c.values if isinstance(c, CSRConnection) else c.kernel
        projections.append(
            {
                "projection": f"{projection.pre} -> {projection.post}",
                "as": "csr" if isinstance(c, CSRConnection) else "conv2d",
                "synapses": c.nnz,
                "density_%": 100 * c.nnz / (c.shape[0] * c.shape[1]),
                "fan-out min..mean..max": f"{c.fan_out.min()}..{c.fan_out.mean():.4g}..{c.fan_out.max()}",
                "weights": f"{weights.min():,}..{weights.max():,}" if weights.size else None,
                "delay_steps": graph.delay(projection.pre, projection.post),
            }
        )
    return {
        "digest": graph.digest(),
        "synapses": graph.nnz,
        "populations": populations,
        "projections": projections,
        "provenance": graph.provenance,
    }
