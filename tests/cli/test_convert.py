"""Conversion of a ReLU network that is really trained, by every method, from the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sparsespike.ann.config import TrainConfig
from sparsespike.ann.train import train
from sparsespike.energy.saturation import saturation
from sparsespike.export.graphfile import load_graph

Run = Callable[..., Any]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("run") / "relu"
    train(TrainConfig(hidden=(60, 40), sparsity=0.8, epochs=2, topology="er", activation="relu"), path)
    return path


def test_snm_and_percentile(sparsespike: Run, folder: Path) -> None:
    accuracy = json.loads((folder / "summary.json").read_text())["test_accuracy"]
    for method, kind, percentile in (("snm", "signed_if", 100.0), ("percentile", "if", 99.9)):
        target = folder / f"{method}.safetensors"
        converted = sparsespike("convert", folder, "--method", method, "--calibration", 200, "--out", target, "--json")
        assert converted.code == 0, converted.err
        report = json.loads(converted.out)
        assert report["settings"]["percentile"] == percentile
        assert report["settings"]["calibration_images"] == 200
        assert [verdict["accepted"] for verdict in report["verdicts"]] == [True] * len(report["verdicts"])
        graph = load_graph(target)
        assert graph.provenance["method"] == method
        assert {graph.population(name).kind for name in graph.spiking} == {kind}
        simulated = sparsespike("simulate", target, "--images", 200, "--steps", 64, "--json")
        (run,) = json.loads(simulated.out)["runs"]
        assert run["accuracy_by_step"][-1] > accuracy - 0.1

    spiking = folder / "spiking.safetensors"
    sparsespike("convert", folder, "--method", "snm", "--calibration", 200, "--spiking-readout", "--out", spiking)
    assert len(load_graph(spiking).spiking) == 3
    table = sparsespike("convert", folder, "--method", "snm", "--percentile", 99, "--calibration", 50)
    assert table.code == 0, table.err
    assert "a population of spiking neurons" in table.out
    assert "layers.2" in table.out
    assert "Converted with SNM, 16 bits" in table.out


def test_aec(sparsespike: Run, folder: Path) -> None:
    accuracy = json.loads((folder / "summary.json").read_text())["test_accuracy"]
    target = folder / "aec.safetensors"
    converted = sparsespike("convert", folder, "--method", "aec", "--steps", 12, "--out", target, "--json")
    assert converted.code == 0, converted.err
    assert json.loads(converted.out)["settings"]["T"] == 12
    graph = load_graph(target)
    assert (graph.slots, {graph.population(name).kind for name in graph.spiking}) == (13, {"aec"})
    (run,) = json.loads(sparsespike("simulate", target, "--json").out)["runs"]
    assert len(run["accuracy_by_step"]) == 13
    assert run["accuracy_by_step"][-1] > accuracy - 0.05
    commands: list[tuple[object, ...]] = [
        ("simulate", target),
        ("compare", target, "--images", 5),
        ("counters", target),
        ("paper", "record", target, "--out", folder / "record.json"),
    ]
    for command in commands:
        refused = sparsespike(*command, "--steps", 32)
        assert (refused.code, refused.out) == (2, "")
        assert "found steps = 32, expected 13, the T + 1 slots" in " ".join(refused.err.split())
        assert sparsespike(*command, "--steps", 13).code == 0
    equal = sparsespike("compare", target, "--backend", "native", "--backend", "brian2", "--images", 5)
    assert equal.code == 0, equal.err
    assert "T = 13" in equal.out


def test_the_t_of_aec_is_chosen_where_accuracy_saturates(sparsespike: Run, folder: Path) -> None:
    target = folder / "auto.safetensors"
    converted = sparsespike("convert", folder, "--method", "aec", "--steps", "auto", "--out", target, "--json")
    assert converted.code == 0, converted.err
    choice = json.loads(converted.out)["choices"]["steps"]
    graph = load_graph(target)
    assert graph.provenance["choices"]["steps"] == choice
    assert graph.slots == choice["steps"] + 1
    curve = [round(accuracy * choice["images"]) for accuracy in choice["accuracy_by_step"]]
    assert len(curve) == 32
    assert choice["saturation"] is not None
    assert choice["saturation"]["end"] == saturation(curve).end <= choice["steps"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--method", "aec2"), "--method 'aec2': expected one of qcfs, snm, percentile, aec"),
        (("--method", "qcfs", "--percentile", "99"), "--percentile, --calibration and --data are for methods that calibrate"),
        (("--method", "aec", "--steps", "0"), "AEC has T = 0, expected at least 1"),
        (("--method", "aec", "--steps", "5", "--payload-bits", "3"), "expected at most 2: later primary thresholds"),
        (("--method", "aec", "--v-init", "0.5"), "--v-init is for snm and percentile: aec has its own"),
        (("--method", "snm", "--v-init", "1"), "v_init: found 1.0, expected a part of the threshold, from 0 to less than 1"),
        ((), "this network has ReLU activations, which several methods take: give --method snm, aec or percentile"),
        (("--method", "percentile", "--spiking-readout"), "--spiking-readout is for snm"),
        (("--method", "snm", "--payload-bits", "8"), "--payload-bits is for aec: spikes of snm carry nothing"),
        (("--method", "qcfs"), "found the activation ReLU, expected QCFS"),
        (("--method", "snm", "--calibration", "3"), "calibration: found 3 images, expected at least 16"),
        (("--method", "snm", "--calibration", "100000"), "--calibration 100000: the training split has"),
        (("--method", "percentile", "--percentile", "101"), "percentile: found 101.0"),
    ],
)
def test_refusals(sparsespike: Run, folder: Path, options: tuple[str, ...], message: str) -> None:
    refused = sparsespike("convert", folder, *options)
    assert refused.code == 2
    assert message in " ".join(refused.err.split())
