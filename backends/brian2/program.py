"""A C++ program that simulates one graph: what it is told, and what it leaves behind.

It is one of Brian2's standalone projects, reduced to what a run needs, so that running it needs no Brian2. It takes up to
``capacity`` images and simulates as many as it is given.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsespike.backends.brian2.job import Traces
from sparsespike.backends.brian2.plan import LANES
from sparsespike.backends.brian2.processes import Processes, last_lines
from sparsespike.common.errors import BackendError

BINARY, MANIFEST, LOG = "main", "manifest.json", "log.txt"
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
    fired : list of [population, event, file of counts, file of steps, file of neurons]
    membrane : str
        File of the readout's membrane.
    totals : list of [pre, post, file]
    """

    version: str
    capacity: int
    injected: list[list[str]]
    fired: list[list[str]]
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
    program: Path, manifest: Manifest, drives: Mapping[str, NDArray[np.int64]], steps: int, folder: Path, processes: Processes
) -> tuple[Traces, float]:
    """Run a program once.

    Parameters
    ----------
    program : Path
        Is not written to.
    manifest : Manifest
    drives : mapping of str to array, shape (images, N)
        What is injected, by population.
    steps : int
        Steps to simulate.
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
            drives[name].astype(np.float64).tofile(file)
            file.truncate(manifest.capacity * drives[name].shape[1] * 8)  # the program expects all; no room on the disk
        arguments.append(f"{function}.values={path}")
    results, log = folder / "results", folder / LOG
    results.mkdir()
    command = [str(program / BINARY), "--results_dir", f"{results}{os.sep}", *arguments]
    processes.run("the simulation", command, cwd=program, log=log, env={STEPS_VARIABLE: str(steps)})
    if log.stat().st_size:  # files that it cannot read or write are no error to the program
        raise BackendError(f"backend 'brian2-cpp': the simulation failed; its output ends with:\n{last_lines(log)}")
    return _read(manifest, results, steps), float((results / "last_run_info.txt").read_text().split()[0])


def _read(manifest: Manifest, results: Path, steps: int) -> Traces:
    def load(name: str, dtype: type[np.generic], size: int) -> NDArray[Any]:
        values = np.fromfile(results / name, dtype)
        if len(values) != size:
            raise BackendError(
                f"backend 'brian2-cpp': the simulation left {len(values)} values in {name}, expected {size}; is the disk full?"
            )
        return values

    fired = {}
    for population, event, counts, step_file, neuron_file in manifest.fired:
        (count,) = load(counts, np.int32, 1)
        fired[population, event] = (load(step_file, np.int64, count), load(neuron_file, np.int32, count).astype(np.int64))
    membrane = np.fromfile(results / manifest.membrane)
    if len(membrane) % steps:
        raise BackendError(f"backend 'brian2-cpp': the simulation left {len(membrane)} membranes for {steps} steps")
    totals = {(pre, post): load(name, np.float64, steps * LANES).reshape(steps, LANES) for pre, post, name in manifest.totals}
    return Traces(fired, membrane.reshape(steps, -1), totals)
