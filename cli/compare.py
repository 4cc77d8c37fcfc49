"""``sparsespike compare``: do the backends agree, spike for spike and event for event?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

from sparsespike.backends.base import Backend, RunResult
from sparsespike.backends.compare import first_divergence
from sparsespike.cli.console import err, out, print_json, print_table
from sparsespike.cli.inputs import TestData, inputs_for
from sparsespike.cli.options import (
    DEFAULT_STEPS,
    Backends,
    Download,
    Images,
    Json,
    MaxSynapses,
    TimeLimit,
    chosen_backends,
)
from sparsespike.common.errors import ConfigError
from sparsespike.export.graph import SpikingGraph
from sparsespike.export.graphfile import load_graph


def compare(
    graph: Annotated[Path, typer.Argument(help="A graph file (.safetensors).")],
    backend: Backends = ["native", "brian2"],  # noqa: B006  # typer copies the default
    data: TestData = None,
    download: Download = False,
    images: Images = 20,
    steps: Annotated[int | None, typer.Option(help="Time steps T. Default: 32; of an AEC graph, its slots.", min=1)] = None,
    max_synapses: MaxSynapses = None,
    time_limit: TimeLimit = None,
    as_json: Json = False,
) -> None:
    """Run the same images on several backends and print the first divergence, if there is one.

    Rasters, spike counts, event counts and readouts are held against the first backend named, by equality. Exit code 1 if they
    differ.

    Example: sparsespike compare runs/demo/sparse/graph.safetensors --backend native --backend brian2 --backend lava
    """
    if len(backend) < 2:
        raise ConfigError(f"compare: found {len(backend)} backend, expected at least two; name each with --backend")
    network = load_graph(graph)
    backends = chosen_backends(backend, network, max_synapses, time_limit)
    inputs = inputs_for(network, data, images, download=download).images
    results = run_recorded(network, backends, inputs, steps or network.slots or DEFAULT_STEPS)
    first, *others = results
    rows: list[dict[str, Any]] = []
    for other in others:
        divergence = first_divergence(network, first, other, inputs)
        rows.append({"reference": first.backend, "backend": other.backend, "equal": divergence is None})
        if divergence is not None:
            rows[-1]["first_divergence"] = str(divergence)
            err.print(str(divergence), highlight=False, markup=False)
    if as_json:
        print_json({"graph": str(graph), "images": len(inputs), "steps": first.steps, "comparisons": rows})
    else:
        spikes = sum(int(counts.events.sum()) for name, counts in first.spikes.items() if name in network.spiking)
        events = sum(int(counts.sum()) for counts in first.events.values())
        title = f"{len(inputs):,} images, T = {first.steps}: {spikes:,} spikes, {events:,} synaptic events"
        print_table(title, ("reference", "backend", "equal"), [(r["reference"], r["backend"], r["equal"]) for r in rows])
    if any(not row["equal"] for row in rows):
        raise typer.Exit(1)
    if not as_json:
        out.print("Rasters, spike counts, event counts and readouts are equal.")


def run_recorded(graph: SpikingGraph, backends: Sequence[Backend], inputs: NDArray[np.int64], steps: int) -> list[RunResult]:
    """Run backends one after the other, keeping every raster."""
    results = []
    for backend in backends:
        with err.status(f"{backend.name}: {len(inputs):,} images, T = {steps}"):
            results.append(backend.run(graph, inputs, steps, record=graph.spiking))
    return results
