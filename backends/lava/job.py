"""What the worker is told and what it gives back: plain arrays and JSON in a folder, nothing that can run code."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from sparsespike.backends.base import InputMode
from sparsespike.backends.lava.clock import first_step, message_delay
from sparsespike.backends.lava.fixed import Layout, check_injected, words
from sparsespike.common.errors import BackendError
from sparsespike.export.connections import Connection
from sparsespike.export.graph import Population, SpikingGraph

CHANNEL_SLOTS = 2
"""Messages that a Lava channel holds. One is enough for a network in lock-step; the second lets a sender go on."""
CHANNEL_BYTES = 2**25
"""Shared memory for all channels of a run: beyond it images are run in several blocks, one after the other."""
EMITTED = np.dtype(np.int32)
FUSED_BLOCK = 32
"""Images side by side in one process: more of them leave the processor's cache."""
Shape = Literal["chain", "fused"]
"""One Lava process for every population and projection, or one for everything."""
Model = Literal["floating_pt", "fixed_pt"]
"""Lava's tags for models that compute in float64 and in the words of Loihi."""
CURRENT: Mapping[str, np.dtype[Any]] = {"floating_pt": np.dtype(np.float64), "fixed_pt": np.dtype(np.int32)}
"""Number type of currents and membranes."""
SYNAPTIC: Mapping[str, np.dtype[Any]] = {"floating_pt": np.dtype(np.float64), "fixed_pt": np.dtype(np.int64)}
"""Number type in which synapses sum up: in fixed point wider than a word, so that a sum out of range is seen."""


@dataclass(frozen=True)
class PopulationJob:
    """One population: what is not an array."""

    name: str
    kind: str
    size: int
    start: int
    """Global step of the first local step."""
    every_step: bool
    to_zero: bool
    record: bool
    injected_every_step: bool
    """Whether an injected current, if there is one, is added at every local step, or at the first alone."""


@dataclass(frozen=True)
class ProjectionJob:
    """One projection that runs inside Lava; ``pre`` and ``post`` are positions in the list of populations."""

    pre: int
    post: int
    delay: int
    exponent: int
    """In fixed point: of all weights; 0 in floating point."""


@dataclass(frozen=True, eq=False)
class Job:
    """One run of one graph.

    Attributes
    ----------
    model : {"floating_pt", "fixed_pt"}
    shape : {"chain", "fused"}
    steps, images, block : int
        Local steps, images, and how many images run side by side.
    populations, projections : tuple
        Those that run inside Lava.
    arrays : mapping of str to array
        ``population/<i>/{threshold, threshold_neg, v_init, bias, values, injected}``, of kind ``lif`` also ``decay_current`` and
        ``decay_voltage``, of kind ``aec`` also ``thresholds``, shape (2, slots); ``projection/<k>/{pointers, indices, values}``
        and ``payloads``, shape (2, slots), if the presynaptic population is of kind ``aec``. Row 0 belongs to the primary spike,
        row 1 to the compensation.
    """

    model: Model
    shape: Shape
    steps: int
    images: int
    block: int
    populations: tuple[PopulationJob, ...]
    projections: tuple[ProjectionJob, ...]
    arrays: Mapping[str, NDArray[Any]]

    def write(self, folder: Path) -> None:
        """Write ``job.json`` and ``job.npz``."""
        fields = {
            "model": self.model,
            "shape": self.shape,
            "steps": self.steps,
            "images": self.images,
            "block": self.block,
            "populations": [asdict(population) for population in self.populations],
            "projections": [asdict(projection) for projection in self.projections],
        }
        (folder / "job.json").write_text(json.dumps(fields), encoding="utf-8")
        np.savez(folder / "job.npz", **self.arrays)

    @classmethod
    def read(cls, folder: Path) -> Job:
        """Read what ``write`` wrote."""
        fields = json.loads((folder / "job.json").read_text(encoding="utf-8"))
        fields["populations"] = tuple(PopulationJob(**population) for population in fields["populations"])
        fields["projections"] = tuple(ProjectionJob(**projection) for projection in fields["projections"])
        return cls(**fields, arrays=load_arrays(folder / "job.npz"))


