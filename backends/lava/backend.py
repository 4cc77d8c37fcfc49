"""The Lava backend: jobs out, results in."""

from __future__ import annotations

import sys
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsespike.backends.base import Counting, InputMode, RunResult, SpikeCounts, prepare, updates
from sparsespike.backends.expansion import check_max_synapses, too_many_synapses
from sparsespike.backends.lava.environment import lava_python, lava_version
from sparsespike.backends.lava.fixed import Layout, fixed_layout
from sparsespike.backends.lava.job import CURRENT, Job, Model, Shape, describe, load_arrays
from sparsespike.backends.lava.session import Session
from sparsespike.backends.lava.worker import RESULT_FILE
from sparsespike.common.errors import BackendError, ConfigError, MembraneOverflowError, SparseSpikeError
from sparsespike.export.bounds import bounds
from sparsespike.export.graph import Key, SpikingGraph

NAMES: Mapping[str, str] = {"floating_pt": "lava", "fixed_pt": "lava-fixed"}
MAX_SYNAPSES = 10**8
BYTES_PER_SYNAPSE = 12
EXACT = 2**53
"""Below it, sums of integers are exact in float64, in any order."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Run:
    """The arguments of one ``LavaBackend.run``, for ``run_many``."""

    graph: SpikingGraph
    inputs: NDArray[Any]
    steps: int
    record: Collection[str] = ()
    input: InputMode = "events"


class LavaBackend:
    """Runs graphs in Lava's process runtime, by default with a Lava process for every population and every projection.

    Parameters
    ----------
    model : {"floating_pt", "fixed_pt"}
        Numbers to compute with: float64, or the words of Loihi 2 (module ``fixed``), in which fewer graphs fit. Both give the
        graph's own results, integer for integer. The backend's name is ``lava`` or ``lava-fixed``.
    shape : {"chain", "fused"}
        One Lava process for every population and projection, as on a chip, or one for the whole network, which is faster.
    time_limit : float or None
        Seconds for one ``run`` or ``run_many``, start of the worker included.
    python : str or None
        Interpreter of the worker: one that has lava-nc and numba; it runs the caller's copy of this package. Lava needs Python
        3.10, the caller does not. None means what ``environment.lava_python`` finds: the one that the environment variable
        ``SPARSESPIKE_LAVA_PYTHON`` names, this one, or that of ``sparsespike doctor --install-lava``.
    max_synapses : int
        Largest graph that is taken, in synapses with its convolutions expanded: the worker holds each, about 12 bytes.

    Raises
    ------
    ConfigError
        If ``max_synapses`` is below 1, or the time limit not positive.
    """

    def __init__(
        self,
        *,
        model: Model = "floating_pt",
        shape: Shape = "chain",
        time_limit: float | None = 600.0,
        python: str | None = None,
        max_synapses: int = MAX_SYNAPSES,
    ) -> None:
        if model not in NAMES:
            raise ConfigError(f"backend 'lava': found model = {model!r}, expected 'floating_pt' or 'fixed_pt'")
        if shape not in ("chain", "fused"):
            raise ConfigError(f"backend 'lava': found shape = {shape!r}, expected 'chain' or 'fused'")
        if time_limit is not None and not time_limit > 0:
            raise ConfigError(f"backend 'lava': found time_limit = {time_limit}, expected seconds > 0, or None")
        self.model: Model = model
        self.shape: Shape = shape
        self.name = NAMES[model]
        self.time_limit = time_limit
        self.python = python or lava_python()
        self.max_synapses = check_max_synapses(self.name, max_synapses)

    def check(self, graph: SpikingGraph) -> list[str]:
        """Reasons why Lava cannot run the graph; empty if it can."""
        reasons = []
        if sys.platform != "linux":
            reasons.append(f"it is supervised through Linux's process and shared-memory files, and this is {sys.platform!r}")
        try:
            lava_version(self.python)
        except SparseSpikeError as error:
            reasons.append(str(error))
        if self.model == "fixed_pt":
            reasons += fixed_layout(graph)[1]
        return reasons + too_many_synapses(graph, max_synapses=self.max_synapses, bytes_per_synapse=BYTES_PER_SYNAPSE)

    def run(
        self,
        graph: SpikingGraph,
        inputs: NDArray[Any],
        steps: int,
        *,
        record: Collection[str] = (),
        input: InputMode = "events",
    ) -> RunResult:
        """Run B images for ``steps`` local steps; see ``sparsespike.backends.base.Backend``.

        Raises
        ------
        MissingExtraError
            If the interpreter has no lava-nc.
        MembraneOverflowError
            In floating point, if a membrane is not proven to stay below 2^53. In fixed point, if one leaves its 24 bits; every
            step is checked.
        BackendTimeoutError
            If the run took longer than the time limit. All of it was ended.
        BackendError
            If the graph cannot be run here, or something failed in Lava; the message has the traceback from there.
        GraphError
            If the inputs do not fit the graph.
        """
        return self.run_many([Run(graph=graph, inputs=inputs, steps=steps, record=record, input=input)])[0]

    def run_many(self, runs: Sequence[Run]) -> list[RunResult]:
        """As ``run``, for several runs in one worker, which starts only once (about a second)."""
        version = lava_version(self.python)
        values = [prepare(self, run.graph, run.inputs, run.steps, run.record, run.input) for run in runs]
        layouts = [fixed_layout(run.graph)[0] if self.model == "fixed_pt" else None for run in runs]
        for run, layout in zip(runs, layouts, strict=True):
            if layout is None:
                _check_exact(run.graph, run.steps)
        jobs = (
            describe(run.graph, value, run.steps, frozenset(run.record), run.input, layout, self.shape)
            for run, value, layout in zip(runs, values, layouts, strict=True)
        )
        outcomes = self.execute(jobs)
        return [self._result(version, *parts) for parts in zip(runs, values, layouts, outcomes, strict=True)]

    def execute(self, jobs: Iterable[Job]) -> list[dict[str, NDArray[Any]]]:
        """Run jobs in one worker and give back its arrays, with ``build_seconds`` and ``run_seconds`` added."""
        started = time.monotonic()
        with Session(self.name, self.python) as session:
            folders = []
            for number, job in enumerate(jobs):
                folders.append(session.folder / str(number))
                _write(job, folders[-1])
            session.run(self.time_limit)
            outcomes = [load_arrays(folder / RESULT_FILE) for folder in folders]
        for outcome in outcomes:
            outcome["build_seconds"] = outcome["built"] - started
            outcome["run_seconds"] = outcome["ran"] - outcome["built"]
            started = float(outcome["ran"])
        return outcomes

    def _result(
        self, version: str, run: Run, values: NDArray[np.int64], layout: Layout | None, outcome: Mapping[str, NDArray[Any]]
    ) -> RunResult:
        """A RunResult from the arrays of a job; what ran outside Lava is computed here."""
        graph, images, steps = run.graph, len(values), run.steps
        source = graph.input
        inside = run.input == "events"
        names = [name for name in graph.order if inside or name != source.name]
        at = {name: f"population/{i}/" for i, name in enumerate(names)}
        emissions = steps if source.bias_mode == "every_step" else 1
        spikes, spikes_by_step = {}, {}
        for name in (source.name, *graph.spiking):
            if name in at:
                spikes[name], spikes_by_step[name] = (
                    SpikeCounts(outcome[f"{at[name]}positive{suffix}"], outcome[f"{at[name]}negative{suffix}"])
                    for suffix in ("", "_by_step")
                )
            else:
                signs = [values > 0, values < 0]
                spikes[name] = SpikeCounts(*(sign.astype(np.int64) * emissions for sign in signs))
                spikes_by_step[name] = SpikeCounts(*(_gated(np.count_nonzero(sign, axis=1), emissions, steps) for sign in signs))
        events_by_step: dict[Key, NDArray[np.int64]] = {}
        counting: dict[Key, Counting] = {}
        measured = 0
        for projection in graph.projections:
            key = projection.key
            if inside or projection.pre != source.name:
                counting[key], events_by_step[key] = "measured", outcome[f"projection/{measured}/events_by_step"]
                _check_counter(key, events_by_step[key], int(outcome[f"projection/{measured}/events"][0]))
                measured += 1
            else:
                nnz = np.full(images, projection.connection.nnz)
                counting[key], events_by_step[key] = "computed", _gated(nnz, emissions, steps)
        readout = outcome[f"{at[graph.readout.name]}readout"]
        if layout is not None:
            readout = readout >> layout.shifts[graph.readout.name]
        neuron_updates, bias_additions = updates(graph, images, steps)
        return RunResult(
            backend=self.name,
            version=version,
            dtype=CURRENT[self.model].name,
            steps=steps,
            readout=readout,
            spikes=spikes,
            spikes_by_step=spikes_by_step,
            events={key: counts.sum(axis=1) for key, counts in events_by_step.items()},
            events_by_step=events_by_step,
            counting=counting,
            neuron_updates=neuron_updates,
            bias_additions=bias_additions,
            messages={name: counts.events.sum(axis=1) for name, counts in spikes.items()},
            rasters={name: outcome[f"{at[name]}raster"] for name in run.record},
            wall_seconds={"build": float(outcome["build_seconds"]), "run": float(outcome["run_seconds"])},
        )


def _write(job: Job, folder: Path) -> None:
    try:
        folder.mkdir()
        job.write(folder)
    except OSError as error:
        raise BackendError(
            f"backend 'lava': cannot write the job to {folder} ({error.strerror or error}); "
            "free space there, or name another folder for temporary files in TMPDIR"
        ) from error


def _check_exact(graph: SpikingGraph, steps: int) -> None:
    for name, bound in bounds(graph, steps).items():
        # Current and bias are added one after the other: on the way a membrane may be off by the bias.
        reach = bound.membrane + int(np.abs(graph.population(name).bias).max())
        if max(reach, bound.current) >= EXACT:
            raise MembraneOverflowError(
                f"backend 'lava': the membrane of population {name!r} can reach {reach} in {steps} steps, and float64 is exact "
                f"below 2^53 = {EXACT}; use fewer steps, or weights of fewer bits"
            )


def _gated(counts: NDArray[Any], emissions: int, steps: int) -> NDArray[np.int64]:
    """Counts of shape (B,) at each of the first ``emissions`` steps, zeros after: shape (B, steps)."""
    by_step = np.zeros((len(counts), steps), np.int64)
    by_step[:, :emissions] = counts[:, None]
    return by_step


def _check_counter(key: Key, by_step: NDArray[np.int64], total: int) -> None:
    """The counter Var that Lava gave back against the table that the process wrote."""
    if total != by_step.sum():
        raise BackendError(
            f"backend 'lava': projection {key[0]!r} -> {key[1]!r}: its event counter reads {total}, the sum of its events by "
            f"image and step is {by_step.sum()}, expected one number; this is a bug, please report it"
        )
