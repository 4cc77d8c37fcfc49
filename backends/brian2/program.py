"""A C++ program that simulates one graph: what it is told, and what it leaves behind.

It is one of Brian2's standalone projects, reduced to what a run needs, so that running it needs no Brian2. It takes up to
``capacity`` images and simulates as many as it is given.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsespike.backends.brian2.job import Fired, Traces
from sparsespike.backends.brian2.plan import LANES
from sparsespike.backends.brian2.processes import Processes
from sparsespike.common.errors import BackendError

BINARY, MANIFEST = "main", "manifest.json"
STEPS_VARIABLE = "SPARSESPIKE_STEPS"
"""Environment variable that tells a program how many steps to simulate."""


@dataclass(frozen=True)
class Manifest:
    """What somebody who runs a program has to know.

    Attributes
    ----------
    version : str
        Brian2's.
    capacity : int
        Most images of one run.
    injected : list of [population, function]
        Arguments of the program.
    fired : list of [population, event, file of ``so_far``, file of ``before``, file of ``count``, file of ``neurons`` or nothing]
        Of ``network.Events``.
    classes : int
        Neurons of the readout.
    membrane : str
        File of their membranes.
    totals : list of [pre, post, file]
    """

    version: str
    capacity: int
    injected: list[list[str]]
    fired: list[list[str]]
    classes: int
    membrane: str
    totals: list[list[str]]

    def save(self, folder: Path) -> None:
        """Write it into a program's folder."""
        (folder / MANIFEST).write_text(json.dumps(asdict(self), indent=1))

    @classmethod
    def load(cls, folder: Path) -> Manifest:
        """Read it from a program's folder."""
        return cls(**json.loads((folder / MANIFEST).read_text()))


def simulate(
    program: Path,
    manifest: Manifest,
    drives: Mapping[str, NDArray[np.int64]],
    *,
    windows: int,
    steps: int,
    folder: Path,
    processes: Processes,
) -> tuple[Traces, float]:
    """Run a program once.

    Parameters
    ----------
    program : Path
        Is not written to.
    manifest : Manifest
    drives : mapping of str to array, shape (images, N)
        What is injected, by population.
    windows, steps : int
        How many windows to simulate, and steps of each.
    folder : Path
        An empty folder for inputs and results.
    processes : Processes

    Returns
    -------
    traces : Traces
    seconds : float
        Spent in the loop over steps.

    Raises
    ------
    BackendError
        If the run failed, for example because the disk is full.
    BackendTimeoutError
        If the time is up.
    """
    arguments = []
    for name, function in manifest.injected:
        path = folder / function
        with path.open("wb") as file:
            file.write(np.ascontiguousarray(drives[name], np.float64).data)
            file.truncate(manifest.capacity * drives[name].shape[1] * 8)  # the program expects all; no room on the disk
        arguments.append(f"{function}.values={path}")
    results = folder / "results"
    results.mkdir()
    command = [str(program / BINARY), "--results_dir", f"{results}{os.sep}", *arguments]
    environment = {STEPS_VARIABLE: str(windows * steps)}
    output = processes.run("the simulation", command, cwd=program, temporary=folder, env=environment)
    if output:  # files that it cannot read or write are no error to the program
        raise BackendError(f"backend 'brian2-cpp': the simulation failed; its output ends with:\n{output}")
    return _read(manifest, results, windows, steps), float((results / "last_run_info.txt").read_text().split()[0])


def _read(manifest: Manifest, results: Path, windows: int, steps: int) -> Traces:
    def load(name: str, dtype: type[np.generic], *shape: int) -> NDArray[Any]:
        values = np.fromfile(results / name, dtype)
        if len(values) != math.prod(shape):
            raise BackendError(
                f"backend 'brian2-cpp': the simulation left {len(values)} values in {name}, expected {math.prod(shape)}; is the "
                "disk full?"
            )
        return values.reshape(shape)

    simulated, fired = windows * steps, {}
    for population, event, so_far_file, before_file, count_file, neurons_file in manifest.fired:
        so_far, count = load(so_far_file, np.int32, simulated), np.fromfile(results / count_file, np.int32)
        each = np.concatenate([load(before_file, np.int32, windows, len(count)), [count]])
        fired[population, event] = Fired(so_far, each, load(neurons_file, np.int32, so_far[-1]) if neurons_file else None)
    membrane = load(manifest.membrane, np.float64, simulated, manifest.classes)
    totals = {(pre, post): load(name, np.int32, simulated, LANES) for pre, post, name in manifest.totals}
    return Traces(fired, membrane, totals)
