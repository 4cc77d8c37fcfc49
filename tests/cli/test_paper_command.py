"""``sparsespike paper``: from trained networks to the table and the figures, as a user types it."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from sparsespike.energy.model import EnergyModel
from sparsespike.energy.record import Record

Run = Callable[..., Any]


def test_record_table2_figure2_figure3(sparsespike: Run, tmp_path: Path) -> None:
    records = tmp_path / "records"
    for sparsity in ("0", "0.8"):
        run = tmp_path / f"run-{sparsity}"
        trained = sparsespike(
            *("train", "--out", run, "--hidden", "40", "--epochs", 2, "--topology", "er", "--sparsity", sparsity, "--json")
        )
        assert trained.code == 0, trained.err
        assert sparsespike("convert", run).code == 0
        made = sparsespike("paper", "record", run / "graph.safetensors", "--steps", 40, "--out", records / f"{sparsity}.json")
        assert made.code == 0, made.err
        record = Record.load(records / f"{sparsity}.json")
        assert record.ann_accuracy == pytest.approx(json.loads(trained.out)["test_accuracy"])
        assert (record.images, record.steps, record.what["L"]) == (359, 40, 8)
        assert f"accuracy {float(100 * record.accuracy()):.2f} %" in made.out
    dense, sparse = (Record.load(records / f"{sparsity}.json") for sparsity in ("0", "0.8"))
    assert (dense.connectivity, sparse.connectivity, sparse.what["training"]) == ("fc", "s(0.8)", "chts")

    ended = sparsespike("paper", "table2", records, "--profiles", "--out", tmp_path, "--json")
    assert ended.code == 0, ended.err
    document = json.loads(ended.out)
    assert json.loads((tmp_path / "table2.json").read_text()) == document
    rows = document["rows"]
    energies = []
    for row, found in zip(rows, (dense, sparse), strict=True):
        end = found.accuracy_saturation()
        time = end.end if end else 40
        assert (row["T_steps"], row["saturated"]) == (time, end is not None)
        energies.append(found.energy(time, EnergyModel(counts="paper")))
        assert math.isclose(row["energy_uJ"], energies[-1].per_image_uj, rel_tol=1e-9)
    saved = 1 - Fraction(energies[1].total_pj, energies[0].total_pj)
    assert math.isclose(rows[1]["reduction_%"], float(100 * saved), rel_tol=1e-9)
    assert len(document["not_run"]) == 24
    assert len((tmp_path / "table2.csv").read_text().splitlines()) == 3
    shown = sparsespike("paper", "table2", records, "--profiles")
    assert shown.code == 0
    for text in ("digits mlp qcfs s(0.8) chts", "reduction under each profile", "experiments/paper-cifar10-mlp-grid.toml"):
        assert text in shown.out

    assert sparsespike("paper", "figure2", records, "--out", tmp_path).code == 0
    lines = list(csv.DictReader((tmp_path / "figure2.csv").read_text().splitlines()))
    assert len(lines) == 80
    assert [float(line["SNN_accuracy_%"]) for line in lines[40:]] == pytest.approx([100 * a for a in sparse.accuracy_curve])
    assert (tmp_path / "figure2.png").stat().st_size > 10_000

    (tmp_path / "copies").mkdir()
    (tmp_path / "copies" / "again.json").write_text((records / "0.json").read_text())
    ended = sparsespike("paper", "figure3", records, tmp_path / "copies", "--out", tmp_path, "--json")
    if dense.lag() is None and sparse.lag() is None:
        assert "found no network that saturates" in ended.err
    else:
        assert ended.code == 0, ended.err
        lines = list(csv.DictReader((tmp_path / "figure3.csv").read_text().splitlines()))
        lags = [int(line["lag_steps"]) for line in lines if line["lag_steps"]]
        assert sorted(lags) == sorted(lag for lag in (dense.lag(), sparse.lag()) if lag is not None)
        assert json.loads(ended.out)["networks"]["all"] == len(lags)
        assert (tmp_path / "figure3.png").stat().st_size > 10_000


def test_messages(sparsespike: Run, tmp_path: Path) -> None:
    (tmp_path / "settings.json").write_text("{}")
    ended = sparsespike("paper", "table2", tmp_path)
    assert ended.code == 2
    assert "records: found none below" in ended.err
    ended = sparsespike("paper", "figure2", tmp_path / "none")
    assert ended.code == 2
    assert "found no folder" in ended.err
    ended = sparsespike("paper", "table2", tmp_path, "--counts", "guessed")
    assert ended.code == 2