def load_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """All arrays of an ``.npz`` file; pickled objects are refused."""
    with np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def describe(
    graph: SpikingGraph,
    values: NDArray[np.int64],
    steps: int,
    record: frozenset[str],
    input: InputMode,
    layout: Layout | None = None,
    shape: Shape = "chain",
) -> Job:
    """The job that runs ``values``, shape (B, N), through a graph: in fixed point if a layout is given.

    With ``input="current"`` the input population and its projections stay outside: what they would send in one step is computed
    here and added to the membranes like a bias.
    """
    model: Model = "floating_pt" if layout is None else "fixed_pt"
    source = graph.input.name
    names = [name for name in graph.order if input == "events" or name != source]
    position = {name: i for i, name in enumerate(names)}
    populations: list[PopulationJob] = []
    projections: list[ProjectionJob] = []
    arrays: dict[str, NDArray[Any]] = {}
    for i, name in enumerate(names):
        population = graph.population(name)
        populations.append(
            PopulationJob(
                name=name,
                kind=population.kind,
                size=population.size,
                start=first_step(graph, name),
                every_step=population.bias_mode == "every_step",
                to_zero=population.reset == "zero",
                record=name in record,
                injected_every_step=graph.input.bias_mode == "every_step",
            )
        )
        if name == source:
            arrays[f"population/{i}/values"] = values.astype(EMITTED)
            continue
        for field in ("threshold", "threshold_neg", "v_init", "bias"):
            if getattr(population, field) is not None:
                arrays[f"population/{i}/{field}"] = _membranes(getattr(population, field), name, layout)
        for field in ("decay_current", "decay_voltage"):
            if getattr(population, field) is not None:
                arrays[f"population/{i}/{field}"] = getattr(population, field)
        if population.kind == "aec":
            arrays[f"population/{i}/thresholds"] = _membranes(_of_both_spikes(population, "threshold"), name, layout)
    for projection in graph.projections:
        if projection.pre in position:
            label = f"projection/{len(projections)}"
            arrays |= synapse_arrays(label, projection.connection if layout is None else layout.mantissas(graph, projection.key))
            arrays[f"{label}/values"] = arrays[f"{label}/values"].astype(SYNAPTIC[model])
            if graph.population(projection.pre).kind == "aec":
                arrays[f"{label}/payloads"] = _of_both_spikes(graph.population(projection.pre), "payload").astype(EMITTED)
            exponent = 0 if layout is None else layout.exponents[projection.key]
            ends = position[projection.pre], position[projection.post]
            projections.append(ProjectionJob(*ends, delay=message_delay(graph, *projection.key), exponent=exponent))
        else:
            injected = np.asarray(values @ projection.connection.to_csr().to_scipy(), np.int64)
            if layout is not None:
                check_injected(graph, projection.post, injected, layout)
            arrays[f"population/{position[projection.post]}/injected"] = _membranes(injected, projection.post, layout)
    return Job(
        model=model,
        shape=shape,
        steps=steps,
        images=len(values),
        block=(
            even_block(len(values), FUSED_BLOCK)
            if shape == "fused"
            else block_size(len(values), populations, projections, CURRENT[model].itemsize)
        ),
        populations=tuple(populations),
        projections=tuple(projections),
        arrays=arrays,
    )


def _membranes(values: NDArray[np.int64], name: str, layout: Layout | None) -> NDArray[Any]:
    """Values in the unit and the number type of a population's membranes."""
    return values.astype(CURRENT["floating_pt"]) if layout is None else words(values, layout.shifts[name])


def _of_both_spikes(population: Population, field: str) -> NDArray[np.int64]:
    """One table of the primary spike and one of the compensation, shape (2, slots)."""
    return np.stack([population.tables[f"primary_{field}"], population.tables[f"compensation_{field}"]])


def synapse_arrays(label: str, connection: Connection) -> dict[str, NDArray[Any]]:
    """The three CSR arrays of a connection, by their names in a job."""
    csr = connection.to_csr()
    return {
        f"{label}/pointers": csr.pointers,
        f"{label}/indices": csr.indices.astype(np.uint32),
        f"{label}/values": csr.values,
    }


def block_size(images: int, populations: list[PopulationJob], projections: list[ProjectionJob], current_bytes: int) -> int:
    """How many images to run side by side: as many as the shared memory for messages allows, in blocks of one size.

    A message from a population takes ``EMITTED`` bytes a neuron, one to it ``current_bytes``.

    Raises
    ------
    BackendError
        If ``/dev/shm`` is too small for one image. (Lava would be killed by a bus error.)
    """
    per_image = CHANNEL_SLOTS * sum(
        EMITTED.itemsize * populations[p.pre].size + current_bytes * populations[p.post].size for p in projections
    )
    free = shutil.disk_usage("/dev/shm").free
    if per_image > free // 2:
        raise BackendError(
            f"backend 'lava': one image needs {per_image / 2**20:.0f} MiB of shared memory for Lava's messages, and half of what "
            f"is free in /dev/shm is {free / 2**21:.0f} MiB; enlarge it (docker run --shm-size=1g ...) or use backend 'native'"
        )
    return even_block(images, max(1, min(CHANNEL_BYTES, free // 2) // max(per_image, 1)))


def even_block(images: int, largest: int) -> int:
    """The size of blocks in which images run: as few blocks as ``largest`` allows, of one size."""
    return -(-images // -(-images // largest))
