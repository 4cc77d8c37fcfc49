"""What was trained, and into what it was converted."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sparsespike.energy.report.blocks import Block, Cell, Chart, Column, Facts, Heading, Missing, Series, Table, Text, number
from sparsespike.energy.report.folder import Network
from sparsespike.export.graph import SpikingGraph

NAMES = {"anp": "active neurons", "seconds": "training time (s)"}
"""Fields of a summary whose names do not say what they are."""


def training_blocks(network: Network) -> list[Block]:
    """Result, curves and settings of the training."""
    blocks: list[Block] = []
    known = network.training
    if network.summary is not None:
        blocks.append(Facts(rows=tuple(_result(dict(network.summary), known))))
    elif network.metrics is not None:
        blocks.append(Text(text="The training is not complete: it has no summary yet.", tone="bad"))
        blocks.append(Missing(what="the result of the training", command=_resume(network)))
    if network.metrics is not None:
        blocks.extend(_curves(network))
    if known:
        blocks += [Heading(text="Settings"), Facts(rows=tuple(flat(known)))]
    if not blocks:
        folder = shlex.quote(str(network.path))
        blocks.append(Missing(what="a training run", command=f"sparsespike train --out {folder}"))
    elif network.metrics is None:
        text = "Curves over epochs are in the folder that the network was trained in, which is not this one."
        blocks.append(Text(text=text))
    return blocks


def conversion_blocks(network: Network) -> list[Block]:
    """Every graph: how it was converted, and its layers."""
    if not network.graphs:
        folder = shlex.quote(str(network.path))
        return [Missing(what="a spiking graph", command=f"sparsespike convert {folder}")]
    blocks: list[Block] = []
    for path, graph in network.graphs.items():
        if len(network.graphs) > 1:
            blocks.append(Heading(text=path.name))
        blocks += _graph(path, graph)
    return blocks


def flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Cell]]:
    """Nested settings as names with dots, and plain values."""
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{name}.")
        elif isinstance(value, list | tuple):
            yield f"{prefix}{name}", ", ".join(map(str, value)) or "none"
        elif isinstance(value, str | int | float) or value is None:
            yield f"{prefix}{name}", value


def _result(summary: dict[str, Any], known: Mapping[str, Any]) -> Iterator[tuple[str, Cell]]:
    yield "data set", str(known.get("data", "not said"))
    for key, value in summary.items():
        label = NAMES.get(key, key.replace("_", " "))
        if isinstance(value, float) and (key.endswith("accuracy") or key in ("sparsity", "anp")):
            yield label, f"{100 * value:.2f} %"
        elif value is None or isinstance(value, str | int | float):
            yield label, value


def _curves(network: Network) -> Iterator[Block]:
    metrics = network.metrics
    assert metrics is not None
    names = {"train_accuracy": "training images, as trained on", "validation_accuracy": "validation images"}
    series = []
    for style, (column, label) in enumerate(names.items(), 1):
        if column in metrics:
            points = tuple((x, 100 * y) for x, y in zip(metrics["epoch"], metrics[column], strict=True) if math.isfinite(y))
            if points:
                series.append(Series(label, points, style))
    if series:
        ends = "; ".join(f"{each.name}: {each.points[-1][1]:.2f} % at the end" for each in series)
        caption = "Accuracy over epochs"
        yield Chart(caption=caption, x="epoch", y="accuracy (%)", series=tuple(series), summary=ends)
    shares = {"anp": "active neurons", "overlap": "regrown links that were just removed", "sparsity": "sparsity"}
    series = [
        Series(
            label, tuple((x, 100 * y) for x, y in zip(metrics["epoch"], metrics[column], strict=True) if math.isfinite(y)), style
        )
        for style, (column, label) in enumerate(shares.items(), 1)
        if column in metrics and metrics[column].notna().any()
    ]
    if series and metrics.get("sparsity") is not None and metrics["sparsity"].max() > 0:
        ends = "; ".join(f"{each.name}: {each.points[-1][1]:.2f} % at the end" for each in series)
        yield Chart(caption="Links over epochs", x="epoch", y="share (%)", series=tuple(series), summary=ends)


def _resume(network: Network) -> str:
    if network.made_by is not None:
        return f"{network.made_by.command} --resume"
    return f"sparsespike train --out {shlex.quote(str(network.path))} --resume, with the settings below"


def _graph(path: Path, graph: SpikingGraph) -> Iterator[Block]:
    known = graph.provenance
    neurons = sum(graph.population(name).size for name in graph.order if name != graph.input.name)
    yield Facts(
        rows=(
            ("method", str(known.get("method", "not said")).upper()),
            ("bits of a weight", _plain(known.get("bits"))),
            ("T of the conversion (steps)", _plain(known.get("T"))),
            ("neurons", neurons),
            ("synapses", graph.nnz),
            ("file", path.name),
        )
    )
    conversion = known.get("conversion")
    layers = conversion.get("layers") if isinstance(conversion, Mapping) else None
    if isinstance(layers, list) and layers and all(isinstance(layer, Mapping) for layer in layers):
        yield Table(
            caption=f"What became of each layer ({path.name})",
            columns=(
                Column("population"),
                Column("neurons of the ANN"),
                Column("neurons"),
                Column("never fire", "neurons"),
                Column("links of the ANN"),
                Column("synapses"),
                Column("sparsity", "%", 2),
                Column("raised to ±1", "weights"),
                Column("largest rounding error", "of the largest weight"),
            ),
            rows=tuple(
                (
                    str(layer.get("name")),
                    *(_plain(layer.get(key)) for key in ("neurons_ann", "neurons", "silent", "nnz_ann", "nnz")),
                    None if layer.get("sparsity") is None else 100 * float(layer["sparsity"]),
                    *(_plain(layer.get(key)) for key in ("raised", "weight_error")),
                )
                for layer in layers
            ),
        )
        return
    yield Table(
        caption=f"Projections ({path.name})",
        columns=(
            Column("projection"),
            Column("neurons before"),
            Column("neurons after"),
            Column("synapses"),
            Column("density", "%"),
        ),
        rows=tuple(
            (
                f"{each.pre} → {each.post}",
                each.connection.shape[0],
                each.connection.shape[1],
                each.connection.nnz,
                100 * each.connection.nnz / max(1, each.connection.shape[0] * each.connection.shape[1]),
            )
            for each in graph.projections
        ),
    )


def _plain(value: Any) -> Cell:
    return (
        number(value) if isinstance(value, int | float) and not isinstance(value, bool) else None if value is None else str(value)
    )
