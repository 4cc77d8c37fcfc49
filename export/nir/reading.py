"""A network of the Neuromorphic Intermediate Representation as a SpikingGraph, so that it runs on every backend of this package.

NIR is defined in continuous time; here, as in the frameworks, every node is evaluated once a step, in the order of the edges, and
derivatives are taken by Euler's method. One step of a node, with a = dt / tau:

* ``IF``: v += r I; a spike if v > v_threshold; then v = v_reset. Membranes begin at 0.
* ``LIF``: v += a (v_leak - v + r I), then likewise. Membranes begin at v_leak.
* ``CubaLIF``: i += a_syn (w_in I - i); v += a_mem (v_leak - v + r i), then likewise.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from sparsespike.ann.encoding import Encoding
from sparsespike.common.errors import ConfigError, ModelError
from sparsespike.common.extras import require
from sparsespike.export.affine import READOUT, AffinePopulation, affine_populations
from sparsespike.export.graph import Population, Projection, SpikingGraph
from sparsespike.export.network import INPUT
from sparsespike.export.nir.integers import Integers, integer_population
from sparsespike.export.nir.layers import Neurons, network_of
from sparsespike.export.population import DECAY_UNIT
from sparsespike.export.quantise import check_bits

if TYPE_CHECKING:
    import nir

_IDENTITY = Encoding((0, 1), unit=1, mean=(0.0,), std=(1.0,))
"""The input's integers enter the network as they are."""


class NirNetwork(NamedTuple):
    """A network that was read, and what rounding it to integers cost."""

    graph: SpikingGraph
    exact: bool
    """Whether no number was rounded: spikes are then those of the NIR network in exact arithmetic."""
    weight_error: dict[str, float]
    """By population: largest rounding error of a weight, relative to the largest weight that shares its scale; 0 if exact."""
    threshold_error: dict[str, float]
    """By population: largest rounding error of a threshold, relative to it; 0 if exact."""
    decay_error: dict[str, float]
    """By population: largest rounding error of a decay, relative to it; 0 if exact or without a leak."""


def read_nir(
    network: str | Path | nir.NIRGraph, value_range: tuple[int, int], *, bits: int = 24, dt: float | None = None
) -> NirNetwork:
    """Read a network of ``IF``, ``LIF`` and ``CubaLIF`` neurons between linear layers.

    Nodes: ``Input``, ``Output``, ``IF``, ``LIF``, ``CubaLIF``, ``Linear``, ``Affine``, ``Conv2d``, ``Scale``, ``AvgPool2d``,
    ``SumPool2d``, ``Flatten`` (of all axes), and ``I`` in front of the output. Several edges into a node add up. The readout is
    the sum over the steps so far of what arrives at the output: of a linear layer's values, or of spikes; an ``I`` node in front
    of it is that sum. Populations are named as their nodes; input and readout are ``input`` and ``readout``. Linear layers
    without neurons between them are multiplied, in double precision.

    Each population is scaled by a power of two that makes its weights and biases integers of ``bits``; where none does, every
    neuron takes its largest scale and is rounded, and the error is given. ``v > v_threshold`` becomes ``v >= threshold`` with the
    next even integer, the scale doubled where that one is odd. A ``v_reset`` other than 0 shifts the membrane: it starts at
    ``-v_reset``, is reset to 0, and fires above ``v_threshold - v_reset``.

    ``LIF`` and ``CubaLIF`` become kind ``lif``: a decay dt / tau is rounded to 4096ths, a ``v_leak`` other than ``v_reset`` is a
    bias, and their integers are as large as fit, since what decays is rounded in each step. So ``exact`` is False with them.

    Parameters
    ----------
    network : path of a ``.nir`` file, or nir.NIRGraph
    value_range : (int, int)
        Smallest and largest integer that the input takes in a step. Inputs in other units: put a ``Scale`` node first.
    bits : int
        Width of a weight, sign included, 2 to 24.
    dt : float, optional
        Time of a step in the unit of the file's time constants; needed where neurons leak. There is one right value, which NIR
        does not hold, and another one gives another network. snnTorch: 1e-4. Norse: 1e-6 for what its ``to_nir`` writes by
        default (time constants times its own step of 1e-3), and 1e-3 for ``to_nir(..., dt=1)``.

    Raises
    ------
    ModelError
        If the network holds what a graph cannot, naming the node.
    ConfigError
        If the file cannot be read, ``bits`` is out of range or ``dt`` not positive.
    MissingExtraError
        If ``nir`` is not installed, or the network has convolutions or pools and torch is not.
    """
    check_bits(bits)
    if dt is not None and not 0 < dt < math.inf:
        raise ConfigError(f"dt: found {dt}, expected a time > 0, in the unit of the network's time constants")
    source = _read(Path(network)) if isinstance(network, (str, Path)) else network
    layers, neurons = network_of(source, dt)
    populations = [Population(name=INPUT, shape=layers.input_shape, kind="input", value_range=value_range)]
    projections, found = [], {}
    for population in affine_populations(layers, _IDENTITY):
        own = neurons.get(population.name)
        _check_bias(population, own)
        integers = found[population.name] = integer_population(population, own, bits)
        populations.append(_population(population, integers, own))
        projections += [Projection(pre, population.name, connection) for pre, connection in integers.into.items()]
    weight_error = {name: integers.weight_error for name, integers in found.items()}
    threshold_error = {name: integers.threshold_error for name, integers in found.items()}
    decay_error = {name: neurons[name].decay_error if name in neurons else 0.0 for name in found}
    exact = all(integers.exact for integers in found.values())
    provenance = {
        "method": "nir",
        "bits": bits,
        "exact": exact,
        "weight_error": weight_error,
        "threshold_error": threshold_error,
        "dt": dt,
        "decay_error": decay_error,
    }
    return NirNetwork(SpikingGraph(populations, projections, provenance), exact, weight_error, threshold_error, decay_error)


def _read(path: Path) -> Any:
    """The network of a file. Types are checked here, not by ``nir``, which refuses older files and some convolutions."""
    nir = require("nir", extra="nir")
    if not path.is_file():
        raise ConfigError(f"{path}: found no file there, expected a .nir file; check the path")
    try:
        found = nir.read(str(path), type_check=False)
    except Exception as error:  # h5py and nir raise whatever a damaged file leads them to
        raise ConfigError(f"{path}: cannot be read as a .nir file ({type(error).__name__}: {error}); write it again") from error
    return found


def _check_bias(population: AffinePopulation, neurons: Neurons | None) -> None:
    """Refuse a bias that would have to pass through a current with memory: a graph's joins the membrane."""
    if neurons is None or neurons.decay_current is None:
        return
    wrong = (population.bias != 0) & (neurons.decay_current < DECAY_UNIT)
    if wrong.any():
        raise ModelError(
            f"NIR node {population.name!r}: found a bias in the current of neuron {int(np.argmax(wrong))}, which has memory "
            "(CubaLIF): it would come up slowly there, and at once in a graph, where biases join the membrane; train without "
            "biases in front of CubaLIF"
        )


def _population(population: AffinePopulation, integers: Integers, neurons: Neurons | None) -> Population:
    if integers.threshold is None or neurons is None:
        return Population(name=READOUT, shape=population.shape, kind="readout", bias=integers.bias, scale=integers.scale)
    return Population(
        name=population.name,
        shape=population.shape,
        kind="if" if neurons.decay_voltage is None else "lif",
        threshold=integers.threshold,
        decay_current=neurons.decay_current,
        decay_voltage=neurons.decay_voltage,
        v_init=integers.v_init,
        bias=integers.bias,
        reset="zero",
        scale=integers.scale,
    )
