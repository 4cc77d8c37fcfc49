"""Brian2 in this process, with numpy as its code generation target: nothing is compiled."""

from __future__ import annotations

import time
from typing import Any

from sparsespike.backends.brian2.job import Job, Outcome
from sparsespike.backends.brian2.lowering import Lowered
from sparsespike.backends.brian2.package import EXACT_NUMBERS, load_brian2, preferences
from sparsespike.backends.brian2.recording import read
from sparsespike.common.errors import BackendError


def run_numpy(job: Job) -> Outcome:
    """Simulate a job; a network is built for every batch.

    Raises
    ------
    BackendError
        If the program has chosen another device of Brian2 than its runtime.
    MembraneOverflowError
        If a membrane left the range in which float64 is exact.
    """
    b2 = load_brian2()
    if b2.get_device() is not b2.all_devices["runtime"]:
        raise BackendError(
            "backend 'brian2': this program has called brian2.set_device, expected Brian2's runtime device; "
            "call brian2.set_device('runtime') first, or use the backend 'brian2-cpp', which has a process of its own"
        )
    recordings, running = [], []
    begin = time.perf_counter()
    with preferences(b2, {"codegen.target": "numpy", **EXACT_NUMBERS}):
        for start in job.starts:
            lowered = Lowered(b2, job, job.inputs[start : start + job.batch])
            running.append(_run(b2, lowered))
            recordings.append(read(lowered, job, start))
    return Outcome(recordings, b2.__version__, time.perf_counter() - begin - sum(running), sum(running))


def _run(b2: Any, lowered: Lowered) -> float:
    """Simulate, and give the seconds in the loop over steps: Brian2 generates code inside its ``run`` too."""
    seconds = 0.0

    def report(elapsed: Any, completed: float, start: Any, duration: Any) -> None:
        nonlocal seconds
        seconds = float(elapsed)

    lowered.network.run(lowered.duration, report=report, report_period=3600 * b2.second, namespace={})
    return seconds
