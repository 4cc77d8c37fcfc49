"""``sparsespike demo``: the whole way in one command; its tables, JSON, files and plots."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from sparsespike.cli import demo
from sparsespike.export.graphfile import load_graph

Command = Callable[..., Any]
PLOTS = ("accuracy.png", "energy.png", "events_sparse.png", "events_dense.png")
BACKENDS = ("native", "brian2", "lava")


def check_document(document: dict[str, Any], folder: Path, images: int, steps: int) -> None:
    """What is printed with ``--json`` is what is in the files, and every account closes."""
    assert list(document) == ["sparse", "dense", "saving"]
    assert "saving (E_dense - E_sparse) / E_dense" in document["saving"]
    for name in ("sparse", "dense"):
        network = document[name]
        written = json.loads((folder / name / "results.json").read_text())
        for_the_report = {key: written.pop(key) for key in ("account", "rasters", "made_by")}
        assert written == network
        assert len(for_the_report["rasters"]["images"]) == 3
        graph = load_graph(folder / name / "graph.safetensors")
        assert network["synapses"] == graph.nnz
        assert network["reconciled"] is True
        assert [run["backend"] for run in network["runs"]] == list(BACKENDS)
        for run in network["runs"]:
            assert (run["images"], run["steps"], run["graph_digest"]) == (images, steps, graph.digest())
            assert all(projection["counting"] == "measured" for projection in run["projections"])
            assert run["projections"] == network["runs"][0]["projections"]
            assert run["populations"] == network["runs"][0]["populations"]
            assert run["accuracy_by_step"] == network["runs"][0]["accuracy_by_step"]
        *rows, total = network["ledger"]
        assert [(row["pre"], row["post"]) for row in rows] == [p.key for p in graph.projections]
        for row in (*rows, total):
            assert {row[f"{backend}_residual_events"] for backend in BACKENDS} == {0}
            (measured,) = {row[f"{backend}_measured_events"] for backend in BACKENDS}
            assert measured == pytest.approx(row["analytic_graph_events"] + row["covariance_events"], abs=1e-6)
        if name == "dense":
            assert {row["covariance_events"] for row in rows} == {0}
        assert [d["name"] for d in network["differences_from_quantised_ann"]] == list(graph.spiking)
        assert network["differences_from_quantised_ann"][0]["max"] == 0  # the input is constant: the first layer is exact
        table = list(csv.DictReader((folder / name / "ledger.csv").read_text().splitlines()))
        assert [row["post"] for row in table] == [row["post"] for row in network["ledger"]]
    for plot in PLOTS:
        with Image.open(folder / plot) as image:
            assert image.format == "PNG"
            assert min(image.size) > 400
            assert len(set(image.convert("L").resize((64, 64)).tobytes())) > 10  # not blank


def check_tables(text: str) -> None:
    for name in ("sparse", "dense"):
        assert f"{name}: synaptic events of the mean image, by backend" in text
    assert text.count("Rasters, spike counts, event counts and readouts of native, brian2, lava are equal.") == 2
    assert text.count("residual 0: every measured count equals analytic + covariance") == 2
    for column in ("layer", "spikes", *BACKENDS, "analytic", "covariance", "residual", "energy_nJ"):
        assert column in text
    assert "saving (E_dense - E_sparse) / E_dense = " in text


def test_a_small_demo(sparsespike: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same command with narrower layers and fewer epochs."""
    monkeypatch.setattr(demo, "HIDDEN", (60, 50, 40))
    monkeypatch.setattr(demo, "EPOCHS", {"sparse": 2, "dense": 2})
    monkeypatch.setattr(demo, "NETWORKS", {"sparse": 0.9, "dense": 0.0})
    first = sparsespike("demo", "--out", tmp_path, "--images", 8, "--steps", 8, "--json")
    assert first.code == 0, first.err
    document = json.loads(first.out)
    check_document(document, tmp_path, 8, 8)
    metrics = (tmp_path / "sparse" / "metrics.csv").read_text()  # with the seconds of each epoch
    again = sparsespike("demo", "--out", tmp_path, "--images", 8, "--steps", 8)
    assert again.code == 0, again.err
    check_tables(again.out)
    assert (tmp_path / "sparse" / "metrics.csv").read_text() == metrics  # taken up, not trained again
    repeated = sparsespike("demo", "--out", tmp_path, "--backend", "native", "--backend", "native")
    assert repeated.code == 2
    assert "--backend native: found 2 times" in repeated.err


@pytest.mark.full
def test_the_demo_of_the_readme(tmp_path: Path) -> None:
    """As a user calls it, in a folder of its own."""

    def run(*options: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "sparsespike.cli", "demo", "--out", "demo", *options],
            cwd=tmp_path,
            env={name: value for name, value in os.environ.items() if name != "COLUMNS"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    check_tables(run())
    document = json.loads(run("--json"))
    check_document(document, tmp_path / "demo", 100, 32)
    assert document["sparse"]["ann_test_accuracy"] > 0.95
    assert document["dense"]["ann_test_accuracy"] > 0.97
    assert document["sparse"]["snn_test_accuracy_by_step"][-1] > 0.95
    assert document["sparse"]["synapses"] < 0.02 * document["dense"]["synapses"]
