"""Percentile threshold balancing: the training-free baseline for ReLU networks (Rueckauer et al., 2017; the SNN toolbox).

Each layer's threshold is a percentile of its positive activations on training images; the neurons are plain integrate-and-fire
with reset by subtraction. It needs many steps (about 100 and more), and no training at all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from torch import nn

from sparsespike.ann.encoding import Encoding
from sparsespike.common.errors import ConfigError
from sparsespike.export.build import Conversion
from sparsespike.export.calibrate import Calibration, Progress
from sparsespike.export.relu import convert_relu


def convert_percentile(
    model: nn.Module,
    encoding: Encoding,
    calibration: Calibration,
    bits: int = 16,
    *,
    input_shape: Sequence[int] | None = None,
    granularity: Literal["channel", "layer"] = "layer",
    v_init: float = 0.0,
    provenance: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Conversion:
    """Convert a network with ReLU activations; nothing is trained.

    Parameters
    ----------
    model : Module
        A network of this package, or any model that :func:`sparsespike.export.trace.trace` accepts.
    encoding : Encoding
        How integer pixels stand for the model's real inputs.
    calibration : Calibration
        Training images and the percentile; 99.9 is usual.
    bits : int
        Width of a weight, sign included, 2 to 24.
    input_shape : (N,) or (C, y, x), optional
        Of one input; known for the networks of this package.
    granularity : {"channel", "layer"}
        What shares a threshold; in a layer of vectors a channel is a neuron.
    v_init : float
        Initial membrane in units of the threshold, 0 to less than 1; 0.5 rounds to the nearest count where 0 rounds down.
    provenance : mapping, optional
        JSON values to keep in the graph.
    progress : callable, optional
        Called with ("calibration", images done, images).

    Returns
    -------
    Conversion
        Populations of kind ``if``.

    Raises
    ------
    ModelError
        If a layer cannot be converted, a weight is not finite, or a whole layer is never active.
    ConfigError, DataError
        If a setting is out of range, or the calibration images do not fit.
    """
    if granularity not in ("channel", "layer"):
        raise ConfigError(f"granularity: found {granularity!r}, expected channel or layer")
    return convert_relu(
        model,
        encoding,
        calibration,
        bits,
        name="percentile",
        kind="if",
        granularity=granularity,
        shared=lambda name, populations: granularity,
        input_shape=input_shape,
        v_init=v_init,
        spiking_readout=False,
        provenance=provenance,
        progress=progress,
    )
