"""``sparsespike paper``: Table 2 and figures 2 and 3 of the paper from records of converted networks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
from rich.markup import escape

from sparsespike.backends.bulk import run_blocks
from sparsespike.backends.native import NativeBackend
from sparsespike.cli.console import out, print_json, print_prose, print_table
from sparsespike.cli.options import Data, Json, counted_progress, images_for
from sparsespike.common.errors import ConfigError
from sparsespike.common.figures import save_figure
from sparsespike.common.files import write_text
from sparsespike.energy.lag import lag_study
from sparsespike.energy.model import EnergyModel
from sparsespike.energy.networks import Pair, networks, pairs
from sparsespike.energy.paperplots import accuracy_frame, accuracy_panels, lag_frame, lag_panels
from sparsespike.energy.profiles import builtin_profiles, get_profile, load_profiles
from sparsespike.energy.record import Record, load_records
from sparsespike.energy.settings import settings_of
from sparsespike.energy.table2 import describe_missing, sensitivity, table2
from sparsespike.export.graphfile import load_graph

if TYPE_CHECKING:
    import pandas as pd

    from sparsespike.export.graph import SpikingGraph

DEFAULT_STEPS = 64
"""Steps of the paper's figure 2."""

TABLE_2 = (
    *("network", "images", "acc_%", "T", "p. T", "energy\nuJ", "p. energy\nuJ", "events'\nenergy uJ"),
    *("first\nlayer_%", "reduction\n%", "p. red.\n%", "by first\nlayer_%", "at equal\nT_%"),
)

paper = typer.Typer(no_args_is_help=True, help="The paper's table and figures from records, beside its printed values.")

Folders = Annotated[list[Path], typer.Argument(help="Folders with records (*.json at any depth), such as a sweep's.")]
Out = Annotated[Path, typer.Option("--out", help="Folder for the figure and its numbers.")]
Over = Annotated[str, typer.Option("--over", help="Neurons that MASFR averages over: hidden, hidden+readout or all.")]


@paper.command("table2")
def table2_command(
    folders: Folders,
    counts: Annotated[str, typer.Option(help="paper: Eq. 3 on the ANN's layers; events: the graph's own events.")] = "paper",
    rate_of: Annotated[str, typer.Option(help="Which rate multiplies layers after the first: input or output.")] = "input",
    first_layer: Annotated[str, typer.Option(help="The first layer's MACs: every_step, zeros_skipped or once.")] = "every_step",
    profile: Annotated[str, typer.Option(help="Energy profile.")] = "paper",
    profile_file: Annotated[Path | None, typer.Option(help="A TOML file with profiles of your own.")] = None,
    profiles: Annotated[bool, typer.Option("--profiles", help="Add the reduction under every profile.")] = False,
    folder: Annotated[Path | None, typer.Option("--out", help="Folder for table2.csv and table2.json.")] = None,
    as_json: Json = False,
) -> None:
    """T, energy and reduction of dense and sparse networks, beside the paper's, and why they differ.

    Energy is taken where accuracy saturates (rate methods), or at the T of the largest accuracy (AEC); "at equal T" both run for
    the later of their two. Of several sparse networks the most accurate one is shown, with the dense one that differs least.

    Example: sparsespike paper table2 runs/sweep --profiles
    """
    found = _pairs(folders)
    model = EnergyModel(
        profile=get_profile(profile, profile_file),
        counts=counts,  # type: ignore[arg-type]  # the model checks its switches
        rate_of=rate_of,  # type: ignore[arg-type]
        first_layer=first_layer,  # type: ignore[arg-type]
    )
    table = table2(found, model)
    frame = table.to_frame()
    known = builtin_profiles() | (load_profiles(profile_file) if profile_file else {})
    by_profile = sensitivity([pair for pair in found if pair.dense and pair.sparse], known, model) if profiles else None
    document = {
        "rows": _lines(frame),
        "notes": table.notes(),
        "not_run": table.missing(),
        "reduction_by_profile": None if by_profile is None else _lines(by_profile),
    }
    if folder is not None:
        write_text(folder / "table2.csv", frame.to_csv(index=False, lineterminator="\n"))
        write_text(folder / "table2.json", json.dumps(document, indent=1) + "\n")
    if as_json:
        print_json(document)
        return
    print_table(
        "Table 2: energy to classify one image (p.: printed in the paper)",
        TABLE_2,
        [
            (
                f"{row['dataset']} {row['model']} {row['method']} {row['connectivity']}",
                row["images"],
                f"{row['accuracy_%']:.2f}",
                row["T_steps"] if row["saturated"] else f"{row['T_steps']} *",
                *(row[name] for name in ("paper_T_steps", "energy_uJ", "paper_energy_uJ", "events_energy_uJ", "first_layer_%")),
                *(row[name] for name in ("reduction_%", "paper_reduction_%", "reduction_by_first_layer_%")),
                row["reduction_at_equal_T_%"],
            )
            for row in _lines(frame)
        ],
        caption=None if frame["saturated"].all() else "* accuracy does not saturate within the steps that were run",
    )
    for note in table.notes():
        print_prose(escape(note))
    if by_profile is not None:
        _print_profiles(by_profile)
    out.print(escape(describe_missing(table.missing())))


