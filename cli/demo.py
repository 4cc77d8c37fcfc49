"""``sparsespike demo``: the whole way on scikit-learn's digits, sparse beside dense."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray
from rich.markup import escape

from sparsespike.ann.config import TrainConfig
from sparsespike.ann.data import Split, load
from sparsespike.backends.base import Backend, RunResult
from sparsespike.backends.compare import first_divergence
from sparsespike.backends.native import NativeBackend
from sparsespike.cli.compare import run_recorded
from sparsespike.cli.console import err, out, print_json, print_prose, print_table
from sparsespike.cli.convert import convert_run
from sparsespike.cli.doctor import small_network
from sparsespike.cli.made_by import made_by
from sparsespike.cli.options import DEFAULT_STEPS, Backends, Images, Json, Steps, chosen_backends, spread
from sparsespike.cli.rasters import rasters
from sparsespike.cli.results import accuracy_by_step, run_document
from sparsespike.cli.simulate import print_ledger, print_runs
from sparsespike.cli.train import TrainingBars
from sparsespike.common.errors import BackendError
from sparsespike.common.extras import require
from sparsespike.common.files import write_text
from sparsespike.energy.ledger import Ledger
from sparsespike.energy.model import Saving
from sparsespike.energy.plots import AccuracyCurve, accuracy_figure, energy_figure, events_figure, save_figure
from sparsespike.energy.report.account import Account as ExactAccount
from sparsespike.export.fidelity import LayerDifference, integer_levels, layer_differences
from sparsespike.export.graph import SpikingGraph
from sparsespike.export.graphfile import save_graph

NETWORKS = {"sparse": 0.99, "dense": 0.0}
HIDDEN = (1024, 1024, 1024)
EPOCHS = {"sparse": 40, "dense": 20}
LEVELS = 8


@dataclass(frozen=True)
class Account:
    """One network of the demo: its graph, its runs, and what came of them."""

    name: str
    graph: SpikingGraph
    ann_accuracy: float
    accuracy: NDArray[np.float64]
    runs: list[RunResult]
    ledger: Ledger
    differences: tuple[LayerDifference, ...]


def demo(
    folder: Annotated[Path, typer.Option("--out", help="Where everything is written.")] = Path("runs/demo"),
    backend: Backends = ["native", "brian2", "lava"],  # noqa: B006  # typer copies the default
    images: Images = 100,
    steps: Steps = DEFAULT_STEPS,
    as_json: Json = False,
) -> None:
    """Train a sparse (99 %) and a dense network on digits, convert both, run them on all backends and reconcile the counts.

    Graphs, results (JSON) and plots go to the folder; a second call takes up the trained networks it finds there.

    Example: sparsespike demo --out runs/demo
    """
    # What is missing is said before the networks are trained, not after.
    require("torch", extra="train")
    require("matplotlib.figure", extra="report")
    backends = chosen_backends(backend, small_network()[0])
    began = time.perf_counter()
    test = load("digits").test
    inputs, labels = spread(test, images)
    accounts = [_account(name, folder / name, inputs, test, backends, steps) for name in NETWORKS]
    saving = _write(folder, accounts, inputs, labels)
    if as_json:
        print_json({account.name: _document(account, labels) for account in accounts} | {"saving": saving})
        return
    for account in accounts:
        _print(account, labels)
    print_prose(f"\n[bold]{escape(saving)}[/]")
    out.print(
        f"\nFiles in {folder}: */graph.safetensors, */results.json, */ledger.csv, *.png ({time.perf_counter() - began:.0f} s)"
    )
    out.print(f"Next: sparsespike report {folder}", highlight=False)


def _account(name: str, folder: Path, inputs: NDArray[np.int64], test: Split, backends: list[Backend], steps: int) -> Account:
    from sparsespike.ann.train import train

    config = TrainConfig(
        sparsity=NETWORKS[name], topology="bsw", hidden=HIDDEN, activation="qcfs", levels=LEVELS, lam=2.0, epochs=EPOCHS[name]
    )
    with TrainingBars(f"{name}: training") as bars:
        trained = train(config, folder, resume=True, progress=bars)
    graph, report = convert_run(folder, 16)
    save_graph(graph, folder / "graph.safetensors")
    for note in report.notes():
        err.print(f"{name}: {note}", highlight=False, markup=False)
    runs = run_recorded(graph, backends, inputs, steps)
    for other in runs[1:]:
        if divergence := first_divergence(graph, runs[0], other, inputs):
            raise BackendError(f"{name}: {divergence}")
    everything, labels = spread(test, None)
    accuracy = accuracy_by_step(NativeBackend().run(graph, everything, steps), labels)
    at_levels = NativeBackend().run(graph, everything, LEVELS)
    counts = {population: at_levels.spikes[population].positive for population in graph.spiking}
    differences = layer_differences(integer_levels(graph, everything, LEVELS), counts)
    return Account(name, graph, trained.test_accuracy, accuracy, runs, Ledger.from_results(graph, runs), differences)


def _print(account: Account, labels: NDArray[np.int64]) -> None:
    first = account.runs[0]
    network = f"{account.name}: {account.graph.nnz:,} synapses, ANN {account.ann_accuracy:.2%}"
    title = f"{network}, {first.images} images, T = {first.steps}"
    print_runs(title, account.runs, labels)
    names = ", ".join(run.backend for run in account.runs)
    out.print(f"Rasters, spike counts, event counts and readouts of {names} are equal.\n", highlight=False)
    print_ledger(account.name, account.ledger)
    print_table(
        f"{account.name}: spike counts at T = L = {LEVELS} against the quantised ANN, all test images",
        ("layer", "neurons that differ_%", "mean |difference|_spikes", "largest_spikes"),
        [(d.name, f"{100 * d.fraction:.2f}", f"{d.mean:.4f}", d.max) for d in account.differences],
    )


def _document(account: Account, labels: NDArray[np.int64]) -> dict[str, Any]:
    frame = account.ledger.to_frame(images="sum")
    return {
        "network": account.name,
        "synapses": account.graph.nnz,
        "ann_test_accuracy": account.ann_accuracy,
        "snn_test_accuracy_by_step": account.accuracy,
        "reconciled": account.ledger.reconciled,
        "ledger": json.loads(frame.to_json(orient="records")),
        "differences_from_quantised_ann": [vars(d) for d in account.differences],
        "runs": [run_document(account.graph, run, labels) for run in account.runs],
        "provenance": account.graph.provenance,
    }


def _write(folder: Path, accounts: list[Account], inputs: NDArray[np.int64], labels: NDArray[np.int64]) -> str:
    """Write results and plots; give the saving in words."""
    for account in accounts:
        document = _document(account, labels) | {
            "account": ExactAccount.of(account.ledger).to_dict(),
            "rasters": rasters(account.graph, inputs, labels, account.runs[0].steps),
            "made_by": made_by(),
        }
        write_text(folder / account.name / "results.json", json.dumps(document, default=np.ndarray.tolist))
        write_text(folder / account.name / "ledger.csv", account.ledger.to_frame().to_csv(index=False))
        title = f"{account.name}: synaptic events, {account.runs[0].images} digits, T = {account.runs[0].steps}"
        save_figure(events_figure(account.ledger, title=title), folder / f"events_{account.name}.png")
    curves = [AccuracyCurve(label=a.name, snn=a.accuracy, ann=a.ann_accuracy) for a in accounts]
    save_figure(accuracy_figure(curves, title="digits: accuracy over time, all test images"), folder / "accuracy.png")
    energies = {account.name: account.ledger.energy() for account in accounts}
    save_figure(energy_figure(energies, title="digits: energy per image"), folder / "energy.png")
    return Saving(dense=energies["dense"], sparse=energies["sparse"]).describe()
