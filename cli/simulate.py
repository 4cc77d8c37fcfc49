"""``sparsespike simulate``: run a graph on backends and reconcile their counts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, cast, get_args

import numpy as np
import pandas as pd
import typer
from numpy.typing import NDArray
from rich.markup import escape

from sparsespike.backends.base import Backend, Counting, InputMode, RunResult
from sparsespike.backends.bulk import BulkResult, run_blocks
from sparsespike.backends.native import NativeBackend
from sparsespike.cli.choice import chosen_steps
from sparsespike.cli.console import err, print_json, print_prose, print_table
from sparsespike.cli.inputs import TestData, inputs_for, is_file
from sparsespike.cli.made_by import made_by
from sparsespike.cli.options import (
    Backends,
    Download,
    Images,
    Json,
    MaxSynapses,
    TimeLimit,
    chosen_backends,
    counted_progress,
)
from sparsespike.cli.rasters import rasters
from sparsespike.cli.results import accuracy_by_step, run_document
from sparsespike.common.errors import ConfigError
from sparsespike.common.files import write_text
from sparsespike.energy.ledger import Ledger
from sparsespike.energy.report.account import Account
from sparsespike.export.graph import SpikingGraph
from sparsespike.export.graphfile import load_graph
from sparsespike.sweeps.kept import run_kept

NATIVE_BLOCK, KEPT_BLOCK = 512, 100


def simulate(
    graph: Annotated[Path, typer.Argument(help="A graph file (.safetensors).")],
    backend: Backends = ["native"],  # noqa: B006  # typer copies the default
    data: TestData = None,
    download: Download = False,
    images: Images = None,
    steps: Annotated[
        str | None,
        typer.Option(
            help="Time steps T; auto: where accuracy saturates, as chosen by convert or on validation images. "
            "Default: 32; of an AEC graph, its slots."
        ),
    ] = None,
    input_mode: Annotated[
        str,
        typer.Option(
            "--input",
            help="events: the first projection runs inside the backend and is measured; current: computed once an image.",
        ),
    ] = "events",
    counting: Annotated[
        str,
        typer.Option(help="native: measured, one event at a time; or computed, spikes x fan-out, in the faster compiled kernel."),
    ] = "measured",
    max_synapses: MaxSynapses = None,
    time_limit: TimeLimit = None,
    block: Annotated[
        int | None,
        typer.Option(
            help="Images in one run of a backend; fewer take less memory. Default: native 512, others all, or 100 with --keep.",
            min=1,
        ),
    ] = None,
    keep: Annotated[
        Path | None,
        typer.Option(
            help="Keep the results of every finished block of images in this folder; the same command does what is missing."
        ),
    ] = None,
    results: Annotated[
        Path | None, typer.Option("--out", help="Write counts, ledger and a few rasters to this JSON file.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Run test images on one or several backends: accuracy, spikes, and the ledger of synaptic events.

    Exit code 1 if a count does not reconcile.

    Examples:

    sparsespike simulate runs/sparse/graph.safetensors --steps 32

    sparsespike simulate runs/sparse/graph.safetensors --steps auto

    sparsespike simulate runs/sparse/graph.safetensors --steps 64 --input current --counting computed

    sparsespike simulate runs/sparse/graph.safetensors --backend native --backend brian2 --backend lava --images 20

    sparsespike simulate runs/sparse/graph.safetensors --backend lava --block 200 --keep runs/sparse/blocks
    """
    network = load_graph(graph)
    if input_mode not in get_args(InputMode):
        raise ConfigError(f"--input {input_mode!r}: expected one of {', '.join(get_args(InputMode))}")
    if counting not in get_args(Counting):
        raise ConfigError(f"--counting {counting!r}: expected one of {', '.join(get_args(Counting))}")
    backends = [
        NativeBackend(counting=cast(Counting, counting)) if each.name == "native" else each
        for each in chosen_backends(backend, network, max_synapses, time_limit)
    ]
    inputs, labels = inputs_for(network, data, images, download=download)
    if results and labels is None:
        raise ConfigError(
            f"--out {results}: reports show accuracy, and the inputs have no labels; give a .npz file with both, or --json"
        )
    time_steps, choice = chosen_steps(network, steps, None if is_file(data) else data)
    runs = [run_backend(network, each, inputs, time_steps, cast(InputMode, input_mode), block, keep) for each in backends]
    ledger = Ledger.from_results(network, runs)
    document = {
        "graph": str(graph),
        "reconciled": ledger.reconciled,
        "steps_choice": None if choice is None else choice.to_dict(),
        "runs": [run_document(network, run, labels) for run in runs],
    }
    if results and labels is not None:
        further = {
            "account": Account.of(ledger).to_dict(),
            "rasters": rasters(network, inputs, labels, time_steps),
            "provenance": network.provenance,
            "made_by": made_by(),
        }
        write_text(results, json.dumps(document | further, default=np.ndarray.tolist))
    if as_json:
        print_json(document)
    else:
        if choice is not None:
            print_prose(f"Chosen: {escape(choice.describe())}")
        title = f"{graph}: {len(inputs):,} images, T = {time_steps}"
        print_runs(title, runs, labels)
        print_ledger(title, ledger)
    if not ledger.reconciled:
        raise typer.Exit(1)


