"""Hypothesis strategies: random small graphs with inputs (needs the package ``hypothesis``).

A property that holds for every backend, for one that supports kind ``if``::

    @given(graphs(kinds=("if",)))
    def test_equals_the_reference(case: Case) -> None:
        assert_equal(MyBackend().run(*case), reference(*case))
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from sparsespike.backends.testing.case import Case
from sparsespike.export.connections import Connection, Conv2dConnection, CSRConnection
from sparsespike.export.graph import Kind, Population, Projection, SpikingGraph
from sparsespike.export.population import NEVER, BiasMode


def _ints(draw: st.DrawFn, shape: int | tuple[int, ...], low: int, high: int) -> NDArray[np.int64]:
    array: NDArray[np.int64] = draw(hnp.arrays(np.int64, shape, elements=st.integers(low, high)))
    return array


def _fires(draw: st.DrawFn, name: str, shape: tuple[int, ...], kinds: Sequence[Kind]) -> Population:
    """A population of kind ``if``, ``signed_if`` or ``lif`` with small numbers, so that ties and both signs are common."""
    size = int(np.prod(shape))
    kind = draw(st.sampled_from(kinds))
    fields: dict[str, Any] = {"threshold_neg": _ints(draw, size, 1, 8)} if kind == "signed_if" else {}
    if kind == "lif":
        fields = {name: _decays(draw, size) for name in ("decay_voltage", "decay_current")}
    return Population(
        name=name,
        shape=shape,
        kind=kind,
        threshold=_ints(draw, size, 1, 12) if kind == "lif" else 2 * _ints(draw, size, 1, 6),
        v_init=_ints(draw, size, -6, 12),
        bias=_ints(draw, size, -3, 3),
        bias_mode=draw(st.sampled_from(("every_step", "once"))),
        reset=draw(st.sampled_from(("subtract", "zero"))),
        **fields,
    )


def _decays(draw: st.DrawFn, size: int) -> NDArray[np.int64]:
    """Decays of kind ``lif``: none, all, halves, and any."""
    decays = st.sampled_from((0, 1, 1365, 2048, 4095, 4096)) | st.integers(0, 4096)
    array: NDArray[np.int64] = draw(hnp.arrays(np.int64, size, elements=decays))
    return array


def _projections(draw: st.DrawFn, populations: list[Population]) -> list[Projection]:
    """At least one projection into every population, from any populations before it."""
    projections = []
    for position, post in enumerate(populations[1:], start=1):
        before = draw(st.sets(st.integers(0, position - 1), min_size=1))
        for pre in (populations[i] for i in sorted(before)):
            weights = CSRConnection.from_scipy(
                _ints(draw, (pre.size, post.size), -7, 7) * _ints(draw, (pre.size, post.size), 0, 1)
            )
            projections.append(Projection(pre.name, post.name, weights))
    return projections


def _fires_aec(draw: st.DrawFn, name: str, size: int, slots: int) -> Population:
    """A population of kind ``aec``: thresholds of any order, some slots disabled, some compensations forced."""
    tables = {}
    for spike, least in (("primary", 1), ("compensation", 0)):
        used = _ints(draw, slots, 0, 3) > 0
        tables[f"{spike}_threshold"] = np.where(used, _ints(draw, slots, least, 12), NEVER)
        tables[f"{spike}_payload"] = np.where(used, _ints(draw, slots, 1, 9), 0)
    v_init, bias = _ints(draw, size, -6, 12), _ints(draw, size, -3, 3)
    return Population(name=name, shape=(size,), kind="aec", v_init=v_init, bias=bias, bias_mode="once", tables=tables)


@st.composite
def aec_graphs(draw: st.DrawFn, max_populations: int = 4, max_neurons: int = 5, max_slots: int = 5, max_images: int = 3) -> Case:
    """Random acyclic graphs of kind ``aec`` with inputs; as ``graphs``, but every population has windows of the same slots.

    Parameters
    ----------
    max_populations, max_neurons, max_images : int
        As in ``graphs``; there is at least one spiking population.
    max_slots : int
        Most slots of a window.
    """
    low, high = draw(st.sampled_from(((0, 4), (-3, 3))))
    size, slots = draw(st.integers(1, max_neurons)), draw(st.integers(1, max_slots))
    populations = [Population(name="input", shape=(size,), kind="input", value_range=(low, high), bias_mode="once")]
    sizes = draw(st.lists(st.integers(1, max_neurons), min_size=1, max_size=max_populations))
    populations += [_fires_aec(draw, f"p{i}", neurons, slots) for i, neurons in enumerate(sizes)]
    classes = draw(st.integers(1, 3))
    bias = _ints(draw, classes, -3, 3)
    populations.append(Population(name="readout", shape=(classes,), kind="readout", bias=bias, bias_mode="once"))
    graph = SpikingGraph(populations, _projections(draw, populations))
    return Case(graph, _ints(draw, (draw(st.integers(1, max_images)), size), low, high), slots)


@st.composite
def graphs(
    draw: st.DrawFn,
    max_populations: int = 4,
    max_neurons: int = 5,
    max_steps: int = 8,
    max_images: int = 3,
    *,
    kinds: Sequence[Kind] = ("if", "signed_if", "lif"),
) -> Case:
    """Random acyclic graphs with inputs.

    Any earlier population may project to any later one, so depths, delays and parallel ways vary; weights are small and of
    both signs, many are absent, whole projections may be empty. All kinds but ``aec`` (see ``aec_graphs``), both resets, both
    bias modes.

    Parameters
    ----------
    max_populations : int
        Most spiking populations.
    max_neurons : int
        Most neurons in a population.
    max_steps, max_images : int
        Most local steps and images.
    kinds : sequence of {"if", "signed_if", "lif"}
        Kinds of the spiking populations: those that the backend under test supports.
    """
    low, high = draw(st.sampled_from(((0, 4), (-3, 3))))
    size = draw(st.integers(1, max_neurons))
    emission: BiasMode = draw(st.sampled_from(("every_step", "every_step", "once")))
    populations = [Population(name="input", shape=(size,), kind="input", value_range=(low, high), bias_mode=emission)]
    sizes = draw(st.lists(st.integers(1, max_neurons), max_size=max_populations))
    populations += [_fires(draw, f"p{i}", (neurons,), kinds) for i, neurons in enumerate(sizes)]
    classes = draw(st.integers(1, 3))
    populations.append(Population(name="readout", shape=(classes,), kind="readout", bias=_ints(draw, classes, -3, 3)))
    projections = _projections(draw, populations)
    images = draw(st.integers(1, max_images))
    return Case(SpikingGraph(populations, projections), _ints(draw, (images, size), low, high), draw(st.integers(1, max_steps)))


@st.composite
def convolutions(draw: st.DrawFn, max_steps: int = 5, *, kinds: Sequence[Kind] = ("if", "signed_if", "lif")) -> Case:
    """Random graphs input -> convolution -> spiking -> convolution -> readout, of any stride, padding, dilation and groups.

    Parameters
    ----------
    max_steps : int
        Most local steps.
    kinds : sequence of {"if", "signed_if", "lif"}
        As in ``graphs``.
    """
    shape = (draw(st.integers(1, 2)) * 2, draw(st.integers(3, 5)), draw(st.integers(3, 5)))
    populations = [Population(name="input", shape=shape, kind="input", value_range=(-2, 3))]
    projections = []
    for name in ("conv", "readout"):
        pair = st.tuples(st.integers(1, 2), st.integers(1, 2))
        groups = draw(st.sampled_from((1, 2)))
        window = draw(st.tuples(st.integers(1, 2), st.integers(1, 2)))
        # With padding 1 a window of 2 dilated by 2 fits into every input of at least one pixel.
        connection = Conv2dConnection(
            _ints(draw, (2, shape[0] // groups, *window), -3, 3).astype(np.int32), shape, draw(pair), (1, 1), draw(pair), groups
        )
        shape = connection.output_shape
        if name == "readout":
            populations.append(Population(name=name, shape=shape, kind="readout"))
        else:
            populations.append(_fires(draw, name, shape, kinds))
        projections.append(Projection(populations[-2].name, name, connection))
    values = _ints(draw, (2, populations[0].size), -2, 3)
    return Case(SpikingGraph(populations, projections), values, draw(st.integers(1, max_steps)))


def even_if_leaky(case: Case) -> Case:
    """The case with all weights doubled if a population is of kind ``lif``; a strategy's ``map`` takes it.

    For backends that hold mantissas as Loihi does, even ones where both signs occur: a leaky population cannot take a finer unit.
    """
    graph = case.graph
    if all(population.kind != "lif" for population in graph.populations):
        return case
    projections = [replace(projection, connection=_doubled(projection.connection)) for projection in graph.projections]
    return case._replace(graph=SpikingGraph(graph.populations, projections))


def _doubled(connection: Connection) -> Connection:
    if isinstance(connection, Conv2dConnection):
        return replace(connection, kernel=2 * connection.kernel)
    return CSRConnection(connection.pointers, connection.indices, 2 * connection.values, connection.n_post)
