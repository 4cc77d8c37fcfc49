"""``sparsespike benchmark train``: every method and seed, taken up again, with exact means and errors."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sparsespike.ann.comparison import METHODS, Run, markdown_table, method_config, summarise
from sparsespike.ann.config import TrainConfig
from sparsespike.ann.topology import RECIPES, link_count
from sparsespike.common.errors import ConfigError, ModelError

Command = Callable[..., Any]
SMALL = ("--epochs", 2, "--hidden", "48,32", "--sparsity", "0.9")


def a_run(method: str, seed: int, accuracy: float) -> Run:
    return Run(method, seed, accuracy, None, 0.9, 0.5, 100, 1, 2, 4.0)


def test_every_method_ends_at_the_same_sparsity_in_one_table(sparsespike: Command, tmp_path: Path) -> None:
    ended = sparsespike("benchmark", "train", "--out", tmp_path, "--seeds", "3", *SMALL, "--json")
    assert ended.code == 0, ended.err
    document = json.loads(ended.out)
    assert [row["method"] for row in document["methods"]] == list(METHODS)
    sparsities = {row["method"]: row["sparsity"] for row in document["methods"]}
    assert sparsities.pop("dense") == 0.0
    assert len(set(sparsities.values())) == 1
    parameters = {row["parameters"] for row in document["methods"]}
    others = 32 * 10 + 48 + 32 + 10
    links = link_count((48, 64), 0.9) + link_count((32, 48), 0.9)
    assert parameters == {48 * 64 + 32 * 48 + others, links + others}
    rows = list(csv.DictReader((tmp_path / "benchmark.csv").read_text().splitlines()))
    assert [(row["method"], row["seed"]) for row in rows] == [(method, "3") for method in METHODS]
    for row in rows:
        summary = json.loads((tmp_path / f"{row['method']}-seed3" / "summary.json").read_text())
        assert float(row["test_accuracy"]) == summary["test_accuracy"]
    markdown = (tmp_path / "benchmark.md").read_text()
    assert all(f"| {method} | 1 |" in markdown for method in METHODS)


def test_finished_runs_are_taken_up(sparsespike: Command, tmp_path: Path) -> None:
    command = ("benchmark", "train", "--out", tmp_path, "--methods", "static,chts", *SMALL, "--json")
    first = json.loads(sparsespike(*command, "--seeds", "0").out)
    both = json.loads(sparsespike(*command, "--seeds", "0,1").out)
    # Seconds are those of the training that took place: a run that was repeated would have other ones.
    assert [run for run in both["runs"] if run["seed"] == 0] == first["runs"]
    assert [(run["method"], run["seed"]) for run in both["runs"]] == [("static", 0), ("static", 1), ("chts", 0), ("chts", 1)]
    table = sparsespike(*command[:-1], "--seeds", "0,1")
    assert "static" in table.out
    assert " ± " in table.out
    other = sparsespike(*command, "--seeds", "0", "--epochs", 3)
    assert other.code == 2
    assert "epochs = 2 (now 3)" in other.err


def test_means_and_standard_errors() -> None:
    runs = [a_run("set", 0, 0.5), a_run("dense", 0, 0.75), a_run("set", 1, 0.6), a_run("set", 2, 0.7)]
    dense, random = summarise(runs)
    assert (dense.method, dense.runs, dense.test_accuracy, dense.standard_error) == ("dense", 1, 0.75, None)
    assert dense.row()[2] == "75.00"
    assert random.test_accuracy == pytest.approx(0.6, abs=1e-15)
    assert random.standard_error == pytest.approx(0.1 / math.sqrt(3), abs=1e-15)
    assert random.row()[:3] == ("set", 3, "60.00 ± 5.77")


def test_methods_are_the_recipes_and_dense() -> None:
    assert set(METHODS) == {"dense", *RECIPES}
    base = TrainConfig(sparsity=0.95, epochs=7)
    assert method_config(base, "dense", 4) == TrainConfig(sparsity=0.0, epochs=7, method="static", seed=4)
    assert method_config(base, "set", 4) == TrainConfig(sparsity=0.95, epochs=7, method="set", seed=4)
    with pytest.raises(ConfigError, match="'magic'"):
        method_config(base, "magic", 0)


def test_markdown_table() -> None:
    assert markdown_table(("a", "b"), [(1, "x")]) == "| a | b |\n| --- | ---: |\n| 1 | x |\n"


def test_a_summary_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"summary\.json"):
        Run.read(tmp_path)
    (tmp_path / "summary.json").write_text('{"config": {"method": "set"}}')
    with pytest.raises(ModelError, match="test_accuracy"):
        Run.read(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--methods", "set,magic"), "'magic'"),
        (("--seeds", "0,x"), "--seeds '0,x'"),
        (("--hidden", "a"), "--hidden 'a'"),
        (("--epochs", "0"), "epochs is 0"),
    ],
)
def test_bad_use_ends_before_any_run(sparsespike: Command, tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    ended = sparsespike("benchmark", "train", "--out", tmp_path, *arguments)
    assert ended.code == 2
    assert message in ended.err
    assert list(tmp_path.iterdir()) == []
