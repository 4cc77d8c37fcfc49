"""From affine populations and thresholds to the integer SpikingGraph: what all rate-coded conversions share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sparsespike.ann.encoding import Encoding
from sparsespike.common.errors import ModelError
from sparsespike.export.affine import READOUT, AffinePopulation, Folded, remove_constants, unit_spikes
from sparsespike.export.connections import Conv2dConnection
from sparsespike.export.graph import ANN_FLOPS, Population, Projection, SpikingGraph
from sparsespike.export.network import INPUT, FloatArray, Shape
from sparsespike.export.quantise import RoundedPopulation, round_population
from sparsespike.export.report import ConversionReport, LayerReport

OUT_OF_REACH = 2**53
"""Threshold of a silenced neuron: backends keep membranes below it, or refuse to run."""


class Conversion(NamedTuple):
    """A spiking graph and what became of the network on the way."""

    graph: SpikingGraph
    report: ConversionReport
    kept: Mapping[str, NDArray[np.int64]]
    """For each hidden population the ANN neurons that it holds, in order."""


@dataclass(frozen=True)
class Method:
    """How a conversion method's neurons fire.

    Attributes
    ----------
    name : str
    kind : {"if", "signed_if"}
        ``signed_if`` has threshold_neg = threshold.
    v_init : float
        Initial membrane in units of the threshold.
    settings : mapping of str to JSON values
        For the report.
    """

    name: str
    kind: Literal["if", "signed_if"]
    v_init: float
    settings: Mapping[str, Any]


def build_graph(
    populations: Sequence[AffinePopulation],
    thresholds: Mapping[str, FloatArray],
    input_shape: Shape,
    encoding: Encoding,
    method: Method,
    bits: int,
    provenance: Mapping[str, Any],
) -> Conversion:
    """Fold, scale, round and put together.

    Parameters
    ----------
    populations : sequence of AffinePopulation
        As the ANN has them: activations of real amplitude.
    thresholds : mapping of hidden population to float64 array, shape (N,)
        Threshold and amplitude of each neuron in the ANN's units; 0 for a neuron that is never to fire.
    input_shape : (N,) or (C, y, x)
    encoding : Encoding
    method : Method
    bits : int
        Width of a weight, sign included.
    provenance : mapping
        JSON values to keep in the graph beside those written here.

    Raises
    ------
    ModelError
        If a population cannot fire at all, or the output does not depend on the input.
    """
    for name, threshold in thresholds.items():
        if not threshold.any():
            raise ModelError(
                f"layer {name!r}: found no neuron that is active on the calibration images, expected at least one; "
                "calibrate with more images, and check the accuracy of the ANN"
            )
    volumes = {p.name: len(p.shape) == 3 for p in populations}
    folded = remove_constants(populations, {name: t == 0 for name, t in thresholds.items() if not volumes[name]})
    theta = {name: threshold[folded.kept[name]] for name, threshold in thresholds.items()}
    silenced = {name: threshold == 0 for name, threshold in theta.items()}
    # A silenced neuron's amplitude is never sent; the smallest one leaves the scale of the weights that leave its channel alone.
    theta = {name: np.where(silenced[name], t[t > 0].min(), t) for name, t in theta.items()}
    rounded = {p.name: round_population(p, theta.get(p.name), bits) for p in unit_spikes(folded.populations, theta)}
    nodes = [_population(p, rounded[p.name], silenced.get(p.name), method) for p in folded.populations]
    source = Population(
        name=INPUT, shape=input_shape, kind="input", value_range=encoding.value_range, scale=np.asarray(1.0 / encoding.unit)
    )
    reports = layer_reports(populations, folded, rounded, silenced)
    report = ConversionReport(method.name, bits, dict(method.settings), tuple(reports))
    return assemble([source, *nodes], folded, rounded, report, encoding, provenance)


def assemble(
    nodes: Sequence[Population],
    folded: Folded,
    rounded: Mapping[str, RoundedPopulation],
    report: ConversionReport,
    encoding: Encoding,
    provenance: Mapping[str, Any],
) -> Conversion:
    """The graph of rounded populations, with all that is known of where it came from."""
    projections = [
        Projection(pre, name, connection) for name, integers in rounded.items() for pre, connection in integers.into.items()
    ]
    written = {
        "method": report.method,
        "bits": report.bits,
        "encoding": encoding.to_dict(),
        "sparsity": {layer.name: layer.sparsity for layer in report.layers},
        # Where a pool is composed into a projection, the ANN's layer is no longer to be read from it.
        ANN_FLOPS: {p.name: p.links.flops for p in folded.populations if p.links.pooled and len(p.into) == 1},
        "versions": {package: version(package) for package in ("sparsespike", "numpy", "torch")},
        "conversion": report.to_dict(),
    }
    graph = SpikingGraph(nodes, projections, {**provenance, **written})
    return Conversion(graph, report, {name: kept for name, kept in folded.kept.items() if name != READOUT})


def _population(
    population: AffinePopulation, integers: RoundedPopulation, silenced: NDArray[np.bool_] | None, method: Method
) -> Population:
    if integers.threshold is None or silenced is None:
        return Population(name=population.name, shape=population.shape, kind="readout", bias=integers.bias, scale=integers.scale)
    threshold = np.where(silenced, OUT_OF_REACH, integers.threshold)
    return Population(
        name=population.name,
        shape=population.shape,
        kind=method.kind,
        threshold=threshold,
        threshold_neg=threshold if method.kind == "signed_if" else None,
        v_init=np.where(silenced, 0, np.rint(method.v_init * integers.threshold)).astype(np.int64),
        bias=np.where(silenced, 0, integers.bias),
        scale=integers.scale,
    )


def layer_reports(
    populations: Sequence[AffinePopulation],
    folded: Folded,
    rounded: Mapping[str, RoundedPopulation],
    silenced: Mapping[str, NDArray[np.bool_]],
) -> list[LayerReport]:
    """What became of each population, from before it was folded until after it was rounded."""
    reports = []
    for population in populations:
        name, integers = population.name, rounded[population.name]
        read = np.zeros(len(folded.kept[name]), np.int64)
        for reader in rounded.values():
            if name in reader.into:
                read += reader.into[name].fan_out
        reports.append(
            LayerReport(
                name=name,
                layers=population.links.layers,
                projections={
                    pre: "conv2d" if isinstance(connection, Conv2dConnection) else "csr"
                    for pre, connection in integers.into.items()
                },
                neurons_ann=population.size,
                neurons=len(folded.kept[name]),
                silent=folded.silent[name],
                folded=folded.folded[name],
                silenced=int(np.count_nonzero(silenced.get(name, 0))),
                without_fan_out=0 if name == READOUT else int(np.count_nonzero(read == 0)),
                nnz_ann=population.nnz,
                zero_links=population.links.trained - population.links.nonzero,
                links_removed=folded.links_removed[name],
                nnz=sum(connection.nnz for connection in integers.into.values()),
                sparsity=1 - population.links.nonzero / max(population.links.possible, 1),
                raised=integers.raised,
                weight_error=integers.weight_error,
                threshold_error=integers.threshold_error,
                scale_min=float(integers.scale.min()),
                scale_max=float(integers.scale.max()),
            )
        )
    return reports