@paper.command("figure2")
def figure2_command(folders: Folders, folder: Out = Path(), as_json: Json = False) -> None:
    """Accuracy over T of dense and sparse networks, their ANNs dashed, where accuracy saturates marked.

    Writes figure2.png and, with its numbers, figure2.csv.

    Example: sparsespike paper figure2 runs/sweep --out figures
    """
    found = _pairs(folders)
    frame = accuracy_frame(found)
    save_figure(accuracy_panels(found), folder / "figure2.png")
    write_text(folder / "figure2.csv", frame.to_csv(index=False, lineterminator="\n"))
    keys = ["dataset", "model", "method", "connectivity"]
    rows = [
        {
            **dict(zip(keys, key, strict=True)),
            "ANN_accuracy_%": part["ANN_accuracy_%"].iloc[0],
            "largest_SNN_accuracy_%": part["SNN_accuracy_%"].max(),
            "marked_T_steps": next(iter(part.loc[part["marked"], "T_steps"]), None),
        }
        for key, part in frame.groupby(keys, sort=False)
    ]
    if as_json:
        print_json({"networks": rows, "curves": _lines(frame)})
        return
    print_table("Figure 2: accuracy over T", [name.replace("_", " ") for name in rows[0]], [tuple(row.values()) for row in rows])
    out.print(f"Wrote {folder / 'figure2.png'} and {folder / 'figure2.csv'}")


@paper.command("figure3")
def figure3_command(folders: Folders, over: Over = "hidden", folder: Out = Path(), as_json: Json = False) -> None:
    """Does the firing rate saturate before accuracy: saturation times, lags and their statistics beside the paper's.

    Writes figure3.png and, with its numbers, figure3.csv and figure3.json. Networks that do not saturate within their T have
    no lag; they are counted.

    Example: sparsespike paper figure3 runs/lag --out figures
    """
    study = lag_study(_records(folders), over)  # type: ignore[arg-type]  # checked where it is used
    summary, frame = study.summary(), lag_frame(study)
    document = summary.to_dict() | {"over": over}
    write_text(folder / "figure3.csv", frame.to_csv(index=False, lineterminator="\n"))
    write_text(folder / "figure3.json", json.dumps(document, indent=1) + "\n")
    save_figure(lag_panels(study), folder / "figure3.png")
    if as_json:
        print_json(document)
        return
    print_prose(escape(f"MASFR averaged over: {over}"))
    print_prose(escape(summary.describe()))
    out.print(f"Wrote {folder / 'figure3.png'}, {folder / 'figure3.csv'} and {folder / 'figure3.json'}")


@paper.command("record")
def record_command(
    graph: Annotated[Path, typer.Argument(help="A graph file (.safetensors) that `convert` wrote.")],
    path: Annotated[Path, typer.Option("--out", help="The record's file (.json).")],
    steps: Annotated[int | None, typer.Option(help="Time steps T. Default: 64; of an AEC graph, its slots.", min=1)] = None,
    data: Data = None,
    dataset: Annotated[str | None, typer.Option(help="Name of the data set in the record, such as cifar10.")] = None,
) -> None:
    """Run a graph on all test images (native) and keep what the table and figures need in one small file.

    Example: sparsespike paper record runs/sparse/graph.safetensors --out records/sparse.json
    """
    network = load_graph(graph)
    if "training" not in network.provenance or "conversion" not in network.provenance:
        raise ConfigError(f"{graph}: does not say how its network was trained, expected a graph that `convert` wrote")
    inputs, labels = images_for(network, data, None)
    time_steps = steps or network.slots or DEFAULT_STEPS
    with counted_progress() as progress:
        done = 0

        def advance(images: int) -> None:
            nonlocal done
            done += images
            progress("native: images", done, len(inputs))

        backend = NativeBackend(counting="computed")
        result = run_blocks(backend, network, inputs, time_steps, input="current", progress=advance)
    what = settings_of(network.provenance, dataset or str(network.provenance["dataset"]))
    record = Record.of(network, result, labels, _ann_correct(network, labels), what)
    record.save(path)
    out.print(
        escape(
            f"Wrote {path}: {record.images:,} images, T = {record.steps}, accuracy {float(100 * record.accuracy()):.2f} %, "
            f"ANN {float(100 * record.ann_accuracy):.2f} %; {record.describe()}"
        )
    )


def _ann_correct(graph: SpikingGraph, labels: np.ndarray[Any, np.dtype[np.int64]]) -> int:
    """Test images that the ANN classifies correctly, from the accuracy that training measured on all of them."""
    accuracy = graph.provenance.get("ann_test_accuracy")
    share = accuracy * len(labels) if isinstance(accuracy, int | float) else 0.5
    if abs(round(share) - share) > 1e-6 * len(labels):
        raise ConfigError(
            f"record: the graph holds the ANN's test accuracy {accuracy!r}, expected a share of these {len(labels)} images; use "
            "the test images that the network was trained with (--data)"
        )
    return round(share)


def _records(folders: list[Path]) -> list[Record]:
    """Records of all folders; one that lies there twice is one network."""
    found = {record.to_json(): record for folder in folders for record in load_records(folder).values()}
    if not found:
        raise ConfigError(
            f"records: found none below {', '.join(map(str, folders))}; make them with `sparsespike paper record` or a sweep"
        )
    return list(found.values())


def _pairs(folders: list[Path]) -> tuple[Pair, ...]:
    return pairs(networks(_records(folders)))


def _print_profiles(frame: pd.DataFrame) -> None:
    ways = ("every_step", "zeros_skipped", "once")
    for pair, part in frame.groupby("pair", sort=False):
        print_table(
            f"{pair}: reduction under each profile by the graph's events, %, the first layer charged in three ways",
            ["profile", "process", *(way.replace("_", "\n") for way in ways), "dense, once\nuJ"],
            [
                (
                    row["profile"],
                    row["process"],
                    *(f"{row[f'reduction_{way}_%']:.2f}" for way in ways),
                    row["dense_energy_once_uJ"],
                )
                for row in _lines(part)
            ],
        )


def _lines(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as plain values; None where there is none."""
    lines: list[dict[str, Any]] = json.loads(frame.to_json(orient="records", double_precision=12))
    return lines
