"""The trainer: accuracy, exact resume, run folder, errors."""

from __future__ import annotations

import csv
import json
import random
import resource
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from sparsespike.ann.checkpoint import load_model
from sparsespike.ann.config import TrainConfig
from sparsespike.ann.data import load
from sparsespike.ann.encoding import Encoding
from sparsespike.ann.evaluate import accuracy
from sparsespike.ann.evolution import evolve_model, link_gradients
from sparsespike.ann.masked import MaskedLinear
from sparsespike.ann.models import MLP, MLPSpec
from sparsespike.ann.progress import EpochRecord, TrainProgress
from sparsespike.ann.run_folder import RunFolder
from sparsespike.ann.sparse import SparseLinear
from sparsespike.ann.topology import er, link_count, recipe
from sparsespike.ann.train import TrainingInterrupted, train
from sparsespike.ann.training import Training
from sparsespike.common.errors import ConfigError, ModelError

SMALL = TrainConfig(hidden=(96, 80), sparsity=0.9, method="chts", activation="qcfs", epochs=6, augment="crop", lam=2.0)
RUN = "import sys, json; from sparsespike.ann.train import train; from sparsespike.ann.config import TrainConfig; "
RUN += "train(TrainConfig.from_dict(json.loads(sys.argv[1])), sys.argv[2], resume=True)"


def same_tensors(first: Path, second: Path) -> bool:
    one, two = load_file(first), load_file(second)
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def test_static_sparse_and_dense_networks_learn_digits(tmp_path: Path) -> None:
    wide = TrainConfig(hidden=(1024, 1024, 1024), sparsity=0.99, method="static", epochs=15, seed=1)
    sparse = train(wide, tmp_path / "sparse")
    dense = train(replace(wide, hidden=(256, 256, 256), sparsity=0.0, epochs=10), tmp_path / "dense")
    assert sparse.test_accuracy > 0.94
    assert dense.test_accuracy > 0.96
    assert [record.sparsity for record in dense.history] == [0.0] * 10
    assert sparse.history[-1].sparsity == pytest.approx(0.99, abs=1e-4)


@pytest.mark.parametrize("changes", [{}, {"method": "set"}, {"method": "rigl"}, {"sparsity": 0.0}, {"validation": 0.0}])
def test_a_resumed_run_is_bit_identical(tmp_path: Path, changes: dict[str, object]) -> None:
    config = replace(SMALL, **changes)  # type: ignore[arg-type]  # a parametrised mapping
    train(config, tmp_path / "whole")

    class Stop(TrainProgress):
        def on_step(self, step: int, loss: float) -> None:
            if self.epochs == 2 and step == 7:
                raise KeyboardInterrupt

        epochs = 0

        def on_epoch(self, record: EpochRecord) -> None:
            self.epochs += 1

    with pytest.raises(TrainingInterrupted, match=r"stopped in epoch 3 of 6; folder .* holds 2 complete epochs: resume"):
        train(config, tmp_path / "parts", progress=Stop())
    assert not (tmp_path / "parts/summary.json").exists()
    result = train(config, tmp_path / "parts", resume=True)
    assert len(result.history) == 6
    for name in ("checkpoint.safetensors", "model.safetensors"):
        assert same_tensors(tmp_path / "whole" / name, tmp_path / "parts" / name), name
    rows = [list(csv.DictReader((tmp_path / run / "metrics.csv").read_text().splitlines())) for run in ("whole", "parts")]
    timeless = [[{name: value for name, value in row.items() if "seconds" not in name} for row in table] for table in rows]
    assert timeless[0] == timeless[1]
    assert len(rows[0]) == 6


def test_sigkill_at_random_moments_changes_nothing(tmp_path: Path) -> None:
    config = replace(SMALL, hidden=(256, 256), epochs=30)
    train(config, tmp_path / "whole")
    folder = tmp_path / "killed"
    arguments = [sys.executable, "-c", RUN, json.dumps(config.to_dict()), str(folder)]
    draws = random.Random(0)
    for _ in range(2):
        process = subprocess.Popen(arguments)
        epochs = draws.randrange(2, 12)
        metrics = folder / "metrics.csv"
        before = len(metrics.read_text().splitlines()) if metrics.exists() else 1
        while process.poll() is None and (not metrics.exists() or len(metrics.read_text().splitlines()) < before + epochs):
            time.sleep(0.01)
        time.sleep(draws.random() * 0.05)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not (folder / "summary.json").exists()
    assert subprocess.run(arguments, check=True).returncode == 0
    assert same_tensors(tmp_path / "whole/checkpoint.safetensors", folder / "checkpoint.safetensors")
    assert same_tensors(tmp_path / "whole/model.safetensors", folder / "model.safetensors")


