"""The nodes of a NIR network as layers, in an order in which each comes after those that it reads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import networkx as nx
import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from sparsespike.common.errors import ModelError
from sparsespike.export.affine import READOUT
from sparsespike.export.network import (
    INPUT,
    Activate,
    Add,
    AveragePool,
    Convolve,
    Dense,
    Flatten,
    FloatArray,
    Layer,
    Network,
    Node,
    Normalise,
    Pair,
    Same,
    Shape,
    finite,
)
from sparsespike.export.population import DECAY_UNIT

INTEGRATORS = ("LI", "CubaLI")
SPIKING = ("IF", "LIF", "CubaLIF")
ENDS = ("Input", "Output")
KNOWN_STEPS = "snnTorch: 1e-4; Norse: 1e-6 as its to_nir writes them unless told, 1e-3 from to_nir(..., dt=1)"
"""The time of a step that undoes how frameworks write their time constants.

Norse 1.1.0 writes tau = dt / tau_mem_inv with the dt of ``to_nir``, 1e-3 by default, where a cell loses dt * tau_mem_inv in a
step: what divides by that tau is dt squared. snnTorch writes tau = 1e-4 / (1 - beta).
"""


@dataclass(frozen=True, eq=False)
class Neurons:
    """A spiking node without the factors of its input, which join the weights: float64 arrays of shape (N,).

    Attributes
    ----------
    v_threshold, v_reset : array
    v_leak : array
        Where the membrane begins, and where it leaks to; 0 for ``IF``.
    decay_current, decay_voltage : int64 array or None
        4096ths of the current and of the membrane (above ``v_leak``) that are lost in a step; None for ``IF``.
    decay_error : float
        Largest rounding error of a decay, relative to it.
    """

    v_threshold: FloatArray
    v_reset: FloatArray
    v_leak: FloatArray
    decay_current: NDArray[np.int64] | None = None
    decay_voltage: NDArray[np.int64] | None = None
    decay_error: float = 0.0

    @property
    def start(self) -> FloatArray:
        """The first membrane, above the reset."""
        return self.v_leak - self.v_reset


def network_of(source: Any, dt: float | None) -> tuple[Network, dict[str, Neurons]]:
    """The layers of a ``nir.NIRGraph``, an activation for each spiking node, and the neurons by its name.

    Parameters
    ----------
    source : nir.NIRGraph
    dt : float or None
        Time of a step, in the unit of the time constants; needed where a node leaks.

    Raises
    ------
    ModelError
        If a node is not of a kind that a graph can hold, a shape does not fit, or the network is not a directed acyclic graph
        from one input to one output.
    """
    if type(source).__name__ != "NIRGraph":
        raise ModelError(f"NIR: found {type(source).__name__}, expected a NIRGraph; NIRGraph.from_list makes one")
    order, start, end = _order(source)
    input_shape = _shape(source.nodes[start].input_type["input"], start)
    shapes: dict[str, Shape] = {INPUT: input_shape}
    written: dict[str, str] = {start: INPUT}  # a NIR node's output, by the layer that gives it
    layers: list[Node] = []
    neurons: dict[str, Neurons] = {}

    def put(name: str, layer: Layer, *inputs: str) -> str:
        if name in shapes or (name == READOUT and isinstance(layer, Activate)):
            raise ModelError(f"NIR node {name!r}: this name is taken by what the graph makes of other nodes; rename the node")
        try:
            shapes[name] = layer.shape(*(shapes[node] for node in inputs))
        except ModelError as error:
            raise ModelError(f"NIR node {name!r}: {error}") from error
        layers.append(Node(name, layer, inputs, shapes[name]))
        return name

    for name in order[1:]:
        node, kind = source.nodes[name], type(source.nodes[name]).__name__
        before, *others = (written[pre] for pre in _before(source, name))
        for i, other in enumerate(others):
            before = put(f"{name}-sum{i}", Add(), before, other)
        if kind == "I" and list(_after(source, name)) != [end]:
            raise ModelError(f"NIR node {name!r}: found I inside the network, expected it before the output alone; remove it")
        if kind in (*SPIKING, "I"):
            gain = _gain(node, kind, shapes[before], name, dt)
            before = put(f"{name}-r", _resistance(gain, shapes[before], name), before) if np.any(gain != 1) else before
        if kind in SPIKING:
            neurons[name] = _neurons(node, kind, shapes[before], name, dt)
        written[name] = put(name, _layer(node, kind, name, shapes[before]), before)
    return Network(input_shape, tuple(layers)), neurons


def _order(source: Any) -> tuple[list[str], str, str]:
    """Names of the nodes, each after those that it reads, and those of the input and the output."""
    kinds = {name: type(node).__name__ for name, node in source.nodes.items()}
    for name, kind in kinds.items():
        if kind in INTEGRATORS:
            raise ModelError(
                f"NIR node {name!r}: found {kind}, which leaks and does not spike; a graph cannot hold it: expected I before the "
                "output, or LIF"
            )
        if kind not in _LAYERS and kind != "Input":
            raise ModelError(
                f"NIR node {name!r}: found {kind}, expected one of Input, {', '.join(_LAYERS)}"
                + ("; put its nodes into the network itself" if kind == "NIRGraph" else "; replace it")
            )
    ends = {}
    for end in ENDS:
        found = [name for name, kind in kinds.items() if kind == end]
        if len(found) != 1:
            raise ModelError(f"NIR: found {len(found)} nodes of type {end}, expected exactly one")
        ends[end] = found[0]
    lines: nx.DiGraph[str] = nx.DiGraph()
    lines.add_nodes_from(source.nodes)
    for pre, post in source.edges:
        for name in (pre, post):
            if name not in kinds:
                raise ModelError(f"NIR edge {pre!r} -> {post!r}: node {name!r} does not exist; found {', '.join(kinds)}")
        if lines.has_edge(pre, post):
            raise ModelError(f"NIR edge {pre!r} -> {post!r}: found twice, expected once; double the weights instead")
        lines.add_edge(pre, post)
    if not nx.is_directed_acyclic_graph(lines):
        cycle = " -> ".join(edge[0] for edge in nx.find_cycle(lines))
        raise ModelError(f"NIR: found the cycle {cycle} -> ..., expected a network without recurrence; a graph has none")
    start, end = ends["Input"], ends["Output"]
    if lines.in_degree(start) or lines.out_degree(end):
        raise ModelError(f"NIR: found an edge into {start!r} or out of {end!r}, expected none")
    for name in kinds:
        if not (nx.has_path(lines, start, name) and nx.has_path(lines, name, end)):
            raise ModelError(f"NIR node {name!r}: expected a path from {start!r} through it to {end!r}; remove it or connect it")
    position = {name: i for i, name in enumerate(source.nodes)}
    return list(nx.lexicographical_topological_sort(lines, key=position.__getitem__)), start, end


def _before(source: Any, name: str) -> list[str]:
    return [pre for pre, post in source.edges if post == name]


def _after(source: Any, name: str) -> list[str]:
    return [post for pre, post in source.edges if pre == name]


def _shape(found: Any, name: str) -> Shape:
    shape = tuple(int(n) for n in np.atleast_1d(found)) if found is not None else ()
    if len(shape) in (2, 4) and shape[0] == 1:  # a batch of one, which some frameworks leave there
        shape = shape[1:]
    if len(shape) not in (1, 3):
        raise ModelError(f"NIR node {name!r}: found an input of shape {shape}, expected (N,) or (C, y, x) without the batch")
    return shape


def _per_neuron(values: Any, shape: Shape, label: str) -> FloatArray:
    """A parameter of the neurons of a shape, as (N,)."""
    array = finite(values, f"NIR node {label}")
    size = int(np.prod(shape))
    if array.size not in (1, size):
        raise ModelError(f"NIR node {label}: found shape {array.shape} on an input of shape {shape}, expected one value a neuron")
    return np.broadcast_to(array.ravel(), (size,)).copy()


def _fraction(node: Any, field: str, shape: Shape, name: str, dt: float | None) -> FloatArray:
    """What a time constant takes off in one step of Euler's method, dt / tau, shape (N,)."""
    if dt is None:
        raise ModelError(
            f"NIR node {name!r}: found neurons that leak, and NIR says nothing of time steps; give dt, the time of a step in the "
            f"unit of the file's time constants ({KNOWN_STEPS})"
        )
    tau = _per_neuron(getattr(node, field), shape, f"{name!r}, {field}")
    short = tau * (DECAY_UNIT + 0.5) < dt * DECAY_UNIT  # what would not round to all of it
    if np.any(short):
        at = int(np.argmax(short))
        raise ModelError(
            f"NIR node {name!r}, {field}: found {tau[at]} at neuron {at}, expected at least dt = {dt}: with less, a step would "
            "take more away than is there. There is one right dt, the time of a step in the unit of the file's time constants "
            f"({KNOWN_STEPS}); with any other it is another network"
        )
    return dt / tau


