"""A trained 99 % sparse CIFAR-10 network, converted, on real images: native on all, Brian2 and Lava's fixed point equal to it.

    python benchmarks/acceptance.py --data imagefolder:PATH --run runs/chts-seed0-cs-qcfs [--images 10000]

Of a run of ``sparsespike finetune --method cs-qcfs`` three graphs are made: 16-bit and 8-bit weights with pixels of 0..255, and
8-bit weights with pixels of 0..24, biases rounded to mantissas of 13 bits: the one that fits the 24-bit membranes of Loihi, where
a neuron that is inhibited throughout sinks by its current T times.

- Native: all test images for T = 64, in a process of its own: accuracy, seconds, peak memory.
- Equality: 100 images, spread over the test set, the first projection inside the simulators, every event counted where its weight
  is added. Spikes, events and readouts of Brian2 (C++ standalone) and, for the graph that fits, Lava's fixed point (a process for
  every population and projection) must equal native's, and the ledger must leave no residual.

A finished row is kept in benchmarks/results/acceptance.json, and not run again for the same graph and number of images.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsespike.ann.checkpoint import load_model
from sparsespike.ann.comparison import markdown_table
from sparsespike.ann.data import Split, load
from sparsespike.ann.encoding import Encoding
from sparsespike.backends.base import Backend
from sparsespike.backends.brian2 import Brian2Backend
from sparsespike.backends.compare import first_divergence
from sparsespike.backends.lava import LavaBackend
from sparsespike.backends.lava.fixed import round_biases
from sparsespike.backends.native import NativeBackend
from sparsespike.cli.benchmark import machine
from sparsespike.common.files import write_text
from sparsespike.energy.ledger import Ledger
from sparsespike.export.graph import SpikingGraph
from sparsespike.export.graphfile import save_graph
from sparsespike.export.qcfs import convert_qcfs

RESULTS = Path(__file__).parent / "results"
PROGRAM = Path(__file__).parent / "native_run.py"
STEPS = 64
EQUALITY_IMAGES = 100
PIXEL = 255
GRAPHS = {"16 bits": (16, PIXEL), "8 bits": (8, PIXEL), "8 bits, fits Loihi": (8, 24)}
"""Bits of a weight and largest pixel value."""
FITTED = "8 bits, fits Loihi"


def graph_of(run: Path, name: str) -> SpikingGraph:
    """The run's network as the graph of that name."""
    bits, highest = GRAPHS[name]
    model, known = load_model(run)
    encoding = replace(Encoding.from_dict(known["encoding"]), value_range=(0, highest), unit=highest)
    graph = convert_qcfs(model, encoding, bits=bits).graph
    return round_biases(graph) if name == FITTED else graph


def pixels(test: Split, graph: SpikingGraph) -> NDArray[np.uint8]:
    """Test images in the graph's range, shape (images, N)."""
    assert graph.input.value_range is not None
    images = test.images.reshape(len(test), -1)
    coarse: NDArray[np.uint8] = np.rint(images * (graph.input.value_range[1] / PIXEL)).astype(np.uint8)
    return coarse


