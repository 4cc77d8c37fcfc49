"""Between network and graph: populations of neurons, each driven by an affine function of the populations before it.

All that lies between two activations (convolutions, batch normalisation, pooling, additions) becomes one linear map a pair of
populations and one bias a neuron, in float64.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from sparsespike.ann.encoding import Encoding
from sparsespike.common.errors import ModelError
from sparsespike.export.network import (
    INPUT,
    Activate,
    Add,
    AveragePool,
    Convolve,
    Dense,
    Flatten,
    FloatArray,
    Network,
    Same,
    Shape,
)
from sparsespike.export.operators import Kernel, Matrix, Operator, add, compose, identity

READOUT = "readout"


@dataclass(frozen=True, eq=False)
class Links:
    """Weights of the ANN's layers that a population is driven through.

    Attributes
    ----------
    layers : tuple of str
        Their nodes.
    trained : int
        Weights that they were trained with, those of value zero included; a convolution's are counted once a kernel.
    nonzero : int
    possible : int
        Weights of the same layers if they were dense.
    flops : int
        Multiply-and-accumulates of the layers for one image, absent weights and pools left out, padding charged like pixels.
    pooled : bool
        Whether an average pool is composed into them.
    """

    layers: tuple[str, ...]
    trained: int
    nonzero: int
    possible: int
    flops: int
    pooled: bool


@dataclass(frozen=True, eq=False)
class AffinePopulation:
    """Neurons whose drive is ``sum over p of into[p] a_p + bias``.

    Attributes
    ----------
    name : str
        Node of the activation, or ``readout``.
    shape : (N,) or (C, y, x)
    activation : Activate or None
        None for the readout.
    bias : float64 array, shape (N,)
        Per neuron: at padded borders a folded input offset arrives through fewer taps.
    into : mapping of population (or ``input``) to Operator
        Rows = outputs.
    links : Links
    """

    name: str
    shape: Shape
    activation: Activate | None
    bias: FloatArray
    into: Mapping[str, Operator]
    links: Links

    @property
    def size(self) -> int:
        """Number of neurons N."""
        return len(self.bias)

    @property
    def fan_in(self) -> NDArray[np.int64]:
        """Links of each neuron, shape (N,)."""
        total = np.zeros(self.size, np.int64)
        for operator in self.into.values():
            if isinstance(operator, Kernel):
                total += operator.pattern((operator.kernel != 0).astype(np.int32)).fan_in
            else:
                total += np.diff(operator.weights.indptr)
        return total

    @property
    def nnz(self) -> int:
        """Links of the whole population."""
        return sum(operator.nnz for operator in self.into.values())


def affine_populations(network: Network, encoding: Encoding) -> list[AffinePopulation]:
    """The populations of a network that takes integer pixels, the readout last.

    ``W (p slope + offset) + b = (W diag(slope)) p + (b + W offset)``: the encoding's slope joins the weights that leave the
    input, its offset the biases.

    Raises
    ------
    ModelError
        If the encoding does not fit the input, or a map has to be expanded and is too large.
    """
    slope, offset = _input_map(network.input_shape, encoding)
    constants = network.constants(offset[None])
    maps: dict[str, dict[str, Operator]] = {INPUT: {INPUT: identity(network.input_shape)}}
    layers: dict[str, frozenset[str]] = {INPUT: frozenset()}
    shapes = {INPUT: network.input_shape} | {node.name: node.shape for node in network.nodes}
    populations = []
    for position, node in enumerate(network.nodes):
        drive, passed = maps[node.inputs[0]], layers[node.inputs[0]]
        if isinstance(node.layer, Add):
            drive, passed = _sum(drive, maps[node.inputs[1]]), passed | layers[node.inputs[1]]
        elif not isinstance(node.layer, Activate | Flatten | Same):
            shape = shapes[node.inputs[0]]
            drive = {source: compose(node.layer, operator, shape, node.shape) for source, operator in drive.items()}
            passed = passed | {node.name} if isinstance(node.layer, Dense | Convolve | AveragePool) else passed
        if isinstance(node.layer, Activate) or position == len(network.nodes) - 1:
            activation = node.layer if isinstance(node.layer, Activate) else None
            kernels = [operator.output_shape for operator in drive.values() if isinstance(operator, Kernel)]
            constant = constants[node.inputs[0] if activation else node.name]
            populations.append(
                AffinePopulation(
                    name=node.name if activation else READOUT,
                    shape=kernels[0] if kernels else node.shape,  # flattened right after a convolution
                    activation=activation,
                    bias=constant.reshape(-1),
                    into={s: scale_inputs(o, slope) if s == INPUT else o for s, o in drive.items()},
                    links=_links(network, passed),
                )
            )
            drive, passed = {node.name: identity(node.shape)}, frozenset()
        maps[node.name], layers[node.name] = drive, passed
    return populations


def _input_map(shape: Shape, encoding: Encoding) -> tuple[FloatArray, FloatArray]:
    """Slope and offset of each input neuron, both of shape (N,)."""
    channels, size = len(encoding.mean), int(np.prod(shape))
    if size % channels or (len(shape) == 3 and channels not in (1, shape[0])):
        expected = f"{shape[0]} channels" if len(shape) == 3 else f"a multiple of the encoding's {channels} channels"
        found = f"an encoding of {channels} channels" if len(shape) == 3 else f"{size} inputs"
        raise ModelError(f"model: found {found}, expected {expected}")
    return np.repeat(encoding.scale, size // channels), np.repeat(encoding.offset, size // channels)


def _sum(one: Mapping[str, Operator], other: Mapping[str, Operator]) -> dict[str, Operator]:
    total = dict(one)
    for source, operator in other.items():
        total[source] = add(total[source], operator) if source in total else operator
    return total


def _links(network: Network, names: frozenset[str]) -> Links:
    nodes = [node for node in network.nodes if node.name in names]
    layers: list[str] = []
    trained = nonzero = possible = flops = 0
    for node in nodes:
        if isinstance(node.layer, Dense):
            weights, positions = node.layer.weights, 1
            counts = (node.layer.links, int(weights.nnz), int(weights.shape[0] * weights.shape[1]))
        elif isinstance(node.layer, Convolve):
            kernel, positions = node.layer.kernel, node.shape[1] * node.shape[2]
            counts = (node.layer.links, int(np.count_nonzero(kernel)), kernel.size)
        else:
            continue
        layers.append(node.name)
        trained, nonzero, possible = trained + counts[0], nonzero + counts[1], possible + counts[2]
        flops += counts[1] * positions
    return Links(tuple(layers), trained, nonzero, possible, flops, len(layers) < len(nodes))


def scale_inputs(operator: Operator, factor: FloatArray) -> Operator:
    """``W diag(factor)``, one positive factor a presynaptic neuron; a convolution stays one if each channel has one factor."""
    if isinstance(operator, Matrix):
        return operator.scaled(np.ones(operator.size[0]), factor)
    channels = factor.reshape(operator.input_shape[0], -1)
    if np.all(channels == channels[:, :1]):
        return operator.scaled(np.ones(len(operator.kernel)), channels[:, 0])
    return Matrix(operator.matrix()).scaled(np.ones(operator.size[0]), factor)


@dataclass(frozen=True, eq=False)
class Folded:
    """Populations without the hidden neurons that have no input or never fire.

    Attributes
    ----------
    populations : tuple of AffinePopulation
    kept : mapping of population to int64 array
        Indices of its neurons that remain.
    silent, folded, links_removed : mapping of population to int
        Removed neurons whose constant output was zero, and was not; links lost because they came from or led to a removed neuron.
    """

    populations: tuple[AffinePopulation, ...]
    kept: Mapping[str, NDArray[np.int64]]
    silent: Mapping[str, int]
    folded: Mapping[str, int]
    links_removed: Mapping[str, int]


def remove_constants(populations: Sequence[AffinePopulation], never: Mapping[str, NDArray[np.bool_]] | None = None) -> Folded:
    """Remove hidden neurons without fan-in (percolation leaves them behind), and fold their output into the next biases.

    Such a neuron's pre-activation is its bias b, whatever the image: in the ANN it outputs the constant ``f(b)``; as an
    integrate-and-fire neuron it would fire at that rate. What it sends along a link of weight w averages ``w f(b)`` a step, and
    exactly this constant joins the next neuron's bias, which is added every step. The sum over steps is the same; only the
    unevenness of the spikes is gone. With ``f(b) = 0`` nothing is folded. Removing links may leave a neuron of the next
    population without fan-in; going from the input on, those are found too.

    Neurons of a population of shape (C, y, x) all stay: a convolution has no place for absent ones, and one without fan-in
    fires at its constant rate by itself.

    Parameters
    ----------
    populations : sequence of AffinePopulation
        The readout last.
    never : mapping of population to bool array, shape (N,), optional
        Neurons that are to be removed as silent although they have input.

    Raises
    ------
    ModelError
        If a population has no link left: the network's output would not depend on its input.
    """
    remaining = {population.name: population for population in populations}
    kept, silent, folded = {}, {}, {}
    removed = dict.fromkeys(remaining, 0)
    for name in [population.name for population in populations]:
        population = remaining[name]
        if population.nnz == 0:
            raise ModelError(f"layer {name!r}: found no link that leads to the input, expected at least one")
        fan_in = population.fan_in
        dropped = np.zeros(population.size, bool) if never is None or name not in never else never[name] & (fan_in > 0)
        constant = np.zeros(population.size)
        if population.activation is not None and len(population.shape) == 1:
            constant = np.where(fan_in > 0, 0.0, population.activation(population.bias[None])[0])
            dropped = dropped | (fan_in == 0)
        alive = ~dropped
        kept[name] = np.flatnonzero(alive)
        silent[name], folded[name] = int(np.count_nonzero(dropped & (constant == 0))), int(np.count_nonzero(constant))
        if not dropped.any():
            continue
        if not alive.any():
            raise ModelError(f"layer {name!r}: found no neuron that can fire, expected at least one")
        removed[name] += int(fan_in[dropped].sum())
        remaining[name] = replace(
            population,
            shape=(int(alive.sum()),),
            bias=population.bias[alive],
            into={pre: Matrix(operator.matrix()[alive]) for pre, operator in population.into.items()},
        )
        for reader in [p for p in remaining.values() if name in p.into]:
            weights = reader.into[name].matrix()
            left = Matrix(sp.csr_matrix(weights[:, alive]))
            removed[reader.name] += int(weights.nnz) - left.nnz
            remaining[reader.name] = replace(reader, bias=reader.bias + weights @ constant, into={**reader.into, name: left})
    return Folded(tuple(remaining.values()), kept, silent, folded, removed)


def unit_spikes(populations: Sequence[AffinePopulation], amplitude: Mapping[str, FloatArray]) -> list[AffinePopulation]:
    """The populations that take spikes of 1 where they took spikes of ``amplitude[p]``, positive and of shape (N,)."""
    return [
        replace(
            population,
            into={pre: o if pre == INPUT else scale_inputs(o, amplitude[pre]) for pre, o in population.into.items()},
        )
        for population in populations
    ]
