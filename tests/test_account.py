"""The whole way on real images: train, convert, run on three backends, and the account closes to zero."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from sparsespike.ann.checkpoint import load_model
from sparsespike.ann.config import TrainConfig
from sparsespike.ann.data import load
from sparsespike.ann.encoding import Encoding
from sparsespike.ann.train import train
from sparsespike.backends.base import RunResult
from sparsespike.backends.brian2 import plan
from sparsespike.backends.compare import first_divergence
from sparsespike.backends.lava import job
from sparsespike.backends.native import engine
from sparsespike.backends.native.plan import Plan
from sparsespike.backends.reference import reference
from sparsespike.backends.registry import get_backend
from sparsespike.backends.testing import assert_equal
from sparsespike.energy.ledger import Ledger
from sparsespike.export.connections import Connection
from sparsespike.export.graph import Key, Projection, SpikingGraph
from sparsespike.export.graphfile import load_graph, save_graph
from sparsespike.export.qcfs import convert_qcfs

BACKENDS = ("native", "brian2", "lava")
SPARSITY = {"sparse": 0.9, "dense": 0.0}
STEPS, IMAGES = 32, 100


class Account(NamedTuple):
    """A trained and converted network, what it was shown, and what each backend made of it."""

    graph: SpikingGraph
    inputs: NDArray[np.int64]
    runs: dict[str, RunResult]


def images() -> NDArray[np.int64]:
    """The first hundred test digits."""
    return load("digits").test.images[:IMAGES].reshape(IMAGES, -1).astype(np.int64)


def converted(config: TrainConfig, folder: Path) -> SpikingGraph:
    """Train, convert, write the file and read it back, as a user would."""
    model, known = load_model(train(config, folder).folder)
    save_graph(convert_qcfs(model, Encoding.from_dict(known["encoding"]), 16).graph, folder / "graph.safetensors")
    return load_graph(folder / "graph.safetensors")


def run_all(graph: SpikingGraph) -> Account:
    inputs = images()
    runs = {name: get_backend(name).run(graph, inputs, STEPS, record=graph.spiking) for name in BACKENDS}
    return Account(graph, inputs, runs)


@pytest.fixture(scope="module", params=SPARSITY)
def account(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Account:
    config = TrainConfig(hidden=(90, 70, 50), sparsity=SPARSITY[request.param], activation="qcfs", lam=2.0, epochs=8, seed=2)
    return run_all(converted(config, tmp_path_factory.mktemp("run") / request.param))


def assert_closes(account: Account) -> None:
    """Rasters, spikes, events and readouts are equal, and nothing is left over in any backend's account."""
    graph, inputs, runs = account
    native = runs["native"]
    for run in runs.values():
        assert (run.images, run.steps) == (IMAGES, STEPS)
        assert set(run.rasters) == set(graph.spiking)
        assert set(run.counting.values()) == {"measured"}
        assert_equal(run, native)
        assert first_divergence(graph, native, run, inputs) is None
    assert all(counts.events.sum() > IMAGES * STEPS for counts in native.spikes.values())
    ledger = Ledger.from_results(graph, list(runs.values()))
    assert ledger.reconciled
    for entry in ledger.entries:
        assert sorted(entry.measured) == sorted(BACKENDS)
        assert {entry.residual(name) for name in BACKENDS} == {0}
        # Counted here once more, from the raster and the weights alone.
        fan_out = graph.projection(entry.pre, entry.post).connection.to_csr().to_scipy().getnnz(axis=1)
        emitted = (
            STEPS * (inputs != 0) if entry.pre == graph.input.name else native.rasters[entry.pre].sum(axis=1, dtype=np.int64)
        )
        assert int((emitted @ fan_out).sum()) == entry.measured["lava"] == entry.analytic_graph + entry.covariance
    total = ledger.to_frame().iloc[-1]
    assert [total[f"{name}_residual_events"] for name in BACKENDS] == [0, 0, 0]


def test_backends_agree_and_the_account_closes(account: Account) -> None:
    assert_closes(account)
    assert_equal(account.runs["native"], reference(account.graph, account.inputs, STEPS))


def test_the_network_sees_the_digits(account: Account) -> None:
    right = account.runs["lava"].predictions[:, -1] == load("digits").test.labels[:IMAGES]
    assert right.mean() > 0.7


