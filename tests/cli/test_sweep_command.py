"""``sparsespike sweep`` as a user types it."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sparsespike.energy.record import Record, load_records

EXPERIMENT = """
name = "demo"

[[study]]
name = "methods"
data = "numbers"
train_images = 200
test_images = 40
train = { hidden = [8], epochs = 1, batch = 64, sparsity = 0.0 }
convert = { method = "snm", calibration = 32 }
simulate = { steps = 24, shards = 2 }
[study.grid]
train.lr = [0.05, 1e30]

[[study]]
name = "tuned"
data = "numbers"
train_images = 200
test_images = 40
train = { hidden = [8], epochs = 1, batch = 64, sparsity = 0.0, lr = 0.05 }
finetune = { method = "aec", stages = [1], steps = 4 }
convert = { method = "aec" }
"""

Command = Callable[..., Any]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "demo.toml"
    path.write_text(EXPERIMENT, encoding="utf-8")
    return path


def test_a_sweep_from_plan_to_table(sparsespike: Command, file: Path, tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    planned = sparsespike("sweep", "plan", file, "--data", "numbers=digits")
    assert planned.code == 0
    assert "3 networks" in planned.out
    ended = sparsespike("sweep", "run", file, "--out", folder, "--data", "numbers=digits")
    # The learning rate of 1e30 diverges: that is kept, and the others are done.
    assert ended.code == 1
    assert "training diverged: lower the learning rate" in ended.out
    assert "--retry-failed" in ended.out
    status = json.loads(sparsespike("sweep", "status", folder, "--json").out)
    assert status["networks"] == {"all": 3, "done": 2}
    assert status["kinds"]["train"] == {"done": 1, "failed": 1, "waiting": 0, "to_do": 0}
    assert status["kinds"]["account"] == {"done": 2, "failed": 0, "waiting": 1, "to_do": 0}
    (failure,) = status["failures"]
    assert failure["unit"].startswith("train-")

    rows = list(csv.DictReader(io.StringIO(sparsespike("sweep", "table", folder).out)))
    assert [(row["study"], row["method"], row["dataset"]) for row in rows] == [
        ("methods", "snm", "numbers@200,40"),
        ("tuned", "aec", "numbers@200,40"),
    ]
    records = load_records(folder)
    assert len(records) == 2
    for row in rows:
        record = Record.load(folder / "units" / row["record"] / "record.json")
        assert float(row["ann_accuracy_%"]) == float(100 * record.ann_accuracy)
        assert float(row["accuracy_%"]) == float(100 * record.accuracy())
        assert float(row["energy_uJ"]) == record.energy(int(row["energy_at_step"])).per_image_uj
        assert record.images == 40
    snm, aec = rows
    assert (snm["steps"], aec["steps"], aec["T"], aec["lag_steps"]) == ("24", "5", "4", "")

    # Nothing is computed again, and no path is in a result.
    again = sparsespike("sweep", "run", file, "--out", folder, "--data", "numbers=digits")
    assert (again.code, again.err.count("sweep:")) == (1, 1)
    assert not [path for path in (folder / "units").rglob("*") if path.is_file() and str(tmp_path).encode() in path.read_bytes()]
    written = sparsespike("sweep", "table", folder, "--out", tmp_path / "table.md")
    assert written.code == 0
    assert len((tmp_path / "table.md").read_text(encoding="utf-8").splitlines()) == 2 + 2

    other = sparsespike("sweep", "run", file, "--out", folder, "--data", "numbers=mnist")
    assert other.code == 2
    assert "was begun with numbers=digits" in other.err


def test_a_sweep_without_a_finished_network(sparsespike: Command, file: Path, tmp_path: Path) -> None:
    file.write_text(EXPERIMENT.partition('[[study]]\nname = "tuned"')[0].replace("[0.05, 1e30]", "[1e30]"), encoding="utf-8")
    ended = sparsespike("sweep", "run", file, "--out", tmp_path / "sweep", "--data", "numbers=digits")
    assert ended.code == 1
    assert "0 of 1 networks" in ended.out
    assert "sweep table" not in ended.out
    table = sparsespike("sweep", "table", tmp_path / "sweep")
    assert (table.code, table.out) == (2, "")
    assert "found no finished network" in table.err
    assert json.loads(sparsespike("sweep", "table", tmp_path / "sweep", "--json").out) == []


def test_a_sweep_on_dask(sparsespike: Command, file: Path, tmp_path: Path) -> None:
    file.write_text(EXPERIMENT.partition('[[study]]\nname = "tuned"')[0].replace("[0.05, 1e30]", "[0.05]"), encoding="utf-8")
    folder = tmp_path / "sweep"
    ended = sparsespike("sweep", "run", file, "--out", folder, "--data", "numbers=digits", "--dask", "local:1")
    assert (ended.code, ended.err.count("sweep:")) == (0, 1 + 6)
    assert "1 of 1 networks" in ended.out
    (record,) = load_records(folder).values()
    assert (record.images, record.steps) == (40, 24)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("digts", (), "data: found 'digts' (did you mean 'digits'?), expected digits, mnist"),
        ("numbers", ("--data", "numbers=digts"), "data: found --data numbers=digts (did you mean 'digits'?)"),
        ("numbers", ("--data", "numbers=digits@4,3"), "data: found --data numbers=digits@4,3"),
        ("digits@4,3", (), "study 'methods'.data: found 'digits@4,3', expected the name of a data set, without '@'"),
        ("", (), "study 'methods'.data: found '', expected the name of a data set"),
    ],
)
def test_a_data_set_that_is_none_is_said_before_anything_is_run(
    sparsespike: Command, file: Path, name: str, data: tuple[str, ...], message: str
) -> None:
    file.write_text(EXPERIMENT.replace('"numbers"', f'"{name}"'), encoding="utf-8")
    planned = sparsespike("sweep", "plan", file, *data)
    assert planned.code == 2
    assert message in planned.err


def test_a_wrong_file_is_one_message(sparsespike: Command, file: Path) -> None:
    file.write_text(EXPERIMENT.replace("epochs = 1", "epochz = 1").replace('"snm"', '"smn"'), encoding="utf-8")
    ended = sparsespike("sweep", "plan", file)
    assert ended.code == 2
    assert "found 3 problems" in ended.err
    assert "study 'methods'.train.epochz: unknown key (did you mean 'epochs'?)" in ended.err
    assert "Traceback" not in ended.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("status", "nowhere"), "there is no sweep in"),
        (("table", "nowhere", "--out", "table.xls"), "expected .csv or .md"),
        (("run", "FILE", "--out", "sweep", "--jobs", "0"), "found 0 jobs"),
        (("run", "FILE", "--out", "sweep", "--dask", "local:none"), "expected local:N"),
        (("run", "FILE", "--out", "sweep", "--dask", "head"), "Dask cluster 'head': found no address of a scheduler, expected"),
        (("run", "FILE", "--out", "sweep", "--data", "numbers"), "expected NAME=VALUE"),
        (("run", "nowhere.toml", "--out", "sweep"), "cannot be read"),
    ],
)
def test_what_a_user_gets_wrong(
    sparsespike: Command, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    file.write_text(EXPERIMENT.replace('"numbers"', '"digits"'), encoding="utf-8")
    ended = sparsespike("sweep", *(str(file) if argument == "FILE" else argument for argument in arguments))
    assert ended.code == 2
    assert message in ended.err