@pytest.mark.parametrize("method", ["chtss", "gmp"])
def test_a_sparsity_schedule_ends_in_a_model_of_the_final_sparsity(tmp_path: Path, method: str) -> None:
    result = train(replace(SMALL, method=method, sparsity=0.95, epochs=8), tmp_path / "run")
    sparsities = [record.sparsity for record in result.history]
    assert sparsities == sorted(sparsities)
    assert sparsities[0] < 0.9
    for layer in result.model.sparse_layers:
        assert layer.topology.nnz == link_count(layer.topology.shape, 0.95)


@pytest.mark.parametrize("method", ["chts", "rigl", "static"])
def test_layers_too_dense_for_csr_are_trained_as_masked_matrices(tmp_path: Path, method: str) -> None:
    kinds = {}
    for sparsity in (0.1, 0.3):
        config = TrainConfig(hidden=(40, 30), sparsity=sparsity, method=method, epochs=2)
        splits = load("digits", validation=config.validation, seed=0)
        kinds[sparsity] = {type(layer) for layer in Training.started(config, splits, RunFolder(tmp_path)).model.sparse_layers}
        result = train(config, tmp_path / str(sparsity))
        model, _ = load_model(result.folder)
        assert {type(layer) for layer in model.sparse_layers} == {SparseLinear}  # one saved state for both forms
        assert [layer.topology.nnz for layer in model.sparse_layers] == [link_count(s, sparsity) for s in ((40, 64), (30, 40))]
    assert kinds == {0.1: {MaskedLinear}, 0.3: {SparseLinear}}


def test_the_run_folder_says_what_was_done(tmp_path: Path) -> None:
    result = train(SMALL, tmp_path / "run")
    assert sorted(file.name for file in (tmp_path / "run").iterdir()) == [
        "checkpoint.safetensors",
        "config.json",
        "metrics.csv",
        "model.safetensors",
        "summary.json",
    ]
    assert TrainConfig.from_dict(json.loads((tmp_path / "run/config.json").read_text())) == SMALL
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    assert summary["test_accuracy"] == result.test_accuracy
    model, metadata = load_model(tmp_path / "run")
    encoding = Encoding.from_dict(metadata["encoding"])
    splits = load("digits", validation=SMALL.validation, seed=SMALL.seed)
    assert encoding == splits.encoding
    assert accuracy(model, splits.test, encoding) == result.test_accuracy == metadata["test_accuracy"]
    best = max(record.validation_accuracy or 0 for record in result.history)
    assert accuracy(model, splits.validation, encoding) == best == result.validation_accuracy
    assert metadata["classes"] == [str(digit) for digit in range(10)]


def test_a_folder_keeps_its_run(tmp_path: Path) -> None:
    config = replace(SMALL, epochs=1)
    train(config, tmp_path / "run")
    with pytest.raises(ConfigError, match="holds a run already; resume it, or choose another folder"):
        train(config, tmp_path / "run")
    with pytest.raises(ConfigError, match=r"other settings: lr = 0\.025 \(now 0\.01\), seed = 0 \(now 4\); choose another"):
        train(replace(config, lr=0.01, seed=4), tmp_path / "run", resume=True)
    model = (tmp_path / "run/model.safetensors").read_bytes()
    train(config, tmp_path / "run", resume=True)
    assert (tmp_path / "run/model.safetensors").read_bytes() == model


def test_an_unusable_output_folder_fails_before_training(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ConfigError, match=r"cannot write .*file/run"):
        train(SMALL, tmp_path / "file/run")
    with pytest.raises(ConfigError, match=r"has \d+ MB free; this run needs \d+ MB: free space or choose another folder"):
        RunFolder(tmp_path).require_space(10**18)


def test_a_write_that_fails_leaves_the_last_checkpoint(tmp_path: Path) -> None:
    class Fill(TrainProgress):
        def on_epoch(self, record: EpochRecord) -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        with pytest.raises(ConfigError, match=r"cannot write .*\.safetensors: .*; nothing was changed there"):
            train(SMALL, tmp_path / "run", progress=Fill())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert len(RunFolder(tmp_path / "run").load_checkpoint().history) == 1
    assert not list((tmp_path / "run").glob(".*"))
    train(SMALL, tmp_path / "run", resume=True)
    train(SMALL, tmp_path / "whole")
    assert same_tensors(tmp_path / "whole/checkpoint.safetensors", tmp_path / "run/checkpoint.safetensors")


