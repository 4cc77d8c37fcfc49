"""Whole test sets in bounded memory: run block after block, keep what an accuracy curve and a ledger need."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sparsespike.backends.base import Backend, Counting, InputMode, RunResult, SpikeCounts, check_count
from sparsespike.common.errors import BackendError, GraphError
from sparsespike.export.graph import Key, SpikingGraph


@dataclass(frozen=True, eq=False, kw_only=True)
class BulkResult:
    """What one backend did with B images, without an array of images x neurons. All counts are exact integers.

    Attributes
    ----------
    backend, version, dtype : str
        As in RunResult.
    steps, images : int
        T and B.
    predictions : int64 array, shape (B, steps)
        Class after each local step.
    spikes : mapping of population to SpikeCounts of shape (1, N)
        Of each neuron, summed over images and steps (s_i of the ledger).
    spikes_by_image : mapping of population to SpikeCounts of shape (B,)
        Summed over neurons and steps.
    spikes_by_step : mapping of population to SpikeCounts of shape (1, steps)
        Summed over images and neurons.
    events : mapping of (pre, post) to int64 array, shape (B,)
    events_by_step : mapping of (pre, post) to int64 array, shape (1, steps)
        Summed over images.
    counting : mapping of (pre, post) to {"measured", "computed"}
    neuron_updates, bias_additions, messages : mapping of population to int64 array, shape (B,)
    wall_seconds : mapping of phase to float
        Summed over blocks.
    """

    backend: str
    version: str
    dtype: str
    steps: int
    images: int
    predictions: NDArray[np.int64]
    spikes: Mapping[str, SpikeCounts]
    spikes_by_image: Mapping[str, SpikeCounts]
    spikes_by_step: Mapping[str, SpikeCounts]
    events: Mapping[Key, NDArray[np.int64]]
    events_by_step: Mapping[Key, NDArray[np.int64]]
    counting: Mapping[Key, Counting]
    neuron_updates: Mapping[str, NDArray[np.int64]]
    bias_additions: Mapping[str, NDArray[np.int64]]
    messages: Mapping[str, NDArray[np.int64]]
    wall_seconds: Mapping[str, float]

    def accuracy(self, labels: ArrayLike) -> NDArray[np.float64]:
        """Share of images whose prediction equals their label, after each local step, shape (steps,).

        Raises
        ------
        BackendError
            If there is not one label an image.
        """
        expected = np.asarray(labels)
        if expected.shape != (self.images,):
            raise BackendError(f"accuracy: found labels of shape {expected.shape}, expected ({self.images},), one an image")
        return np.asarray((self.predictions == expected[:, None]).mean(axis=0), np.float64)


@runtime_checkable
class ReducingBackend(Backend, Protocol):
    """A backend that sums up by itself, where that is faster than making a RunResult first."""

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
        """Parts of the result, in the order of the images; arguments as for ``run_blocks``."""
        ...


def run_blocks(
    backend: Backend,
    graph: SpikingGraph,
    inputs: NDArray[Any],
    steps: int,
    *,
    block: int = 512,
    input: InputMode = "current",
    progress: Callable[[int], None] | None = None,
) -> BulkResult:
    """Run any number of images, ``block`` at a time, on any backend.

    Parameters
    ----------
    backend : Backend
    graph : SpikingGraph
    inputs : integer array, shape (B, N) or (B, C, y, x)
        May be of a narrow type or memory-mapped: it is converted block by block.
    steps : int
        Local steps T.
    block : int
        Images in one run; memory follows it. A backend that sums up by itself (native, ``counting="computed"``) has its own.
    input : {"current", "events"}
        As in ``Backend.run``, but the cheaper mode by default.
    progress : callable, optional
        Called after each block with the number of images in it.

    Raises
    ------
    BackendError
        If the graph cannot be run here, there are no images, or ``block`` < 1.
    GraphError
        If the inputs do not fit the graph.
    """
    check_count("run_blocks", "block", block)
    try:
        images = len(inputs)
    except TypeError as error:
        raise GraphError(f"run_blocks: found inputs {inputs!r}, expected integers of shape {graph.expected_inputs}") from error
    if images == 0:
        raise BackendError("run_blocks: found no images, expected at least one")
    run = backend.run_reduced if isinstance(backend, ReducingBackend) else partial(run_in_blocks, backend)
    return join(run(graph, inputs, steps, block=block, input=input, progress=progress))


def run_in_blocks(
    backend: Backend,
    graph: SpikingGraph,
    inputs: NDArray[Any],
    steps: int,
    *,
    block: int,
    input: InputMode,
    progress: Callable[[int], None] | None,
) -> list[BulkResult]:
    """The blocks of ``run_blocks``, each from one ordinary run."""
    parts = []
    for start in range(0, len(inputs), block):
        parts.append(_reduce(backend.run(graph, inputs[start : start + block], steps, input=input)))
        if progress is not None:
            progress(parts[-1].images)
    return parts


def _reduce(result: RunResult) -> BulkResult:
    """One block, its arrays of images x neurons summed."""
    return BulkResult(
        backend=result.backend,
        version=result.version,
        dtype=result.dtype,
        steps=result.steps,
        images=result.images,
        predictions=result.predictions,
        spikes={name: _map(_total, [counts]) for name, counts in result.spikes.items()},
        spikes_by_image={name: _map(_per_image, [counts]) for name, counts in result.spikes_by_step.items()},
        spikes_by_step={name: _map(_total, [counts]) for name, counts in result.spikes_by_step.items()},
        events=result.events,
        events_by_step={key: _total([counts]) for key, counts in result.events_by_step.items()},
        counting=result.counting,
        neuron_updates=result.neuron_updates,
        bias_additions=result.bias_additions,
        messages=result.messages,
        wall_seconds=result.wall_seconds,
    )


def join(parts: Sequence[BulkResult]) -> BulkResult:
    """Runs of one graph on images one after the other, as one run of them all: sums are added, arrays by image laid end to end.

    Raises
    ------
    BackendError
        If there is no part, or parts differ in backend, steps, counting or populations.
    """
    if not parts:
        raise BackendError("join: found no part of a run, expected at least one")
    first = parts[0]
    for part in parts[1:]:
        for what in ("backend", "version", "dtype", "steps", "counting"):
            if getattr(part, what) != getattr(first, what):
                raise BackendError(
                    f"join: found parts with {what} {getattr(first, what)!r} and {getattr(part, what)!r}, expected them equal"
                )
        if part.spikes.keys() != first.spikes.keys():
            raise BackendError(
                f"join: found parts with populations {sorted(first.spikes)} and {sorted(part.spikes)}, expected them equal"
            )

    def spikes(field: str, combine: Callable[[list[NDArray[np.int64]]], NDArray[np.int64]]) -> dict[str, SpikeCounts]:
        return {name: _map(combine, [getattr(part, field)[name] for part in parts]) for name in getattr(first, field)}

    def arrays(field: str, combine: Callable[[list[NDArray[np.int64]]], NDArray[np.int64]]) -> dict[Any, NDArray[np.int64]]:
        return {key: combine([getattr(part, field)[key] for part in parts]) for key in getattr(first, field)}

    return BulkResult(
        backend=first.backend,
        version=first.version,
        dtype=first.dtype,
        steps=first.steps,
        images=sum(part.images for part in parts),
        predictions=np.concatenate([part.predictions for part in parts]),
        spikes=spikes("spikes", _total),
        spikes_by_image=spikes("spikes_by_image", np.concatenate),
        spikes_by_step=spikes("spikes_by_step", _total),
        events=arrays("events", np.concatenate),
        events_by_step=arrays("events_by_step", _total),
        counting=first.counting,
        neuron_updates=arrays("neuron_updates", np.concatenate),
        bias_additions=arrays("bias_additions", np.concatenate),
        messages=arrays("messages", np.concatenate),
        wall_seconds={phase: sum(part.wall_seconds.get(phase, 0.0) for part in parts) for phase in first.wall_seconds},
    )


def _map(combine: Callable[[list[NDArray[np.int64]]], NDArray[np.int64]], counts: Iterable[SpikeCounts]) -> SpikeCounts:
    parts = list(counts)
    return SpikeCounts(combine([part.positive for part in parts]), combine([part.negative for part in parts]))


def _total(arrays: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    """Sum over all images of all arrays, shape (1, ...)."""
    return np.asarray(sum(array.sum(axis=0, keepdims=True) for array in arrays), np.int64)


def _per_image(arrays: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    (array,) = arrays
    return np.asarray(array.sum(axis=1), np.int64)