def run_backend(
    graph: SpikingGraph,
    backend: Backend,
    inputs: NDArray[np.int64],
    steps: int,
    input: InputMode = "events",
    block: int | None = None,
    keep: Path | None = None,
) -> BulkResult:
    """Run one backend on any number of images, with a progress bar; native in blocks, its memory being stated beforehand."""
    name = backend.name
    if block is None:
        block = NATIVE_BLOCK if name == "native" else len(inputs) if keep is None else KEPT_BLOCK
    if isinstance(backend, NativeBackend):
        err.print(_memory(backend, graph, inputs, steps, block), highlight=False)
    with counted_progress() as progress:
        done = 0

        def advance(images: int) -> None:
            nonlocal done
            done += images
            progress(f"{name}: images", done, len(inputs))

        progress(f"{name}: images", 0, len(inputs))
        run = run_blocks if keep is None else partial(run_kept, folder=keep)
        return run(backend, graph, inputs, steps, block=block, input=input, progress=advance)


def _memory(backend: NativeBackend, graph: SpikingGraph, inputs: NDArray[Any], steps: int, block: int) -> str:
    most = backend.memory(graph, steps, len(inputs), block=block)
    return f"{backend.name}: at most {most / 1e6:,.1f} MB of memory, beside the graph and {inputs.nbytes / 1e6:,.1f} MB of images"


def print_runs(title: str, runs: Sequence[RunResult | BulkResult], labels: NDArray[np.int64] | None) -> None:
    """Accuracy, where labels are known, and time of each backend."""
    marks = [t for t in (1, 2, 4, 8, 16, 32, 64, 128) if t < runs[0].steps] + [runs[0].steps] if labels is not None else []
    rows = []
    for run in runs:
        accuracy = np.zeros(0) if labels is None else 100 * accuracy_by_step(run, labels)
        seconds = [f"{run.wall_seconds[phase]:.2f}" for phase in ("build", "run")]
        rows.append((run.backend, run.version, run.dtype, *(f"{accuracy[t - 1]:.2f}" for t in marks), *seconds))
    print_table(title, ("backend", "version", "membranes", *(f"acc_%\nT={t}" for t in marks), "build_s", "run_s"), rows)


def print_ledger(title: str, ledger: Ledger) -> None:
    """The ledger of one network: spikes, events by backend, analytic, covariance, residual and energy, mean image."""
    frame = ledger.to_frame(images="mean")
    columns = ("layer", "spikes", *ledger.backends, "analytic", "covariance", "residual", "energy_nJ")
    rows = []
    for _, row in frame.iterrows():
        measured = [_count(row, backend) for backend in ledger.backends]
        residuals = [row[f"{backend}_residual_events"] for backend in ledger.backends]
        known = [residual for residual in residuals if not pd.isna(residual)]
        rows.append(
            (
                f"{row['pre']} → {row['post']}" if row["post"] else row["pre"],
                _number(row["pre_spikes"]),
                *measured,
                _number(row["analytic_graph_events"]),
                _number(row["covariance_events"]),
                _number(max(known, key=abs)) if known else None,
                _number(row["energy_pJ"] / 1000),
            )
        )
    caption = ledger.describe()
    if not ledger.disagreements:
        caption += "\n" + ledger.energy().describe()
    print_table(f"{title}: synaptic events of the mean image, by backend", columns, rows, caption=caption)


def _number(value: Any) -> str | None:
    if value is None or pd.isna(value):
        return None
    return f"{float(value):,.{0 if abs(value) >= 1e5 else 1}f}" if value else "0"


def _count(row: pd.Series[Any], backend: str) -> str | None:
    """Measured events; those that a backend computed instead carry a star."""
    measured = row.get(f"{backend}_measured_events")
    if measured is not None and not pd.isna(measured):
        return _number(measured)
    computed = _number(row.get(f"{backend}_computed_events"))
    return None if computed is None else f"{computed} *"
