"""`diagnose`, and bits and time steps that are chosen by measurement, on networks that are really trained."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sparsespike.ann.checkpoint import load_model, save_model
from sparsespike.ann.config import TrainConfig
from sparsespike.ann.data import load
from sparsespike.ann.encoding import Encoding
from sparsespike.ann.train import train
from sparsespike.backends.native import NativeBackend
from sparsespike.cli.doctor import small_network
from sparsespike.energy.saturation import saturation
from sparsespike.export.aec import convert_aec
from sparsespike.export.calibrate import Calibration
from sparsespike.export.graph import SpikingGraph
from sparsespike.export.graphfile import load_graph, save_graph

Run = Callable[..., Any]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folders = {}
    for activation in ("qcfs", "relu"):
        folders[activation] = tmp_path_factory.mktemp("runs") / activation
        config = TrainConfig(hidden=(60, 40), sparsity=0.8, epochs=3, topology="er", activation=activation, levels=4)
        train(config, folders[activation])
    return folders


def test_a_graph_that_is_converted_now(sparsespike: Run, runs: dict[str, Path]) -> None:
    ended = sparsespike("diagnose", runs["qcfs"], "--bits", 6, "--steps", 4, "--images", 200, "--json")
    assert ended.code == 0, ended.err
    found = json.loads(ended.out)
    assert [stage["stage"] for stage in found["stages"]] == [
        "ANN (torch)",
        "quantised ANN, L = 4 levels",
        "ANN, rates of T = 4 steps",
        "SNN in floating point",
        *(f"SNN, {bits} bits" for bits in (24, 16, 8, 6)),
    ]
    assert (found["graph_stage"], found["bits"], found["steps"], found["images"]) == ("SNN, 6 bits", 6, 4, 200)
    assert [layer["name"] for layer in found["layers"]] == ["hidden1", "hidden2", "readout"]
    assert found["sentence"].startswith(f"Worst layer: {found['worst_layer']}, ")

    table = sparsespike("diagnose", runs["relu"], "--method", "percentile", "--percentile", 99, "--calibration", 100)
    assert table.code == 0, table.err
    for text in (
        "PERCENTILE, 359 images, T = 32: stages",
        "ANN, clipped at the thresholds",
        "hidden2",
        "Worst layer: ",
        "on 359 images.",
    ):
        assert text in " ".join(table.out.split())


@pytest.mark.parametrize("method", ["qcfs", "snm", "percentile"])
def test_a_damaged_graph_file(sparsespike: Run, runs: dict[str, Path], tmp_path: Path, method: str) -> None:
    """The conversion is done again as the graph says; the layer whose thresholds were changed is named."""
    model = runs["qcfs" if method == "qcfs" else "relu"]
    settings = () if method == "qcfs" else ("--percentile", 99.5, "--calibration", 150)
    whole = tmp_path / "whole.safetensors"
    assert sparsespike("convert", model, "--method", method, *settings, "--bits", 8, "--out", whole).code == 0
    same = json.loads(sparsespike("diagnose", model, whole, "--images", 100, "--json").out)
    assert same["graph_stage"] == "SNN, 8 bits"
    graph = load_graph(whole)
    threshold = graph.population("hidden2").threshold
    assert threshold is not None
    populations = [replace(p, threshold=10 * threshold) if p.name == "hidden2" else p for p in graph.populations]
    save_graph(SpikingGraph(populations, graph.projections, graph.provenance), tmp_path / "damaged.safetensors")
    folder = tmp_path / "plots"
    ended = sparsespike("diagnose", model, tmp_path / "damaged.safetensors", "--images", 100, "--out", folder)
    assert ended.code == 0, ended.err
    assert "Worst layer: hidden2, " in " ".join(ended.out.split())
    written = json.loads((folder / "diagnosis.json").read_text())
    assert (written["worst_layer"], written["worst_cause"], written["method"]) == ("hidden2", "integers", method)
    assert written["stages"][-1]["stage"] == "this graph"
    assert written["stages"][-1]["before"] == "SNN, 8 bits"
    assert written["stages"][:-1] == same["stages"]
    for name in ("stages", "layers", "activations"):
        assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_a_graph_of_kind_aec(sparsespike: Run, runs: dict[str, Path], tmp_path: Path) -> None:
    model, known = load_model(runs["relu"])
    train_split = load("digits", seed=0, validation=0.1).train
    images = Calibration(train_split.images[np.sort(np.random.default_rng(0).permutation(len(train_split))[:100])], 99.0)
    encoding = Encoding.from_dict(known["encoding"])
    graph = convert_aec(model, encoding, images, 16, steps=6, payload_bits=10).graph
    save_graph(graph, tmp_path / "aec.safetensors")
    ended = sparsespike("diagnose", runs["relu"], tmp_path / "aec.safetensors", "--images", 50, "--json")
    assert ended.code == 0, ended.err
    found = json.loads(ended.out)
    assert (found["method"], found["steps"], found["graph_stage"]) == ("aec", 7, "SNN, 16 bits")
    assert found["stages"][2]["stage"] == "ANN, exponential code of 7 slots"
    for arguments, slots in (((), 17), (("--steps", 8), 9)):
        converted_now = sparsespike("diagnose", runs["relu"], "--method", "aec", "--images", 50, "--json", *arguments)
        assert json.loads(converted_now.out)["steps"] == slots


def test_bits_and_steps_are_chosen_and_kept(sparsespike: Run, runs: dict[str, Path], tmp_path: Path) -> None:
    target = tmp_path / "chosen.safetensors"
    arguments = ("convert", runs["qcfs"], "--bits", "auto", "--margin", 2, "--steps", "auto", "--out", target)
    converted = sparsespike(*arguments, "--json")
    assert converted.code == 0, converted.err
    graph = load_graph(target)
    choices = graph.provenance["choices"]
    assert json.loads(converted.out)["choices"] == choices
    steps, bits = choices["steps"], choices["bits"]
    assert bits["bits"] == graph.provenance["bits"] == json.loads(converted.out)["bits"]
    assert (bits["margin_points"], bits["steps"]) == (2.0, steps["steps"])
    held_out = load("digits", seed=0, validation=0.1).validation
    assert steps["images"] == bits["images"] == len(held_out)
    run = NativeBackend().run(graph, held_out.images.reshape(len(held_out), -1).astype(np.int64), steps["steps"])
    assert (run.predictions[:, -1] == held_out.labels).mean() == bits["accuracy_by_bits"][str(bits["bits"])]
    window = saturation([round(accuracy * steps["images"]) for accuracy in steps["accuracy_by_step"]])
    assert steps["saturation"] == (None if window is None else {"start": window.start, "end": window.end})

    told = sparsespike(*arguments)
    assert f"Chosen: T = {steps['steps']}: " in told.out
    assert f"Chosen: {bits['bits']} bits: the least width within 2 points of 24 bits" in " ".join(told.out.split())
    simulated = json.loads(sparsespike("simulate", target, "--steps", "auto", "--images", 50, "--json").out)
    assert simulated["runs"][0]["steps"] == steps["steps"]
    assert simulated["steps_choice"] is None  # it was taken from the graph


def test_steps_are_chosen_when_the_graph_does_not_say(sparsespike: Run, runs: dict[str, Path], tmp_path: Path) -> None:
    target = tmp_path / "plain.safetensors"
    arguments = ("convert", runs["relu"], "--method", "snm", "--calibration", 100, "--out", target)
    assert sparsespike(*arguments).code == 0
    assert "choices" not in load_graph(target).provenance
    simulated = json.loads(sparsespike("simulate", target, "--steps", "auto", "--images", 50, "--json").out)
    chosen = simulated["steps_choice"]
    assert simulated["runs"][0]["steps"] == chosen["steps"]
    assert sparsespike(*arguments, "--steps", "auto").code == 0
    assert load_graph(target).provenance["choices"] == {"steps": chosen}
    told = sparsespike("simulate", target, "--images", 50, "--steps", 4)
    assert "Chosen" not in told.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("diagnose", "qcfs", "--method", "magic"), "--method 'magic': expected one of"),
        (("diagnose", "qcfs", "--method", "snm"), "found the activation QCFS, expected ReLU"),
        (("diagnose", "qcfs", "--percentile", "99"), "--percentile and --calibration are for methods that calibrate"),
        (("diagnose", "qcfs", "--bits", "30"), "bits: found 30, expected an integer from 2 to 24"),
        (("diagnose", "relu", "--method", "snm", "--calibration", "5"), "calibration: found 5 images, expected at least 16"),
        (("diagnose", "relu", "--method", "snm", "--images", "10000"), "--images 10000: the test split has 359"),
        (("convert", "qcfs", "--bits", "few"), "--bits 'few': expected a whole number or auto"),
        (("convert", "qcfs", "--margin", "1"), "--margin is for --bits auto"),
        (("convert", "qcfs", "--steps", "8"), "--steps T is for --bits auto"),
        (("convert", "qcfs", "--bits", "auto", "--steps", "0"), "choice of bits: found steps = 0, expected at least 1"),
        (("convert", "qcfs", "--bits", "auto", "--margin", "-1"), "margin: found -1.0, expected points of accuracy"),
        (("convert", "qcfs", "--bits", "auto", "--data", "cifar11"), "data set 'cifar11' is unknown"),
    ],
)
def test_bad_use_is_one_message(sparsespike: Run, runs: dict[str, Path], arguments: tuple[str, ...], message: str) -> None:
    command, model, *options = arguments
    ended = sparsespike(command, runs[model], *options)
    assert ended.code == 2
    assert message in " ".join(ended.err.split())
    assert "Traceback" not in ended.err


def test_no_steps_are_refused(sparsespike: Run, runs: dict[str, Path], tmp_path: Path) -> None:
    target = tmp_path / "graph.safetensors"
    assert sparsespike("convert", runs["qcfs"], "--out", target).code == 0
    for arguments in (("simulate", target), ("diagnose", runs["qcfs"]), ("compare", target)):
        refused = sparsespike(*arguments, "--steps", 0)
        assert refused.code == 2
        assert "--steps" in refused.err
    refused = sparsespike("simulate", target, "--steps", "often")
    assert refused.err.strip() == "error: --steps 'often': expected a whole number or auto"


def test_graphs_that_do_not_belong_to_the_model(sparsespike: Run, runs: dict[str, Path], tmp_path: Path) -> None:
    graph, _ = small_network()
    save_graph(graph, tmp_path / "foreign.safetensors")
    foreign = sparsespike("diagnose", runs["qcfs"], tmp_path / "foreign.safetensors")
    assert foreign.code == 2
    assert "in its provenance, expected one of qcfs, snm, percentile, aec" in " ".join(foreign.err.split())
    assert sparsespike("convert", runs["qcfs"], "--out", tmp_path / "one.safetensors").code == 0
    whole = load_graph(tmp_path / "one.safetensors")
    save_graph(SpikingGraph(graph.populations, graph.projections, whole.provenance), tmp_path / "other.safetensors")
    other = sparsespike("diagnose", runs["qcfs"], tmp_path / "other.safetensors")
    assert other.code == 2
    assert "give the graph that was converted from this model" in " ".join(other.err.split())
    both = sparsespike("diagnose", runs["qcfs"], tmp_path / "one.safetensors", "--bits", 8)
    assert both.code == 2
    assert "leave them out with GRAPH" in " ".join(both.err.split())


def changed(run: Path, path: Path, change: Callable[[Any], Any]) -> Path:
    """A copy of a trained model, changed in place."""
    model, known = load_model(run)
    with torch.no_grad():
        change(model)
    save_model(path, model, {name: each for name, each in known.items() if name != "format_version"})
    return path


@pytest.mark.parametrize("command", ["convert", "diagnose"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda model: model.activations[1].lam.fill_(0.0), "found the QCFS threshold lambda = 0.0, expected a finite value > 0"),
        (lambda model: model.layers[1].values.fill_(0.0), "layer 'hidden2': found no link that leads to the input"),
    ],
)
def test_models_without_thresholds_or_links(
    sparsespike: Run, runs: dict[str, Path], tmp_path: Path, command: str, change: Callable[[Any], Any], message: str
) -> None:
    ended = sparsespike(command, changed(runs["qcfs"], tmp_path / "model.safetensors", change))
    assert ended.code == 2
    assert message in " ".join(ended.err.split())
    assert not (tmp_path / "graph.safetensors").exists()
