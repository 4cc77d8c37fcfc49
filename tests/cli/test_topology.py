"""``sparsespike topology``: the initial links are those the run began with, and every number is the model's."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sparsespike.ann.checkpoint import load_model, save_model
from sparsespike.ann.config import TrainConfig
from sparsespike.ann.topology import Topology, er
from sparsespike.ann.topology.report import DegreeSummary, report_layers
from sparsespike.ann.topology.science import PowerLaw, shared_links
from sparsespike.ann.train import train
from sparsespike.cli.topology import FIGURES

Command = Callable[..., Any]
SMALL = TrainConfig(hidden=(80, 60), sparsity=0.9, epochs=4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(SMALL, tmp_path_factory.mktemp("run") / "chts").folder


@pytest.mark.parametrize("topology", ["er", "bsw", "brf", "csti"])
def test_a_static_run_still_has_its_initial_topology(sparsespike: Command, tmp_path: Path, topology: str) -> None:
    config = TrainConfig(hidden=(80, 60), sparsity=0.8, method="static", topology=topology, epochs=1, seed=3)
    ended = sparsespike("topology", train(config, tmp_path / "run").folder, "--json", "--no-plots")
    assert ended.code == 0, ended.err
    document = json.loads(ended.out)
    assert document["overlap_with_initial"] == [1.0, 1.0]
    assert all(layer["initial"] == layer["final"] for layer in document["layers"])
    assert not (tmp_path / "run" / FIGURES[0]).exists()


def test_the_numbers_are_those_of_the_model(sparsespike: Command, folder: Path) -> None:
    ended = sparsespike("topology", folder, "--json")
    assert ended.code == 0, ended.err
    document = json.loads(ended.out)
    model, known = load_model(folder)
    rows = list(csv.DictReader((folder / "metrics.csv").read_text().splitlines()))
    assert document["epoch"] == known["epoch"]
    assert document["active_neurons"]["final"] == float(rows[known["epoch"] - 1]["anp"])
    assert document["itop"] == float(rows[known["epoch"] - 1]["itop"])
    assert len(document["layers"]) == 2
    for layer, reported in zip(model.sparse_layers, document["layers"], strict=True):
        pattern = layer.topology.to_dense()
        final = reported["final"]
        assert final["links"] == int(pattern.sum()) == reported["initial"]["links"]
        assert final["density"] == pattern.mean()
        for name, degrees in (("in_degree", pattern.sum(1)), ("out_degree", pattern.sum(0))):
            found = final[name]
            assert (found["minimum"], found["maximum"], found["mean"]) == (degrees.min(), degrees.max(), degrees.mean())
            assert (found["median"], found["linked"]) == (np.median(degrees), np.count_nonzero(degrees))
        assert final["small_world"]["sigma"] > 0
    assert all(0 < overlap < 1 for overlap in document["overlap_with_initial"])
    for name in FIGURES:
        with Image.open(folder / name) as image:
            assert image.format == "PNG"
            assert min(image.size) > 500
            assert len(set(image.convert("L").resize((64, 64)).tobytes())) > 10  # not blank


def test_the_tables_hold_initial_beside_final(sparsespike: Command, folder: Path) -> None:
    ended = sparsespike("topology", folder)
    assert ended.code == 0, ended.err
    for text in (
        "Layer 1: 64 inputs, 80 outputs",
        "Layer 2: 80 inputs, 60 outputs",
        "initial",
        "final",
        "Active neurons (ANP)",
        "(ITOP): ",
    ):
        assert text in ended.out
    (links, _) = (line.split() for line in ended.out.splitlines() if line.split()[:1] == ["links"] and "shared" not in line)
    assert links == ["links", "512", "512"]


def test_without_the_data_the_final_topology_is_shown(sparsespike: Command, folder: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(folder, moved)
    model, known = load_model(folder)
    known["training"]["data"] = "imagefolder:gone"
    save_model(moved / "model.safetensors", model, {name: value for name, value in known.items() if name != "format_version"})
    ended = sparsespike("topology", moved, "--json", "--no-plots")
    assert ended.code == 0, ended.err
    document = json.loads(ended.out)
    assert document["overlap_with_initial"] is None
    assert [list(layer) for layer in document["layers"]] == [["final"], ["final"]]
    assert "--data" in ended.err
    found = sparsespike("topology", moved, "--json", "--no-plots", "--data", "digits")
    original = sparsespike("topology", folder, "--json", "--no-plots")
    assert json.loads(found.out)["layers"] == json.loads(original.out)["layers"]


def test_a_run_that_did_not_record_the_explored_links_says_so(sparsespike: Command, folder: Path, tmp_path: Path) -> None:
    old = tmp_path / "old"
    shutil.copytree(folder, old)
    lines = (folder / "metrics.csv").read_text().splitlines()
    assert lines[0].endswith(",itop")
    (old / "metrics.csv").write_text("".join(line.rpartition(",")[0] + "\n" for line in lines))
    assert "(ITOP): –\n" in sparsespike("topology", old, "--no-plots").out
    assert json.loads(sparsespike("topology", old, "--json", "--no-plots").out)["itop"] is None
    (old / "metrics.csv").unlink()
    assert json.loads(sparsespike("topology", old, "--json", "--no-plots").out)["itop"] is None


def test_dense_and_absent_runs_are_refused(sparsespike: Command, tmp_path: Path) -> None:
    dense = train(TrainConfig(hidden=(16,), sparsity=0.0, epochs=1), tmp_path / "dense").folder
    ended = sparsespike("topology", dense)
    assert ended.code == 2
    assert "dense network" in ended.err
    assert sparsespike("topology", tmp_path / "nowhere").code == 2


def test_a_report_of_layers_without_links_or_nearly_all() -> None:
    empty, full = Topology.from_links((5, 4), []), er((6, 5), 0.0, np.random.default_rng(0))
    first, second = report_layers([empty, full], np.random.default_rng(0))
    assert first.small_world is None
    assert second.small_world is None
    assert (first.links, first.in_degree.linked, first.in_degree.power_law) == (0, 0, None)
    assert (second.density, second.in_degree.minimum, second.out_degree.maximum) == (1.0, 5, 6)
    assert second.active_inputs == 0.0
    assert second.in_degree.verdict == "none: one degree only"
    assert shared_links(full, full) == 1.0


@pytest.mark.parametrize(
    ("law", "verdict"),
    [
        (PowerLaw(2.5, 3, 400, 0.07), "no power law: rejected"),
        (PowerLaw(2.5, 3, 400, 0.06), "scale-free: not rejected"),
        (PowerLaw(3.5, 3, 400, 0.06), "too steep to be scale-free"),
        (PowerLaw(2.5, 3, 49, 0.06), "too few to tell: 49 nodes"),
    ],
)
def test_verdicts(law: PowerLaw, verdict: str) -> None:
    # 1.358 / sqrt(400) = 0.0679 is the 5 % point.
    assert DegreeSummary(400, 400, 3, 4.0, 5.0, 99, law).verdict == verdict


def test_degrees_drawn_from_a_power_law_are_told_from_binomial_ones() -> None:
    generator = np.random.default_rng(0)
    summary = DegreeSummary.of(generator.zipf(2.5, 4000).astype(np.int64))
    assert summary.verdict == "scale-free: not rejected"
    assert summary.power_law is not None
    assert abs(summary.power_law.exponent - 2.5) < 0.2
    assert DegreeSummary.of(generator.binomial(3000, 0.01, 4000).astype(np.int64)).verdict != "scale-free: not rejected"
