"""Fine-tuning: what is trained and what is not, links that never change, stages, exact resume, the run folder."""

from __future__ import annotations

import csv
import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from sparsespike.ann.activations import QCFS, SoftplusQCFS
from sparsespike.ann.aec import AEC
from sparsespike.ann.augment import assemble
from sparsespike.ann.checkpoint import load_model, save_model
from sparsespike.ann.config import TrainConfig
from sparsespike.ann.data import DataSplits, load
from sparsespike.ann.encoding import Encoding
from sparsespike.ann.evaluate import accuracy
from sparsespike.ann.finetune import finetune, load_source, settings_for
from sparsespike.ann.finetune_config import FinetuneConfig
from sparsespike.ann.finetuning import FIXED_RHO, Finetuning, successor
from sparsespike.ann.loop import compute_threads
from sparsespike.ann.masked import MaskedLayer
from sparsespike.ann.momentum import momentum_tensors
from sparsespike.ann.networks import Network
from sparsespike.ann.progress import EpochRecord, TrainProgress
from sparsespike.ann.run_folder import RunFolder
from sparsespike.ann.sparse import SparseLayer
from sparsespike.ann.train import TrainingInterrupted, train
from sparsespike.common.errors import ConfigError, DataError, ModelError

NETWORKS = {
    "mlp": TrainConfig(hidden=(128, 96), sparsity=0.8, epochs=5, lr=0.1, dropout=0.05),
    "qcfs": TrainConfig(hidden=(96, 80), sparsity=0.8, epochs=4, activation="qcfs", levels=4, lam=2.0, lr=0.1),
    "dense": TrainConfig(hidden=(48,), sparsity=0.0, epochs=4),
    "vgg": TrainConfig(model="vgg-small", width=0.15, sparsity=0.5, epochs=5, batch=64, lr=0.1, schedule="cosine", dropout=0.1),
    "resnet": TrainConfig(model="resnet20", width=0.2, sparsity=0.5, epochs=1, batch=256, lr=0.1, schedule="cosine"),
}
METHODS: dict[str, dict[str, Any]] = {
    "cs-qcfs": {"method": "cs-qcfs", "stages": (1, 1), "levels": 8, "lr": 0.01},
    "aec": {"method": "aec", "stages": (2,), "steps": 16},
}
RUN = """
import json, sys
from sparsespike.ann.finetune import finetune
from sparsespike.ann.finetune_config import FinetuneConfig
finetune(FinetuneConfig(**json.loads(sys.argv[1])), sys.argv[2], resume=True)
"""


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Networks this small are slower with more, on a busy machine by far."""
    with compute_threads(1):
        yield


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A trained run of each network, on digits."""
    folder = tmp_path_factory.mktemp("runs")
    return {name: train(config, folder / name).folder for name, config in NETWORKS.items()}


def same_tensors(first: Path, second: Path) -> bool:
    one, two = load_file(first), load_file(second)
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def started(run: Path, folder: Path, method: str, **changes: Any) -> Finetuning:
    """A fine-tuning run before its first epoch."""
    config = settings_for(run, **{**METHODS[method], **changes})
    folder.mkdir(exist_ok=True)
    source, metadata = load_source(run)
    splits = load(config.data, validation=config.validation, seed=config.split_seed)
    return Finetuning.started(config, splits, RunFolder(folder), source, metadata["training"])


def links(model: nn.Module) -> list[tuple[list[int], list[int]]]:
    return [(m.topology.indptr.tolist(), m.topology.indices.tolist()) for m in model.modules() if isinstance(m, SparseLayer)]


