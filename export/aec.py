"""AEC conversion: at most two graded spikes a neuron, whose slots tell how large they are (Chen et al., 2024).

Every activation becomes a population of kind ``aec``. So does every average pool that reads an activation: in this method a pool
is a spiking layer of its own. Thresholds are shared by a layer; a spike carries its threshold, as an integer payload.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from sparsespike.ann.aec import AEC
from sparsespike.ann.encoding import Encoding
from sparsespike.common.errors import ConfigError, ModelError
from sparsespike.export.affine import AffinePopulation, affine_populations, remove_constants, unit_spikes
from sparsespike.export.build import Conversion, assemble, layer_reports
from sparsespike.export.calibrate import Calibration, Progress, calibrate
from sparsespike.export.exponential import ExponentialCode
from sparsespike.export.graph import Population
from sparsespike.export.network import INPUT, Activate, AveragePool, Flatten, Network, Node, Same
from sparsespike.export.population import NEVER
from sparsespike.export.quantise import RoundedPopulation, check_bits, round_population
from sparsespike.export.report import ConversionReport
from sparsespike.export.source import check_activations, read_network

MAX_PAYLOAD_BITS = 24
"""Width of the payload of a Loihi 2 spike as Lava carries it."""


def convert_aec(
    model: nn.Module,
    encoding: Encoding,
    calibration: Calibration | None = None,
    bits: int = 16,
    *,
    steps: int | None = None,
    payload_bits: int = 12,
    input_shape: Sequence[int] | None = None,
    force_compensation: bool = False,
    provenance: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Conversion:
    """Convert a network with AEC activations, or a ReLU network that gets them here.

    Parameters
    ----------
    model : Module
        A network of this package, or any model that :func:`sparsespike.export.trace.trace` accepts. With AEC activations their
        trained thresholds are taken. With ReLU, each layer gets the published shape of the thresholds, at a size at which the
        largest value that can be sent is a percentile of the layer's activations.
    encoding : Encoding
        How integer pixels stand for the model's real inputs.
    calibration : Calibration, optional
        Training images and the percentile; for ReLU only, and needed there.
    bits : int
        Width of a weight, sign included, 2 to 24.
    steps : int, optional
        T, for ReLU only: the windows have T + 1 slots.
    payload_bits : int
        Width of what a spike carries, 1 to 24.
    input_shape : (N,) or (C, y, x), optional
        Of one input; known for the networks of this package.
    force_compensation : bool
        For ReLU only: the released code's way, in which every neuron that fires at all fires twice.
    provenance : mapping, optional
        JSON values to keep in the graph.
    progress : callable, optional
        Called with ("calibration", images done, images).

    Returns
    -------
    Conversion
        An AEC graph, which runs for exactly T + 1 slots; the readout's last membrane is the answer.

    Raises
    ------
    ModelError
        If a layer cannot be converted, a weight is not finite, a layer is never active, or the last slots of a layer would be
        below one unit of payload or membrane: T is too large for its rates.
    ConfigError, DataError
        If a setting is out of range, missing or superfluous, or the calibration images do not fit.
    """
    check_bits(bits)
    if isinstance(payload_bits, bool) or not 1 <= payload_bits <= MAX_PAYLOAD_BITS:
        raise ConfigError(f"payload_bits: found {payload_bits!r}, expected an integer from 1 to {MAX_PAYLOAD_BITS}")
    network = read_network(model, input_shape)
    if any(isinstance(node.layer, Activate) and node.layer.kind == "aec" for node in network.activations):
        if calibration is not None or steps is not None or force_compensation:
            raise ConfigError(
                "model: found AEC activations and settings of the ones that a ReLU network would get (calibration, steps or "
                "force_compensation), expected none: T and the thresholds come from training"
            )
        check_activations(network, "aec", "give every activation of the model the same kind")
    else:
        network = _with_codes(with_spiking_pools(network), encoding, calibration, steps, force_compensation, progress)
    codes = _codes(network)
    populations = affine_populations(network, encoding)
    folded = remove_constants(populations)
    unit = {name: max(code.primary[0], code.compensation[0]) / (2**payload_bits - 1) for name, code in codes.items()}
    amplitudes = {p.name: np.full(p.size, unit[p.name]) for p in folded.populations if p.name in unit}
    rounded = {
        p.name: round_population(p, None, bits, largest_field=float(codes[p.name].primary[0]) if p.name in codes else 0.0)
        for p in unit_spikes(folded.populations, amplitudes)
    }
    nodes = [
        Population(
            name=INPUT,
            shape=network.input_shape,
            kind="input",
            bias_mode="once",
            value_range=encoding.value_range,
            scale=np.asarray(1.0 / encoding.unit),
        )
    ]
    errors = {}
    for population in folded.populations:
        tables: dict[str, NDArray[np.int64]] = {}
        if population.name in codes:
            scales = float(rounded[population.name].scale), unit[population.name]
            tables, errors[population.name] = _tables(population.name, codes[population.name], *scales, payload_bits)
        nodes.append(_population(population, rounded[population.name], tables))
    rounded = {name: replace(integers, threshold_error=errors.get(name, 0.0)) for name, integers in rounded.items()}
    slots = next(iter(codes.values())).slots
    settings: dict[str, Any] = {
        "T": slots - 1,
        "payload_bits": payload_bits,
        "thresholds": "trained" if calibration is None else "calibrated",
    }
    if calibration is not None:
        settings |= {
            "percentile": calibration.percentile,
            "calibration_images": len(calibration.pixels),
            "force_compensation": force_compensation,
        }
    report = ConversionReport("aec", bits, settings, tuple(layer_reports(populations, folded, rounded, {})))
    return assemble(nodes, folded, rounded, report, encoding, {**(provenance or {}), "T": slots - 1})


def with_spiking_pools(network: Network) -> Network:
    """The network with an activation after every average pool that reads an activation; pools of anything else stay linear."""
    layers = {node.name: node for node in network.nodes}
    renamed: dict[str, str] = {}
    nodes: list[Node] = []
    for node in network.nodes:
        nodes.append(replace(node, inputs=tuple(renamed.get(name, name) for name in node.inputs)))
        readers = [other for other in network.nodes if node.name in other.inputs]
        activated = any(isinstance(reader.layer, Activate) for reader in readers)
        if isinstance(node.layer, AveragePool) and not activated and _reads_an_activation(node, layers):
            renamed[node.name] = f"{node.name}-spikes"
            nodes.append(Node(renamed[node.name], Activate("relu"), (node.name,), node.shape))
    return Network(network.input_shape, tuple(nodes))


def _reads_an_activation(node: Node, layers: Mapping[str, Node]) -> bool:
    before = layers.get(node.inputs[0])
    while before is not None and isinstance(before.layer, Same | Flatten | AveragePool):
        before = layers.get(before.inputs[0])
    return before is not None and isinstance(before.layer, Activate)


def _with_codes(
    network: Network,
    encoding: Encoding,
    calibration: Calibration | None,
    steps: int | None,
    force_compensation: bool,
    progress: Progress | None,
) -> Network:
    """A ReLU network with a code in every activation."""
    check_activations(network, "relu", "train the model with ReLU or AEC, or convert it with another method")
    if steps is None or calibration is None:
        raise ConfigError("model: found ReLU activations, expected steps (T) and a calibration for their exponential codes")
    initial = AEC(steps)
    code = ExponentialCode(*initial.thresholds(), force_compensation)
    activations = [node.name for node in network.activations]
    largest = calibrate(network, encoding, calibration, dict.fromkeys(activations, "layer"), progress)
    for name in activations:
        if not largest[name][0] > 0:
            raise ModelError(
                f"layer {name!r}: found no neuron that is active on the calibration images, expected at least one; "
                "calibrate with more images, and check the accuracy of the ANN"
            )
    nodes = (
        replace(node, layer=Activate("aec", code=code.scaled(float(largest[node.name][0]) / code.largest)))
        if isinstance(node.layer, Activate)
        else node
        for node in network.nodes
    )
    return Network(network.input_shape, tuple(nodes))


def _codes(network: Network) -> dict[str, ExponentialCode]:
    codes = {
        node.name: node.layer.code
        for node in network.activations
        if isinstance(node.layer, Activate) and node.layer.code is not None
    }
    lengths = {name: code.slots - 1 for name, code in codes.items()}
    if len(set(lengths.values())) > 1:
        raise ModelError(f"model: found AEC activations of different T {lengths}, expected one T for all layers")
    return codes


def _tables(
    name: str, code: ExponentialCode, scale: float, unit: float, payload_bits: int
) -> tuple[dict[str, NDArray[np.int64]], float]:
    """Integer tables, and the largest relative rounding error of a threshold.

    Thresholds are in units of the membrane (``scale``), payloads in units of what a spike carries (``unit``). A compensation slot
    that rounds to nothing is disabled: it would send nothing. A primary slot that does means that T is too large.
    """
    tables: dict[str, NDArray[np.int64]] = {}
    error = 0.0
    for spike, real in (("primary", code.primary), ("compensation", code.compensation)):
        threshold, payload = (np.rint(real / one).astype(np.int64) for one in (scale, unit))
        used = (threshold > 0) & (payload > 0)
        if spike == "primary" and not used.all():
            raise ModelError(
                f"layer {name!r}: found T = {code.slots - 1}, expected at most {int(np.argmin(used)) - 1}: later primary "
                f"thresholds are below one unit of {payload_bits} bits of payload, or of the membrane, so their slots would send "
                "nothing; take fewer steps, more bits, or slower rates"
            )
        error = max(error, float(np.max(np.abs(threshold[used] * scale - real[used]) / real[used], initial=0.0)))
        if spike == "compensation" and code.force_compensation:
            threshold[-1] = 0
            used[-1] = payload[-1] > 0
        tables[f"{spike}_threshold"] = np.where(used, threshold, NEVER)
        tables[f"{spike}_payload"] = np.where(used, payload, 0)
    return tables, error


def _population(population: AffinePopulation, integers: RoundedPopulation, tables: Mapping[str, NDArray[np.int64]]) -> Population:
    return Population(
        name=population.name,
        shape=population.shape,
        kind="aec" if tables else "readout",
        bias=integers.bias,
        bias_mode="once",
        scale=integers.scale,
        tables=tables,
    )
