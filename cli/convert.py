"""``sparsespike convert``: a trained network becomes an integer spiking graph."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
from rich.markup import escape

from sparsespike.cli.choice import Wanted, choose, measured_window, whole_or_auto
from sparsespike.cli.console import err, out, print_json, print_prose, print_table
from sparsespike.cli.made_by import command_line
from sparsespike.cli.nir import convert_nir
from sparsespike.cli.options import Data, Download, Json, counted_progress, fetch
from sparsespike.common.errors import ConfigError
from sparsespike.common.extras import require
from sparsespike.export.graph import SpikingGraph
from sparsespike.export.graphfile import save_graph
from sparsespike.export.report import ConversionReport

if TYPE_CHECKING:
    from torch import nn

    from sparsespike.ann.encoding import Encoding
    from sparsespike.export.build import Conversion
    from sparsespike.export.calibrate import Calibration

PERCENTILES = {"snm": 100.0, "percentile": 99.9, "aec": 100.0}
"""Percentile of the activations that becomes the threshold (of aec: the largest value sent), by method, unless one is given."""
METHODS = ("qcfs", *PERCENTILES)
AEC_STEPS = 16


def convert(
    model: Annotated[Path, typer.Argument(help="A run folder of `train`, a model file, or a .nir file of another framework.")],
    graph_file: Annotated[
        Path | None,
        typer.Option("--out", help="Graph file. Default: graph.safetensors beside the model; of a NIR network its own name."),
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(
            help="qcfs or aec for networks trained with these activations (the default there); snm, aec or percentile for ReLU."
        ),
    ] = None,
    bits: Annotated[
        str | None,
        typer.Option(
            help="Width of a weight, sign included: 8 for Loihi, up to 24; auto: as few as --margin allows. "
            "Default: 16; of a NIR network 24."
        ),
    ] = None,
    margin: Annotated[
        float | None, typer.Option(help="--bits auto: accuracy that may be lost, in points of a percent. Default: 0.5.")
    ] = None,
    steps: Annotated[
        str | None,
        typer.Option(
            help="auto: find the T at which accuracy saturates; a number: T for --bits auto (default 32), or of aec (default 16)."
        ),
    ] = None,
    percentile: Annotated[
        float | None,
        typer.Option(help="snm, percentile, aec: of activations, becomes the threshold. Default: 100, 99.9, 100."),
    ] = None,
    calibration: Annotated[int | None, typer.Option(help="snm, percentile, aec: training images. Default: 512.", min=1)] = None,
    v_init: Annotated[
        float | None,
        typer.Option(help="snm, percentile: initial membrane in thresholds. Default: 0 as published; 0.5 needs fewer steps."),
    ] = None,
    spiking_readout: Annotated[
        bool, typer.Option("--spiking-readout", help="snm: the scores are spiking neurons too, as in the released code.")
    ] = False,
    payload_bits: Annotated[int | None, typer.Option(help="aec: width of what a spike carries. Default: 12.")] = None,
    values: Annotated[
        str | None, typer.Option(help="A .nir file: smallest and largest integer that its input takes. Default: 0..255.")
    ] = None,
    dt: Annotated[
        float | None,
        typer.Option(
            help="A .nir file whose neurons leak: time of a step in the unit of its time constants (snnTorch 1e-4; Norse 1e-6 as "
            "its to_nir writes by default, 1e-3 from to_nir(..., dt=1)). Another value is another network."
        ),
    ] = None,
    data: Data = None,
    download: Download = False,
    as_json: Json = False,
) -> None:
    """Convert a trained network. What becomes of each layer is listed first; nothing is left out silently.

    A .nir file (Neuromorphic Intermediate Representation) holds a spiking network already, which is rounded to integers.

    Examples:

    sparsespike convert runs/sparse --bits 16

    sparsespike convert runs/relu --method snm --calibration 1000 --percentile 99.9

    sparsespike convert runs/relu --method aec --steps 16

    sparsespike convert runs/sparse --bits auto --margin 0.5 --steps auto

    sparsespike convert network.nir --dt 1e-4 --out graph.safetensors
    """
    if model.suffix == ".nir":
        refused = (method, margin, steps, percentile, calibration, v_init, payload_bits)
        if spiking_readout or download or any(option is not None for option in refused):
            raise ConfigError(
                f"{model}: a NIR network spikes already; of the options only --bits, --values, --dt, --data are for it"
            )
        convert_nir(model, graph_file, bits, values, dt, data, as_json)
        return
    if (values, dt) != (None, None):
        raise ConfigError("--values and --dt are for .nir files: a model knows the range of its input, and has no time constants")
    bits = bits or "16"
    require("torch", extra="train")
    from sparsespike.ann.checkpoint import load_model
    from sparsespike.export.quantise import MAX_BITS
    from sparsespike.export.source import verdicts

    network, known = load_model(model)
    if download:
        fetch(data or known.get("training", {}).get("data"))
    method = method or natural_method(network)
    if method not in METHODS:
        raise ConfigError(f"--method {method!r}: expected one of {', '.join(METHODS)}")
    if payload_bits is not None and method != "aec":
        raise ConfigError(f"--payload-bits is for aec: spikes of {method} carry nothing")
    if v_init is not None and method not in ("snm", "percentile"):
        raise ConfigError(f"--v-init is for snm and percentile: {method} has its own")
    if spiking_readout and method != "snm":
        raise ConfigError(f"--spiking-readout is for snm: the readout of {method} adds up the scores")
    trained = has_trained_thresholds(network, method)
    last_slot = aec_steps(steps, trained) if method == "aec" else None
    wanted = Wanted.read(bits, margin, None if method == "aec" else steps)
    if trained and (percentile, calibration, None if wanted.chooses else data) != (None, None, None):
        raise ConfigError(
            "--percentile, --calibration and --data are for methods that calibrate: this network was trained with thresholds"
        )
    found = verdicts(network)
    if not as_json:
        print_table(
            f"Layers of {model}",
            ("layer", "type", "output", "converts", "becomes"),
            [(v.layer, v.type, "x".join(map(str, v.shape or ())), v.accepted, v.text) for v in found],
        )
    images = None if trained else calibration_images(known, data, calibration or 512, percentile or PERCENTILES[method])
    given = {"steps": last_slot, "payload_bits": payload_bits, "v_init": v_init, "spiking_readout": spiking_readout or None}
    settings = {name: value for name, value in given.items() if value is not None}

    def converted(width: int, **further: int) -> Conversion:
        return convert_model(network, known, method, width, images, **{**settings, **further})

    chosen = None
    if method == "aec" and not trained and last_slot is None:
        chosen = measured_window(lambda t: converted(wanted.bits or MAX_BITS, steps=t).graph, known, data)
        settings["steps"] = chosen.steps
    (graph, report, _), choices = choose(wanted, converted, known, data, chosen)
    target = graph_file or (model if model.is_dir() else model.parent) / "graph.safetensors"
    graph.provenance["command"] = command_line()
    save_graph(graph, target)
    if as_json:
        verdict_rows = [asdict(verdict) for verdict in found]
        print_json(
            {
                "graph": str(target),
                "digest": graph.digest(),
                "synapses": graph.nnz,
                "verdicts": verdict_rows,
                "choices": {name: choice.to_dict() for name, choice in choices.items()},
                **report.to_dict(),
            }
        )
        return
    print_table(
        f"Converted with {report.method.upper()}, {report.bits} bits",
        ("population", "neurons", "links of the ANN", "synapses", "sparsity_%", "raised to 1", "weight error"),
        [(r.name, r.neurons, r.nnz_ann, r.nnz, 100 * r.sparsity, r.raised, r.weight_error) for r in report.layers],
    )
    for note in report.notes():
        err.print(f"note: {note}", highlight=False, markup=False)
    for choice in choices.values():
        print_prose(f"Chosen: {escape(choice.describe())}")
    out.print(f"Wrote {target} ({target.stat().st_size / 1e6:.2f} MB). Next: sparsespike simulate {target}")


def natural_method(network: nn.Module) -> str:
    """The method that a network was trained for.

    Raises
    ------
    ConfigError
        If its activations are ReLU, which several methods take.
    """
    from torch import nn

    from sparsespike.ann.aec import AEC

    if any(isinstance(module, AEC) for module in network.modules()):
        return "aec"
    if any(type(module) is nn.ReLU for module in network.modules()):
        raise ConfigError("this network has ReLU activations, which several methods take: give --method snm, aec or percentile")
    return "qcfs"


def has_trained_thresholds(network: nn.Module, method: str) -> bool:
    """Whether a method takes its thresholds from the network, without calibration."""
    from sparsespike.ann.aec import AEC

    return method == "qcfs" or (method == "aec" and any(isinstance(module, AEC) for module in network.modules()))


def aec_steps(steps: str | None, trained: bool) -> int | None:
    """The T of an AEC conversion; None where training has fixed it, or where it is to be chosen.

    Raises
    ------
    ConfigError
        If it is given although training has fixed it, or is no number.
    """
    if trained:
        if steps is not None:
            raise ConfigError("--steps: this network was trained with AEC activations of one T; leave it out")
        return None
    return AEC_STEPS if steps is None else whole_or_auto("--steps", steps)


def convert_run(model: Path, bits: int) -> tuple[SpikingGraph, ConversionReport]:
    """Load a model trained with QCFS, convert it, and keep in the graph where it came from."""
    from sparsespike.ann.checkpoint import load_model

    graph, report, _ = convert_model(*load_model(model), "qcfs", bits, None)
    return graph, report


def convert_model(
    network: nn.Module, known: dict[str, Any], method: str, bits: int, images: Calibration | None, **settings: Any
) -> Conversion:
    """Convert a trained model by a method; ``settings`` are further arguments of the method's converter."""
    from sparsespike.ann.encoding import Encoding
    from sparsespike.export.aec import convert_aec
    from sparsespike.export.balance import convert_percentile
    from sparsespike.export.qcfs import convert_qcfs
    from sparsespike.export.snm import convert_snm

    training = known.get("training", {})
    provenance = {
        "dataset": training.get("data"),
        "seed": training.get("seed"),
        "training": training,
        "ann_test_accuracy": known.get("test_accuracy"),
        "ann_validation_accuracy": known.get("validation_accuracy"),
        "classes": known.get("classes"),
        **({"finetuning": known["finetuning"]} if "finetuning" in known else {}),
    }
    encoding: Encoding = Encoding.from_dict(known["encoding"])
    if method == "qcfs":
        return convert_qcfs(network, encoding, bits, provenance=provenance, **settings)
    converters: dict[str, Callable[..., Conversion]] = {
        "snm": convert_snm,
        "percentile": convert_percentile,
        "aec": convert_aec,
    }
    with counted_progress() as progress:
        return converters[method](network, encoding, images, bits, provenance=provenance, progress=progress, **settings)


def calibration_images(known: dict[str, Any], data: str | None, count: int, percentile: float) -> Calibration:
    """Images drawn from those that the network was trained on; never test images."""
    from sparsespike.ann.data import load
    from sparsespike.export.calibrate import Calibration

    training = known.get("training", {})
    name = data or training.get("data")
    if not isinstance(name, str):
        raise ConfigError("the model does not say which data set it was trained on; name one with --data")
    seed = int(training.get("seed", 0))
    with counted_progress() as progress:
        split = load(name, validation=float(training.get("validation", 0.1)), seed=seed, progress=progress).train
    if count > len(split):
        raise ConfigError(f"--calibration {count}: the training split has {len(split)} images; ask for at most that many")
    chosen = np.sort(np.random.default_rng(seed).permutation(len(split))[:count])
    return Calibration(split.images[chosen], percentile)
