"""``sparsespike diagnose``: where the accuracy of a converted network went."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
from rich.markup import escape

from sparsespike.cli.console import out, print_json, print_prose, print_table
from sparsespike.cli.convert import (
    AEC_STEPS,
    METHODS,
    PERCENTILES,
    calibration_images,
    convert_model,
    has_trained_thresholds,
    natural_method,
)
from sparsespike.cli.made_by import made_by
from sparsespike.cli.options import DEFAULT_STEPS, Data, Download, Json, counted_progress, fetch, images_for
from sparsespike.common.errors import ConfigError, GraphError
from sparsespike.common.extras import require
from sparsespike.common.files import write_text
from sparsespike.export.graph import SpikingGraph
from sparsespike.export.graphfile import load_graph

if TYPE_CHECKING:
    from torch import nn

    from sparsespike.export.build import Conversion
    from sparsespike.export.diagnosis import Diagnosis

WIDTHS = (24, 16, 8)
"""Bits at which the model is converted, to tell what rounding costs."""
IMAGES = 500
"""Test images, unless a number is given."""


def diagnose(
    model: Annotated[Path, typer.Argument(help="A run folder of `train`, or a model file.")],
    graph_file: Annotated[
        Path | None, typer.Argument(metavar="[GRAPH]", help="A graph that was converted from it. Default: convert it now.")
    ] = None,
    method: Annotated[str | None, typer.Option(help="Without GRAPH: as in `convert`.")] = None,
    bits: Annotated[int | None, typer.Option(help="Without GRAPH: width of a weight. Default: 16.")] = None,
    percentile: Annotated[float | None, typer.Option(help="Without GRAPH: as in `convert`.")] = None,
    calibration: Annotated[int | None, typer.Option(help="Without GRAPH: as in `convert`.", min=1)] = None,
    images: Annotated[
        int | None, typer.Option(help="How many test images, evenly spread over them. Default: up to 500.", min=1)
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(help="Time steps T. Default: 32; of a given AEC graph, its slots; T of an aec conversion: 16.", min=1),
    ] = None,
    folder: Annotated[Path | None, typer.Option("--out", help="Write plots and diagnosis.json to this folder.")] = None,
    data: Data = None,
    download: Download = False,
    as_json: Json = False,
) -> None:
    """Say why accuracy changed in the conversion: each layer beside its ANN layer, each stage from the ANN to few bits.

    A layer's own error is told apart from what it inherits, and split by cause. Ends in a sentence that names the worst layer
    and the worst stage.

    Examples:

    sparsespike diagnose runs/sparse --bits 8 --steps 16

    sparsespike diagnose runs/relu runs/relu/graph.safetensors --out runs/relu/diagnosis
    """
    require("torch", extra="train")
    if folder is not None:
        require("matplotlib.figure", extra="report")
    from sparsespike.ann.checkpoint import load_model
    from sparsespike.ann.encoding import Encoding
    from sparsespike.export.diagnosis import diagnose as diagnose_graph

    if graph_file is not None and (method, bits, percentile, calibration) != (None, None, None, None):
        raise ConfigError("--method, --bits, --percentile and --calibration are for a conversion now: leave them out with GRAPH")
    network, known = load_model(model)
    if download:
        fetch(data or known.get("training", {}).get("data"))
    given = None if graph_file is None else load_graph(graph_file)
    width = bits or 16
    if given is None:
        wanted = method or natural_method(network)
        recipe = wanted, {"percentile": percentile, "calibration_images": calibration, "T": steps or AEC_STEPS}
    else:
        recipe = _recipe(given, graph_file)
    convert = _converter(network, known, data, *recipe)
    conversions = {each: convert(each) for each in sorted({*WIDTHS, width} if given is None else WIDTHS, reverse=True)}
    graph = conversions[width].graph if given is None else given
    inputs, labels = images_for(conversions[WIDTHS[0]].graph, data or known.get("training", {}).get("data"), images)
    if images is None and len(labels) > IMAGES:
        chosen = np.arange(IMAGES) * len(labels) // IMAGES
        inputs, labels = inputs[chosen], labels[chosen]
    # The T of an AEC conversion that is made here has gone into its graph, which runs for T + 1 slots.
    time_steps = (None if given is None and graph.slots else steps) or graph.slots or DEFAULT_STEPS
    encoding = Encoding.from_dict(known["encoding"])
    with counted_progress() as progress:
        found = diagnose_graph(network, encoding, graph, conversions, inputs, labels, time_steps, progress=progress)
    document = {"model": str(model), "graph": None if graph_file is None else str(graph_file), **found.to_dict()}
    if folder is not None:
        _write(folder, found, document)
    if as_json:
        print_json(document)
        return
    _print(found, f"{graph_file or model}: {found.method.upper()}, {found.images:,} images, T = {found.steps}")
    if folder is not None:
        out.print(f"Files in {folder}: stages.png, layers.png, activations.png, diagnosis.json", highlight=False)


def _recipe(graph: SpikingGraph, path: Path | None) -> tuple[str, dict[str, Any]]:
    """Method and settings that a graph was converted with."""
    report = graph.provenance.get("conversion")
    settings = report.get("settings") if isinstance(report, dict) else None
    method = graph.provenance.get("method")
    if method not in METHODS or not isinstance(settings, dict):
        raise GraphError(
            f"graph file '{path}': found the method {method!r} in its provenance, expected one of {', '.join(METHODS)} and "
            "its settings; convert the model again with `sparsespike convert`"
        )
    return str(method), settings


def _converter(
    network: nn.Module, known: dict[str, Any], data: str | None, method: str, settings: dict[str, Any]
) -> Callable[[int], Conversion]:
    """The conversion at a number of bits, by a method with the settings that its report names."""
    if method not in METHODS:
        raise ConfigError(f"--method {method!r}: expected one of {', '.join(METHODS)}")
    percentile, count = settings.get("percentile"), settings.get("calibration_images")
    images = None
    if has_trained_thresholds(network, method):
        if percentile is not None or count is not None:
            raise ConfigError(
                "--percentile and --calibration are for methods that calibrate: this network was trained with thresholds"
            )
    else:
        images = calibration_images(known, data, count or 512, percentile or PERCENTILES[method])
    names = ("payload_bits", "force_compensation") if method == "aec" else ("granularity", "v_init", "spiking_readout")
    further = {name: settings[name] for name in names if name in settings}
    if method == "aec" and images is not None:
        further["steps"] = settings["T"]
    return lambda bits: convert_model(network, known, method, bits, images, **further)


def _write(folder: Path, diagnosis: Diagnosis, document: dict[str, Any]) -> None:
    from sparsespike.common.figures import save_figure
    from sparsespike.export.diagnosis.plots import activations_figure, layers_figure, stages_figure

    figures: dict[str, Callable[[Diagnosis], Any]] = {
        "stages": stages_figure,
        "layers": layers_figure,
        "activations": activations_figure,
    }
    for name, figure in figures.items():
        save_figure(figure(diagnosis), folder / f"{name}.png")
    write_text(folder / "diagnosis.json", json.dumps(document | {"made_by": made_by()}, indent=1))


def _print(diagnosis: Diagnosis, title: str) -> None:
    marks = [t for t in (1, 2, 4, 8, 16, 32, 64, 128) if t < diagnosis.steps] + [diagnosis.steps]
    rows = []
    for stage in diagnosis.stages:
        loss = diagnosis.loss(stage)
        over_time = [f"{100 * stage.correct[t - 1] / stage.images:.2f}" if stage.over_time else None for t in marks[:-1]]
        rows.append((stage.name, *over_time, f"{100 * stage.accuracy:.2f}", None if loss is None else f"{0 - 100 * loss:+.2f}"))
    heads = [f"acc_%\nT={t}" for t in marks]
    print_table(f"{title}: stages", ("stage", *heads, "change\npoints"), rows)
    print_table(
        f"{title}: layers, this graph against the ANN",
        (
            "layer",
            "neurons",
            "mean\nANN",
            "corre-\nlation",
            "mean\nerror",
            "own\nerror_%",
            "clip-\nping_%",
            "levels_%",
            "inte-\ngers_%",
            "uneven-\nness_%",
            "dead",
            "satu-\nrated",
            "every\nstep_%",
            "acc_%\nso far",
        ),
        [_layer_row(layer) for layer in diagnosis.layers],
        caption=(
            "own error: against the ANN layer fed what this layer got, % of the ANN's mean; clipping, levels, integers and "
            "unevenness are its parts (they may cancel). dead: active in the ANN, never a spike; saturated: a spike at every "
            "step (AEC: both in slot 0) of some image; every step: share of all images and neurons that do so; so far: the "
            "spikes up to this layer, then the ANN."
        ),
    )
    print_prose(f"\n[bold]{escape(diagnosis.sentence())}[/]")


def _layer_row(layer: Any) -> tuple[Any, ...]:
    unit = layer.activation

    def percent(value: float | None, of: float = 1.0, digits: int = 2) -> str | None:
        return None if value is None or not of else f"{100 * value / of:.{digits}f}"

    causes = [percent(layer.causes.get(cause), unit) for cause in ("clipping", "levels", "integers", "unevenness")]
    return (
        layer.name,
        layer.neurons,
        f"{layer.activation:.4g}",
        None if layer.correlation is None else f"{layer.correlation:.4f}",
        f"{layer.error:.4g}",
        percent(layer.own_error, unit),
        *causes,
        layer.dead,
        layer.saturated,
        percent(layer.every_step),
        percent(layer.accuracy),
    )
