"""A graph as a program of Lava's own processes LIF and Sparse, or the reasons why these cannot express it.

What LIF lacks: it knows no reset by subtraction, no negative and no graded spikes; its bias is there from the first step on and
cannot be switched; nothing sets its membrane back for the next image. So a graph of kind ``if`` with ``reset="zero"`` is left,
whose projections span one depth each. A population at depth d sees its bias d - 1 steps early: it starts lower by as much.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsespike.backends.lava.exporting import write_files
from sparsespike.backends.lava.fixed import STOCK, Layout, fixed_layout
from sparsespike.common.errors import BackendError
from sparsespike.export.connections import CSRConnection
from sparsespike.export.graph import Population, SpikingGraph
from sparsespike.export.population import NEVER


def stock_reasons(graph: SpikingGraph) -> list[str]:
    """What a graph has that LIF and Sparse lack, and what does not fit their fixed-point words; empty if nothing."""
    return [*_lacking(graph), *_stock_layout(graph)[1]]


def _stock_layout(graph: SpikingGraph) -> tuple[Layout, list[str]]:
    """A layout in which membranes are multiples of the thresholds' unit, so that v > vth - 1 means v >= vth."""
    return fixed_layout(graph, STOCK)


def _lacking(graph: SpikingGraph) -> Iterator[str]:
    if graph.input.bias_mode != "every_step":
        yield "the input emits once, and the bias of LIF, which stands for it, is added in every step"
    for name in graph.order[1:]:
        population = graph.population(name)
        where = f"population {name!r}"
        if population.kind == "lif":
            yield f"{where} is of kind 'lif', which is not lowered to stock processes; export to 'lava-fixed', which decays alike"
        elif population.kind not in ("if", "readout"):
            yield f"{where} is of kind {population.kind!r}, and LIF fires at most one spike of value 1 a step: expected 'if'"
        elif population.kind == "if" and population.reset != "zero":
            yield f"{where} is reset by subtraction, and LIF sets its membrane to 0: export to 'lava', which subtracts"
        if population.bias.any() and population.bias_mode != "every_step":
            yield f"{where} has a bias that is added once, and LIF adds its bias in every step"
        if population.threshold is not None:
            early = population.v_init - np.minimum(population.bias, 0) * (graph.depth[name] - 2)
            if graph.depth[name] > 1 and np.any(early >= population.threshold):
                yield f"{where} would fire before its first step: it starts with a membrane of its threshold or more"
            if np.any(population.threshold >= NEVER):
                yield f"{where} has neurons that never fire, and LIF has no such threshold: remove them"
    for projection in graph.projections:
        depths = graph.depth[projection.post] - graph.depth[projection.pre]
        if depths != 1:
            yield (
                f"projection {projection.pre!r} -> {projection.post!r} spans {depths} depths, and Sparse delivers after one "
                "step: expected 1"
            )


def write_stock_program(graph: SpikingGraph, folder: Path) -> list[Path]:
    """Write a Python program that runs a graph in Lava with LIF and Sparse alone, one image after the other.

    ``python run.py inputs.npy --steps T --out results.npz`` gives the last membranes of the readout and, with ``--spikes``, all
    spikes, as every backend does.

    Returns
    -------
    list of Path
        ``run.py``, ``network.json`` and ``network.npz``.

    Raises
    ------
    BackendError
        If the graph has what these processes lack; the message names each.
    ConfigError
        If the folder cannot be written to.
    """
    reasons = stock_reasons(graph)
    if reasons:
        raise BackendError(f"Lava's LIF and Sparse cannot express this graph: {'; '.join(reasons)}")
    layout, _ = _stock_layout(graph)
    names = graph.order[1:]
    readout = graph.readout.name
    names = (*(name for name in names if name != readout), readout)
    position = {name: i for i, name in enumerate(names)} | {graph.input.name: -1}
    arrays: dict[str, NDArray[Any]] = {}
    for name, i in position.items():
        if i >= 0:
            fields = _lif(graph.population(name), graph.depth[name], layout.shifts[name])
            arrays |= {f"population/{i}/{field}": array for field, array in fields.items()}
    for k, projection in enumerate(graph.projections):
        csr: CSRConnection = layout.mantissas(graph, projection.key)
        arrays |= {f"projection/{k}/{field}": getattr(csr, field).astype(np.int64) for field in ("pointers", "indices", "values")}
    low, high = graph.input.value_range or (0, 0)
    description = {
        "input": {"size": graph.input.size, "shapes": graph.input_shapes, "low": low, "high": high},
        "populations": [
            {
                "name": name,
                "size": graph.population(name).size,
                "depth": graph.depth[name],
                "shift": layout.shifts[name],
                "readout": name == readout,
            }
            for name in names
        ],
        "projections": [
            {"pre": position[p.pre], "post": position[p.post], "exponent": layout.exponents[p.key]} for p in graph.projections
        ],
    }
    return write_files(folder, "stock.py", description, arrays)


def _lif(population: Population, depth: int, shift: int) -> dict[str, NDArray[np.int64]]:
    """Threshold mantissas, and words of the first membrane and of the bias."""
    bias = population.bias << shift
    mantissas = np.full(
        population.size, STOCK.threshold_limit >> STOCK.threshold_bits
    )  # the readout's: never reached, or the program ends
    if population.threshold is not None:
        mantissas = (population.threshold << shift >> STOCK.threshold_bits) - 1
    return {"vth": mantissas, "v": (population.v_init << shift) - (depth - 1) * bias, "bias": bias}