def test_divergence_is_reported(tmp_path: Path) -> None:
    with pytest.raises(
        ModelError, match=r"the loss is (nan|inf) in epoch \d+, step \d+, at learning rate .*: lower the learning rate"
    ):
        train(replace(SMALL, lr=1e6, activation="relu"), tmp_path / "run")


def test_evolution_moves_momentum_with_the_links() -> None:
    model = MLP(MLPSpec((20, 30, 25, 5)), [er((30, 20), 0.8, rng(0)), er((25, 30), 0.8, rng(1))])
    model.reset_parameters(rng(2))
    optimizer = torch.optim.SGD(model.parameters(), 0.1, 0.9)
    model(torch.randn(8, 20)).square().sum().backward()
    optimizer.step()
    layers = model.sparse_layers
    before = [
        dict(
            zip(
                layer.topology.links.tolist(),
                zip(layer.values.tolist(), momentum(optimizer, layer.values), strict=True),
                strict=True,
            )
        )
        for layer in layers
    ]
    overlap, settled = evolve_model(model, optimizer, recipe("chts", 0.8), 0.5, rng(3))
    assert 0 <= overlap <= 1
    assert not settled
    for layer, old in zip(layers, before, strict=True):
        assert layer.topology.nnz == len(old)
        new = layer.topology.links.tolist()
        assert set(new) != set(old)
        for link, value, speed in zip(new, layer.values.tolist(), momentum(optimizer, layer.values), strict=True):
            assert (value, speed) == old.get(link, (0.0, 0.0))
    model(torch.randn(8, 20)).sum().backward()
    optimizer.step()


def test_link_gradients_are_those_of_the_full_matrix() -> None:
    model = MLP(MLPSpec((12, 10, 9, 4)), [er((10, 12), 0.7, rng(0)), er((9, 10), 0.7, rng(1))])
    model.reset_parameters(rng(2))
    x, targets = torch.randn(16, 12), torch.arange(16) % 4
    found = [gradient(0, shape[0]) for gradient, shape in zip(link_gradients(model, x, targets), model.spec.shapes, strict=False)]
    weights = []
    for layer in model.sparse_layers:
        dense = torch.zeros(layer.topology.shape)
        dense[torch.from_numpy(layer.topology.to_dense())] = layer.values.detach()
        weights.append(dense.requires_grad_())
    h = x
    for weight, layer in zip(weights, model.sparse_layers, strict=True):
        h = torch.relu(h @ weight.t() + layer.bias)
    expected = torch.autograd.grad(nn.functional.cross_entropy(model.layers[-1](h), targets), weights)
    for ours, reference in zip(found, expected, strict=True):
        assert np.allclose(ours, reference.abs().numpy(), atol=1e-6)


def test_the_learning_rate_falls_linearly_and_stays() -> None:
    config = TrainConfig(epochs=100)
    assert config.learning_rate(0) == 0.025
    assert config.learning_rate(45) == pytest.approx((0.025 + 2.5e-4) / 2)
    assert config.learning_rate(90) == config.learning_rate(99) == pytest.approx(2.5e-4)


def test_one_epoch_sees_every_image_once() -> None:
    splits = load("digits", validation=0.1)
    run = Training(replace(SMALL, augment="none"), splits, RunFolder("unused"))
    x, labels = (torch.cat(parts).numpy() for parts in zip(*run.batches(0), strict=True))
    seen = np.column_stack([x, labels])
    pixels = splits.train.images.reshape(len(splits.train), -1)
    expected = np.column_stack([splits.encoding.table()[0][pixels], splits.train.labels])
    assert np.array_equal(seen[np.lexsort(seen.T)], expected[np.lexsort(expected.T)])
    assert not np.array_equal(labels, torch.cat([targets for _, targets in run.batches(1)]).numpy())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sparsity": 1.0}, "training setting sparsity is 1.0; expected at least 0"),
        ({"hidden": ()}, "training setting hidden is"),
        ({"epochs": 0}, "training setting epochs is 0; expected at least 1"),
        ({"lr_final": 1.0}, "training setting lr_final is 1.0; expected between 0 and lr"),
        ({"topology": "ring"}, "training setting topology is 'ring'; expected csti, er, bsw, brf"),
        ({"method": "magic"}, "training recipe is 'magic', expected one of cht, chts"),
        ({"evolution": {"zeta": 2.0}}, "zeta is 2.0"),
        ({"rate": 1.0}, "training settings rate are unknown; known are data, hidden"),
    ],
)
def test_bad_settings_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TrainConfig.from_dict(changes)


def rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def momentum(optimizer: torch.optim.Optimizer, parameter: nn.Parameter) -> list[float]:
    return list(optimizer.state[parameter]["momentum_buffer"].tolist())
