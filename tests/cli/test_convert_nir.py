"""``sparsespike convert network.nir``, and the graph on the other commands."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nir
import numpy as np
import pytest

from sparsespike.export.graphfile import load_graph
from sparsespike.export.nir.reading import read_nir

Run = Callable[..., Any]


@pytest.fixture
def network(tmp_path: Path) -> Path:
    """Digits (64 pixels of 0..16), 12 leaky neurons, 10 classes."""
    rng = np.random.default_rng(0)
    ones = np.ones(12)
    leaky = nir.LIF(tau=np.full(12, 8e-3), r=8 * ones, v_leak=0 * ones, v_threshold=20 * ones, v_reset=0 * ones)
    path = tmp_path / "network.nir"
    nir.write(path, nir.NIRGraph.from_list(nir.Linear(rng.normal(size=(12, 64))), leaky, nir.Linear(rng.normal(size=(10, 12)))))
    return path


def test_a_network_is_converted_shown_and_run_on_two_backends(sparsespike: Run, network: Path, tmp_path: Path) -> None:
    ended = sparsespike("convert", network, "--dt", 1e-3, "--values", "0..16", "--data", "digits")
    assert ended.code == 0, ended.err
    target = tmp_path / "network.safetensors"
    assert str(target) in ended.out.replace("\n", "")
    assert "what leaks is rounded toward zero" in " ".join(ended.err.split())
    assert load_graph(target).digest() == read_nir(network, (0, 16), dt=1e-3).graph.digest()
    shown = json.loads(sparsespike("inspect", target, "--json").out)
    assert [population["kind"] for population in shown["populations"]] == ["input", "lif", "readout"]
    assert shown["provenance"]["dt"] == 1e-3
    compared = sparsespike("compare", target, "--images", 2, "--steps", 6, "--json")
    assert compared.code == 0, compared.err
    assert json.loads(compared.out)["comparisons"] == [{"reference": "native", "backend": "brian2", "equal": True}]
    simulated = sparsespike("simulate", target, "--images", 5, "--steps", 6, "--counting", "computed", "--json")
    assert simulated.code == 0, simulated.err
    assert json.loads(simulated.out)["reconciled"]


def test_what_rounding_cost_as_json(sparsespike: Run, network: Path, tmp_path: Path) -> None:
    ended = sparsespike("convert", network, "--dt", 3e-3, "--bits", 8, "--out", tmp_path / "graph.safetensors", "--json")
    assert ended.code == 0, ended.err
    document = json.loads(ended.out)
    found = read_nir(network, (0, 255), dt=3e-3, bits=8)
    assert document["digest"] == found.graph.digest() == load_graph(tmp_path / "graph.safetensors").digest()
    assert document["errors"]["lif"] == {
        "weights": found.weight_error["lif"],
        "thresholds": found.threshold_error["lif"],
        "decays": 0.0,
    }
    assert not document["exact"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "node 'lif': found neurons that leak, and NIR says nothing of time steps; give dt"),
        (("--dt", 1), "node 'lif', tau: found 0.008 at neuron 0, expected at least dt = 1.0"),
        (("--dt", 1e-3, "--values", "0-255"), "--values '0-255': expected LOW..HIGH, two integers, such as 0..255"),
        (("--dt", 1e-3, "--values", "9..1"), "found 9 above 1"),
        (("--dt", 1e-3, "--bits", "auto"), "--bits auto is for trained models"),
        (("--dt", 1e-3, "--bits", "many"), "--bits 'many': expected a whole number"),
        (("--dt", 1e-3, "--method", "qcfs"), "a NIR network spikes already; of the options only --bits, --values, --dt, --data"),
    ],
)
def test_a_wrong_option_is_one_clear_error(sparsespike: Run, network: Path, options: tuple[Any, ...], message: str) -> None:
    ended = sparsespike("convert", network, *options)
    assert ended.code == 2
    assert message in " ".join(ended.err.split())
    assert not network.with_suffix(".safetensors").exists()


def test_options_of_nir_are_refused_for_models(sparsespike: Run, tmp_path: Path) -> None:
    ended = sparsespike("convert", tmp_path, "--dt", 1e-3)
    assert ended.code == 2
    assert "--values and --dt are for .nir files" in ended.err
