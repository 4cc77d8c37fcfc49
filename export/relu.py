"""What the conversions of trained ReLU networks share: thresholds from training images, nothing trained."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import scipy.sparse as sp
from torch import nn

from sparsespike.ann.encoding import Encoding
from sparsespike.common.errors import ConfigError
from sparsespike.export.affine import AffinePopulation, affine_populations
from sparsespike.export.build import Conversion, Method, build_graph
from sparsespike.export.calibrate import Calibration, Granularity, Progress, calibrate
from sparsespike.export.network import Activate, Dense, Network, Node
from sparsespike.export.quantise import check_bits
from sparsespike.export.source import check_activations, read_network


def convert_relu(
    model: nn.Module,
    encoding: Encoding,
    calibration: Calibration,
    bits: int,
    *,
    name: str,
    kind: Literal["if", "signed_if"],
    granularity: str,
    shared: Callable[[str, Sequence[AffinePopulation]], Granularity],
    input_shape: Sequence[int] | None,
    v_init: float,
    spiking_readout: bool,
    provenance: Mapping[str, Any] | None,
    progress: Progress | None,
) -> Conversion:
    """Convert with thresholds that are percentiles of activations; see ``convert_snm`` and ``convert_percentile``.

    Parameters
    ----------
    name, kind : str
        Of the method and of its neurons.
    granularity : str
        As the user gave it, for the report.
    shared : callable
        Granularity of a population, from its name and all populations.
    """
    check_bits(bits)
    if not 0 <= v_init < 1:
        raise ConfigError(f"v_init: found {v_init}, expected a part of the threshold, from 0 to less than 1")
    network = read_network(model, input_shape)
    check_activations(network, "relu", "train the model with activation='relu', or convert it with method qcfs")
    network = with_spiking_readout(network) if spiking_readout else network
    populations = affine_populations(network, encoding)
    pooled = {node.name: shared(node.name, populations) for node in network.activations}
    settings = {
        "percentile": calibration.percentile,
        "granularity": granularity,
        "calibration_images": len(calibration.pixels),
        "v_init": v_init,
        **({"spiking_readout": True} if spiking_readout else {}),
    }
    return build_graph(
        populations,
        calibrate(network, encoding, calibration, pooled, progress),
        network.input_shape,
        encoding,
        Method(name, kind, v_init, settings),
        bits,
        provenance or {},
    )


def with_spiking_readout(network: Network) -> Network:
    """The network whose scores pass through an activation of their own before they are read."""
    last = network.nodes[-1]
    (classes,) = last.shape
    same = Dense(sp.csr_matrix(np.eye(classes)), np.zeros(classes), classes)
    scores = Node(f"{last.name}-spikes", Activate("relu"), (last.name,), last.shape)
    return Network(network.input_shape, (*network.nodes, scores, Node(f"{last.name}-sum", same, (scores.name,), last.shape)))
