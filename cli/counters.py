"""``sparsespike counters``: what other tools would count on this network, and why."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from sparsespike.backends.native import NativeBackend
from sparsespike.cli.console import print_json, print_prose, print_table
from sparsespike.cli.inputs import TestData, inputs_for
from sparsespike.cli.options import DEFAULT_STEPS, Download, Json
from sparsespike.energy.counters import COUNTERS, count_all, counters_frame
from sparsespike.export.graphfile import load_graph


def counters(
    graph: Annotated[Path, typer.Argument(help="A graph file (.safetensors).")],
    data: TestData = None,
    download: Download = False,
    images: Annotated[int, typer.Option(help="How many test images, evenly spread over them.", min=1)] = 20,
    steps: Annotated[int | None, typer.Option(help="Time steps T. Default: 32; of an AEC graph, its slots.", min=1)] = None,
    batch: Annotated[
        int | None, typer.Option(help="Images in one call of a layer, as other tools see them. Default: all.", min=1)
    ] = None,
    layers: Annotated[bool, typer.Option("--layers", help="A row for each projection, too.")] = False,
    as_json: Json = False,
) -> None:
    """Synaptic operations as other tools define them, beside the graph's events: by how much each is off, and why.

    The difference is the sum of three terms: absent links counted, taps in the padding counted, and an activity that is not
    the number of spikes.

    Example: sparsespike counters runs/sparse/graph.safetensors --images 20 --layers
    """
    network = load_graph(graph)
    time_steps = steps or network.slots or DEFAULT_STEPS
    inputs = inputs_for(network, data, images, download=download).images
    run = NativeBackend().run(network, inputs, time_steps, record=network.spiking)
    frame = counters_frame(count_all(network, run, inputs, batch=batch), run.images)
    if as_json:
        print_json({"images": run.images, "steps": time_steps, "batch": batch or run.images, "counts": frame.to_dict("records")})
        return
    shown = frame if layers else frame[frame["pre"] == "total"]
    print_table(
        f"{graph}: operations of the mean of {run.images:,} images, T = {time_steps}",
        ("counter", "layer", "ACs", "MACs", "events", "difference", "off by_%", "absent\nlinks", "borders", "activity"),
        [
            (
                row["counter"],
                f"{row['pre']} → {row['post']}" if row["post"] else row["pre"],
                *(row[name] for name in ("ACs", "MACs", "events", "difference", "difference_%")),
                *(row[name] for name in ("absent_links", "borders", "activity")),
            )
            for row in shown.to_dict("records")
        ],
        caption="events: spikes x fan-outs, values of zero left out; difference = absent links + borders + activity",
    )
    for counter in COUNTERS.values():
        print_prose(f"[bold]{counter.name}[/]: {escape(counter.why)}")
