"""A job as a network of Lava processes: built, run and read back. Importing this module imports Lava."""

from __future__ import annotations

import mmap
import multiprocessing
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from typing import Any

import numpy as np
from lava.magma.core.run_conditions import RunSteps
from lava.magma.core.run_configs import Loihi2SimCfg
from numpy.typing import NDArray

from sparsespike.backends.lava.clock import Clock
from sparsespike.backends.lava.failure import report
from sparsespike.backends.lava.gather import compile_gather
from sparsespike.backends.lava.job import CHANNEL_SLOTS, SYNAPTIC, Job, PopulationJob
from sparsespike.backends.lava.processes import synapses
from sparsespike.backends.lava.processes.models import MODELS, PROCESSES
from sparsespike.backends.lava.processes.populations import Population


def run_job(job: Job) -> dict[str, NDArray[Any]]:
    """Run a job in Lava.

    Returns
    -------
    dict of str to array
        ``population/<i>/...`` as ``processes.populations.Population`` records it, ``projection/<k>/events_by_step`` of shape
        (images, steps), ``projection/<k>/events`` of shape (1,), read back from the process's Var, and ``built`` and ``ran``:
        readings of the monotonic clock, in seconds.
    """
    results = _shared_results(job)
    populations = _populations(job, results)
    projections = _projections(job, results, populations)
    # Naming every model spares Lava the search for them. A network whose input stays outside may fall into several parts, each
    # with a runtime of its own.
    models = {process: MODELS[job.model][process.population.kind] for process in populations}
    models |= dict.fromkeys(projections, synapses.MODELS[job.model])
    configuration = Loihi2SimCfg(select_tag=job.model, exception_proc_model_map=models)
    compile_gather(SYNAPTIC[job.model].name)
    roots = []
    for process in models:
        if process.runtime is None:
            process.create_runtime(run_cfg=configuration, compile_config={"pypy_channel_size": CHANNEL_SLOTS})
            roots.append(process)
    results["built"] = np.array(time.monotonic())
    with _deaths_reported():
        for root in roots:
            root.run(RunSteps(num_steps=max(process.clock.last for process in populations)))
        results["ran"] = np.array(time.monotonic())
        for k, projection in enumerate(projections):
            results[f"projection/{k}/events"] = projection.events.get().astype(np.int64)
    for root in roots:
        root.stop()
    return results


def _populations(job: Job, results: dict[str, NDArray[Any]]) -> list[Population]:
    processes = []
    for i, population in enumerate(job.populations):
        clock = Clock(job.steps, job.images, job.block, population.start)
        prefix = f"population/{i}/"
        processes.append(
            PROCESSES[population.kind](
                population=population, clock=clock, arrays=_part(job.arrays, prefix), record=_part(results, prefix)
            )
        )
    return processes


def _projections(job: Job, results: dict[str, NDArray[Any]], populations: list[Population]) -> list[synapses.Synapses]:
    """The synapses, connected to their populations."""
    processes = []
    for k, projection in enumerate(job.projections):
        pre, post = populations[projection.pre], populations[projection.post]
        prefix = f"projection/{k}/"
        process = synapses.Synapses(
            label=f"projection {pre.population.name!r} -> {post.population.name!r}",
            clock=pre.clock,
            shape=(pre.population.size, post.population.size),
            delay=projection.delay,
            exponent=projection.exponent,
            **_part(job.arrays, prefix),
            **_part(results, prefix),
        )
        pre.s_out.connect(process.s_in)
        process.a_out.connect(post.a_in)
        processes.append(process)
    return processes


def _part(arrays: Mapping[str, NDArray[Any]], prefix: str) -> dict[str, NDArray[Any]]:
    """The arrays whose names begin with ``prefix``, by the rest of the name."""
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


def _shared_results(job: Job) -> dict[str, NDArray[Any]]:
    """Arrays of zeros that processes forked from this one can write to."""
    shapes: dict[str, tuple[tuple[int, ...], type[np.generic]]] = {}
    for i, population in enumerate(job.populations):
        for name, field in _recorded(job, population).items():
            shapes[f"population/{i}/{name}"] = field
    for k in range(len(job.projections)):
        shapes[f"projection/{k}/events_by_step"] = (job.images, job.steps), np.int64
    return {name: _shared_zeros(*field) for name, field in shapes.items()}


def _recorded(job: Job, population: PopulationJob) -> dict[str, tuple[tuple[int, ...], type[np.generic]]]:
    by_neuron, by_step = (job.images, population.size), (job.images, job.steps)
    if population.kind == "readout":
        return {"readout": ((*by_step, population.size), np.int64)}
    fields: dict[str, tuple[tuple[int, ...], type[np.generic]]] = {
        "positive": (by_neuron, np.int64),
        "negative": (by_neuron, np.int64),
        "positive_by_step": (by_step, np.int64),
        "negative_by_step": (by_step, np.int64),
    }
    if population.record:
        fields["raster"] = (*by_step, population.size), np.int8
    return fields


def _shared_zeros(shape: tuple[int, ...], dtype: type[np.generic]) -> NDArray[Any]:
    """Zeros in anonymous shared memory: no name that could be left behind, gone with the last process that maps it."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return np.frombuffer(mmap.mmap(-1, size), dtype).reshape(shape)


@contextmanager
def _deaths_reported() -> Iterator[None]:
    """Report a Lava process that dies without an exception (killed for memory, say): Lava would wait for it for ever."""
    children: dict[Any, BaseProcess] = {child.sentinel: child for child in multiprocessing.active_children()}
    done = threading.Event()

    def watch() -> None:
        dead = children[wait(list(children))[0]]
        if not done.is_set():
            BaseProcess.join(dead)  # Lava's own join closes the object
            report("a Lava process", f"it died with exit code {dead.exitcode} (-9 is often: out of memory)", "")

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        done.set()
