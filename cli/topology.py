"""``sparsespike topology``: what evolution did to the links of a network."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import pandas as pd
import typer

from sparsespike.ann.config import TrainConfig
from sparsespike.ann.data import load
from sparsespike.ann.topology import Topology
from sparsespike.ann.topology.report import LayerReport, report_layers
from sparsespike.ann.topology.science import active_share, shared_links
from sparsespike.cli.console import ABSENT, err, out, print_json, print_table
from sparsespike.cli.made_by import made_by
from sparsespike.cli.options import Download, Json, counted_progress
from sparsespike.common.errors import DataError, ModelError
from sparsespike.common.extras import require
from sparsespike.common.figures import save_figure
from sparsespike.common.files import write_text

if TYPE_CHECKING:
    from sparsespike.ann.models import MLPSpec

FIGURES = ("topology_degrees.png", "topology_ccdf.png", "topology_epochs.png")
DOCUMENT = "topology.json"


def topology(
    run: Annotated[Path, typer.Argument(help="A run folder of `train`.")],
    data: Annotated[
        str | None,
        typer.Option(help="Where the data set is now, if no longer where the run found it; for the initial topology."),
    ] = None,
    download: Download = False,
    plots: Annotated[
        bool, typer.Option(help="Write degree distributions and curves as PNG, and the numbers as topology.json, beside the run.")
    ] = True,
    as_json: Json = False,
) -> None:
    """Show what evolution did: links, degrees, power laws, active neurons and small-worldness of every layer, initial and final.

    Final is the model that the run keeps, of its best epoch. The initial topology is drawn again from settings and seed.

    Example: sparsespike topology runs/sparse
    """
    require("torch", extra="train")
    if plots:
        require("matplotlib", extra="report")
    from sparsespike.ann.checkpoint import load_model
    from sparsespike.ann.models import MLP

    model, known = load_model(run)
    if not isinstance(model, MLP):
        raise ModelError(f"run {run} holds a {model.spec.model}; expected an MLP: convolutions are no chain of sparse layers")
    final = [layer.topology for layer in model.sparse_layers]
    if not final:
        raise ModelError(f"run {run} holds a dense network; expected one with a topology: train with --sparsity above 0")
    initial: list[Topology] | None = None
    try:
        initial = _initial(TrainConfig.from_dict(known["training"]), model.spec, data, download)
    except DataError as error:
        err.print(f"note: the initial topology cannot be drawn again: {error}; --data names the data set", highlight=False)
    chains = {"final": final} if initial is None else {"initial": initial, "final": final}
    with err.status("measuring"):
        reports = {name: report_layers(chain, np.random.default_rng(0)) for name, chain in chains.items()}
    active = {name: active_share(chain) for name, chain in chains.items()}
    itop = _itop(run, known["epoch"])
    overlap = None if initial is None else [shared_links(*layers) for layers in zip(initial, final, strict=True)]
    document = {
        "run": str(run),
        "epoch": known["epoch"],
        "active_neurons": active,
        "itop": itop,
        "overlap_with_initial": overlap,
        "layers": [{name: reports[name][index].to_dict() for name in chains} for index in range(len(final))],
    }
    if as_json:
        print_json(document)
    else:
        for index in range(len(final)):
            _print_layer(index, {name: reports[name][index] for name in chains}, overlap)
        shares = ", ".join(f"{100 * share:.1f} % {name}" for name, share in active.items())
        out.print(f"Active neurons (ANP): {shares}. Final is the model of epoch {known['epoch']}.", highlight=False)
        explored = ABSENT if itop is None else f"{100 * itop:.1f} % of the possible links"
        out.print(f"Links ever active by then (ITOP): {explored}", highlight=False)
    if plots:
        _draw(run, final, initial)
        write_text(run / DOCUMENT, json.dumps(document | {"made_by": made_by()}, indent=1))
        if not as_json:
            out.print(f"Wrote {', '.join((*FIGURES, DOCUMENT))} to {run}")


def _initial(config: TrainConfig, spec: MLPSpec, data: str | None, download: bool) -> list[Topology]:
    """The links that the run started with."""
    from sparsespike.ann.evolution import initial_topologies
    from sparsespike.ann.loop import Stream

    with counted_progress() as progress:
        name = data or config.data
        splits = load(name, validation=config.validation, seed=config.seed, download=download, progress=progress)
    if splits.features != spec.widths[0]:
        raise DataError(f"data set {splits.name!r} has {splits.features} values an image, the network {spec.widths[0]} inputs")
    return initial_topologies(config, spec, splits, Stream.TOPOLOGY.generator(config.seed))


def _print_layer(index: int, reports: dict[str, LayerReport], overlap: list[float] | None) -> None:
    """One layer as a table with a column for each state."""
    columns = {name: _cells(report) for name, report in reports.items()}
    rows = [(what, *(cells[what] for cells in columns.values())) for what in next(iter(columns.values()))]
    if overlap is not None:
        rows.append(("links shared with initial (Jaccard)", "1", f"{overlap[index]:.4f}"))
    m, n = next(iter(reports.values())).shape
    print_table(f"Layer {index + 1}: {n:,} inputs, {m:,} outputs", ("what", *columns), rows)


def _cells(report: LayerReport) -> dict[str, str]:
    cells = {"links": f"{report.links:,}", "density_%": f"{100 * report.density:.3f}"}
    for name, degrees in (("in-degree", report.in_degree), ("out-degree", report.out_degree)):
        cells[f"{name} min..median..max"] = f"{degrees.minimum}..{degrees.median:g}..{degrees.maximum}"
        law = degrees.power_law
        cells[f"{name} exponent γ, KS distance"] = "–" if law is None else f"{law.exponent:.2f}, {law.distance:.3f}"
        cells[f"{name} tail"] = "–" if law is None else f"k ≥ {law.minimum}: {law.tail:,} of {degrees.linked:,}"
        cells[f"{name} verdict"] = degrees.verdict
    cells["active inputs_%"] = f"{100 * report.active_inputs:.1f}"
    cells["active outputs_%"] = f"{100 * report.active_outputs:.1f}"
    world = report.small_world
    cells["clustering (random)"] = "–" if world is None else f"{world.clustering:.4f} ({world.random_clustering:.4f})"
    cells["path length (random)"] = "–" if world is None else f"{world.path_length:.3f} ({world.random_path_length:.3f})"
    cells["small-worldness"] = "–" if world is None or math.isnan(world.sigma) else f"{world.sigma:.2f}"
    return cells


def _metrics(run: Path) -> pd.DataFrame:
    try:
        # As texts first: pandas 2 rounds numbers of 17 digits unless told not to, and pandas 3 warns of being told.
        return pd.read_csv(run / "metrics.csv", dtype=str, keep_default_na=False).map(lambda text: float(text or "nan"))
    except (OSError, ValueError) as error:
        raise ModelError(f"metrics {run / 'metrics.csv'} cannot be read ({error}); expected the folder of a run") from error


def _itop(run: Path, epoch: int) -> float | None:
    """Share of the possible links that were active up to an epoch; none if the run does not say."""
    if not (run / "metrics.csv").is_file():
        return None
    metrics = _metrics(run)
    if not {"epoch", "itop"} <= set(metrics):
        return None
    shares = metrics.loc[metrics["epoch"] == epoch, "itop"].dropna()
    return None if shares.empty else float(shares.iloc[0])


def _draw(run: Path, final: list[Topology], initial: list[Topology] | None) -> None:
    from sparsespike.ann.plots import ccdf_figure, degree_figure, epochs_figure

    metrics = _metrics(run)
    figures = (
        degree_figure(final, initial, title=f"{run.name}: degrees"),
        ccdf_figure(final, initial, title=f"{run.name}: degrees, cumulative"),
        epochs_figure(
            {str(name): column.to_numpy(np.float64) for name, column in metrics.items()}, title=f"{run.name}: evolution"
        ),
    )
    for figure, name in zip(figures, FIGURES, strict=True):
        save_figure(figure, run / name)
