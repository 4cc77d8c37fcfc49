"""A graph as a Lava program of its own: ``run.py`` and data, for those who have Lava and not this package."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsespike.backends.lava.backend import EXACT
from sparsespike.backends.lava.fixed import UNREACHABLE, WORD_LIMIT, fixed_layout
from sparsespike.backends.lava.job import Model, describe
from sparsespike.common.errors import BackendError, ConfigError
from sparsespike.export.graph import SpikingGraph

PROGRAM = "run.py"
_KEPT = ("name", "kind", "size", "every_step", "to_zero")


def write_program(graph: SpikingGraph, folder: Path, model: Model = "floating_pt") -> list[Path]:
    """Write a Python program that runs a graph in Lava and needs lava-nc alone, with its data.

    ``python run.py inputs.npy --steps T --out results.npz`` gives the spikes, events and readout of backends ``lava`` and
    ``lava-fixed``, integer for integer.

    Parameters
    ----------
    graph : SpikingGraph
    folder : Path
        Made if it does not exist; files of the same names are replaced.
    model : {"floating_pt", "fixed_pt"}
        Whether membranes may reach 2^53, or are held in the 24-bit words of Loihi 2 (see ``fixed``).

    Returns
    -------
    list of Path
        ``run.py``, ``network.json`` and ``network.npz``.

    Raises
    ------
    BackendError
        If the graph does not fit fixed point.
    ConfigError
        If the folder cannot be written to.
    """
    layout, reasons = fixed_layout(graph) if model == "fixed_pt" else (None, [])
    if reasons:
        raise BackendError(f"export to Lava in fixed point: {'; '.join(reasons)}")
    job = describe(graph, np.zeros((1, graph.input.size), np.int64), 1, frozenset(), "events", layout)
    fixed = layout is not None
    network = {
        "model": model,
        "slots": graph.slots,
        "value_range": graph.input.value_range,
        "input_shapes": graph.input_shapes,
        "limit": WORD_LIMIT if fixed else EXACT - 1,
        "unreachable": UNREACHABLE if fixed else EXACT,
        "shift": layout.shifts[graph.readout.name] if layout is not None else 0,
        "populations": [{name: getattr(p, name) for name in _KEPT} | {"first_step": p.start} for p in job.populations],
        "projections": [asdict(projection) for projection in job.projections],
    }
    arrays = {name: array.astype(np.int64) for name, array in job.arrays.items() if not name.endswith("/values")}
    arrays |= {name: array.astype(np.int64) for name, array in job.arrays.items() if name.startswith("projection/")}
    return write_files(folder, "program.py", network, arrays)


def write_files(folder: Path, program: str, network: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> list[Path]:
    """Write a program of the folder ``processes`` as ``run.py``, and its data as ``network.json`` and ``network.npz``.

    Raises
    ------
    ConfigError
        If the folder cannot be written to.
    """
    written = [folder / name for name in (PROGRAM, "network.json", "network.npz")]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(Path(__file__).parent / "processes" / program, written[0])
        written[1].write_text(json.dumps(network, indent=1) + "\n", encoding="utf-8")
        np.savez_compressed(written[2], **arrays)
    except OSError as error:
        raise ConfigError(
            f"{folder}: cannot be written to ({error.strerror or error}); free space there, or name another folder"
        ) from error
    return written
