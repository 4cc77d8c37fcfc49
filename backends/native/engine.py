"""The native backend: checks, lowering, threads, and the kernel's arrays as a RunResult."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace
from typing import Any, Literal, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray

from sparsespike.backends.base import Counting, InputMode, RunResult, SpikeCounts, prepare, updates
from sparsespike.backends.bulk import BulkResult, run_in_blocks
from sparsespike.backends.native.arrays import Outputs, make_scratch
from sparsespike.backends.native.blocks import Course
from sparsespike.backends.native.collect import VERSION, run_reduced, run_whole
from sparsespike.backends.native.kernel import simulate
from sparsespike.backends.native.lanes import lower_lanes
from sparsespike.backends.native.library import LANES, available, load
from sparsespike.backends.native.memory import one_by_one, results, side_by_side
from sparsespike.backends.native.plan import Plan, lower
from sparsespike.common.errors import BackendError, MembraneOverflowError
from sparsespike.common.processors import available_processors
from sparsespike.export.bounds import Bound, bounds
from sparsespike.export.graph import Key, SpikingGraph

MEMBRANE_LIMIT = 2**62
"""Where int64 is not proven wide enough, membranes are held below this, at each step."""
CURRENT_LIMIT = 2**61
"""Currents are always below this: with a bias below 2^53, a membrane that held the limit cannot wrap in the next step."""
_T = TypeVar("_T")
_CHUNK = 32  # images that a thread takes at a time


class NativeBackend:
    """Exact simulation in integers, in two ways.

    * ``counting="measured"``: event-driven, one image after the other; each event is counted where its weight is added.
    * ``counting="computed"``: 64 images side by side, in the compiled kernel, many times faster from some ten images on and above
      about one percent of activity; events are spikes times fan-out. Membranes and currents are as narrow as the graph's bounds
      prove wide enough, and each projection is gathered (every synapse) or, where a block's activity is low, scattered (every
      event).

    Results are equal, integer for integer. Where a membrane is not proven to stay within int64, or the compiled kernel is not at
    hand, the first way is taken, whatever was asked for: ``RunResult.counting`` says which it was.

    Parameters
    ----------
    threads : int, optional
        Threads that share the images; all processors that this process may use by default. Results do not depend on it.
    counting : {"measured", "computed"}
        How synaptic events are counted, see above.
    kernel : {"c", "numba"}, optional
        What runs ``computed``: the compiled kernel, or the event-driven way of numba; the best at hand by default.

    Raises
    ------
    BackendError
        If ``threads`` < 1, an argument is unknown, or kernel ``c`` is asked for and cannot be used.
    """

    name = "native"

    def __init__(
        self, threads: int | None = None, *, counting: Counting = "measured", kernel: Literal["c", "numba"] | None = None
    ) -> None:
        if threads is not None and threads < 1:
            raise BackendError(f"backend 'native': found threads = {threads}, expected at least 1")
        if counting not in get_args(Counting):
            raise BackendError(f"backend 'native': found counting = {counting!r}, expected 'measured' or 'computed'")
        if kernel not in (None, "c", "numba"):
            raise BackendError(f"backend 'native': found kernel = {kernel!r}, expected 'c' or 'numba'")
        self.threads = threads or available_processors()
        self.counting = counting
        self.library = load() if kernel == "c" else None if kernel == "numba" else available()[0]

    def check(self, graph: SpikingGraph) -> list[str]:
        """Reasons why this backend cannot run the graph; empty if it can."""
        return [
            f"the current of population {name!r} can reach {bound.current}, expected less than 2^61; "
            "scale its weights, thresholds, bias and initial membrane down together"
            for name, bound in bounds(graph, steps=1).items()
            if bound.current >= CURRENT_LIMIT
        ]

    def run(
        self,
        graph: SpikingGraph,
        inputs: NDArray[Any],
        steps: int,
        *,
        record: Collection[str] = (),
        input: InputMode = "events",
        progress: Callable[[int], None] | None = None,
    ) -> RunResult:
        """Run B images for ``steps`` local steps (see ``Backend.run``).

        The result holds 16 bytes a neuron and image, and a byte a step for each recorded neuron; ``backends.bulk`` runs any
        number of images in blocks.

        Parameters
        ----------
        graph, inputs, steps, record, input
            As for every backend.
        progress : callable, optional
            Called with the number of images done since the last call.

        Raises
        ------
        BackendError
            If the graph cannot be run here.
        MembraneOverflowError
            If a membrane left the exact range; only where the graph's bound does not exclude it.
        GraphError
            If the inputs do not fit the graph.
        """
        began = time.perf_counter()
        values = prepare(self, graph, inputs, steps, record, input)
        plan = lower(graph)
        course = self._course(graph, steps)
        limit = 0 if course or _is_proven(bounds(graph, steps)) else MEMBRANE_LIMIT - 1
        offsets = _raster_offsets(graph, record)
        out = _allocate(graph, plan, len(values), steps, sum(graph.population(name).size for name in set(record)))
        built = time.perf_counter()
        images = LANES if course else _CHUNK

        def run_chunk(start: int) -> int:
            chunk = slice(start, start + images)
            part = Outputs._make(array[chunk] for array in out)
            if course:
                run_whole(course, plan, values[chunk], offsets, part)
            else:
                simulate(plan, values[chunk], input == "current", limit, offsets, make_scratch(plan, steps), part)
            return len(part.readout)

        for done in _in_threads(run_chunk, range(0, len(values), images), self.threads):
            if progress is not None:
                progress(done)
        _raise_overflow(graph, out)
        ran = time.perf_counter()
        seconds = {"build": built - began, "run": ran - built}
        begins = dict(zip(graph.order, offsets.tolist(), strict=True))
        return _result(graph, plan, out, steps, input, "computed" if course else "measured", begins, seconds)

    def run_reduced(
        self,
        graph: SpikingGraph,
        inputs: NDArray[Any],
        steps: int,
        *,
        block: int,
        input: InputMode,
        progress: Callable[[int], None] | None,
    ) -> list[BulkResult]:
        """Parts of ``backends.bulk.run_blocks``, in order; nothing but they grows with the images (see ``memory``)."""
        began = time.perf_counter()
        prepare(self, graph, inputs[:1], steps, (), input)
        course = self._course(graph, steps)
        if course is None:
            return run_in_blocks(self, graph, inputs, steps, block=block, input=input, progress=progress)
        built = time.perf_counter()

        def run_chunk(start: int) -> tuple[int, BulkResult]:
            return start, run_reduced(course, graph.check_inputs(inputs[start : start + LANES]), input)

        parts = []
        for start, part in _in_threads(run_chunk, range(0, len(inputs), LANES), self.threads):
            parts.append((start, part))
            if progress is not None:
                progress(part.images)
        first, *others = (part for _, part in sorted(parts, key=lambda pair: pair[0]))
        seconds = {"build": built - began, "run": time.perf_counter() - built}
        return [replace(first, wall_seconds=seconds), *others]

    def memory(self, graph: SpikingGraph, steps: int, images: int, *, block: int = 512) -> int:
        """Most bytes that ``run_blocks`` takes on top of the graph and the images: its work and its results.

        Known before anything is run. The results alone grow with the images.

        Parameters
        ----------
        graph, steps, block
            As for ``run_blocks``.
        images : int
            All that will be run.
        """
        if self._is_side_by_side(bounds(graph, steps)):
            return side_by_side(graph, steps, self.threads) + results(graph, steps, images, LANES)
        return one_by_one(graph, steps, min(images, block), self.threads) + results(graph, steps, images, block)

    def _is_side_by_side(self, reach: Mapping[str, Bound]) -> bool:
        return self.counting == "computed" and self.library is not None and _is_proven(reach)

    def _course(self, graph: SpikingGraph, steps: int) -> Course | None:
        """How to run images side by side, or None if they are run one after the other."""
        reach = bounds(graph, steps)
        if self.library is None or not self._is_side_by_side(reach):
            return None
        return Course(self.library, graph, lower_lanes(graph, reach), steps)


def _is_proven(reach: Mapping[str, Bound]) -> bool:
    """Whether the static bounds exclude that a membrane leaves int64."""
    return all(bound.membrane < 2**63 for bound in reach.values())


def _raster_offsets(graph: SpikingGraph, record: Collection[str]) -> NDArray[np.int64]:
    """Where each population begins in the raster array, or -1 where it is not recorded."""
    offsets, end = np.full(len(graph.order), -1), 0
    for p, name in enumerate(graph.order):
        if name in record:
            offsets[p] = end
            end += graph.population(name).size
    return offsets


def _allocate(graph: SpikingGraph, plan: Plan, images: int, steps: int, recorded: int) -> Outputs:
    by_step = (images, len(plan.kind), steps)
    return Outputs(
        readout=np.zeros((images, steps, graph.readout.size), np.int64),
        positive=np.zeros((images, int(plan.offset[-1])), np.int64),
        negative=np.zeros((images, int(plan.offset[-1])), np.int64),
        positive_by_step=np.zeros(by_step, np.int64),
        negative_by_step=np.zeros(by_step, np.int64),
        events=np.zeros((images, len(plan.pre), steps), np.int64),
        rasters=np.zeros((images, steps, recorded), np.int8),
        overflow=np.zeros((images, 3), np.int64),
    )


def _in_threads(task: Callable[[int], _T], arguments: Collection[int], threads: int) -> Iterator[_T]:
    """Results of ``task`` as they come; on an error or Ctrl-C the tasks not yet begun are dropped."""
    executor = ThreadPoolExecutor(max_workers=threads)
    try:
        for future in as_completed([executor.submit(task, argument) for argument in arguments]):
            yield future.result()
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def _raise_overflow(graph: SpikingGraph, out: Outputs) -> None:
    images = np.flatnonzero(out.overflow[:, 0])
    if len(images):
        population, step, membrane = out.overflow[images[0]].tolist()
        raise MembraneOverflowError(
            f"backend 'native': population {graph.order[population - 1]!r}, image {images[0]}, step {step}: found a membrane of "
            f"{membrane}, expected less than 2^62 in magnitude; use fewer steps, or scale its weights, thresholds, bias and "
            "initial membrane down together"
        )


def _result(
    graph: SpikingGraph,
    plan: Plan,
    out: Outputs,
    steps: int,
    input: InputMode,
    how: Counting,
    offsets: dict[str, int],
    seconds: dict[str, float],
) -> RunResult:
    images = len(out.readout)
    projections = [projection for name in graph.order for projection in graph.into(name)]
    events_by_step = {projection.key: out.events[:, r] for r, projection in enumerate(projections)}
    counting: dict[Key, Counting] = dict.fromkeys(events_by_step, how)
    if input == "current":
        for projection in graph.out_of(graph.input.name):
            emissions = steps if graph.input.bias_mode == "every_step" else 1
            events_by_step[projection.key][:, :emissions] = projection.connection.nnz
            counting[projection.key] = "computed"
    fires = [(p, name) for p, name in enumerate(graph.order) if name != graph.readout.name]
    spans = {name: slice(plan.offset[p], plan.offset[p + 1]) for p, name in fires}
    spikes_by_step = {name: SpikeCounts(out.positive_by_step[:, p], out.negative_by_step[:, p]) for p, name in fires}
    messages = {name: counts.events.sum(axis=1) for name, counts in spikes_by_step.items()}
    if input == "current":
        messages[graph.input.name] = np.zeros(images, np.int64)
    neuron_updates, bias_additions = updates(graph, images, steps)
    return RunResult(
        backend=NativeBackend.name,
        version=VERSION,
        dtype="int64",
        steps=steps,
        readout=out.readout,
        spikes={name: SpikeCounts(out.positive[:, span], out.negative[:, span]) for name, span in spans.items()},
        spikes_by_step=spikes_by_step,
        events={key: counts.sum(axis=1) for key, counts in events_by_step.items()},
        events_by_step=events_by_step,
        counting=counting,
        neuron_updates=neuron_updates,
        bias_additions=bias_additions,
        messages=messages,
        rasters={
            name: out.rasters[:, :, offset : offset + graph.population(name).size]
            for name, offset in offsets.items()
            if offset >= 0
        },
        wall_seconds=seconds,
    )