def _gain(node: Any, kind: str, shape: Shape, name: str, dt: float | None) -> FloatArray:
    """What multiplies the input of a node before it joins the membrane, shape (N,)."""
    gain = _per_neuron(node.r, shape, f"{name!r}, r")
    if kind == "LIF":
        gain = gain * _fraction(node, "tau", shape, name, dt)
    if kind == "CubaLIF":
        gain = gain * _per_neuron(node.w_in, shape, f"{name!r}, w_in")
        gain = gain * _fraction(node, "tau_syn", shape, name, dt) * _fraction(node, "tau_mem", shape, name, dt)
    return gain


def _decay(fraction: FloatArray, field: str, name: str) -> NDArray[np.int64]:
    """4096ths that come nearest to what is lost in a step."""
    decay: NDArray[np.int64] = np.rint(fraction * DECAY_UNIT).astype(np.int64)
    if np.any(decay == 0):
        at = int(np.argmax(decay == 0))
        raise ModelError(
            f"NIR node {name!r}, {field}: found a time constant of {1 / fraction[at]:.0f} steps at neuron {at}, expected at most "
            f"{2 * DECAY_UNIT}: the leak would be rounded away (decays are 4096ths); check dt, the time of a step in the unit of "
            f"the file's time constants ({KNOWN_STEPS}), and if it is right, use an IF node"
        )
    return decay


