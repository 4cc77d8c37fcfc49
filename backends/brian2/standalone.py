"""Brian2 as a C++ program: built once for a graph, kept, and run on batches of images, several side by side."""

from __future__ import annotations

import hashlib
import importlib.metadata
import pickle
import platform
import shutil
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sparsespike.backends.base import InputMode
from sparsespike.backends.brian2.cache import default_folder, program
from sparsespike.backends.brian2.compilation import compiler, missing_compiler, processor
from sparsespike.backends.brian2.job import Job, Outcome, Recording
from sparsespike.backends.brian2.plan import drives
from sparsespike.backends.brian2.processes import NO_ROOM, Processes, TimeLimit, no_room
from sparsespike.backends.brian2.program import Manifest, simulate
from sparsespike.backends.brian2.recording import read
from sparsespike.backends.brian2.timing import Timing
from sparsespike.common.errors import BackendError
from sparsespike.export.graph import SpikingGraph

REQUEST, PROGRAM = "request.pickle", "program"
"""What the interpreter that makes a program reads, and the folder that it makes."""


@dataclass(frozen=True, eq=False)
class Request:
    """What a program is to simulate, at most ``capacity`` images at a time, and whether it lists all events for rasters."""

    graph: SpikingGraph
    steps: int
    input: InputMode
    capacity: int
    rasters: bool

    @property
    def name(self) -> str:
        """Name of the program: differs where anything differs that it depends on."""
        settings = (
            (self.steps, self.input, self.capacity, self.rasters, importlib.metadata.version("brian2"), compiler()),
            (sys.platform, platform.machine(), processor(), *platform.libc_ver(), _code()),
        )
        return f"{_prefix(self.graph)}{hashlib.sha256(repr(settings).encode()).hexdigest()[:16]}"


def _prefix(graph: SpikingGraph) -> str:
    return f"{graph.digest()[:32]}-"


@cache
def _code() -> str:
    """Digest of this package's code: another version of it may make another program."""
    files = sorted(Path(__file__).parent.glob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def cannot_build(graph: SpikingGraph) -> list[str]:
    """Reason why no program can be built here; empty if one can, or if the cache has one of this graph."""
    command = missing_compiler()
    if command is None or any(default_folder().glob(f"{_prefix(graph)}*")):
        return []
    return [_missing(command)]


def _missing(command: str) -> str:
    return (
        f"{command!r} cannot be found, and C++ standalone needs a C++ compiler; install one, name it in $CXX, or use the backend "
        "'brian2'"
    )


def run_standalone(job: Job, *, processes: int, time_limit: float | None) -> Outcome:
    """Simulate a job, up to ``processes`` batches at a time; nothing but the program in the cache is left behind.

    Raises
    ------
    BackendError
        If the build or a run failed; the message ends with the last lines of its output.
    BackendTimeoutError
        If all of it took longer than ``time_limit`` seconds.
    MembraneOverflowError
        If a membrane left the range in which float64 is exact.
    """
    begin, limit = time.perf_counter(), TimeLimit(time_limit)
    request = Request(job.graph, job.steps, job.input, job.batch, bool(job.record))
    build = partial(_build, request, limit)
    try:
        with program(default_folder(), request.name, build) as folder:
            built = time.perf_counter()
            manifest = Manifest.load(folder)
            smaller = replace(job, batch=min(job.batch, -(-len(job.inputs) // processes)))
            recordings, loop = _simulate(folder, manifest, smaller, processes, limit)
    except OSError as error:
        if error.errno in NO_ROOM:
            raise no_room("writing the files of the run") from error
        raise
    seconds = {"build": built - begin, "run": time.perf_counter() - built, "simulation": loop}
    return Outcome(recordings, manifest.version, seconds)


def _build(request: Request, limit: TimeLimit, folder: Path) -> Path:
    """Make a program in a process of its own."""
    if command := missing_compiler():
        raise BackendError(f"backend 'brian2-cpp' cannot build a program for these steps and inputs: {_missing(command)}")
    (folder / REQUEST).write_bytes(pickle.dumps(request))
    worker = [sys.executable, "-m", "sparsespike.backends.brian2.worker", str(folder)]
    Processes(folder, limit).run("the build of the C++ program", worker, cwd=folder, temporary=folder, env={})
    return folder / PROGRAM


def _simulate(program: Path, manifest: Manifest, job: Job, processes: int, limit: TimeLimit) -> tuple[list[Recording], float]:
    """Recordings of all batches, and the seconds in the programs' loops."""
    windows = Timing(job.graph).windows

    def run_batch(number: int, start: int, inputs: NDArray[np.int64]) -> tuple[Recording, float]:
        folder = Path(name, str(number))
        folder.mkdir()
        drive = drives(job.graph, inputs, job.input)
        traces, seconds = simulate(
            program, manifest, drive, windows=windows(len(inputs)), steps=job.steps, folder=folder, processes=running
        )
        recording = read(traces, job, start, inputs)
        shutil.rmtree(folder)
        return recording, seconds

    with tempfile.TemporaryDirectory(prefix="sparsespike-brian2-") as name:
        running = Processes(Path(name), limit)
        sizes = [len(inputs) for inputs in job.batches]
        starts = np.cumsum([0, *sizes[:-1]]).tolist()
        with ThreadPoolExecutor(processes) as threads:
            tasks = [
                threads.submit(run_batch, number, start, inputs)
                for number, (start, inputs) in enumerate(zip(starts, job.batches, strict=True))
            ]
            try:
                done = [task.result() for task in tasks]
            except BaseException:
                for task in tasks:
                    task.cancel()
                running.end()
                raise
    return [recording for recording, _ in done], sum(seconds for _, seconds in done)
