"""``sparsespike train``: train a sparse or dense network into a run folder."""

from __future__ import annotations

import json
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, cast

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from sparsespike.ann.config import CONV_MODES, DEVICES, MODELS, PRECISIONS, SCHEDULES, TOPOLOGIES, RunConfig, TrainConfig
from sparsespike.ann.progress import EpochRecord, TrainProgress
from sparsespike.ann.topology import RECIPES
from sparsespike.ann.topology.conv import ConvMode
from sparsespike.cli.console import err, out, print_json, print_table
from sparsespike.cli.made_by import write_made_by
from sparsespike.cli.options import Download, Json, whole_numbers
from sparsespike.common.errors import ConfigError
from sparsespike.common.extras import require

DEFAULT = TrainConfig()


def train(
    out_folder: Annotated[Path, typer.Option("--out", help="Run folder; made if absent.")],
    data: Annotated[
        str,
        typer.Option(
            help="digits, mnist, fashion-mnist, emnist, cifar10, cifar100 or imagefolder:PATH (train/ and test/ inside)."
        ),
    ] = DEFAULT.data,
    model: Annotated[str, typer.Option(help="Network: " + ", ".join(MODELS) + ".")] = DEFAULT.model,
    hidden: Annotated[str, typer.Option(help="Widths of an MLP's hidden layers, comma-separated.")] = ",".join(
        map(str, DEFAULT.hidden)
    ),
    width: Annotated[float, typer.Option(help="Factor on the channels of a convolutional network.")] = DEFAULT.width,
    sparsity: Annotated[
        float, typer.Option(help="Share of absent links in every layer before the classifier; 0 is dense.")
    ] = DEFAULT.sparsity,
    method: Annotated[str, typer.Option(help="How the topology evolves: " + ", ".join(RECIPES) + ".")] = DEFAULT.method,
    topology: Annotated[str, typer.Option(help="Initial links: " + ", ".join(TOPOLOGIES) + ".")] = DEFAULT.topology,
    conv_mode: Annotated[str, typer.Option(help="How convolutions are scored: " + ", ".join(CONV_MODES) + ".")] = (
        DEFAULT.conv_mode
    ),
    dropout: Annotated[float, typer.Option(help="Share of inputs dropped in training, see TrainConfig.")] = DEFAULT.dropout,
    activation: Annotated[str, typer.Option(help="qcfs (can be converted to spikes) or relu.")] = "qcfs",
    levels: Annotated[int, typer.Option(help="Quantisation levels L of QCFS.")] = DEFAULT.levels,
    epochs: Annotated[int, typer.Option()] = DEFAULT.epochs,
    batch: Annotated[int, typer.Option(help="Images a step.")] = DEFAULT.batch,
    schedule: Annotated[str, typer.Option(help="Fall of the learning rate: " + " or ".join(SCHEDULES) + ".")] = DEFAULT.schedule,
    lr: Annotated[float, typer.Option(help="Learning rate at the start.")] = DEFAULT.lr,
    lr_final: Annotated[float, typer.Option(help="Learning rate at the end.")] = DEFAULT.lr_final,
    evolution: Annotated[
        list[str],
        typer.Option(help="A setting of the method to change, as NAME=VALUE, such as zeta=0.2; may be given several times."),
    ] = [],  # noqa: B006  # typer copies the default
    augment: Annotated[str, typer.Option(help="none, crop or crop-flip.")] = DEFAULT.augment,
    validation: Annotated[float, typer.Option(help="Share of the training images held out to choose the epoch.")] = (
        DEFAULT.validation
    ),
    seed: Annotated[int, typer.Option()] = DEFAULT.seed,
    threads: Annotated[int, typer.Option(help="Threads of a training step.")] = DEFAULT.threads,
    device: Annotated[str, typer.Option(help=" or ".join(DEVICES) + ".")] = DEFAULT.device,
    amp: Annotated[str, typer.Option(help="Mixed precision: " + ", ".join(PRECISIONS) + ".")] = DEFAULT.amp,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in the folder, if it holds one.")] = False,
    download: Download = False,
    as_json: Json = False,
) -> None:
    """Train a network. A checkpoint is written after every epoch; a run that was stopped goes on with --resume.

    Examples:

    sparsespike train --out runs/sparse --epochs 30

    sparsespike train --out runs/dense --epochs 30 --sparsity 0

    sparsespike train --out runs/cifar --data imagefolder:cifar10 --hidden 3072,3072,3072 --augment crop-flip --epochs 5

    sparsespike train --out runs/vgg --data imagefolder:cifar10 --model vgg-small --sparsity 0.5 --schedule cosine --batch 128
    """
    require("torch", extra="train")
    from sparsespike.ann.train import TrainingInterrupted
    from sparsespike.ann.train import train as run_training

    config = TrainConfig(
        data=data,
        model=model,
        width=width,
        hidden=whole_numbers("--hidden", hidden, "1024,1024,1024"),
        sparsity=sparsity,
        method=method,
        topology=topology,
        conv_mode=cast("ConvMode", conv_mode),
        dropout=dropout,
        activation=activation,
        levels=levels,
        epochs=epochs,
        batch=batch,
        schedule=schedule,
        lr=lr,
        lr_final=lr_final,
        evolution=_settings(evolution),
        augment=augment,
        validation=validation,
        seed=seed,
        threads=threads,
        device=device,
        amp=amp,
    )
    try:
        with TrainingBars() as bars:
            result = run_training(config, out_folder, resume=resume, download=download, progress=bars)
    except TrainingInterrupted as interrupt:
        err.print(f"{interrupt}: the same command with --resume", highlight=False, markup=False)
        raise typer.Exit(130) from interrupt
    write_made_by(result.folder)
    summary = json.loads((result.folder / "summary.json").read_text(encoding="utf-8"))
    if as_json:
        print_json(summary)
    else:
        print_table(f"Trained: {out_folder}", ("what", "value"), [(name, v) for name, v in summary.items() if name != "config"])
        out.print(f"Next: sparsespike convert {out_folder}{' --method snm' if activation == 'relu' else ''}")