def _neurons(node: Any, kind: str, shape: Shape, name: str, dt: float | None) -> Neurons:
    threshold = _per_neuron(node.v_threshold, shape, f"{name!r}, v_threshold")
    reset = _per_neuron(node.v_reset, shape, f"{name!r}, v_reset")
    if np.any(threshold <= reset):
        at = int(np.argmax(threshold <= reset))
        raise ModelError(
            f"NIR node {name!r}: found v_threshold {threshold[at]} and v_reset {reset[at]} at neuron {at}, expected a threshold "
            "above the reset; a graph has no neuron that fires whatever it receives"
        )
    if kind == "IF":
        return Neurons(threshold, reset, np.zeros_like(reset))
    leak = _per_neuron(node.v_leak, shape, f"{name!r}, v_leak")
    field = "tau" if kind == "LIF" else "tau_mem"
    voltage = _fraction(node, field, shape, name, dt)
    current = _fraction(node, "tau_syn", shape, name, dt) if kind == "CubaLIF" else np.ones_like(voltage)
    decay_current, decay_voltage = _decay(current, "tau_syn", name), _decay(voltage, field, name)
    error = max(float(np.max(np.abs(d / DECAY_UNIT - x) / x)) for d, x in ((decay_current, current), (decay_voltage, voltage)))
    return Neurons(threshold, reset, leak, decay_current, decay_voltage, error)


