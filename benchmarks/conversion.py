"""Every conversion method on trained CIFAR-10 networks: accuracy over T on all test images, beside the ANN's.

    python benchmarks/conversion.py --data imagefolder:PATH --runs runs/cifar10-mlp [--only chts-seed0 vgg-small]

For each run folder NAME the graphs are those of the ReLU network itself (``percentile``, ``snm``, ``aec`` with calibrated
thresholds, a graph for every T), and of what it was fine-tuned to, where the folder of runs holds it:

    sparsespike finetune NAME --method cs-qcfs --epochs 4,2 --out NAME-cs-qcfs
    sparsespike finetune NAME --method aec --steps 4 --epochs 3 --out NAME-aec-T4

Calibration takes 512 training images. All runs are on the native backend with 16-bit weights; a finished row is kept in
benchmarks/results/conversion/curves and not computed again, unless with more images or for another model file.
"""

from __future__ import annotations

import argparse
import json
import os
import re
from collections.abc import Callable, Iterator
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsespike.ann.checkpoint import load_model
from sparsespike.ann.comparison import markdown_table
from sparsespike.ann.data import Split, load
from sparsespike.ann.encoding import Encoding
from sparsespike.ann.models import MLP
from sparsespike.backends.bulk import BulkResult, run_blocks
from sparsespike.backends.native import NativeBackend
from sparsespike.cli.benchmark import machine
from sparsespike.cli.options import counted_progress
from sparsespike.common.figures import save_figure
from sparsespike.common.files import write_text
from sparsespike.energy.plots import AccuracyCurve, accuracy_figure
from sparsespike.energy.saturation import Saturation, saturation
from sparsespike.export.aec import convert_aec
from sparsespike.export.balance import convert_percentile
from sparsespike.export.build import Conversion
from sparsespike.export.calibrate import Calibration, real_inputs
from sparsespike.export.graph import SpikingGraph
from sparsespike.export.qcfs import convert_qcfs
from sparsespike.export.snm import convert_snm
from sparsespike.export.source import read_network

RESULTS = Path(__file__).parent / "results" / "conversion"
DOCS = Path(__file__).parent.parent / "docs" / "conversion.md"
MARKS = "<!-- table of benchmarks/conversion.py -->", "<!-- end of the table -->"
STEPS = (1, 2, 4, 8, 16, 32, 64)
CALIBRATION_IMAGES = 512
BLOCK = 250


def calibration(split: Split, percentile: float) -> Calibration:
    """Training images spread at random, the same for every method."""
    chosen = np.sort(np.random.default_rng(0).permutation(len(split))[:CALIBRATION_IMAGES])
    return Calibration(split.images[chosen], percentile)


def graphs(folder: Path, train: Split) -> Iterator[tuple[str, Path, list[Callable[[], Conversion]]]]:
    """Name, run and graphs of each row: one graph for all T, or for AEC one for each of STEPS."""
    model, known = load_model(folder)
    encoding = Encoding.from_dict(known["encoding"])
    usual = calibration(train, 99.9)
    yield "percentile", folder, [partial(convert_percentile, model, encoding, usual)]
    yield "percentile, v_init 0.5", folder, [partial(convert_percentile, model, encoding, usual, v_init=0.5)]
    most = calibration(train, 100.0)
    yield "snm", folder, [partial(convert_snm, model, encoding, most)]
    yield "snm, v_init 0.5", folder, [partial(convert_snm, model, encoding, most, v_init=0.5)]
    # Every T, for the saturation rule; a convolutional network takes too long to convert 64 times.
    every = range(1, max(STEPS) + 1) if isinstance(model, MLP) else STEPS
    yield "aec, calibrated", folder, [partial(convert_aec, model, encoding, most, steps=t) for t in every]
    tuned: dict[str, tuple[str, Callable[..., Conversion]]] = {"cs-qcfs": ("cs-qcfs", convert_qcfs)}
    tuned |= {f"aec, fine-tuned for T = {t}": (f"aec-T{t}", convert_aec) for t in STEPS}
    for method, (suffix, convert) in tuned.items():
        run = folder.with_name(f"{folder.name}-{suffix}")
        if (run / "summary.json").exists():
            yield method, run, [partial(convert, load_model(run)[0], encoding)]


def ann_accuracy(run: Path, test: Split) -> float:
    """Of the ANN in float64, with the activations that it was trained with last."""
    model, known = load_model(run)
    network = read_network(model)
    correct = 0
    for start in range(0, len(test), BLOCK):
        part = slice(start, start + BLOCK)
        x = real_inputs(network, Encoding.from_dict(known["encoding"]), test.images[part].reshape(len(test.images[part]), -1))
        correct += int(np.sum(network.evaluate(x)[network.nodes[-1].name].argmax(axis=1) == test.labels[part]))
    return correct / len(test)


def measure(run: Path, makers: list[Callable[[], Conversion]], test: Split, label: str) -> dict[str, Any]:
    """Accuracy of the ANN, and accuracy and events of its graphs by T."""
    curve: dict[str, float] = {}
    events: dict[str, float] = {}
    seconds = 0.0
    pixels, labels = test.images.reshape(len(test), -1), test.labels
    for graph in (make().graph for make in makers):
        result = _run(graph, pixels, graph.slots or max(STEPS), label)
        accuracy, added = result.accuracy(labels), _events_so_far(graph, result)
        seconds += result.wall_seconds["run"]
        if graph.slots is not None:
            t = graph.slots - 1
            curve[str(t)], events[str(t)] = float(accuracy[-1]), float(added[-1])
        else:
            curve |= {str(t + 1): float(value) for t, value in enumerate(accuracy)}
            events |= {str(t + 1): float(value) for t, value in enumerate(added)}
    return {"ann": ann_accuracy(run, test), "images": len(test), "curve": curve, "events": events, "seconds": seconds}


