"""``sparsespike convert``: a trained network becomes an integer spiking graph."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sparsespike.cli.console import err, out, print_json, print_table
from sparsespike.cli.options import Json
from sparsespike.common.extras import require
from sparsespike.export.graph import SpikingGraph
from sparsespike.export.graphfile import save_graph
from sparsespike.export.report import ConversionReport


def convert(
    model: Annotated[Path, typer.Argument(help="A run folder of `train`, or a model file.")],
    graph_file: Annotated[
        Path | None, typer.Option("--out", help="Graph file. Default: graph.safetensors beside the model.")
    ] = None,
    bits: Annotated[int, typer.Option(help="Width of a weight, sign included: 8 for Loihi, up to 24.")] = 16,
    as_json: Json = False,
) -> None:
    """Convert a network that was trained with QCFS activations. No link is lost or made: nnz stays that of the ANN.

    Example: sparsespike convert runs/sparse --bits 16
    """
    require("torch", extra="train")
    graph, report = convert_run(model, bits)
    target = graph_file or (model if model.is_dir() else model.parent) / "graph.safetensors"
    save_graph(graph, target)
    if as_json:
        print_json({"graph": str(target), "digest": graph.digest(), "synapses": graph.nnz, **report.to_dict()})
        return
    print_table(
        f"Converted with {report.method.upper()}, {report.bits} bits",
        ("population", "neurons", "links of the ANN", "synapses", "sparsity_%", "raised to 1", "weight error"),
        [(r.name, r.neurons, r.nnz_ann, r.nnz, 100 * r.sparsity, r.raised, r.weight_error) for r in report.layers],
    )
    for note in report.notes():
        err.print(f"note: {note}", highlight=False, markup=False)
    out.print(f"Wrote {target} ({target.stat().st_size / 1e6:.2f} MB). Next: sparsespike simulate {target}")


def convert_run(model: Path, bits: int) -> tuple[SpikingGraph, ConversionReport]:
    """Load a trained model, convert it, and keep in the graph where it came from."""
    from sparsespike.ann.checkpoint import load_model
    from sparsespike.ann.encoding import Encoding
    from sparsespike.export.qcfs import convert_qcfs

    network, known = load_model(model)
    training = known.get("training", {})
    provenance = {
        "dataset": training.get("data"),
        "seed": training.get("seed"),
        "training": training,
        "ann_test_accuracy": known.get("test_accuracy"),
        "ann_validation_accuracy": known.get("validation_accuracy"),
        "classes": known.get("classes"),
    }
    conversion = convert_qcfs(network, Encoding.from_dict(known["encoding"]), bits, provenance=provenance)
    return conversion.graph, conversion.report
