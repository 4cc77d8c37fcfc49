"""A job as a network of Lava processes: built, run and read back. Importing this module imports Lava."""

from __future__ import annotations

import mmap
import multiprocessing
import os
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from typing import Any

import numpy as np
from lava.magma.core.process.process import AbstractProcess
from lava.magma.core.process.variable import Var
from lava.magma.core.run_conditions import RunSteps
from lava.magma.core.run_configs import Loihi2SimCfg
from numpy.typing import NDArray

from sparsespike.backends.lava.clock import Clock
from sparsespike.backends.lava.failure import FEWER_IMAGES, report
from sparsespike.backends.lava.firing import compile_fire
from sparsespike.backends.lava.gather import compile_gather
from sparsespike.backends.lava.job import CHANNEL_SLOTS, CURRENT, SYNAPTIC, Job, PopulationJob
from sparsespike.backends.lava.processes import synapses
from sparsespike.backends.lava.processes.fused import Fused, FusedModel
from sparsespike.backends.lava.processes.models import MODELS
from sparsespike.backends.lava.processes.populations import PROCESSES


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
    # Naming every model spares Lava the search for them.
    models, counters = (_chain if job.shape == "chain" else _fused)(job, results)
    configuration = Loihi2SimCfg(select_tag=job.model, exception_proc_model_map=models)
    compile_gather(SYNAPTIC[job.model].name)
    compile_fire(CURRENT[job.model].name)
    roots = []
    for process in models:
        if process.runtime is None:  # networks of their own, each with a runtime of its own: images, or parts without their input
            process.create_runtime(run_cfg=configuration, compile_config={"pypy_channel_size": CHANNEL_SLOTS})
            roots.append(process)
    results["built"] = np.array(time.monotonic())
    with _deaths_reported():
        for root in roots:
            last = max(clock.last for clock in _clocks(job, _parts(job)[0]))
            root.run(RunSteps(num_steps=last, blocking=False))
        for root in roots:
            root.wait()
        results["ran"] = np.array(time.monotonic())
        events = np.concatenate([counter.get() for counter in counters]) if counters else np.zeros(0)
    for k in range(len(job.projections)):
        results[f"projection/{k}/events"] = events[k :: len(job.projections)].sum(keepdims=True).astype(np.int64)
    for root in roots:
        root.stop()
    return results


Images = tuple[int, int]
"""The first of some images, and how many they are."""


def _parts(job: Job) -> list[Images]:
    """Images of each network: a chain takes all; there are as many fused networks as processors, if there are blocks for them."""
    blocks = -(-job.images // job.block)
    networks = 1 if job.shape == "chain" else min(blocks, len(os.sched_getaffinity(0)))
    each = -(-blocks // networks) * job.block
    return [(first, min(each, job.images - first)) for first in range(0, job.images, each)]


def _clocks(job: Job, images: Images) -> list[Clock]:
    """The clock of every population."""
    first, number = images
    return [Clock(job.steps, number, job.block, population.start, first) for population in job.populations]


def _populations(job: Job, results: dict[str, NDArray[Any]], images: Images) -> list[dict[str, Any]]:
    """Parameters of ``populations.Population``."""
    return [
        {
            "population": job.populations[i],
            "clock": clock,
            "arrays": _part(job.arrays, f"population/{i}/"),
            "record": _part(results, f"population/{i}/"),
        }
        for i, clock in enumerate(_clocks(job, images))
    ]


def _projections(job: Job, results: dict[str, NDArray[Any]], images: Images) -> list[dict[str, Any]]:
    """Parameters of ``synapses.Synapses``, and ``pre`` and ``post``: positions in the list of populations."""
    clocks = _clocks(job, images)
    parameters = []
    for k, projection in enumerate(job.projections):
        pre, post = (job.populations[end] for end in (projection.pre, projection.post))
        parameters.append(
            {
                "label": f"projection {pre.name!r} -> {post.name!r}",
                "clock": clocks[projection.pre],
                "shape": (pre.size, post.size),
                **asdict(projection),
                **_part(job.arrays, f"projection/{k}/"),
                **_part(results, f"projection/{k}/"),
            }
        )
    return parameters


Network = tuple[dict[AbstractProcess, type], list[Var]]
"""Processes with the model of each, and their counters of synaptic events: together, every projection once or several times."""


def _chain(job: Job, results: dict[str, NDArray[Any]]) -> Network:
    """A process for every population and every projection, joined by their ports."""
    (images,) = _parts(job)
    populations = _populations(job, results, images)
    neurons = [PROCESSES[parameters["population"].kind](**parameters) for parameters in populations]
    models = {process: MODELS[job.model][process.population.kind] for process in neurons}
    counters = []
    for parameters in _projections(job, results, images):
        process = synapses.Synapses(**parameters)
        neurons[parameters["pre"]].s_out.connect(process.s_in)
        process.a_out.connect(neurons[parameters["post"]].a_in)
        models[process] = synapses.MODELS[job.model]
        counters.append(process.events)
    return models, counters


def _fused(job: Job, results: dict[str, NDArray[Any]]) -> Network:
    """One process for everything, once for each part of the images."""
    processes = []
    for images in _parts(job):
        populations, projections = _populations(job, results, images), _projections(job, results, images)
        processes.append(Fused(model=job.model, populations=populations, projections=projections))
    return dict.fromkeys(processes, FusedModel), [process.events for process in processes]


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
            report(
                "a Lava process", f"it died with exit code {dead.exitcode} (-9 is often: out of memory; then {FEWER_IMAGES})", ""
            )

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        done.set()
