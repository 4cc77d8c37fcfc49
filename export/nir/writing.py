"""A SpikingGraph as a network of the Neuromorphic Intermediate Representation, for other frameworks.

NIR (Pedersen et al. 2024, Nature Communications 15, 8122) is defined in continuous time. Frameworks run it in steps of 1, every
node once a step in the order of the edges: exactly the local time of a graph, so that projections that skip populations need no
delay there.

A NIR neuron fires at ``v > v_threshold``, a graph's at ``v >= threshold``. Membranes are integers: with ``v_threshold =
threshold - 1/2`` both give the same spikes, and so does a framework that compares with ``>=``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sparsespike.common.errors import ConfigError, GraphError
from sparsespike.common.extras import require
from sparsespike.export.connections import Connection, Conv2dConnection
from sparsespike.export.graph import SpikingGraph
from sparsespike.export.population import DECAY_UNIT, NEVER, Population

if TYPE_CHECKING:
    import nir

LARGEST_DENSE = 2**26
"""Entries of a dense weight matrix up to which one is written, if no other limit is given: 256 MiB in single precision."""
LARGEST_THRESHOLD = 2**52
"""Half integers are exact in double precision below this."""
FILE = "network.nir"


def to_nir(graph: SpikingGraph, *, largest_dense: int = LARGEST_DENSE, dt: float | None = None) -> nir.NIRGraph:
    """The NIR network that fires as the graph does, step for step, if a framework computes exactly.

    A population of kind ``if`` becomes an ``IF`` node of its name with ``r = 1``, the readout an ``Output`` node: what arrives
    there, added up over the steps, is the readout's membrane (several projections meet in a ``Linear`` before it). A projection
    becomes ``Linear``, ``Affine`` or ``Conv2d``, called ``<pre>.to.<post>``, with a ``Flatten`` before it where needed; a
    population's biases lie in the first of its projections.
    Integers stay integers, in single precision where all of them are exact there, else in double precision; the membranes are
    exact in single precision below 2^23. ``scale`` and the range of the input have no place in NIR.

    A population of kind ``lif`` becomes ``LIF``, or ``CubaLIF`` where its current has memory, with ``r = 1`` (which Norse takes
    for granted) and thresholds scaled by dt / tau. NIR computes without rounding: such a network fires as the graph does as long
    as nothing is rounded, and nearly so after.

    NIR 1.0.8 gives kernels that are not square, and groups, a wrong shape when it checks types: such networks are read with
    ``nir.read(path, type_check=False)``.

    Parameters
    ----------
    graph : SpikingGraph
    largest_dense : int
        Entries up to which a sparse projection is written as a dense matrix: NIR has no sparse one.
    dt : float, optional
        Time of a step in the framework that will run the network (Norse's ``from_nir``: 1e-3, snnTorch: 1e-4). Given, kind
        ``lif`` is written although NIR lacks its rounding; without it, it is refused.

    Raises
    ------
    GraphError
        If a property of the graph would be lost, naming all such.
    ConfigError
        If ``dt`` is not positive.
    MissingExtraError
        If ``nir`` is not installed.
    """
    nir = require("nir", extra="nir")
    if dt is not None and not 0 < dt < math.inf:
        raise ConfigError(f"dt: found {dt}, expected a time > 0")
    reasons = [reason for name in graph.order for reason in _losses(graph, graph.population(name), largest_dense, dt)]
    if reasons:
        raise GraphError(
            f"NIR: the graph cannot be written without a loss: {'; '.join(reasons)}. Exports to 'lava' and 'brian2' lose nothing"
        )
    real = _precision(graph)
    nodes: dict[str, Any] = {}
    edges: list[tuple[str, str]] = []
    for name in graph.order:
        population = graph.population(name)
        nodes[name] = _neurons(nir, population, real, dt)
        target, bias = name, population.bias
        if population is graph.readout and len(graph.into(name)) > 1 and len(population.shape) == 1:
            target = f"{name}.sum"  # nirtorch adds up what arrives at any node but an output
            nodes[target] = nir.Linear(weight=np.eye(population.size, dtype=real))
            edges.append((target, name))
        for projection in graph.into(name):
            pre = graph.population(projection.pre)
            link, source = f"{pre.name}.to.{name}", pre.name
            if not isinstance(projection.connection, Conv2dConnection) and len(pre.shape) == 3:
                nodes[f"{link}.flat"] = nir.Flatten(input_type={"input": np.array(pre.shape)}, start_dim=0, end_dim=-1)
                edges.append((source, f"{link}.flat"))
                source = f"{link}.flat"
            nodes[link] = _linear(nir, projection.connection, bias, real)
            edges += [(source, link), (link, target)]
            bias = np.zeros_like(bias)
    if len(nodes) != len(graph.nx) + len(edges) - len(graph.projections):
        raise GraphError(
            "NIR: found populations named like the nodes between them (<pre>.to.<post>, <name>.sum), expected other names; "
            "rename them"
        )
    return nir.NIRGraph(nodes=nodes, edges=edges, type_check=False)


def write_nir(graph: SpikingGraph, path: str | Path, *, largest_dense: int = LARGEST_DENSE, dt: float | None = None) -> None:
    """Write a graph as a ``.nir`` file (HDF5); see :func:`to_nir`.

    Raises
    ------
    GraphError
        If a property of the graph would be lost.
    ConfigError
        If the file cannot be written.
    MissingExtraError
        If ``nir`` is not installed.
    """
    network = to_nir(graph, largest_dense=largest_dense, dt=dt)
    try:
        require("nir", extra="nir").write(str(path), network)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written ({error}); free space there, or name another file") from error


def write_nir_folder(graph: SpikingGraph, folder: Path, *, dt: float | None = None) -> list[Path]:
    """Write a graph as ``network.nir`` into a folder, which is made if it does not exist; see :func:`write_nir`.

    Returns
    -------
    list of Path
        The one file.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{folder}: cannot be made ({error.strerror or error}); name another folder") from error
    write_nir(graph, folder / FILE, dt=dt)
    return [folder / FILE]


def _losses(graph: SpikingGraph, population: Population, largest_dense: int, dt: float | None) -> list[str]:
    """Why NIR cannot hold a population and what leads to it."""
    where = f"population {population.name!r}"
    if population.kind in ("signed_if", "aec"):
        kind = "signed spikes" if population.kind == "signed_if" else "spikes that carry a payload"
        return [f"{where}: found kind {population.kind!r}, {kind}, which NIR lacks"]
    reasons = [f"{where}: {loss}" for loss in _leak_losses(population, dt)]
    if population.kind in ("if", "lif") and population.reset != "zero":
        reasons.append(
            f"{where}: found the reset by subtraction, but a neuron of NIR resets to a constant (trained networks convert with "
            "subtraction alone)"
        )
    if population.v_init.any():
        reasons.append(f"{where}: found initial membranes v_init, but NIR starts at 0")
    if population.bias_mode == "once" and (population.kind == "input" or population.bias.any()):
        reasons.append(f"{where}: found bias_mode 'once', but NIR adds biases and takes its input every step")
    if population.threshold is not None:
        largest = int(population.threshold[population.threshold != NEVER].max(initial=0))
        if largest > LARGEST_THRESHOLD:
            reasons.append(f"{where}: found the threshold {largest}, expected at most 2^52; convert with fewer bits")
    biases = population.bias.reshape(population.shape[0], -1)
    for projection in graph.into(population.name):
        link, connection = f"projection {projection.pre!r} -> {population.name!r}", projection.connection
        if isinstance(connection, Conv2dConnection):
            if np.any(biases != biases[:, :1]):
                reasons.append(
                    f"{link}: found biases that differ within a channel (an input mean folded in at padded borders), but a "
                    "Conv2d of NIR has one a channel; train with inputs of mean 0, or without padding in the first layer"
                )
        elif len(population.shape) == 3:
            reasons.append(
                f"{link}: found single synapses into a population of shape {population.shape}, but a Linear of NIR ends in a "
                "flat one; write such networks with convolutions alone, or flatten the population"
            )
        elif math.prod(connection.shape) > largest_dense:
            reasons.append(
                f"{link}: found {connection.shape[0]} x {connection.shape[1]} weights, of which NIR stores the zeros too, "
                f"expected at most {largest_dense:,}; raise largest_dense if the memory is there"
            )
    return reasons


def _leak_losses(population: Population, dt: float | None) -> Iterator[str]:
    """What of kind ``lif`` NIR cannot hold; nothing for other kinds."""
    if population.decay_current is None or population.decay_voltage is None:
        return
    if dt is None:
        yield (
            "found kind 'lif', whose currents and membranes are rounded toward zero as they decay, but NIR does not round; to "
            "write it without the rounding give dt, the time of a step where it will run (--dt; Norse's from_nir: 1e-3)"
        )
    for field, decay in (("decay_current", population.decay_current), ("decay_voltage", population.decay_voltage)):
        if np.any(decay == 0):
            yield f"found {field} 0 at neuron {int(np.argmin(decay))}, but a time constant of NIR is finite; use kind 'if', or 1"
    if np.any(population.bias[population.decay_current < DECAY_UNIT]):
        yield "found biases of neurons whose current has memory, but in NIR biases join the current; use decay_current 4096"


def _precision(graph: SpikingGraph) -> type[np.float32] | type[np.float64]:
    """Single precision if it holds every number of the graph, else double: frameworks mix none."""
    numbers: list[NDArray[Any]] = [population.bias for population in graph.populations]
    numbers += [2 * p.threshold - 1 for p in graph.populations if p.threshold is not None]
    numbers += [_leak(p)[0] for p in graph.populations if p.kind == "lif"]
    for projection in graph.projections:
        connection = projection.connection
        numbers.append(connection.kernel if isinstance(connection, Conv2dConnection) else connection.values)
    exact = all(np.array_equal(array.astype(np.float32).astype(np.float64), array) for array in numbers)
    return np.float32 if exact else np.float64


def _leak(population: Population) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Thresholds in a unit in which the input needs no factor, and what current and membrane lose in a step; exact."""
    assert population.threshold is not None
    assert population.decay_current is not None
    assert population.decay_voltage is not None
    current, voltage = population.decay_current / DECAY_UNIT, population.decay_voltage / DECAY_UNIT
    return (population.threshold - 0.5) * current * voltage, current, voltage


def _neurons(nir: Any, population: Population, real: type[np.floating[Any]], dt: float | None) -> Any:
    """The node of a population."""
    if population.kind == "input":
        return nir.Input(input_type={"input": np.array(population.shape)})
    if population.threshold is None:
        return nir.Output(output_type={"output": np.array(population.shape)})
    ones = np.ones(population.shape, real)
    if population.kind == "lif":
        assert dt is not None
        scaled, current, voltage = (values.reshape(population.shape) for values in _leak(population))
        fields = {"r": ones, "v_leak": np.zeros_like(ones), "v_reset": np.zeros_like(ones), "v_threshold": scaled.astype(real)}
        if np.all(current == 1):
            return nir.LIF(tau=(dt / voltage).astype(real), **fields)
        return nir.CubaLIF(tau_syn=(dt / current).astype(real), tau_mem=(dt / voltage).astype(real), w_in=ones, **fields)
    threshold = (population.threshold - 0.5).astype(real).reshape(population.shape)  # that of silenced neurons rounds to NEVER
    return nir.IF(r=ones, v_threshold=threshold, v_reset=np.zeros_like(ones))


def _linear(nir: Any, connection: Connection, bias: NDArray[np.int64], real: type[np.floating[Any]]) -> Any:
    """The node of a projection. Rows are OUTPUTS in NIR, as in torch."""
    if isinstance(connection, Conv2dConnection):
        return nir.Conv2d(
            input_shape=connection.input_shape[1:],
            weight=connection.kernel.astype(real),
            stride=connection.stride,
            padding=connection.padding,
            dilation=connection.dilation,
            groups=connection.groups,
            bias=bias.reshape(connection.output_shape[0], -1)[:, 0].astype(real),
        )
    weight = np.zeros(connection.shape[::-1], real)
    weight[connection.indices, np.repeat(np.arange(connection.shape[0]), connection.fan_out)] = connection.values
    return nir.Affine(weight=weight, bias=bias.astype(real)) if bias.any() else nir.Linear(weight=weight)