def _run(graph: SpikingGraph, pixels: NDArray[Any], steps: int, label: str) -> BulkResult:
    with counted_progress() as progress:
        done = 0

        def advance(images: int) -> None:
            nonlocal done
            done += images
            progress(f"{label}, T = {steps}", done, len(pixels))

        return run_blocks(
            NativeBackend(counting="computed"), graph, pixels, steps, block=BLOCK, input="current", progress=advance
        )


def _events_so_far(graph: SpikingGraph, result: BulkResult) -> NDArray[np.float64]:
    """Synaptic events of the mean image until each step, the first projection left out."""
    total = sum(result.events_by_step[p.key][0] for p in graph.projections if p.pre != graph.input.name)
    return np.asarray(np.cumsum(total) / result.images)


def row(run: str, method: str, record: dict[str, Any]) -> tuple[Any, ...]:
    """A line of the table."""
    curve = {int(t): value for t, value in record["curve"].items()}
    found = saturated(record)
    gap = "" if found is None else f"{100 * (curve[found.end] - record['ann']):+.2f}"
    at = "" if found is None else f"{found.start}..{found.end}"
    cells = [f"{100 * curve[t]:.2f}" if t in curve else "" for t in STEPS]
    last = record["events"].get("64") or list(record["events"].values())[-1]
    return run, f"{record['images']:,}", method, f"{100 * record['ann']:.2f}", *cells, at, gap, f"{last / 1000:,.0f}"


def saturated(record: dict[str, Any]) -> Saturation | None:
    """The paper's saturation of a curve that has every T."""
    if len(record["curve"]) <= len(STEPS):
        return None
    return saturation([round(value * record["images"]) for value in record["curve"].values()])


def _curve(record: dict[str, Any]) -> AccuracyCurve:
    steps = np.array([int(t) for t in record["curve"]])
    return AccuracyCurve(label=record["method"], snn=list(record["curve"].values()), ann=record["ann"], steps=steps)


def main() -> None:
    """Measure what is missing, and write the table and the plots."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="imagefolder:PATH with train/<class>/ and test/<class>/, or cifar10")
    parser.add_argument("--runs", type=Path, default=Path("runs/cifar10-mlp"), help="folder of the run folders")
    parser.add_argument("--only", nargs="+", help="run folders; all with a finished ReLU network by default")
    parser.add_argument("--images", type=int, help="test images, evenly spread; all by default")
    options = parser.parse_args()
    names = options.only or sorted(p.parent.name for p in options.runs.glob("*/summary.json"))
    names = [name for name in names if (options.runs / name / "model.safetensors").exists() and _is_relu(options.runs / name)]
    with counted_progress() as progress:
        splits = load(options.data, validation=0.04, seed=0, progress=progress)
    count = options.images or len(splits.test)
    test = splits.test.take(np.arange(count) * len(splits.test) // count)
    for name in names:
        for method, run, makers in graphs(options.runs / name, splits.train):
            file = RESULTS / "curves" / f"{name}, {method}.json".replace(", ", "_").replace(" = ", "").replace(" ", "-")
            weights = sha256((run / "model.safetensors").read_bytes()).hexdigest()
            if file.exists():
                known = json.loads(file.read_text(encoding="utf-8"))
                if known["model"] == weights and known["images"] >= count and len(known["curve"]) >= len(makers):
                    continue
            record = measure(run, makers, test, f"{name}, {method}")
            facts = {"run": name, "method": method, "model": weights, **record, **machine(), "load": os.getloadavg()[0]}
            write_text(file, json.dumps(facts, indent=1) + "\n")
            print(*row(name, method, record), flush=True)
    write_results()


def _is_relu(run: Path) -> bool:
    return load_model(run)[0].spec.activation == "relu"


def write_results() -> None:
    """The table of all curves, and a plot for each run."""
    records = [json.loads(file.read_text(encoding="utf-8")) for file in sorted((RESULTS / "curves").glob("*.json"))]
    columns = (
        *("run", "images", "method", "ANN_%"),
        *(f"T={t}_%" for t in STEPS),
        *("saturation T (start..end)", "gap there_points", "AC events at the last T_thousand"),
    )
    table = markdown_table(columns, [row(r["run"], r["method"], r) for r in records])
    heading = "# Conversion on CIFAR-10\n\n`benchmarks/conversion.py`; what is measured is said there.\n\n"
    write_text(RESULTS / "README.md", heading + table)
    start, end = MARKS
    document = DOCS.read_text(encoding="utf-8")
    write_text(DOCS, re.sub(f"{start}.*{end}", lambda _: f"{start}\n\n{table}\n{end}", document, flags=re.DOTALL))
    for run in sorted({record["run"] for record in records}):
        own = [record for record in records if record["run"] == run and len(record["curve"]) > 1]
        curves = [_curve(record) for record in own]
        save_figure(accuracy_figure(curves, title=f"CIFAR-10, {run}: accuracy over T"), RESULTS / f"{run}.png")


if __name__ == "__main__":
    main()