def _resistance(gain: FloatArray, shape: Shape, name: str) -> Normalise:
    """What multiplies the current by ``r`` (or by a ``Scale``): one factor a feature, or a channel."""
    channels = gain.reshape(shape[0], -1)
    if np.any(channels != channels[:, :1]):
        raise ModelError(f"NIR node {name!r}: found factors that differ within a channel, expected one a channel")
    if not np.all(gain):
        raise ModelError(f"NIR node {name!r}: found a factor of 0, expected none; remove the neurons that it cuts off")
    return Normalise(channels[:, 0], np.zeros(shape[0]))


def _pair(values: Any) -> Pair:
    y, x = np.broadcast_to(np.asarray(values, np.int64), (2,)).tolist()
    return y, x


def _dense(node: Any, name: str, shape: Shape) -> Layer:
    weight = finite(node.weight, f"NIR node {name!r}, weight")
    if weight.ndim != 2:
        raise ModelError(f"NIR node {name!r}: found weights of shape {weight.shape}, expected (outputs, inputs)")
    bias = finite(node.bias, f"NIR node {name!r}, bias") if hasattr(node, "bias") else np.zeros(len(weight))
    if bias.shape != (len(weight),):
        raise ModelError(f"NIR node {name!r}: found a bias of shape {bias.shape}, expected ({len(weight)},)")
    return Dense(sp.csr_matrix(weight), bias, weight.size)


def _convolve(node: Any, name: str, shape: Shape) -> Layer:
    kernel, bias = finite(node.weight, f"NIR node {name!r}, weight"), finite(node.bias, f"NIR node {name!r}, bias")
    if kernel.ndim != 4 or bias.shape != (len(kernel),):
        raise ModelError(
            f"NIR node {name!r}: found weights of shape {kernel.shape} and a bias of shape {bias.shape}, expected "
            "(outputs, inputs / groups, y, x) and (outputs,)"
        )
    stride, dilation, groups = _pair(node.stride), _pair(node.dilation), int(node.groups)
    padding = node.padding.decode() if isinstance(node.padding, bytes) else node.padding
    if isinstance(padding, str) and padding == "same":
        reach = [d * (k - 1) for d, k in zip(dilation, kernel.shape[2:], strict=True)]
        if stride != (1, 1) or any(n % 2 for n in reach):
            raise ModelError(f"NIR node {name!r}: found padding 'same' with a stride or an even kernel, expected numbers")
        padding = [n // 2 for n in reach]
    around = (0, 0) if isinstance(padding, str) else _pair(padding)
    return Convolve(kernel, bias, stride, around, dilation, groups, kernel.size)


def _sum_pool(node: Any, name: str, shape: Shape) -> Layer:
    """Ones a channel: unlike a multiple of the average, exact."""
    kernel = np.ones((shape[0], 1, *_pair(node.kernel_size)))
    return Convolve(kernel, np.zeros(shape[0]), _pair(node.stride), _pair(node.padding), (1, 1), shape[0], kernel.size)


def _scale(node: Any, name: str, shape: Shape) -> Layer:
    return _resistance(_per_neuron(node.scale, shape, f"{name!r}, scale"), shape, name)


_LAYERS: Mapping[str, Callable[[Any, str, Shape], Layer]] = {
    "Output": lambda node, name, shape: Same(),
    "I": lambda node, name, shape: Same(),
    **dict.fromkeys(SPIKING, lambda node, name, shape: Activate("relu")),  # which activation it stands for is not asked
    "Linear": _dense,
    "Affine": _dense,
    "Conv2d": _convolve,
    "Scale": _scale,
    "AvgPool2d": lambda node, name, shape: AveragePool(_pair(node.kernel_size), _pair(node.stride), _pair(node.padding)),
    "SumPool2d": _sum_pool,
    "Flatten": lambda node, name, shape: Flatten(),
}
"""What a node becomes, from the node, its name and the shape of its input."""


def _layer(node: Any, kind: str, name: str, shape: Shape) -> Layer:
    try:
        return _LAYERS[kind](node, name, shape)
    except (TypeError, ValueError) as error:
        raise ModelError(f"NIR node {name!r}: found a {kind} with a malformed field ({error}), expected numbers") from error
