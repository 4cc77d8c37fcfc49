"""The links of a network: what evolution did to them, and what the graph would take of a chip."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from sparsespike.backends.mapping import CHIPS, Chip, Estimate, estimate
from sparsespike.common.errors import SparseSpikeError
from sparsespike.energy.report.blocks import Block, Cell, Column, Facts, Heading, Items, Missing, Picture, Table, Text, number
from sparsespike.energy.report.documents import Degrees, Layer
from sparsespike.energy.report.folder import Network
from sparsespike.energy.report.images import png_file
from sparsespike.export.graph import SpikingGraph

PICTURES = {
    "topology_degrees.png": ("Degree distributions", "Histograms of the in-degrees and out-degrees of every layer"),
    "topology_ccdf.png": (
        "Degrees, cumulative, with the power law fitted to the tail",
        "Share of neurons with at least k links, on logarithmic axes, for every layer",
    ),
}


def topology_blocks(network: Network) -> list[Block]:
    """Links, degrees, power laws, active neurons and small-worldness of every layer; fan-outs of the graph."""
    blocks: list[Block] = []
    report = network.topology
    if report is not None:
        shares = ", ".join(f"{100 * share:.1f} % {name}" for name, share in report.active_neurons.items())
        itop = "not recorded" if report.itop is None else f"{100 * report.itop:.1f} % of the possible links"
        blocks.append(
            Facts(rows=(("active neurons", shares), ("links ever active (ITOP)", itop), ("final: model of epoch", report.epoch)))
        )
        for index, layer in enumerate(report.layers):
            overlap = None if report.overlap_with_initial is None else report.overlap_with_initial[index]
            blocks.append(_layer(index, layer, overlap))
        for name, (caption, alt) in PICTURES.items():
            if name in network.pictures:
                blocks.append(Picture(uri=png_file(network.pictures[name]), alt=alt, caption=caption))
    elif network.training.get("sparsity") == 0:
        blocks.append(Text(text="A dense network: every link is there, so there is no topology to measure."))
    elif network.training.get("model", "mlp") != "mlp":
        blocks.append(Text(text="Topology is measured of MLPs: convolutions are no chain of sparse layers."))
    else:
        command = f"sparsespike topology {shlex.quote(str(network.path))}"
        blocks.append(Missing(what="power laws, active neurons and small-worldness of the layers", command=command))
    blocks += _fan_outs(network)
    return blocks


def mapping_blocks(network: Network) -> list[Block]:
    """Cores and memory of the published chips, for every graph."""
    if not network.graphs:
        return [Missing(what="a spiking graph to be mapped", command=f"sparsespike convert {shlex.quote(str(network.path))}")]
    blocks: list[Block] = []
    for path, graph in network.graphs.items():
        if len(network.graphs) > 1:
            blocks.append(Heading(text=path.name))
        for chip in CHIPS.values():
            blocks += _mapping(graph, chip)
    return blocks


def _mapping(graph: SpikingGraph, chip: Chip) -> list[Block]:
    try:
        return list(_estimate(estimate(graph, chip)))
    except SparseSpikeError as error:
        return [Text(text=f"{chip.name}: {error}")]


def _layer(index: int, states: dict[str, Layer], overlap: float | None) -> Table:
    cells = {state: dict(_cells(layer)) for state, layer in states.items()}
    outputs, inputs = next(iter(states.values())).shape
    rows: list[tuple[Cell, ...]] = [(what, *(each[what] for each in cells.values())) for what in next(iter(cells.values()))]
    if overlap is not None:
        rows.append(("links shared with initial (Jaccard)", 1, overlap))
    caption = f"Layer {index + 1}: {inputs:,} inputs, {outputs:,} outputs"
    return Table(caption=caption, columns=(Column("what"), *(Column(state) for state in cells)), rows=tuple(rows))


def _cells(layer: Layer) -> Iterator[tuple[str, Cell]]:
    yield "links", layer.links
    yield "density (%)", 100 * layer.density
    for name, degrees in (("in-degree", layer.in_degree), ("out-degree", layer.out_degree)):
        yield from _degrees(name, degrees)
    yield "active inputs (%)", 100 * layer.active_inputs
    yield "active outputs (%)", 100 * layer.active_outputs
    world = layer.small_world
    yield "clustering", None if world is None else world.clustering
    yield "clustering of a random layer", None if world is None else world.random_clustering
    yield "path length (links)", None if world is None else world.path_length
    yield "path length of a random layer (links)", None if world is None else world.random_path_length
    yield "small-worldness", None if world is None else world.sigma


def _degrees(name: str, degrees: Degrees) -> Iterator[tuple[str, Cell]]:
    yield f"{name}: least, median, largest (links)", f"{degrees.minimum:,}, {degrees.median:g}, {degrees.maximum:,}"
    law = degrees.power_law
    yield f"{name}: power law, exponent γ", None if law is None else law.exponent
    yield f"{name}: power law, tail", None if law is None else f"k ≥ {law.minimum:,}: {law.tail:,} of {degrees.linked:,} neurons"
    yield f"{name}: power law, KS distance", None if law is None else law.distance
    yield f"{name}: verdict", degrees.verdict


def _fan_outs(network: Network) -> Iterator[Block]:
    for path, graph in network.graphs.items():
        rows = []
        for projection in graph.projections:
            fan_out = projection.connection.fan_out
            least, mean, largest = int(fan_out.min()), float(fan_out.mean()), int(fan_out.max())
            rows.append(
                (f"{projection.pre} → {projection.post}", int(fan_out.size), projection.connection.nnz, least, mean, largest)
            )
        yield Table(
            caption=f"Fan-outs in the spiking graph ({path.name})",
            columns=(
                Column("projection"),
                Column("neurons before"),
                Column("synapses"),
                Column("least fan-out", "synapses"),
                Column("mean fan-out", "synapses"),
                Column("largest fan-out", "synapses"),
            ),
            rows=tuple(rows),
            note="Unequal fan-outs are what the covariance term of the ledger comes from.",
        )


def _estimate(found: Estimate) -> Iterator[Block]:
    if found.cores is None:
        title = f"{found.chip.name}: does not fit"
    else:
        title = (
            f"{found.chip.name}: {'at least ' if found.lower_bound else ''}{found.cores:,} of {found.chip.cores.value:,} cores"
        )
    rows = found.rows()
    names = [name for name in rows[0] if any(row[name] is not None for row in rows)]
    yield Table(
        caption=f"{title} (an estimate from published limits)",
        columns=tuple(Column(name.replace("_", " ")) for name in names),
        rows=tuple(tuple(value if isinstance(value := row[name], str) else number(value) for name in names) for row in rows),
        note="; ".join(f"assumed: {line}" for line in found.assumptions),
    )
    if found.obstacles:
        yield Items(caption=f"Obstacles on {found.chip.name}:", lines=found.obstacles)
