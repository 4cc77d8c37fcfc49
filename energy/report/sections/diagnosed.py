"""Why accuracy changed in the conversion: stages and layers."""

from __future__ import annotations

import shlex

from sparsespike.energy.report.blocks import Block, Cell, Column, Heading, Missing, Picture, Table, Text
from sparsespike.energy.report.documents import DiagnosedLayer, Diagnosis
from sparsespike.energy.report.folder import Network
from sparsespike.energy.report.images import png_file

CAUSES = ("clipping", "levels", "integers", "unevenness")
PICTURES = {
    "stages.png": ("Accuracy of each stage", "Accuracy over time steps of each stage, from the ANN to few bits"),
    "layers.png": ("Errors of each layer, by cause", "Bars of the error of each layer, split by cause"),
    "activations.png": ("Activations of the spiking layers against the ANN's", "Scatter plots, one a layer"),
}


def diagnosis_blocks(network: Network) -> list[Block]:
    """Every diagnosis: the sentence, stages, layers and figures."""
    if not network.diagnoses:
        folder = shlex.quote(str(network.path))
        graph = shlex.quote(str(next(iter(network.graphs), network.path / "graph.safetensors")))
        out = shlex.quote(str(network.path / "diagnosis"))
        return [Missing(what="a diagnosis", command=f"sparsespike diagnose {folder} {graph} --out {out}")]
    blocks: list[Block] = []
    for path, diagnosis in network.diagnoses.items():
        if len(network.diagnoses) > 1:
            blocks.append(Heading(text=path.parent.name))
        blocks += _diagnosis(diagnosis)
    for name, (caption, alt) in PICTURES.items():
        if name in network.pictures:
            blocks.append(Picture(uri=png_file(network.pictures[name]), alt=alt, caption=caption))
    return blocks


def _diagnosis(found: Diagnosis) -> list[Block]:
    accuracies = {stage.stage: stage.accuracy for stage in found.stages}
    stages = tuple(
        (
            stage.stage,
            100 * stage.accuracy,
            None if stage.before not in accuracies else f"{100 * (stage.accuracy - accuracies[stage.before]):+.2f}",
        )
        for stage in found.stages
    )
    return [
        Text(text=found.sentence),
        Table(
            caption=f"Stages from the ANN to few bits, T = {found.steps}, {found.images:,} images",
            columns=(Column("stage"), Column("accuracy", "%", 2), Column("change", "points")),
            rows=stages,
        ),
        Table(
            caption="Layers of the graph beside those of the ANN",
            columns=(
                Column("layer"),
                Column("neurons"),
                Column("correlation", "", 4),
                Column("own error", "% of the ANN's mean", 2),
                *(Column(cause, "%", 2) for cause in CAUSES),
                Column("dead", "neurons"),
                Column("saturated", "neurons"),
                Column("spike at every step", "%", 2),
                Column("accuracy so far", "%", 2),
            ),
            rows=tuple(_layer(layer) for layer in found.layers),
            note="own error: against the ANN layer fed what this layer got; clipping, levels, integers and unevenness are its "
            "parts, which may cancel. dead: active in the ANN, never a spike. saturated: a spike at every step of some image. "
            "accuracy so far: the spikes up to this layer, then the ANN.",
        ),
    ]


def _layer(layer: DiagnosedLayer) -> tuple[Cell, ...]:
    def percent(value: float | None, of: float = 1.0) -> float | None:
        return None if value is None or not of else 100 * value / of

    return (
        layer.name,
        layer.neurons,
        layer.correlation,
        percent(layer.own_error, layer.activation),
        *(percent(layer.causes.get(cause), layer.activation) for cause in CAUSES),
        layer.dead,
        layer.saturated,
        percent(layer.every_step),
        percent(layer.accuracy),
    )
