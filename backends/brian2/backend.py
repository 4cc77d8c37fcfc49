"""The Brian2 backend."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from sparsespike.backends.base import Counting, InputMode, RunResult, SpikeCounts, prepare, updates
from sparsespike.backends.brian2.job import Job, Outcome, Recording
from sparsespike.backends.brian2.package import load_brian2
from sparsespike.backends.brian2.plan import check_currents
from sparsespike.backends.brian2.runtime import run_here
from sparsespike.backends.expansion import check_max_synapses, too_many_synapses
from sparsespike.common.errors import ConfigError
from sparsespike.common.processors import available_processors
from sparsespike.export.graph import Key, SpikingGraph

BYTES_PER_SYNAPSE = 50
"""Memory of a synapse in Brian2, about (measured): both ends, weight, and two lists of the spike queue."""

MONITOR_BYTES = 2**29
"""Memory that the monitors of one batch of images may take: 12 bytes an event."""

LARGEST_BATCH = 4096

Mode = Literal["numpy", "cython", "cpp"]
MODES: Mapping[Mode, str] = {"numpy": "brian2", "cython": "brian2-cython", "cpp": "brian2-cpp"}
"""The backend's name in each mode."""

K = TypeVar("K", str, Key)
T = TypeVar("T")


class Brian2Backend:
    """Simulation in Brian2: one NeuronGroup a population, one Synapses object a projection.

    Every synaptic event is counted where it happens: the line of ``on_pre`` code that adds a weight to a neuron's current is
    followed by one that adds 1 to that neuron's counter.

    Parameters
    ----------
    mode : {"numpy", "cython", "cpp"}
        ``numpy`` runs in this process and compiles nothing. ``cython`` runs in this process, too, and compiles the code of
        every population and projection once (a minute or two; Brian2 keeps it in its own cache, and networks of the same
        structure share it). ``cpp`` (C++ standalone) is one program a graph, number of steps and input mode, several times
        faster still: built in 10 to 60 s, kept in the user's cache folder (``$SPARSESPIKE_CACHE``, else
        ``~/.cache/sparsespike``; at most 2 GiB, the programs not used for longest give way), and run from there with any
        images.
    max_synapses : int
        Largest number of synapses that is simulated, convolutions expanded; about 50 bytes of memory each.
    batch : int, optional
        Images simulated at a time, at most; by default as many as keep the monitors below 512 MiB.
    processes : int, optional
        Mode ``cpp``: programs that run side by side, each on its share of the images and with the synapses in its memory. By
        default as many as this process may use processors, and fewer where they would hold more than ``max_synapses`` together.
        Results do not depend on it. ``wall_seconds["simulation"]`` is the time in the loops of all programs, added up: that of
        one processor.
    time_limit : float, optional
        Mode ``cpp``: seconds for one ``run``, build included; none by default.

    Raises
    ------
    ConfigError
        If the mode is unknown, or a limit is not positive.
    MissingExtraError
        If Brian2 is not installed.
    """

    def __init__(
        self,
        mode: Mode = "numpy",
        *,
        max_synapses: int = 50_000_000,
        batch: int | None = None,
        processes: int | None = None,
        time_limit: float | None = None,
    ) -> None:
        if mode not in MODES:
            raise ConfigError(f"Brian2 backend: found mode {mode!r}, expected one of {', '.join(map(repr, MODES))}")
        for setting, value in (("batch", batch), ("processes", processes)):
            if value is not None and value < 1:
                raise ConfigError(f"Brian2 backend: found {setting} = {value}, expected at least 1")
        if time_limit is not None and not time_limit > 0:
            raise ConfigError(f"Brian2 backend: found time_limit = {time_limit}, expected seconds > 0, or None")
        load_brian2()
        self.name = MODES[mode]
        self._mode = mode
        self._max_synapses = check_max_synapses(self.name, max_synapses)
        self._batch = batch
        self._processes = processes
        self._time_limit = time_limit

    def check(self, graph: SpikingGraph) -> list[str]:
        """Reasons why this backend cannot run the graph; empty if it can."""
        reasons = too_many_synapses(graph, max_synapses=self._max_synapses, bytes_per_synapse=BYTES_PER_SYNAPSE)
        if self._mode == "cpp":
            from sparsespike.backends.brian2.standalone import cannot_build  # here and below: POSIX only

            reasons += cannot_build(graph)
        return reasons

    def run(
        self,
        graph: SpikingGraph,
        inputs: NDArray[Any],
        steps: int,
        *,
        record: Collection[str] = (),
        input: InputMode = "events",
    ) -> RunResult:
        """Run B images for ``steps`` local steps; see ``Backend.run``.

        Raises
        ------
        BackendError
            If the graph cannot be run here (see ``check``), or the run failed.
        BackendTimeoutError
            If it took longer than the time limit. All of it was ended.
        MembraneOverflowError
            If a membrane leaves the integers that float64 holds exactly, or a current or bias could.
        GraphError
            If the inputs do not fit the graph.
        """
        values = prepare(self, graph, inputs, steps, record, input)
        check_currents(graph)
        job = Job(graph, values, steps, frozenset(record), input, self._batch or _default_batch(graph, steps))
        return _result(self.name, job, self._simulate(job))

    def _simulate(self, job: Job) -> Outcome:
        if self._mode == "cpp":
            from sparsespike.backends.brian2.standalone import run_standalone

            together = max(1, min(available_processors(), self._max_synapses // max(job.graph.nnz, 1)))
            return run_standalone(job, processes=self._processes or together, time_limit=self._time_limit)
        return run_here(job, self._mode)


def _result(backend: str, job: Job, outcome: Outcome) -> RunResult:
    graph, parts, shape = job.graph, outcome.recordings, (len(job.inputs), job.steps)
    spikes_by_step = _join(parts, lambda part: part.spikes_by_step, _join_counts)
    events_by_step = _join(parts, lambda part: part.events_by_step, np.concatenate)
    counting: dict[Key, Counting] = dict.fromkeys(events_by_step, "measured")
    messages = {name: counts.events.sum(axis=1) for name, counts in spikes_by_step.items()}
    if job.input == "current":
        messages[graph.input.name] = np.zeros(shape[0], np.int64)
        for projection in graph.out_of(graph.input.name):
            charged = job.steps if graph.input.bias_mode == "every_step" else 1
            events_by_step[projection.key] = np.zeros(shape, np.int64)
            events_by_step[projection.key][:, :charged] = projection.connection.nnz
            counting[projection.key] = "computed"
    neuron_updates, bias_additions = updates(graph, *shape)
    return RunResult(
        backend=backend,
        version=outcome.version,
        dtype="float64",
        steps=job.steps,
        readout=np.concatenate([part.readout for part in parts]),
        spikes=_join(parts, lambda part: part.spikes, _join_counts),
        spikes_by_step=spikes_by_step,
        events={key: counts.sum(axis=1) for key, counts in events_by_step.items()},
        events_by_step=events_by_step,
        counting=counting,
        neuron_updates=neuron_updates,
        bias_additions=bias_additions,
        messages=messages,
        rasters=_join(parts, lambda part: part.rasters, np.concatenate),
        wall_seconds=outcome.seconds,
    )


def _default_batch(graph: SpikingGraph, steps: int) -> int:
    """Images whose monitors fit into MONITOR_BYTES, even if every neuron fired in every step."""
    neurons = sum(population.size for population in graph.populations)
    return min(max(1, MONITOR_BYTES // (12 * steps * neurons)), LARGEST_BATCH)


def _join(parts: list[Recording], field: Callable[[Recording], Mapping[K, T]], join: Callable[[list[T]], T]) -> dict[K, T]:
    """One mapping from those of all batches, joined along the images."""
    return {key: join([field(part)[key] for part in parts]) for key in field(parts[0])}


def _join_counts(parts: list[SpikeCounts]) -> SpikeCounts:
    return SpikeCounts(np.concatenate([p.positive for p in parts]), np.concatenate([p.negative for p in parts]))
