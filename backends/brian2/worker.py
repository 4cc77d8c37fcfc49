"""The interpreter in which one C++ program is built and run: ``python -m sparsespike.backends.brian2.worker FOLDER``."""

from __future__ import annotations

import os
import pickle
import shutil
import signal
import sys
import threading
import time
from pathlib import Path

import numpy as np

from sparsespike.backends.brian2.job import Job, Outcome
from sparsespike.backends.brian2.lowering import Lowered, drives
from sparsespike.backends.brian2.package import EXACT_NUMBERS, load_brian2
from sparsespike.backends.brian2.recording import read
from sparsespike.backends.brian2.standalone import JOB, OUTCOME, compiler
from sparsespike.common.errors import SparseSpikeError

FLAGS = ("-w", "-O3", "-ffp-contract=off", "-std=c++11")
"""Compiler flags without -ffast-math, which is in Brian2's default."""

# Every source includes objects.h: compiled beforehand, it halves the build. Dependencies matter only to a second build.
MAKE = f'$CXX {" ".join(FLAGS)} -I. -x c++-header objects.h && touch make.deps && make CXX="$CXX -include objects.h"'

PREFERENCES = {
    **EXACT_NUMBERS,
    "codegen.cpp.extra_compile_args_gcc": list(FLAGS),
    "devices.cpp_standalone.make_cmd_unix": MAKE,
    "devices.cpp_standalone.extra_make_args_unix": [f"-j{os.cpu_count() or 1}"],
}


def simulate(job: Job, folder: Path) -> Outcome:
    """Build the program for the first batch and run it on every batch; a last smaller one is filled up with blank images."""
    begin = time.perf_counter()
    os.environ["CXX"] = compiler()
    b2 = load_brian2()
    project = str(folder / "project")
    b2.set_device("cpp_standalone", directory=project, build_on_run=False)
    for name, value in PREFERENCES.items():
        b2.prefs[name] = value
    lowered = Lowered(b2, job, job.inputs[: job.batch])
    lowered.network.run(lowered.duration, namespace={})
    b2.device.build(directory=project, compile=True, run=False)
    build = time.perf_counter() - begin
    recordings, run = [], 0.0
    for start in job.starts:
        inputs = np.zeros((job.batch, job.inputs.shape[1]), np.int64)
        inputs[: len(job.inputs) - start] = job.inputs[start : start + job.batch]
        values = {
            lowered.injected[name]: drive.astype(np.float64, order="C")
            for name, drive in drives(job.graph, inputs, job.input).items()
        }
        begin = time.perf_counter()
        b2.device.run(project, with_output=False, run_args=values)
        run += time.perf_counter() - begin
        recordings.append(read(lowered, job, start))
    return Outcome(recordings, b2.__version__, build, run)


def end_with_parent(folder: Path) -> None:
    """Wait for the end of standard input, which is the end of the parent; then leave no file and no process behind."""
    os.read(0, 1)
    shutil.rmtree(folder, ignore_errors=True)
    os.killpg(0, signal.SIGKILL)


def main(folder: Path) -> None:
    """Turn the job in ``folder`` into an outcome, or into the error that a user is to see."""
    threading.Thread(target=end_with_parent, args=(folder,), daemon=True).start()
    job: Job = pickle.loads((folder / JOB).read_bytes())
    try:
        result: Outcome | SparseSpikeError = simulate(job, folder)
    except SparseSpikeError as error:
        result = error
    partial = folder / "partial"
    partial.write_bytes(pickle.dumps(result))
    partial.rename(folder / OUTCOME)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
