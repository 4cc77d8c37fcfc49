"""In-time over-parametrisation of a training run: the union of its topologies, kept over an interruption, absent in old runs."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from sparsespike.ann.config import TrainConfig
from sparsespike.ann.data import load
from sparsespike.ann.progress import EpochRecord, TrainProgress
from sparsespike.ann.run_folder import RunFolder
from sparsespike.ann.train import TrainingInterrupted, train
from sparsespike.ann.training import Training

SMALL = TrainConfig(hidden=(48, 40), sparsity=0.9, method="set", topology="er", epochs=4)


class Watch(TrainProgress):
    """The union of the masks of all epochs so far, from the model itself."""

    def __init__(self, run: Training) -> None:
        self.run = run
        self.union = [np.zeros(layer.topology.shape, bool) for layer in run.model.sparse_layers]
        self.shares: list[float] = []

    def on_epoch(self, record: EpochRecord) -> None:
        self.union = [
            old | layer.topology.to_dense() for old, layer in zip(self.union, self.run.model.sparse_layers, strict=True)
        ]
        self.shares.append(np.concatenate([mask.reshape(-1) for mask in self.union]).mean())


@pytest.mark.parametrize(("sparsity", "method"), [(0.9, "set"), (0.9, "chts"), (0.9, "static"), (0.3, "set"), (0.9, "gmp")])
def test_it_is_the_share_of_links_that_any_epoch_had(tmp_path: Path, sparsity: float, method: str) -> None:
    config = replace(SMALL, sparsity=sparsity, method=method)
    run = Training.started(config, load("digits", validation=config.validation, seed=0), RunFolder(tmp_path))
    watch = Watch(run)
    result = run.complete(watch)
    assert [record.itop for record in result.history] == watch.shares
    assert (watch.shares[0] < watch.shares[-1]) == (method in ("set", "chts"))
    rows = csv.DictReader((tmp_path / "metrics.csv").read_text().splitlines())
    assert [float(row["itop"]) for row in rows] == watch.shares


@pytest.mark.parametrize("changes", [{"sparsity": 0.0}, {"model": "vgg-small", "width": 0.05, "epochs": 1}])
def test_dense_and_convolutional_networks_have_none(tmp_path: Path, changes: dict[str, object]) -> None:
    result = train(replace(SMALL, **changes), tmp_path / "run")  # type: ignore[arg-type]  # a parametrised mapping
    assert {record.itop for record in result.history} == {None}
    assert (tmp_path / "run/metrics.csv").read_text().splitlines()[1].endswith(",")


def test_steps_leave_it_alone(tmp_path: Path) -> None:
    run = Training.started(SMALL, load("digits", validation=0.1, seed=0), RunFolder(tmp_path))
    before = run.explored

    class Same(TrainProgress):
        def on_step(self, step: int, loss: float) -> None:
            assert run.explored is during

    run.epoch(TrainProgress())
    assert run.explored is before  # no change of topology before the first epoch
    run.before_epoch(1)
    assert run.explored is not before
    during = run.explored
    run.pass_over_data(1, Same())
    assert run.explored is during


def test_a_run_begun_before_it_was_recorded_goes_on_without(tmp_path: Path) -> None:
    class Stop(TrainProgress):
        def on_epoch(self, record: EpochRecord) -> None:
            if record.epoch == 2:
                raise KeyboardInterrupt

    train(SMALL, tmp_path / "whole")
    with pytest.raises(TrainingInterrupted):
        train(SMALL, tmp_path / "old", progress=Stop())
    files = RunFolder(tmp_path / "old")
    state = files.load_checkpoint()
    tensors = {name: tensor for name, tensor in state.tensors.items() if not name.startswith("explored.")}
    assert len(state.tensors) - len(tensors) == 2
    files.save_checkpoint(state._replace(tensors=tensors, history=[replace(record, itop=None) for record in state.history]))
    result = train(SMALL, tmp_path / "old", resume=True)
    assert [record.itop for record in result.history] == [None] * 4
    whole, old = (RunFolder(tmp_path / name).load_checkpoint().tensors for name in ("whole", "old"))
    assert old.keys() == {name for name in whole if not name.startswith("explored.")}
    assert all(torch.equal(tensor, whole[name]) for name, tensor in old.items())


def test_a_record_without_it_is_read() -> None:
    fields = ("epoch", "loss", "train_accuracy", "validation_accuracy", "sparsity", "anp", "overlap", "lr")
    old = dict.fromkeys((*fields, "seconds", "update_seconds"), 1)
    assert EpochRecord(**old).itop is None