def native(graph: SpikingGraph, images: NDArray[np.uint8], labels: NDArray[Any]) -> dict[str, Any]:
    """Accuracy over T, seconds and peak memory of all images, run by a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder, name) for name in ("graph.safetensors", "images.npy", "predictions.npy")]
        save_graph(graph, paths[0])
        np.save(paths[1], images)
        command = [sys.executable, str(PROGRAM), *map(str, paths[:2]), str(STEPS), str(paths[2])]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        predictions = np.load(paths[2])
    accuracy = (predictions == labels[:, None]).mean(axis=0)
    return {**json.loads(done.stdout.splitlines()[-1]), "accuracy": {str(t): float(accuracy[t - 1]) for t in (8, 16, 32, STEPS)}}


def equality(graph: SpikingGraph, images: NDArray[np.uint8], backends: Sequence[Backend]) -> dict[str, Any]:
    """Whether backends equal native on images, and what was measured; raises SystemExit where one does not."""
    results = [each.run(graph, images, STEPS) for each in (NativeBackend(counting="measured"), *backends)]
    for result in results[1:]:
        divergence = first_divergence(graph, results[0], result, images)
        if divergence is not None:
            raise SystemExit(str(divergence))
    if any(counting != "measured" for result in results for counting in result.counting.values()):
        raise SystemExit("an event count was computed, expected all to be measured")
    ledger = Ledger.from_results(graph, results)
    if not ledger.reconciled:
        raise SystemExit(f"{ledger.disagreements}\n{ledger.residuals}")
    events = {f"{pre} -> {post}": int(count.sum()) for (pre, post), count in results[0].events.items()}
    seconds = {result.backend: result.wall_seconds for result in results}
    return {"backends": [result.backend for result in results], "events": events, "residual": 0, "seconds": seconds}


def main() -> None:
    """Run what has not been run, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--again", nargs="*", default=[], help="rows to run again, such as 'native/8 bits'")
    options = parser.parse_args()
    path = RESULTS / "acceptance.json"
    rows: dict[str, dict[str, Any]] = json.loads(path.read_text())["rows"] if path.exists() else {}
    test = load(options.data).test
    spread = np.linspace(0, len(test), EQUALITY_IMAGES, endpoint=False).astype(int)
    for name in GRAPHS:
        graph = graph_of(options.run, name)
        images = pixels(test, graph)
        compared: list[Backend] = [Brian2Backend("cpp", processes=1)]
        if name == FITTED:
            compared.append(LavaBackend(model="fixed_pt", time_limit=3600))
        count = min(options.images, len(images))
        parts = {
            f"native/{name}": (count, lambda n=count, g=graph, x=images: native(g, x[:n], test.labels[:n])),
            f"equality/{name}": (EQUALITY_IMAGES, lambda g=graph, x=images, c=compared: equality(g, x[spread], c)),
        }
        for row, (number, work) in parts.items():
            known = {"digest": graph.digest(), "images": number, "steps": STEPS}
            if row in options.again or not known.items() <= rows.get(row, {}).items():
                load_before = os.getloadavg()[0]
                rows[row] = {**known, **work(), "load": load_before}
                _write(path, rows)
            print(row, json.dumps(rows[row]))
    _write(path, rows)


def _write(path: Path, rows: dict[str, dict[str, Any]]) -> None:
    """The rows so far, as JSON and as Markdown."""
    write_text(path, json.dumps({"conditions": machine(), "rows": rows}, indent=1) + "\n")
    runs = [(name.split("/")[1], row) for name, row in rows.items() if name.startswith("native/")]
    natives = [
        (
            name,
            "{} bits, 0..{}".format(*GRAPHS[name]),
            row["images"],
            f"{row['seconds']:.1f}",
            f"{row['cpu_seconds']:.1f}",
            f"{row['peak_MiB']:.0f}",
            f"{row['peak_MiB'] - row['peak_MiB_before']:.0f}",
            *(f"{100 * row['accuracy'][t]:.2f}" for t in ("8", "16", "32", str(STEPS))),
            f"{row['load']:.1f}",
        )
        for name, row in runs
    ]
    equal = [
        (name.split("/")[1], row["images"], ", ".join(row["backends"]), f"{sum(row['events'].values()):,}", row["residual"])
        for name, row in rows.items()
        if name.startswith("equality/")
    ]
    percents = tuple(f"T={t} %" for t in (8, 16, 32, STEPS))
    heads = ("graph", "weights, pixels", "images", "seconds", "cpu_s", "peak_MiB", "of it by the run", *percents, "load")
    text = (
        "# Acceptance on CIFAR-10\n\n`python benchmarks/acceptance.py`; what is measured is said there.\n\n"
        f"## All test images on native, T = {STEPS}\n\n{markdown_table(heads, natives)}\n"
        "## Equal on every backend\n\nSpikes, events of every step and readouts.\n\n"
        f"{markdown_table(('graph', 'images', 'backends', 'events, measured by each', 'residual'), equal)}\n"
        f"{', '.join(f'{name} {value}' for name, value in machine().items())}.\n"
    )
    write_text(path.with_suffix(".md"), text)


if __name__ == "__main__":
    main()
