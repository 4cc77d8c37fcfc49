"""SNM conversion: signed neurons with memory and thresholds per neuron, for trained ReLU networks (Wang et al., IJCAI 2022).

A neuron's threshold is its own largest activation on training images. It may take a spike back: it emits -1 when its membrane
falls to minus the threshold, as long as more +1 than -1 were emitted, so that the net count never is negative, like ReLU. The
amplitude, the threshold, is folded into the outgoing weights. The readout is a plain accumulator: class = largest membrane.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from torch import nn

from sparsespike.ann.encoding import Encoding
from sparsespike.common.errors import ConfigError
from sparsespike.export.affine import AffinePopulation
from sparsespike.export.build import Conversion
from sparsespike.export.calibrate import Calibration, Granularity, Progress
from sparsespike.export.operators import Kernel
from sparsespike.export.relu import convert_relu


def convert_snm(
    model: nn.Module,
    encoding: Encoding,
    calibration: Calibration,
    bits: int = 16,
    *,
    input_shape: Sequence[int] | None = None,
    granularity: Granularity | Literal["auto"] = "auto",
    v_init: float = 0.0,
    spiking_readout: bool = False,
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
        Training images, and the percentile of a neuron's positive activations that becomes its threshold (100, the default, is
        the largest, as published; 99.9 needs fewer steps if a few images are far out).
    bits : int
        Width of a weight, sign included, 2 to 24.
    input_shape : (N,) or (C, y, x), optional
        Of one input; known for the networks of this package.
    granularity : {"auto", "neuron", "channel", "layer"}
        What shares a threshold. ``neuron`` is the published method; a convolution that reads such neurons has to be expanded
        into a sparse matrix, since their spikes differ in amplitude. ``auto`` takes ``channel`` for those, ``neuron`` elsewhere.
    v_init : float
        Initial membrane in units of the threshold, 0 to less than 1. 0 is the published method; 0.5 rounds to the nearest count
        where 0 rounds down.
    spiking_readout : bool
        As the released code has it: the scores are signed neurons too, and the readout adds up what they send. Negative scores
        are lost, and ties are possible while T is small; without it the readout adds up the scores themselves.
    provenance : mapping, optional
        JSON values to keep in the graph.
    progress : callable, optional
        Called with ("calibration", images done, images).

    Returns
    -------
    Conversion
        Populations of kind ``signed_if`` with threshold_neg = threshold. Neurons that no calibration image made active are
        removed; in populations of shape (C, y, x) they stay and get a threshold out of reach. The report counts both.

    Raises
    ------
    ModelError
        If a layer cannot be converted, a weight is not finite, or a whole layer is never active.
    ConfigError, DataError
        If a setting is out of range, or the calibration images do not fit.
    """
    if granularity not in ("auto", "neuron", "channel", "layer"):
        raise ConfigError(f"granularity: found {granularity!r}, expected auto, neuron, channel or layer")
    return convert_relu(
        model,
        encoding,
        calibration,
        bits,
        name="snm",
        kind="signed_if",
        granularity=granularity,
        shared=_by_reader if granularity == "auto" else lambda name, populations: granularity,
        input_shape=input_shape,
        v_init=v_init,
        spiking_readout=spiking_readout,
        provenance=provenance,
        progress=progress,
    )


def _by_reader(name: str, populations: Sequence[AffinePopulation]) -> Granularity:
    """``channel`` where a convolution reads the population, which needs one amplitude a channel."""
    return "channel" if any(isinstance(population.into.get(name), Kernel) for population in populations) else "neuron"
