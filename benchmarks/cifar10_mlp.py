"""CIFAR-10 with a multilayer perceptron of three hidden layers of 3072, 99 % sparse: the published recipe, run and published.

    python benchmarks/cifar10_mlp.py --data imagefolder:PATH [--only chts-seed0 set-seed0]
    python benchmarks/cifar10_mlp.py --collect

The first trains every run of RUNS that has not been finished in the folder of runs (a stopped one goes on), then both copy all
finished runs of the folder to benchmarks/results/cifar10-mlp and write the table there and in docs/training.md. Copied are
settings, curves and results, and the sparse models of the whole recipe; the data set is named without its place.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from sparsespike.ann.checkpoint import load_model, save_model
from sparsespike.ann.comparison import METHODS, MethodSummary, Run, markdown_table, summarise
from sparsespike.ann.config import TrainConfig
from sparsespike.ann.train import train
from sparsespike.cli.train import TrainingBars
from sparsespike.common.files import write_text

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "cifar10-mlp"
DOCS = ROOT / "docs" / "training.md"
MARKS = "<!-- table of benchmarks/cifar10_mlp.py -->", "<!-- end of the table -->"
DATA_NAME = "imagefolder:cifar10"

RECIPE = TrainConfig(data=DATA_NAME, hidden=(3072, 3072, 3072), augment="crop-flip", validation=0.04)
SHORT = replace(RECIPE, epochs=20, batch=128, lr=0.05)
SHORT_RUNS = {
    # What two cores can train in an hour beside other work: a whole schedule for the dense network, and its sparse counterpart.
    "dense-20-epochs": replace(SHORT, method="static", sparsity=0.0, amp="bfloat16"),
    "chts-20-epochs": replace(SHORT, topology="csti"),
}
RUNS = {
    **{f"chts-seed{seed}": replace(RECIPE, topology="csti", seed=seed) for seed in range(3)},
    "set-seed0": replace(RECIPE, method="set"),
    "static-seed0": replace(RECIPE, method="static"),
    "dense-seed0": replace(RECIPE, method="static", sparsity=0.0),
    **SHORT_RUNS,
}
PUBLISHED = {"dense": "62.85 ± 0.16", "set": "62.70 ± 0.11", "chts": "69.97 ± 0.06"}
"""Test accuracy in percent, mean and standard error over three seeds (Zhang et al., NeurIPS 2025, Tables 1 and 7)."""


def train_runs(data: str, runs: Path, names: Iterable[str], threads: int) -> None:
    """Train what is not finished."""
    for name in names:
        if (runs / name / "summary.json").exists():
            continue
        with TrainingBars(name) as bars:
            result = train(replace(RUNS[name], data=data, threads=threads), runs / name, resume=True, progress=bars)
        print(f"{name}: test accuracy {result.test_accuracy:.2%}", flush=True)


def collect(runs: Path) -> list[Path]:
    """Copy finished runs to the results, without the place of the data; give all that are there."""
    for name in sorted(RUNS):
        source, target = runs / name, RESULTS / name
        summary = source / "summary.json"
        if not summary.exists():
            continue
        result = json.loads(summary.read_text(encoding="utf-8"))
        result["config"]["data"] = DATA_NAME
        write_text(target / "summary.json", json.dumps(result, indent=2) + "\n")
        write_text(target / "config.json", json.dumps(result["config"], indent=2) + "\n")
        write_text(target / "metrics.csv", (source / "metrics.csv").read_text(encoding="utf-8"))
        if result["config"]["sparsity"] > 0 and name not in SHORT_RUNS:
            model, known = load_model(source)
            known["training"]["data"] = DATA_NAME
            save_model(
                target / "model.safetensors", model, {k: v for k, v in known.items() if k not in ("format_version", "model")}
            )
    return sorted(file.parent for file in RESULTS.glob("*/summary.json"))


def unfinished(runs: Path) -> str:
    """A sentence on each run that was stopped, whose settings and curve are kept too: what it reached, beside chts."""
    text = ""
    beside = _validation(RESULTS / "chts-seed0" / "metrics.csv")
    for metrics in sorted(runs.glob("*/metrics.csv")):
        source, target = metrics.parent, RESULTS / metrics.parent.name
        if (source / "summary.json").exists() or source.name not in RUNS:
            continue
        config = json.loads((source / "config.json").read_text(encoding="utf-8"))
        write_text(target / "config.json", json.dumps({**config, "data": DATA_NAME}, indent=2) + "\n")
        write_text(target / "metrics.csv", metrics.read_text(encoding="utf-8"))
        reached = _validation(metrics)
        text += (
            f"\n{source.name}: **stopped after {len(reached)} of {config['epochs']} epochs**, at a learning rate that had hardly "
            f"fallen: no test accuracy. Validation accuracy there: {100 * reached[-1]:.1f} % "
            f"(chts-seed0 after as many epochs: {100 * beside[len(reached) - 1]:.1f} %).\n"
        )
    return text


def _validation(metrics: Path) -> list[float]:
    with metrics.open(encoding="utf-8") as file:
        return [float(row["validation_accuracy"]) for row in csv.DictReader(file)]


def table(folders: Iterable[Path]) -> str:
    """The table of all results, a row for a method with its settings, as Markdown."""
    groups: dict[tuple[str, str], list[Run]] = {}
    for folder in folders:
        run = Run.read(folder)
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        groups.setdefault((run.method, variant(config)), []).append(run)
    rows = []
    for (method, setting), runs in sorted(groups.items(), key=lambda item: (METHODS.index(item[0][0]), item[0][1])):
        (summary,) = summarise(runs)
        published = PUBLISHED.get(method, "") if setting in STANDARD else ""
        rows.append((f"{method}{setting}", *_cells(summary, runs), published))
    columns = ("method", "seeds", "test accuracy_%", "epochs", "active neurons_%", "seconds a run", "published_%")
    return markdown_table(columns, rows)


STANDARD = (", from CSTI", ", from ER", "")


def variant(config: dict[str, object]) -> str:
    """What a run's settings are beyond its method: the initial links, and all that differs from the recipe."""
    initial = f", from {str(config['topology']).upper()}" if config["sparsity"] else ""
    fixed = {"data", "method", "seed", "topology", "sparsity", "threads"}
    standard = json.loads(json.dumps(RECIPE.to_dict()))
    changes = [f", {name} {value}" for name, value in config.items() if name not in fixed and standard.get(name) != value]
    return initial + "".join(changes)