def _settings(pairs: list[str]) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise ConfigError(f"--evolution {pair!r}: expected NAME=VALUE, such as zeta=0.2")
        try:
            settings[name] = json.loads(value)
        except ValueError:
            settings[name] = value
    return settings


class TrainingBars(TrainProgress):
    """Progress of a training run: bars on a terminal, else one line an epoch, so that the log of a long run tells how far it is.

    Parameters
    ----------
    title : str
        What is trained.
    console : rich.console.Console
        Where it is shown.
    """

    def __init__(self, title: str = "training", console: Console = err) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._bars = Progress(*columns, console=console, transient=True, disable=not console.is_interactive)
        self._console = console
        self._title = title
        self._tasks: dict[str, TaskID] = {}
        self._steps = 0
        self._epochs = 0

    def __enter__(self) -> TrainingBars:
        self._bars.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._bars.stop()

    def _show(self, name: str, **fields: Any) -> None:
        if name not in self._tasks:
            self._tasks[name] = self._bars.add_task(name, total=None)
        self._bars.update(self._tasks[name], **fields)

    def on_data(self, what: str, done: int, total: int) -> None:
        self._show(what, completed=done, total=total)

    def on_start(self, config: RunConfig, steps: int, epoch: int) -> None:
        self._steps = steps
        self._epochs = config.epochs
        self._show(self._title, completed=epoch, total=config.epochs)

    def on_step(self, step: int, loss: float) -> None:
        self._show("epoch", completed=step, total=self._steps, description=f"  loss {loss:.3f}")

    def on_epoch(self, record: EpochRecord) -> None:
        accuracy = record.train_accuracy if record.validation_accuracy is None else record.validation_accuracy
        state = f"accuracy {accuracy:.2%}, sparsity {record.sparsity:.1%}, active neurons {record.anp:.0%}"
        self._show(self._title, completed=record.epoch, description=f"{self._title}: {state}")
        if not self._console.is_interactive:
            line = f"{self._title}: epoch {record.epoch} of {self._epochs}: {state}"
            self._console.print(line, highlight=False, markup=False)
