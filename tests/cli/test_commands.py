"""The way of a user through the commands, on a small network that is really trained, converted and run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sparsespike.backends.native import NativeBackend
from sparsespike.cli.doctor import small_network
from sparsespike.cli.options import images_for
from sparsespike.export.connections import CSRConnection
from sparsespike.export.graph import Projection, SpikingGraph
from sparsespike.export.graphfile import load_graph, save_graph

Run = Callable[..., Any]

TRAIN = ("--hidden", "60,40", "--sparsity", "0.8", "--epochs", "2", "--topology", "er", "--levels", "4")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("run") / "small"


def test_train_convert_simulate_inspect_compare(sparsespike: Run, folder: Path) -> None:
    trained = sparsespike("train", "--out", folder, *TRAIN, "--json")
    assert trained.code == 0, trained.err
    summary = json.loads(trained.out)
    assert summary["epochs"] == 2
    assert 0.2 < summary["test_accuracy"] <= 1

    converted = sparsespike("convert", folder, "--bits", 12, "--json")
    assert converted.code == 0, converted.err
    graph = load_graph(folder / "graph.safetensors")
    assert json.loads(converted.out)["digest"] == graph.digest()
    assert graph.provenance["dataset"] == "digits"
    assert graph.provenance["ann_test_accuracy"] == summary["test_accuracy"]

    simulated = sparsespike("simulate", folder / "graph.safetensors", "--images", 30, "--steps", 8, "--json")
    assert simulated.code == 0, simulated.err
    (run,) = json.loads(simulated.out)["runs"]
    assert run["images"] == 30
    stated = NativeBackend().memory(graph, 8, 30)  # said beforehand; pixels of 64 bytes an image, as the data set has them
    assert f"native: at most {stated / 1e6:,.1f} MB of memory, beside the graph and 0.0 MB of images" in simulated.err
    assert images_for(graph, None, 30)[0].dtype == np.uint8
    assert len(run["accuracy_by_step"]) == 8
    inputs = np.zeros((1, 64), np.int64)
    result = NativeBackend().run(graph, inputs, 8)
    assert set(result.events) == {(row["pre"], row["post"]) for row in run["projections"]}
    assert all(row["counting"] == "measured" for row in run["projections"])

    inspected = sparsespike("inspect", folder / "graph.safetensors", "--json")
    assert json.loads(inspected.out)["synapses"] == graph.nnz

    compared = sparsespike("compare", folder / "graph.safetensors", "--images", 2, "--steps", 4, "--json")
    assert compared.code == 0, compared.err
    assert json.loads(compared.out)["comparisons"] == [{"reference": "native", "backend": "brian2", "equal": True}]


def test_simulate_writes_results_and_prints_the_ledger(sparsespike: Run, tmp_path: Path) -> None:
    graph, _ = small_network()
    named = SpikingGraph(graph.populations, graph.projections, {"dataset": "digits"})
    save_graph(named, tmp_path / "other.safetensors")
    refused = sparsespike("simulate", tmp_path / "other.safetensors", "--images", 3)
    assert refused.code == 2
    assert "64 values" in refused.err
    assert "input has 6" in refused.err


def test_compare_reports_the_first_divergence(sparsespike: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A backend that loses synapses is found out; the divergence names where."""
    from sparsespike.cli import options

    real = options.get_backend

    class Lossy:
        name = "lossy"

        def check(self, graph: SpikingGraph) -> list[str]:
            return []

        def run(self, graph: SpikingGraph, *arguments: Any, **settings: Any) -> Any:
            first = graph.into(graph.spiking[0])[0]
            matrix = first.connection.to_csr().to_scipy().tolil()
            matrix[24:40] = 0  # the pixels in the middle of a digit
            lossy = Projection(first.pre, first.post, CSRConnection.from_scipy(matrix.tocsr()))
            rest = [p for p in graph.projections if p.key != first.key]
            return NativeBackend().run(SpikingGraph(graph.populations, [lossy, *rest]), *arguments, **settings)

    monkeypatch.setattr(options, "get_backend", lambda name, **limit: Lossy() if name == "brian2" else real(name, **limit))
    compared = sparsespike("compare", folder / "graph.safetensors", "--images", 5, "--steps", 8, "--json")
    assert compared.code == 1
    (row,) = json.loads(compared.out)["comparisons"]
    assert row["equal"] is False
    assert "hidden1" in row["first_divergence"]


def test_train_resumes_and_refuses_another_run(sparsespike: Run, folder: Path) -> None:
    again = sparsespike("train", "--out", folder, *TRAIN)
    assert again.code == 2
    assert "resume" in again.err
    assert sparsespike("train", "--out", folder, *TRAIN, "--resume").code == 0
    other = sparsespike("train", "--out", folder, *TRAIN, "--seed", 5, "--resume")
    assert other.code == 2
    assert "seed = 0 (now 5)" in other.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("train", "--out", "x", "--data", "cifar11"), "data set 'cifar11' is unknown"),
        (("train", "--out", "x", "--data", "imagefolder:/does/not/exist"), "/does/not/exist"),
        (("train", "--out", "x", "--hidden", "12,a"), "--hidden '12,a'"),
        (("train", "--out", "x", "--sparsity", "1.5"), "sparsity is 1.5"),
        (("train", "--out", "x", "--evolution", "zeta"), "NAME=VALUE"),
        (("train", "--out", "x", "--method", "magic"), "'magic'"),
        (("train", "--out", "/proc/x"), "/proc/x"),
        (("convert", "nowhere"), "nowhere"),
        (("simulate", "nowhere.safetensors"), "nowhere.safetensors"),
        (("inspect", "nowhere.safetensors"), "nowhere.safetensors"),
        (("compare", "nowhere.safetensors", "--backend", "native"), "expected at least two"),
    ],
)
def test_bad_use_ends_in_one_message_and_code_2(
    sparsespike: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    ended = sparsespike(*arguments)
    assert ended.code == 2
    assert ended.err.startswith("error: ")
    assert message in ended.err
    assert "Traceback" not in ended.err
    assert ended.out == ""


def test_unknown_backend_and_flag(sparsespike: Run, folder: Path) -> None:
    ended = sparsespike("simulate", folder / "graph.safetensors", "--backend", "nest", "--images", 1)
    assert ended.code == 2
    assert "backend 'nest' is unknown" in ended.err
    assert sparsespike("simulate", folder / "graph.safetensors", "--no-such-flag").code == 2


def test_doctor_runs_every_backend(sparsespike: Run) -> None:
    ended = sparsespike("doctor", "--json")
    assert ended.code == 0, ended.err
    findings = {finding["what"]: finding for finding in json.loads(ended.out)}
    for name in ("native", "brian2", "brian2-cython", "brian2-cpp", "lava", "lava-fixed"):
        assert findings[f"backend {name}"]["works"], findings[f"backend {name}"]
    assert findings["backend brian2-cython"]["found"] == "installed, not run"
    assert "not run" not in findings["backend brian2-cpp"]["found"]
    assert findings["lava-nc"]["found"].startswith("0.10.0")
