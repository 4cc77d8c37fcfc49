"""``sparsespike finetune``: from a trained run to one that converts, and one clear message on bad use."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sparsespike.ann.config import TrainConfig
from sparsespike.ann.train import train

Run = Callable[..., Any]


@pytest.fixture(scope="module")
def relu(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a small ReLU network on digits."""
    return train(TrainConfig(hidden=(64, 48), sparsity=0.8, epochs=4), tmp_path_factory.mktemp("runs") / "relu").folder


def test_a_relu_run_is_fine_tuned_and_converted(sparsespike: Run, relu: Path, tmp_path: Path) -> None:
    arguments = ("finetune", relu, "--method", "cs-qcfs", "--levels", "4", "--epochs", "3,1", "--lr", "0.02", "--out", tmp_path)
    ended = sparsespike(*arguments, "--json")
    assert ended.code == 0, ended.err
    summary = json.loads(ended.out)
    assert (summary["epochs"], [stage["epochs"] for stage in summary["stages"]]) == (4, [3, 1])
    assert {"levels": 4, "lr": 0.02, "stages": [3, 1], "batch": 32, "data": "digits"}.items() <= summary["config"].items()
    assert summary == json.loads((tmp_path / "summary.json").read_text())
    assert summary["test_accuracy"] > summary["source_test_accuracy"] - 0.03
    converted = sparsespike("convert", tmp_path, "--json")
    assert converted.code == 0, converted.err
    again = sparsespike(*arguments)
    assert again.code == 2
    assert "holds a run already; resume it, or choose another folder" in " ".join(again.err.split())
    table = sparsespike(*arguments, "--resume")
    assert table.code == 0, table.err
    for word in ("as trained", "activations replaced", "s-qcfs", "best epoch", f"Next: sparsespike convert {tmp_path}"):
        assert word in table.out
    assert "step" not in table.err


def test_one_number_of_epochs_is_for_every_stage(sparsespike: Run, relu: Path, tmp_path: Path) -> None:
    two = sparsespike("finetune", relu, "--method", "cs-qcfs", "--epochs", "1", "--out", tmp_path / "two", "--json")
    assert json.loads(two.out)["config"]["stages"] == [1, 1]
    one = sparsespike("finetune", relu, "--method", "aec", "--epochs", "1", "--steps", "8", "--out", tmp_path / "one", "--json")
    config = json.loads(one.out)["config"]
    assert (config["stages"], config["steps"], config["weight_decay"]) == ([1], 8, 0.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--method", "magic"), "--method 'magic': expected cs-qcfs or aec"),
        (("--method", "aec", "--steps", "0"), "fine-tuning setting steps is 0; expected at least 1: T, the last slot"),
        (("--method", "cs-qcfs", "--levels", "0"), "fine-tuning setting levels is 0; expected at least 1"),
        (("--method", "cs-qcfs", "--steps", "8"), "--steps is for aec, found --method cs-qcfs; leave it out"),
        (("--method", "aec", "--levels", "8"), "--levels is for cs-qcfs, found --method aec; leave it out"),
        (("--method", "cs-qcfs", "--quirk", "force_compensation"), "--quirk is for aec, found --method cs-qcfs"),
        (("--method", "aec", "--quirk", "magic"), "quirks is ('magic',); expected any of smallest_as_silent, force_compensation"),
        (("--method", "aec", "--epochs", "3,4"), "stages is (3, 4); expected 1 number of epochs, at least 0"),
        (("--method", "cs-qcfs", "--epochs", "0"), "stages is (0, 0); expected 2 numbers of epochs, at least 0, and at least 1"),
        (("--method", "aec", "--epochs", "many"), "--epochs 'many': expected whole numbers with commas between"),
        (("--method", "aec", "--lr", "0"), "fine-tuning setting lr is 0.0; expected above 0"),
        (("--method", "aec", "--percentile", "0"), "percentile is 0.0; expected above 0, at most 100"),
        (("--method", "aec", "--initial", "zero"), "initial is 'zero'; expected percentile or fixed"),
        (("--method", "aec", "--data", "mnist8"), "data set 'mnist8' is unknown"),
    ],
)
def test_bad_use_has_one_clear_message(
    sparsespike: Run, relu: Path, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    ended = sparsespike("finetune", relu, "--out", tmp_path / "run", *arguments)
    assert ended.code == 2
    assert message in " ".join(ended.err.split())
    assert not (tmp_path / "run/checkpoint.safetensors").exists()


def test_a_run_that_cannot_be_started_from_has_one_clear_message(sparsespike: Run, relu: Path, tmp_path: Path) -> None:
    def refused(run: Path, out: Path, *more: str) -> str:
        ended = sparsespike("finetune", run, "--out", out, "--method", "aec", "--epochs", "1", *more)
        assert ended.code == 2
        return " ".join(ended.err.split())

    assert "there is no file" in refused(tmp_path / "nothing", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    assert "model.safetensors; give a .safetensors file" in refused(tmp_path / "empty", tmp_path / "out")
    assert "holds the run to start from; choose another folder" in refused(relu, relu)
    done = sparsespike("finetune", relu, "--out", tmp_path / "aec", "--method", "aec", "--epochs", "1")
    assert done.code == 0, done.err
    assert "has the activation aec; expected relu or qcfs: start from the run" in refused(tmp_path / "aec", tmp_path / "out")
    assert "holds a run with other settings: steps = 16 (now 4)" in refused(relu, tmp_path / "aec", "--resume", "--steps", "4")
    shutil.copytree(relu, tmp_path / "damaged")
    (tmp_path / "damaged/model.safetensors").write_bytes(b"no model")
    assert "is damaged" in refused(tmp_path / "damaged", tmp_path / "out")