def test_covariance_is_zero_in_dense_networks_and_not_in_sparse_ones(account: Account) -> None:
    ledger = Ledger.from_results(account.graph, list(account.runs.values()))
    covariances = [entry.covariance for entry in ledger.entries]
    shapes = {p.connection.nnz == np.prod(p.connection.shape) for p in account.graph.projections[:-1]}
    if shapes == {True}:
        assert covariances == [0, 0, 0, 0]
    else:
        assert shapes == {False}
        assert all(covariances[:-1])
        assert covariances[-1] == 0  # the classifier is dense


def drop_in_native(monkeypatch: pytest.MonkeyPatch, graph: SpikingGraph, key: Key, row: int) -> None:
    """The compiled kernel's arrays lose the last synapse of a row."""
    keys = [p.key for name in graph.order for p in graph.into(name)]
    whole = engine.lower

    def lower(graph: SpikingGraph) -> Plan:
        plan = whole(graph)
        first = plan.first_row[keys.index(key)]
        end = plan.pointers[first + row + 1]
        # Entries after the row's end count one less; the ends of earlier projections are not touched.
        later = (np.arange(len(plan.pointers)) > first + row) & (plan.pointers >= end)
        return plan._replace(
            pointers=plan.pointers - later, indices=np.delete(plan.indices, end - 1), values=np.delete(plan.values, end - 1)
        )

    monkeypatch.setattr(engine, "lower", lower)


def drop_in_brian2(monkeypatch: pytest.MonkeyPatch, graph: SpikingGraph, key: Key, row: int) -> None:
    """The Synapses object is made without one."""
    whole = plan.synapses

    def synapses(projection: Projection) -> tuple[NDArray[np.int64], ...]:
        i, j, w = whole(projection)
        at = np.flatnonzero(i == row)[-1] if projection.key == key else len(i)
        return tuple(np.delete(array, slice(at, at + 1)) for array in (i, j, w))

    monkeypatch.setattr(plan, "synapses", synapses)


def drop_in_lava(monkeypatch: pytest.MonkeyPatch, graph: SpikingGraph, key: Key, row: int) -> None:
    """The synapse process gets arrays that lack one."""
    whole = job.synapse_arrays

    def synapse_arrays(label: str, connection: Connection) -> dict[str, NDArray[np.generic]]:
        arrays = whole(label, connection)
        if connection is not graph.projection(*key).connection:
            return arrays
        pointers, indices, values = arrays.values()
        end = pointers[row + 1]
        kept = (pointers - (np.arange(len(pointers)) > row), np.delete(indices, end - 1), np.delete(values, end - 1))
        return dict(zip(arrays, kept, strict=True))

    monkeypatch.setattr(job, "synapse_arrays", synapse_arrays)


Drop = Callable[[pytest.MonkeyPatch, SpikingGraph, Key, int], None]
DROPS: dict[str, Drop] = {"native": drop_in_native, "brian2": drop_in_brian2, "lava": drop_in_lava}


@pytest.mark.parametrize("name", BACKENDS)
def test_one_synapse_dropped_inside_a_backend_is_the_residual(
    account: Account, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph, inputs, runs = account
    key = ("hidden3", graph.readout.name)
    spikes = runs[name].spikes[key[0]].events.sum(axis=0)
    row = int(np.argmax(spikes))
    DROPS[name](monkeypatch, graph, key, row)
    lossy = get_backend(name).run(graph, inputs, STEPS, record=graph.spiking)
    ledger = Ledger.from_results(graph, [lossy if other == name else run for other, run in runs.items()])
    assert ledger.disagreements == ()  # the readout does not fire: only its events and membranes can tell
    assert ledger.residuals == {(name, key): -int(spikes[row])}
    assert spikes[row] > 0
    assert not ledger.reconciled
    other = "brian2" if name == "native" else "native"
    divergence = first_divergence(graph, runs[other], lossy, inputs)
    assert divergence is not None
    assert (divergence.quantity, divergence.where) == ("events", " -> ".join(key))


@pytest.mark.full
@pytest.mark.parametrize("kind", SPARSITY)
def test_wide_networks_agree_and_the_account_closes(kind: str, tmp_path: Path) -> None:
    """64-1024-1024-1024-10, at 99 % and dense."""
    sparsity = 0.99 if kind == "sparse" else 0.0
    config = TrainConfig(sparsity=sparsity, topology="bsw", activation="qcfs", lam=2.0, epochs=2)
    account = run_all(converted(config, tmp_path / kind))
    assert [population.size for population in account.graph.populations][-1] == 10
    assert_closes(account)
    covariances = [entry.covariance for entry in Ledger.from_results(account.graph, [account.runs["lava"]]).entries]
    assert all(covariances[1:-1]) if kind == "sparse" else not any(covariances)