def weights(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """All parameters of linear layers and convolutions, links as one value each."""
    trained_by_aec = tuple(
        name for name, module in model.named_modules() if isinstance(module, AEC | SoftplusQCFS | nn.BatchNorm2d | nn.ReLU | QCFS)
    )
    for name, tensor in model.state_dict().items():
        if not name.startswith(trained_by_aec):
            yield name, tensor


class Watch(TrainProgress):
    """Looks at the links after every step."""

    def __init__(self, run: Finetuning) -> None:
        self.run, self.links, self.steps = run, links(run.source), 0

    def on_step(self, step: int, loss: float) -> None:
        self.steps += 1
        for layer, (indptr, indices) in zip(self.run.model.sparse_layers, self.links, strict=True):
            parameter = layer.parameter
            assert layer.gather(parameter).numel() == layer.topology.nnz == len(indices)
            if isinstance(layer, MaskedLayer):
                assert torch.equal(parameter != 0, layer.mask & (parameter != 0))
                assert not parameter[~layer.mask].any()
            assert (layer.topology.indptr.tolist(), layer.topology.indices.tolist()) == (indptr, indices)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("network", NETWORKS)
def test_links_are_the_same_after_every_step_and_accuracy_holds(
    runs: dict[str, Path], tmp_path: Path, network: str, method: str
) -> None:
    run = started(runs[network], tmp_path, method)
    watch = Watch(run)
    result = run.complete(watch)
    assert watch.steps == run.steps * run.config.epochs
    model, metadata = load_model(tmp_path)
    source, before = load_model(runs[network])
    assert links(model) == links(source) == links(result.model)
    if network != "resnet":  # whose one epoch is no training to keep
        assert before["test_accuracy"] > 0.8
        assert result.test_accuracy > before["test_accuracy"] - 0.06
    assert metadata["training"] == before["training"]
    assert metadata["finetuning"]["method"] == method


@pytest.mark.parametrize("network", NETWORKS)
def test_aec_trains_thresholds_and_normalisation_only(runs: dict[str, Path], tmp_path: Path, network: str) -> None:
    run = started(runs[network], tmp_path, "aec", stages=(1,), lr=0.01)
    first = {name: tensor.clone() for name, tensor in run.model.state_dict().items()}
    trained = {id(parameter) for parameter in run.model.parameters() if parameter.requires_grad}
    assert trained == {id(parameter) for group in run.optimizer.param_groups for parameter in group["params"]}
    run.complete(TrainProgress())
    model = load_model(tmp_path)[0]
    before, after = dict(weights(run.source)), dict(weights(model))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    changed = {name.rpartition(".")[2] for name, tensor in model.state_dict().items() if not torch.equal(tensor, first[name])}
    expected = {"log_threshold", "log_rate"}
    if network in ("vgg", "resnet"):
        expected |= {"weight", "bias", "running_mean", "running_var", "num_batches_tracked"}
    assert changed == expected


@pytest.mark.parametrize("network", ["mlp", "vgg"])
def test_cs_qcfs_trains_everything_in_both_stages(runs: dict[str, Path], tmp_path: Path, network: str) -> None:
    run = started(runs[network], tmp_path, "cs-qcfs", stages=(1, 1))
    moments: list[dict[str, Tensor]] = []

    class Note(TrainProgress):
        def on_step(self, step: int, loss: float) -> None:
            if step in (1, run.steps):
                moments.append({name: tensor.clone() for name, tensor in run.model.state_dict().items()})

    run.complete(Note())
    for before, after in (moments[:2], moments[2:]):
        still = {name for name in before if torch.equal(before[name], after[name])}
        assert {name.rpartition(".")[2] for name in still} <= {"indptr", "indices"}
    layerwise, channelwise = ([m[name] for name in m if name.endswith(".rho")] for m in (moments[1], moments[2]))
    assert all(rho.ndim == 0 for rho in layerwise)
    assert all(rho.ndim == 1 for rho in channelwise)


def test_the_second_stage_starts_from_the_first(runs: dict[str, Path], tmp_path: Path) -> None:
    """The threshold of a layer in every channel, equal outputs, momentum from zero, a tenth of the learning rate."""
    run = started(runs["vgg"], tmp_path, "cs-qcfs", stages=(2, 3))
    loss = run.loss(run.model(next(run.batches(0))[0]), next(run.batches(0))[1])
    run.precision.step(loss, run.optimizer)
    assert momentum_tensors(run.model, run.optimizer)
    layerwise = run.model
    run.before_epoch(2)
    x = torch.randn(16, 64)
    assert torch.equal(run.model.eval()(x), layerwise.eval()(x))
    pairs = zip(layerwise.modules(), run.model.modules(), strict=True)
    channels = [(a.rho, b.rho, b.channels) for a, b in pairs if isinstance(a, SoftplusQCFS) and isinstance(b, SoftplusQCFS)]
    assert [c for _, _, c in channels] == [5, 5, 10, 10, 19, 19]
    for one, many, count in channels:
        assert torch.equal(many, one.expand(count or 0))
    assert not momentum_tensors(run.model, run.optimizer)
    rates = [run.config.learning_rate(epoch) for epoch in range(5)]
    lr = run.config.lr
    assert rates == pytest.approx([lr, lr / 2, lr / 10, 0.75 * lr / 10, 0.25 * lr / 10])


@pytest.mark.parametrize(("stages", "kind", "kinds"), [((0, 1), "cs-qcfs", 1), ((1, 0), "s-qcfs", 0)])
def test_a_stage_may_be_left_out(runs: dict[str, Path], tmp_path: Path, stages: tuple[int, int], kind: str, kinds: int) -> None:
    result = finetune(settings_for(runs["mlp"], "cs-qcfs", stages=stages), tmp_path)
    assert result.model.spec.activation == kind
    assert {m.rho.ndim for m in result.model.modules() if isinstance(m, SoftplusQCFS)} == {kinds}
    assert [stage["activation"] for stage in json.loads((tmp_path / "summary.json").read_text())["stages"]] == [kind]


def test_the_threshold_penalty_is_the_sum_of_all_thresholds(runs: dict[str, Path], tmp_path: Path) -> None:
    run = started(runs["mlp"], tmp_path, "cs-qcfs", penalty=0.25, stages=(0, 1))
    run.before_epoch(0)
    scores, targets = torch.randn(8, 10), torch.arange(8)
    rhos = [m.rho.detach() for m in run.model.modules() if isinstance(m, SoftplusQCFS)]
    assert [len(rho) for rho in rhos] == [128, 96]
    penalty = 0.25 * sum(torch.log1p(rho.exp()).sum() for rho in rhos)
    assert run.loss(scores, targets).item() == pytest.approx((nn.functional.cross_entropy(scores, targets) + penalty).item())
    aec = started(runs["mlp"], tmp_path / "aec", "aec")
    assert aec.loss(scores, targets) == nn.functional.cross_entropy(scores, targets)


@pytest.mark.parametrize("network", ["mlp", "vgg"])
def test_thresholds_start_at_a_percentile_of_the_training_images(runs: dict[str, Path], tmp_path: Path, network: str) -> None:
    run = started(runs[network], tmp_path / "a", "cs-qcfs", percentile=99.0)
    images = run.splits.train.images
    index = np.arange(512) * len(images) // 512
    x = torch.from_numpy(assemble(images, index, run.splits.encoding.table())).t()
    after: list[tuple[type[nn.Module], Tensor]] = []
    types = (nn.ReLU, nn.AvgPool2d)
    for module in run.source.modules():
        if isinstance(module, types):
            module.register_forward_hook(lambda module, _, y: after.append((type(module), y)))
    run.source(x)
    expected = [(kind, float(np.percentile(y[y > 0].detach().numpy(), 99.0))) for kind, y in after]
    lams = [m.lam.item() for m in run.model.modules() if isinstance(m, SoftplusQCFS)]
    assert lams == pytest.approx([value for kind, value in expected if kind is nn.ReLU], rel=1e-5)
    aec = started(runs[network], tmp_path / "b", "aec", percentile=99.0)
    reaches = [sum(table[0] for table in m.thresholds()) for m in aec.model.modules() if isinstance(m, AEC)]
    assert reaches == pytest.approx([value for _, value in expected], rel=1e-5)
    assert len(reaches) == (2 if network == "mlp" else 9)
    fixed = started(runs[network], tmp_path / "c", "cs-qcfs", initial="fixed")
    assert {m.rho.item() for m in fixed.model.modules() if isinstance(m, SoftplusQCFS)} == {FIXED_RHO}
    published = started(runs[network], tmp_path / "d", "aec", initial="fixed", steps=5)
    for layer in published.model.modules():
        if isinstance(layer, AEC):
            assert layer.thresholds()[0] == pytest.approx(0.8131 * np.exp(-0.9 * np.arange(6)), rel=1e-4)


def test_a_dead_layer_is_refused(runs: dict[str, Path], tmp_path: Path) -> None:
    model, metadata = load_model(runs["mlp"])
    with torch.no_grad():
        model.state_dict()["layers.1.bias"].fill_(-1e6)
    save_model(tmp_path / "model.safetensors", model, metadata)
    with pytest.raises(ModelError, match=r"layer 'activations\.1': found no positive value on 512 training images"):
        finetune(settings_for(tmp_path, "aec", stages=(1,)), tmp_path / "out")


@pytest.mark.parametrize(("network", "method"), [("mlp", "cs-qcfs"), ("vgg", "cs-qcfs"), ("mlp", "aec"), ("vgg", "aec")])
def test_a_resumed_run_is_bit_identical(runs: dict[str, Path], tmp_path: Path, network: str, method: str) -> None:
    config = settings_for(runs[network], method, stages=(2, 2) if method == "cs-qcfs" else (3,))
    finetune(config, tmp_path / "whole")

    class Stop(TrainProgress):
        def __init__(self, epochs: int) -> None:
            self.epochs = epochs

        def on_step(self, step: int, loss: float) -> None:
            if self.epochs == 0 and step == 3:
                raise KeyboardInterrupt

        def on_epoch(self, record: EpochRecord) -> None:
            self.epochs -= 1

    # In the first epoch; in the first of the second stage, which is then made anew; in the second of it.
    for done, more in ((0, 0), (2, 2), (3, 1)):
        if done < config.epochs:
            with pytest.raises(TrainingInterrupted, match=rf"stopped in epoch {done + 1} of {config.epochs}; folder .* resume"):
                finetune(config, tmp_path / "parts", progress=Stop(more), resume=True)
    finetune(config, tmp_path / "parts", resume=True)
    for name in ("checkpoint.safetensors", "model.safetensors"):
        assert same_tensors(tmp_path / "whole" / name, tmp_path / "parts" / name), name
    rows = [list(csv.DictReader((tmp_path / run / "metrics.csv").read_text().splitlines())) for run in ("whole", "parts")]
    timeless = [[{name: value for name, value in row.items() if "seconds" not in name} for row in table] for table in rows]
    assert timeless[0] == timeless[1]
    assert len(rows[0]) == config.epochs


@pytest.mark.full
def test_sigkill_at_random_moments_changes_nothing(runs: dict[str, Path], tmp_path: Path) -> None:
    config = settings_for(runs["mlp"], "cs-qcfs", stages=(12, 12), levels=4)
    finetune(config, tmp_path / "whole")
    folder = tmp_path / "killed"
    arguments = [sys.executable, "-c", RUN, json.dumps(config.to_dict()), str(folder)]
    draws = random.Random(1)
    metrics = folder / "metrics.csv"
    for target in (9, 16):
        process = subprocess.Popen(arguments)
        while process.poll() is None and (not metrics.exists() or len(metrics.read_text().splitlines()) < target):
            time.sleep(0.005)
        time.sleep(draws.random() * 0.05)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not (folder / "summary.json").exists()
    assert subprocess.run(arguments, check=True).returncode == 0
    for name in ("checkpoint.safetensors", "model.safetensors"):
        assert same_tensors(tmp_path / "whole" / name, folder / name), name


@pytest.mark.parametrize("method", METHODS)
def test_the_run_folder_says_what_was_done(runs: dict[str, Path], tmp_path: Path, method: str) -> None:
    config = settings_for(runs["mlp"], **METHODS[method])
    result = finetune(config, tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "checkpoint.safetensors",
        "config.json",
        "metrics.csv",
        "model.safetensors",
        "summary.json",
    ]
    assert FinetuneConfig(**json.loads((tmp_path / "config.json").read_text())) == config
    training = NETWORKS["mlp"]
    summary = json.loads((tmp_path / "summary.json").read_text())
    model, metadata = load_model(tmp_path)
    source, before = load_source(runs["mlp"])
    splits = load("digits", validation=training.validation, seed=training.seed)
    encoding = Encoding.from_dict(metadata["encoding"])
    assert metadata["encoding"] == before["encoding"]
    assert accuracy(model, splits.test, encoding) == summary["test_accuracy"] == metadata["test_accuracy"] == result.test_accuracy
    assert accuracy(source, splits.test, encoding) == summary["source_test_accuracy"] == before["test_accuracy"]
    assert accuracy(source, splits.validation, encoding) == summary["source_validation_accuracy"]
    last = range(config.epochs - config.stages[-1], config.epochs)
    best = max(result.history[epoch].validation_accuracy or 0 for epoch in last)
    assert accuracy(model, splits.validation, encoding) == best == summary["validation_accuracy"]
    assert result.best_epoch - 1 in last
    ends = np.cumsum(config.stages) - 1
    assert [s["validation_accuracy"] for s in summary["stages"]] == [result.history[end].validation_accuracy for end in ends]
    assert summary["replaced_validation_accuracy"] == replaced_accuracy(source, config, splits)


def replaced_accuracy(source: Network, config: FinetuneConfig, splits: DataSplits) -> float:
    """By the source alone, each of whose activations is replaced while it runs."""
    run = Finetuning(config, splits, RunFolder("unused"), source, {})
    run.set_thresholds(run.model)
    old = [m for m in source.modules() if isinstance(m, nn.ReLU)]
    new = [m for m in run.model.modules() if isinstance(m, SoftplusQCFS | AEC)]
    replacement = dict(zip(old, new, strict=True))
    hooks = [m.register_forward_hook(lambda module, x, _: replacement[module](x[0])) for m in old]
    found = accuracy(source, splits.validation, splits.encoding)
    for hook in hooks:
        hook.remove()
    return found


def test_the_topology_survives_the_masked_form(runs: dict[str, Path]) -> None:
    """On a GPU linear layers are masked: the same network in the other form gives the same scores and saved state."""
    source, _ = load_source(runs["mlp"])
    config = settings_for(runs["mlp"], **METHODS["aec"])
    sparse, masked = (successor(source, config, 0, masked=form).eval() for form in (False, True))
    x = torch.randn(9, 64)
    assert torch.allclose(sparse(x), masked(x), atol=1e-6)
    one, two = sparse.state_dict(), masked.state_dict()
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_qcfs_network_keeps_its_range(runs: dict[str, Path], tmp_path: Path) -> None:
    """Its outputs never exceed lambda: the largest of them is where the new thresholds start."""
    run = started(runs["qcfs"], tmp_path, "cs-qcfs", percentile=100.0)
    old = [m.lam.item() for m in run.source.modules() if isinstance(m, QCFS)]
    new = [m.lam.item() for m in run.model.modules() if isinstance(m, SoftplusQCFS)]
    assert all(lam <= before * (1 + 1e-5) for lam, before in zip(new, old, strict=True))


def test_wrong_data_are_refused(runs: dict[str, Path], tmp_path: Path) -> None:
    model, metadata = load_model(runs["mlp"])
    save_model(tmp_path / "model.safetensors", model, {**metadata, "shape": [1, 4, 16]})
    with pytest.raises(
        DataError, match=r"images of shape \(1, 8, 8\) in 10 classes, model .* on \(1, 4, 16\) in 10; name the data"
    ):
        finetune(settings_for(tmp_path, "aec", stages=(1,)), tmp_path / "out")
    save_model(tmp_path / "model.safetensors", model, {"classes": metadata["classes"]})
    with pytest.raises(ModelError, match="does not say its training, encoding, shape; expected a run folder of training"):
        load_source(tmp_path)
    with pytest.raises(ConfigError, match=r"fine-tuning settings rate are unknown"):
        settings_for(runs["mlp"], "aec", rate=3)


def test_divergence_is_reported(runs: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"the loss is (nan|inf) in epoch \d+, step \d+, .*: lower the learning rate"):
        finetune(settings_for(runs["mlp"], "cs-qcfs", lr=1e9), tmp_path)
