"""``sparsespike benchmark``: comparisons that are run, not quoted."""

from __future__ import annotations

import csv
import io
import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, fields
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer

from sparsespike.ann.comparison import COLUMNS, METHODS, MethodSummary, Run, markdown_table, method_config, summarise
from sparsespike.ann.config import TOPOLOGIES, TrainConfig
from sparsespike.cli.console import err, out, print_json, print_table
from sparsespike.cli.options import Download, Json, whole_numbers
from sparsespike.cli.train import TrainingBars
from sparsespike.common.extras import require
from sparsespike.common.files import write_text

DEFAULT = TrainConfig(epochs=30, topology="bsw")

benchmark = typer.Typer(no_args_is_help=True, help="Compare training methods on the same network, data and seeds.")


@benchmark.callback()
def _group() -> None:
    """Keep ``train`` a named command even while it is the only one."""


@benchmark.command("train")
def benchmark_train(
    folder: Annotated[Path, typer.Option("--out", help="Where the runs and the tables are written.")] = Path("runs/benchmark"),
    data: Annotated[
        str, typer.Option(help="digits, mnist, fashion-mnist, emnist, cifar10, cifar100 or imagefolder:PATH.")
    ] = DEFAULT.data,
    methods: Annotated[str, typer.Option(help="Methods, comma-separated.")] = ",".join(METHODS),
    seeds: Annotated[str, typer.Option(help="Seeds, comma-separated.")] = "0,1,2",
    epochs: Annotated[int, typer.Option()] = DEFAULT.epochs,
    hidden: Annotated[str, typer.Option(help="Widths of the hidden layers, comma-separated.")] = ",".join(
        map(str, DEFAULT.hidden)
    ),
    sparsity: Annotated[
        float, typer.Option(help="Share of absent links before the classifier, at the end of training.")
    ] = DEFAULT.sparsity,
    topology: Annotated[str, typer.Option(help="Initial links: " + ", ".join(TOPOLOGIES) + ".")] = DEFAULT.topology,
    augment: Annotated[str, typer.Option(help="none, crop or crop-flip.")] = DEFAULT.augment,
    validation: Annotated[float, typer.Option(help="Share of the training images held out to choose the epoch.")] = (
        DEFAULT.validation
    ),
    threads: Annotated[int, typer.Option(help="Threads of a training step.", min=1)] = DEFAULT.threads,
    download: Download = False,
    as_json: Json = False,
) -> None:
    """Train with every method and seed, and print test accuracies as mean and standard error over the seeds.

    Each run has a folder of its own. A second call takes up finished runs and goes on with one that was stopped. The tables are
    written as benchmark.md, benchmark.csv (a row a run) and benchmark.json.

    Examples:

    sparsespike benchmark train --out runs/digits

    sparsespike benchmark train --out runs/few --methods dense,set,chts --seeds 0 --epochs 10
    """
    require("torch", extra="train")
    from sparsespike.ann.train import TrainingInterrupted, train

    base = TrainConfig(
        data=data,
        hidden=whole_numbers("--hidden", hidden, "1024,1024,1024"),
        sparsity=sparsity,
        topology=topology,
        epochs=epochs,
        augment=augment,
        validation=validation,
        threads=threads,
    )
    numbers = whole_numbers("--seeds", seeds, "0,1,2")
    # All settings are checked before any time is spent.
    configs = {
        f"{method}-seed{seed}": method_config(base, method, seed)
        for method in methods.split(",")
        for seed in dict.fromkeys(numbers)
    }
    runs = []
    for position, (name, config) in enumerate(configs.items(), 1):
        try:
            with TrainingBars(f"{name} ({position} of {len(configs)})") as bars:
                result = train(config, folder / name, resume=True, download=download, progress=bars)
        except TrainingInterrupted as interrupt:
            err.print(f"{name}: {interrupt}: the same command again", highlight=False, markup=False)
            raise typer.Exit(130) from interrupt
        runs.append(Run.read(result.folder))
        err.print(f"{name}: test accuracy {result.test_accuracy:.2%}, {runs[-1].seconds:.1f} s", highlight=False)
    summaries = summarise(runs)
    title = (
        f"{data}: {base.epochs} epochs, hidden {','.join(map(str, base.hidden))}, {base.sparsity:.1%} sparse from {base.topology}"
    )
    document = {
        "title": title,
        "methods": [asdict(summary) for summary in summaries],
        "runs": [asdict(run) for run in runs],
        "config": {name: value for name, value in base.to_dict().items() if name not in ("method", "seed")},
        "machine": machine(),
    }
    _write(folder, title, summaries, runs, document)
    if as_json:
        print_json(document)
        return
    print_table(title, COLUMNS, [summary.row() for summary in summaries], caption=_caption(numbers))
    out.print(f"Files in {folder}: benchmark.md, benchmark.csv, benchmark.json, and a folder a run")


def machine() -> dict[str, Any]:
    """What a measured time depends on: processor, system and versions."""
    processor = platform.processor() or platform.machine()
    if (cpuinfo := Path("/proc/cpuinfo")).exists():
        names = [line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        processor = names[0] if names else processor
    packages = ("sparsespike", "torch", "numpy", "scipy", "numba")
    return {
        "processor": processor,
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        **{package: version(package) for package in packages},
    }


def _caption(seeds: Sequence[int]) -> str:
    return (
        f"Test accuracy of the epoch with the highest validation accuracy: mean ± standard error over the seeds "
        f"{', '.join(map(str, dict.fromkeys(seeds)))}. Active neurons: from the inputs to the last hidden layer. "
        "Seconds: mean of a run."
    )


def _write(folder: Path, title: str, summaries: Sequence[MethodSummary], runs: Sequence[Run], document: dict[str, Any]) -> None:
    table = markdown_table(COLUMNS, [summary.row() for summary in summaries])
    write_text(folder / "benchmark.md", f"# {title}\n\n{table}\n{_caption([run.seed for run in runs])}\n")
    write_text(folder / "benchmark.json", json.dumps(document, indent=1) + "\n")
    text = io.StringIO()
    writer = csv.DictWriter(text, [field.name for field in fields(Run)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(run) for run in runs)
    write_text(folder / "benchmark.csv", text.getvalue())