def _cells(summary: MethodSummary, runs: list[Run]) -> tuple[str, ...]:
    _, count, accuracy, _, active, _, seconds = summary.row()
    epochs = sorted({run.epochs for run in runs})
    return str(count), accuracy, ", ".join(map(str, epochs)), active, seconds


def main() -> None:
    """Train, collect, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="imagefolder:PATH with train/<class>/ and test/<class>/, or cifar10")
    parser.add_argument("--runs", type=Path, default=Path("runs/cifar10-mlp"), help="folder of the runs")
    parser.add_argument("--only", nargs="+", choices=RUNS, default=list(RUNS), help="runs to train")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--collect", action="store_true", help="train nothing")
    options = parser.parse_args()
    if not options.collect:
        if options.data is None:
            parser.error("--data is needed to train")
        train_runs(options.data, options.runs, options.only, options.threads)
    text = table(collect(options.runs)) + unfinished(options.runs)
    print(text)
    write_text(RESULTS / "README.md", f"# CIFAR-10, MLP 3072-3072-3072-3072-10, 99 % sparse\n\nSee docs/training.md.\n\n{text}")
    start, end = MARKS
    document = DOCS.read_text(encoding="utf-8")
    write_text(DOCS, re.sub(f"{start}.*{end}", lambda _: f"{start}\n\n{text}\n{end}", document, flags=re.DOTALL))


if __name__ == "__main__":
    main()
