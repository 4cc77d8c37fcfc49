"""``sparsespike finetune``: a trained network gets the activations of a conversion method, its topology stays as it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from sparsespike.ann.config import DEVICES, PRECISIONS
from sparsespike.ann.finetune_config import INITIAL, LEARNING_RATE, QUIRKS, STAGES, FinetuneConfig
from sparsespike.cli.console import err, out, print_json, print_table
from sparsespike.cli.made_by import write_made_by
from sparsespike.cli.options import Download, Json, whole_numbers
from sparsespike.cli.train import TrainingBars
from sparsespike.common.errors import ConfigError
from sparsespike.common.extras import require

DEFAULT = FinetuneConfig()


def finetune(
    run: Annotated[Path, typer.Argument(help="A run folder of `train`, with ReLU or QCFS activations.")],
    out_folder: Annotated[Path, typer.Option("--out", help="Run folder of the outcome; made if absent.")],
    method: Annotated[str, typer.Option(help="What it shall be converted with: " + " or ".join(STAGES) + ".")],
    epochs: Annotated[
        str, typer.Option(help="Epochs; for cs-qcfs of both stages: N,M (layer-wise, then channel-wise), or N for N,N.")
    ] = "10",
    levels: Annotated[int | None, typer.Option(help=f"cs-qcfs: quantisation levels L. Default: {DEFAULT.levels}.")] = None,
    steps: Annotated[int | None, typer.Option(help=f"aec: T, the last slot of a window. Default: {DEFAULT.steps}.")] = None,
    initial: Annotated[
        str, typer.Option(help="Where thresholds start: " + " (of the activations) or ".join(INITIAL) + " (published values).")
    ] = DEFAULT.initial,
    percentile: Annotated[float, typer.Option(help="That percentile.")] = DEFAULT.percentile,
    quirk: Annotated[
        list[str], typer.Option(help="aec: do as the released code does, not as it is described: " + ", ".join(QUIRKS) + ".")
    ] = [],  # noqa: B006  # typer copies the default
    lr: Annotated[
        float | None,
        typer.Option(help="Learning rate. Default: " + ", ".join(f"{rate:g} for {name}" for name, rate in LEARNING_RATE.items())),
    ] = None,
    weight_decay: Annotated[float | None, typer.Option(help="Default: 0.0005 for cs-qcfs, 0 for aec.")] = None,
    batch: Annotated[int | None, typer.Option(help="Images a step. Default: as in training.")] = None,
    augment: Annotated[str | None, typer.Option(help="none, crop or crop-flip. Default: as in training.")] = None,
    data: Annotated[str | None, typer.Option(help="Where the data set is, if not where it was in training.")] = None,
    seed: Annotated[int, typer.Option(help="Of the order of images and the augmentation.")] = DEFAULT.seed,
    threads: Annotated[int | None, typer.Option(help="Threads of a step. Default: as in training.")] = None,
    device: Annotated[str, typer.Option(help=" or ".join(DEVICES) + ".")] = DEFAULT.device,
    amp: Annotated[str, typer.Option(help="Mixed precision: " + ", ".join(PRECISIONS) + ".")] = DEFAULT.amp,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in the folder, if it holds one.")] = False,
    download: Download = False,
    as_json: Json = False,
) -> None:
    """Fine-tune a trained network for a conversion method. Its links stay the same; a run that was stopped goes on with --resume.

    Examples:

    sparsespike finetune runs/relu --method cs-qcfs --levels 8 --epochs 10,5 --out runs/cs-qcfs

    sparsespike finetune runs/relu --method aec --steps 16 --epochs 5 --out runs/aec

    sparsespike convert runs/cs-qcfs
    """
    require("torch", extra="train")
    from sparsespike.ann.finetune import TrainingInterrupted, settings_for
    from sparsespike.ann.finetune import finetune as run_finetuning

    config = settings_for(
        run,
        method,
        **_changes(method, epochs, levels, steps, quirk),
        initial=initial,
        percentile=percentile,
        seed=seed,
        device=device,
        amp=amp,
        **_given(lr=lr, weight_decay=weight_decay, batch=batch, augment=augment, data=data, threads=threads),
    )
    try:
        with TrainingBars("fine-tuning") as bars:
            result = run_finetuning(config, out_folder, resume=resume, download=download, progress=bars)
    except TrainingInterrupted as interrupt:
        err.print(f"{interrupt}: the same command with --resume", highlight=False, markup=False)
        raise typer.Exit(130) from interrupt
    write_made_by(result.folder)
    summary = json.loads((result.folder / "summary.json").read_text(encoding="utf-8"))
    if as_json:
        print_json(summary)
        return
    print_table(
        f"Fine-tuned: {run} to {out_folder}",
        ("network", "activation", "epochs", "validation accuracy", "test accuracy"),
        [
            (
                "as trained",
                summary["source_activation"],
                None,
                summary["source_validation_accuracy"],
                summary["source_test_accuracy"],
            ),
            ("activations replaced", STAGES[method][0], 0, summary["replaced_validation_accuracy"], None),
            *(("fine-tuned", s["activation"], s["epochs"], s["validation_accuracy"], None) for s in summary["stages"]),
            (
                "best epoch",
                summary["stages"][-1]["activation"],
                summary["best_epoch"],
                summary["validation_accuracy"],
                summary["test_accuracy"],
            ),
        ],
    )
    out.print(f"Next: sparsespike convert {out_folder}{' --method aec' if method == 'aec' else ''}")


def _changes(method: str, epochs: str, levels: int | None, steps: int | None, quirks: list[str]) -> dict[str, Any]:
    """Settings that belong to one method."""
    if method not in STAGES:
        raise ConfigError(f"--method {method!r}: expected {' or '.join(STAGES)}")
    for option, value, owner in (("--levels", levels, "cs-qcfs"), ("--steps", steps, "aec"), ("--quirk", quirks, "aec")):
        if value not in (None, []) and method != owner:
            raise ConfigError(f"{option} is for {owner}, found --method {method}; leave it out")
    stages = whole_numbers("--epochs", epochs, "10,5")
    if len(stages) == 1:
        stages *= len(STAGES[method])
    return {"stages": stages, "quirks": tuple(quirks), **_given(levels=levels, steps=steps)}


def _given(**values: Any) -> dict[str, Any]:
    """The options that were given."""
    return {name: value for name, value in values.items() if value is not None}
