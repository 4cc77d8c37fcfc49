"""Brian2 in this process: with numpy as its code generation target nothing is compiled, with Cython every part of the code is."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np

from sparsespike.backends.brian2.job import Fired, Job, Outcome, Traces
from sparsespike.backends.brian2.network import Events, Network
from sparsespike.backends.brian2.package import EXACT_NUMBERS, load_brian2, preferences
from sparsespike.backends.brian2.plan import Plan, drives
from sparsespike.backends.brian2.recording import read
from sparsespike.common.errors import BackendError, SparseSpikeError


def run_here(job: Job, target: Literal["numpy", "cython"]) -> Outcome:
    """Simulate a job; a network is built for every batch.

    Raises
    ------
    BackendError
        If the program has chosen another device of Brian2 than its runtime, or Cython's code cannot be compiled.
    MembraneOverflowError
        If a membrane left the range in which float64 is exact.
    """
    b2 = load_brian2()
    if b2.get_device() is not b2.all_devices["runtime"]:
        raise BackendError(
            "backend 'brian2': this program has called brian2.set_device, expected Brian2's runtime device; "
            "call brian2.set_device('runtime') first, or use the backend 'brian2-cpp', which has a process of its own"
        )
    recordings, running, start = [], 0.0, 0
    begin = time.perf_counter()
    plan = Plan(job.graph, job.steps, job.input, compiled=target == "cython")
    with preferences(b2, {"codegen.target": target, **EXACT_NUMBERS}), _explained(b2, target):
        for inputs in job.batches:
            network = Network(b2, plan, drives(job.graph, inputs, job.input), len(inputs), job.record)
            running += _run(b2, network)
            recordings.append(read(_traces(plan, network), job, start, inputs))
            start += len(inputs)
    seconds = {"build": time.perf_counter() - begin - running, "run": running}
    return Outcome(recordings, b2.__version__, seconds)


@contextmanager
def _explained(b2: Any, target: str) -> Iterator[None]:
    """Say what compiled code needs; what Brian2, Cython or the compiler raise without it can be anything."""
    try:
        yield
    except SparseSpikeError:
        raise
    except Exception as error:
        if target == "numpy":
            raise
        b2.BrianLogger.suppress_name("unused_brian_object")  # what was made will not be run, which Brian2 remarks on
        raise BackendError(
            f"backend 'brian2-cython': Brian2 failed ({type(error).__name__}: {error}); it needs a C++ compiler and a folder for "
            "compiled code that can be written to (its preference codegen.runtime.cython.cache_dir): see to these, or use the "
            "backend 'brian2'"
        ) from error


def _run(b2: Any, network: Network) -> float:
    """Simulate, and give the seconds in the loop over steps: Brian2 generates code inside its ``run`` too."""
    seconds = 0.0

    def report(elapsed: Any, completed: float, start: Any, duration: Any) -> None:
        nonlocal seconds
        seconds = float(elapsed)

    network.network.run(network.duration, report=report, report_period=3600 * b2.second, namespace=network.namespace)
    return seconds


def _traces(plan: Plan, network: Network) -> Traces:
    return Traces(
        fired={key: _fired(events) for key, events in network.fired.items()},
        membrane=network.membrane.variables["v"].get_value(),
        totals={it.projection.key: network.totals[it.total].get_value() for it in plan.synaptic},
    )


def _fired(events: Events) -> Fired:
    return Fired(
        events.so_far.get_value()[:, 0],
        np.concatenate([events.before.get_value(), [events.count.get_value()]]),
        None if events.neurons is None else events.neurons.get_value(),
    )
