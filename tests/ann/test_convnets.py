"""Convolutional networks trained sparse: shapes, exact density, resume, files and errors."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from sparsespike.ann.checkpoint import load_model, save_model
from sparsespike.ann.config import MODELS, TrainConfig
from sparsespike.ann.convnets import CONVNETS, ConvNet, ConvNetSpec, ResidualBlock
from sparsespike.ann.data import load
from sparsespike.ann.device import Precision
from sparsespike.ann.evaluate import accuracy
from sparsespike.ann.evolution import active_share, link_gradients, parameter_count
from sparsespike.ann.masked import DenseConv2d, MaskedConv2d
from sparsespike.ann.progress import EpochRecord, TrainProgress
from sparsespike.ann.run_folder import RunFolder
from sparsespike.ann.topology import RECIPES, conv_er, link_count
from sparsespike.ann.train import TrainingInterrupted, train
from sparsespike.ann.training import Training
from sparsespike.common.errors import ConfigError, ModelError
from sparsespike.export.network import Convolve
from sparsespike.export.source import read_network

TINY = TrainConfig(
    model="vgg-small", width=0.2, sparsity=0.5, method="chts", activation="qcfs", epochs=5, batch=128, lr=0.1, lam=2.0
)

BUFFERS = ("indptr", "indices", "running_mean", "running_var", "num_batches_tracked")


def network(spec: ConvNetSpec) -> ConvNet:
    net = ConvNet(spec)
    for layer in net.sparse_layers:
        assert isinstance(layer, MaskedConv2d)
        layer.reset_topology(conv_er(layer.shape, 0.5, np.random.default_rng(0)))
    net.reset_parameters(np.random.default_rng(1))
    return net


def same_tensors(first: Path, second: Path) -> bool:
    one, two = load_file(first), load_file(second)
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize(
    ("model", "convolutions", "parameters"),
    # Weights of the convolutions, 2 for each normalised channel, and the classifier, from the papers' tables.
    [("vgg-small", 6, 307_946), ("vgg16", 13, 14_724_042), ("resnet18", 20, 11_173_962), ("resnet20", 21, 272_474)],
)
def test_networks_have_the_published_size(model: str, convolutions: int, parameters: int) -> None:
    dense = ConvNet(ConvNetSpec(model, (3, 32, 32), 10, sparse=False))
    assert sum(isinstance(module, nn.Conv2d) for module in dense.modules()) == convolutions
    assert sum(parameter.numel() for parameter in dense.parameters()) == parameters
    assert parameter_count(dense) == parameters
    sparse = ConvNet(ConvNetSpec(model, (3, 32, 32), 10))
    assert len(sparse.sparse_layers) == convolutions
    assert not dense.sparse_layers
    assert not any(isinstance(module, nn.MaxPool2d) for module in dense.modules())
    assert ("mlp", *CONVNETS) == MODELS


@pytest.mark.parametrize("model", CONVNETS)
@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 28, 28), (1, 8, 8), (2, 7, 5)])
def test_networks_take_images_of_any_size(model: str, shape: tuple[int, int, int]) -> None:
    net = network(ConvNetSpec(model, shape, 7, width=0.1, dropout=0.5)).eval()
    x = torch.rand(int(np.prod(shape)), 3).t()
    assert net(x).shape == (3, 7)
    assert torch.equal(net(x), net(x.contiguous()))


def test_small_images_leave_out_pools() -> None:
    for side, pools in ((32, 5), (28, 2), (8, 3), (7, 0)):
        net = ConvNet(ConvNetSpec("vgg16", (1, side, side), 3, 0.02))
        assert sum(isinstance(module, nn.AvgPool2d) for module in net.modules()) == pools


def test_a_residual_block_adds_its_input() -> None:
    block = ResidualBlock(ConvNetSpec("resnet20", (1, 8, 8), 3, sparse=False), 4, 4, 1).eval()
    x = torch.rand(2, 4, 8, 8)
    assert torch.equal(block(x), x)  # the convolutions start at zero


def test_the_stem_may_stay_dense() -> None:
    for model in CONVNETS:
        net = ConvNet(ConvNetSpec(model, (3, 32, 32), 10, 0.1, sparse_stem=False))
        assert isinstance(net.network.conv1, DenseConv2d)
        assert len(net.sparse_layers) == len(ConvNet(ConvNetSpec(model, (3, 32, 32), 10, 0.1)).sparse_layers) - 1


@pytest.mark.parametrize("model", CONVNETS)
def test_conversion_can_read_every_layer(model: str) -> None:
    spec = ConvNetSpec(model, (3, 32, 32), 10, 0.1, activation="qcfs", dropout=0.3)
    net = network(spec)
    read = read_network(net)
    kernels = [node.layer for node in read.nodes if isinstance(node.layer, Convolve)]
    assert sorted(kernel.links for kernel in kernels) == sorted(layer.topology.nnz for layer in net.sparse_layers)
    assert all(np.count_nonzero(kernel.kernel) == kernel.links for kernel in kernels)


@pytest.mark.parametrize("model", CONVNETS)
def test_a_saved_network_comes_back_the_same(tmp_path: Path, model: str) -> None:
    net = network(ConvNetSpec(model, (1, 8, 8), 3, 0.1, activation="qcfs", levels=4, lam=2.0, dropout=0.3))
    net(torch.rand(20, 64))  # moves the running statistics
    save_model(tmp_path / "model.safetensors", net.eval(), {"classes": ["a", "b", "c"]})
    loaded, metadata = load_model(tmp_path)
    assert isinstance(loaded, ConvNet)
    assert loaded.spec == net.spec
    assert metadata["model"] == json.loads(json.dumps(net.spec.to_dict()))
    x = torch.rand(5, 64)
    assert torch.equal(loaded(x), net(x))
    assert [layer.topology for layer in loaded.sparse_layers] == [layer.topology for layer in net.sparse_layers]


class Watch(TrainProgress):
    """Checks the invariants of every layer after every epoch, in the checkpoint that was just written."""

    def __init__(self, folder: Path, config: TrainConfig) -> None:
        self.files, self.config = RunFolder(folder), config
        self.masks: list[list[torch.Tensor]] = []

    def on_epoch(self, record: EpochRecord) -> None:
        splits = load("digits", validation=self.config.validation, seed=self.config.seed)
        run = Training.restored(self.config, splits, self.files)
        for layer in run.model.sparse_layers:
            assert isinstance(layer, MaskedConv2d)
            evolution = self.config.evolution_config()
            sparsity = self.config.sparsity
            if evolution.schedule is not None:
                progress = evolution.progress(record.epoch - 2, self.config.epochs)
                past = 1.0 if record.epoch > 2 else 0.0
                sparsity = evolution.schedule.at(past if progress is None else progress)
            taps = layer.topology.shape[1]
            assert set(layer.topology.in_degree.tolist()) == {link_count((1, taps), sparsity)}
            assert not layer.weight[~layer.mask].any()
            assert not run.optimizer.state[layer.weight]["momentum_buffer"][~layer.mask].any()
        self.masks.append([layer.mask for layer in run.model.sparse_layers])


@pytest.mark.parametrize("method", sorted(RECIPES))
def test_every_recipe_keeps_masks_and_density_exact(tmp_path: Path, method: str) -> None:
    config = replace(TINY, method=method, sparsity=0.7)
    watch = Watch(tmp_path / "run", config)
    result = train(config, tmp_path / "run", progress=watch)
    assert len(watch.masks) == config.epochs
    changed = [
        any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))
        for before, after in zip(watch.masks[:-1], watch.masks[1:], strict=True)
    ]
    # Updates in the first 75 % of five epochs: a cosine zeta is zero at the last, and nothing is pruned to 0 % at the first.
    special = {"static": [False] * 4, "cht": [True, True, False, False], "gmp": [False, True, True, False]}
    assert changed == {**special, "rigl": special["cht"]}.get(method, [True, True, True, False])
    assert result.history[-1].sparsity == pytest.approx(0.7, abs=0.02)


@pytest.mark.parametrize("mode", ["kernel", "full", "im2col"])
@pytest.mark.parametrize("model", ["vgg-small", "resnet20"])
def test_every_mode_evolves_sequences_and_residual_networks(tmp_path: Path, model: str, mode: str) -> None:
    config = replace(TINY, model=model, conv_mode=mode, epochs=3, width=0.3, evolution={"zeta": 0.2})
    result = train(config, tmp_path / "run")
    assert result.history[1].update_seconds > 0
    assert 0 < result.history[1].overlap < 1
    layers = result.model.sparse_layers
    assert all(len(set(layer.topology.in_degree)) == 1 for layer in layers)
    values = [value for name, value in result.model.state_dict().items() if not name.endswith(BUFFERS)]
    assert json.loads((tmp_path / "run/summary.json").read_text())["parameters"] == sum(value.numel() for value in values)


def test_a_small_vgg_learns_digits_sparse_and_dense(tmp_path: Path) -> None:
    config = replace(TINY, width=0.5, epochs=6, batch=64, schedule="cosine", lr=0.2, dropout=0.1)
    sparse = train(config, tmp_path / "sparse")
    dense = train(replace(config, sparsity=0.0), tmp_path / "dense")
    assert sparse.test_accuracy > 0.95
    assert dense.test_accuracy > 0.95
    assert [record.sparsity for record in dense.history] == [0.0] * 6
    model, _ = load_model(tmp_path / "sparse")
    splits = load("digits", validation=config.validation, seed=config.seed)
    assert accuracy(model, splits.test, splits.encoding) == sparse.test_accuracy


@pytest.mark.parametrize(
    "changes",
    [
        {"dropout": 0.3, "augment": "crop"},
        {"method": "rigl", "dropout": 0.3, "model": "resnet20", "width": 0.1},
        {"amp": "bfloat16"},
        {"amp": "bfloat16", "model": "mlp", "hidden": (64, 48), "sparsity": 0.0, "method": "static"},
        {"model": "mlp", "hidden": (64, 48), "dropout": 0.2, "method": "rigl", "schedule": "cosine"},
    ],
)
def test_a_resumed_run_is_bit_identical(tmp_path: Path, changes: dict[str, object]) -> None:
    config = replace(TINY, **changes)  # type: ignore[arg-type]  # a parametrised mapping
    train(config, tmp_path / "whole")

    class Stop(TrainProgress):
        epochs = 0

        def on_step(self, step: int, loss: float) -> None:
            if self.epochs == 2 and step == 3:
                raise KeyboardInterrupt

        def on_epoch(self, record: EpochRecord) -> None:
            self.epochs += 1
            torch.rand(3)  # what else draws from the global generator has no influence

    with pytest.raises(TrainingInterrupted, match="holds 2 complete epochs"):
        train(config, tmp_path / "parts", progress=Stop())
    train(config, tmp_path / "parts", resume=True)
    for name in ("checkpoint.safetensors", "model.safetensors"):
        assert same_tensors(tmp_path / "whole" / name, tmp_path / "parts" / name), name


@pytest.mark.parametrize("model", ["mlp", "vgg-small"])
def test_mixed_precision_rounds_products_and_keeps_weights(tmp_path: Path, model: str) -> None:
    """The products of a forward pass are bfloat16 ones, so their loss differs; what is kept is float32."""
    config = replace(TINY, model=model, hidden=(64, 48), sparsity=0.0, method="static", epochs=1)
    plain, mixed = (train(replace(config, amp=amp), tmp_path / amp) for amp in ("none", "bfloat16"))
    assert plain.history[0].loss != mixed.history[0].loss
    assert abs(plain.history[0].loss - mixed.history[0].loss) < 0.05 * plain.history[0].loss
    assert {value.dtype for value in mixed.model.state_dict().values() if value.is_floating_point()} == {torch.float32}


def test_dropout_changes_training_and_nothing_else(tmp_path: Path) -> None:
    state = torch.random.get_rng_state()
    runs = [train(replace(TINY, epochs=1, dropout=p), tmp_path / str(p)) for p in (0.0, 0.5)]
    assert torch.equal(torch.random.get_rng_state(), state)
    assert runs[0].history[0].loss != runs[1].history[0].loss


def test_a_run_of_an_older_version_goes_on(tmp_path: Path) -> None:
    config = TrainConfig(hidden=(32,), sparsity=0.5, epochs=1)
    train(config, tmp_path / "run")
    file = tmp_path / "run/config.json"
    old = json.loads(file.read_text())
    for name in ("model", "width", "sparse_stem", "conv_mode", "dropout", "schedule", "device", "amp"):
        del old[name]
    file.write_text(json.dumps(old))
    assert train(config, tmp_path / "run", resume=True).test_accuracy > 0
    assert TrainConfig.from_dict(old) == config


def test_gradients_of_possible_weights_leave_the_model_as_it_was() -> None:
    net = network(ConvNetSpec("resnet20", (1, 8, 8), 3, 0.5))
    x, targets = torch.rand(16, 64), torch.arange(16) % 3
    before = {name: value.clone() for name, value in net.state_dict().items()}
    gradients = link_gradients(net, x, targets)
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    nn.functional.cross_entropy(net(x), targets).backward()
    for gradient, layer in zip(gradients, net.sparse_layers, strict=True):
        assert isinstance(layer, MaskedConv2d)
        assert layer.weight.grad is not None
        found = torch.from_numpy(gradient(0, layer.shape[0])).reshape(layer.shape)
        assert torch.allclose(found[layer.mask], layer.weight.grad.abs()[layer.mask], atol=1e-5)
        assert found[~layer.mask].any()


def test_the_active_share_counts_channels_with_weights() -> None:
    net = network(ConvNetSpec("vgg-small", (1, 8, 8), 3, 0.1))
    assert active_share(net) == 1.0
    layer = net.sparse_layers[1]
    assert isinstance(layer, MaskedConv2d)
    layer.mask[:, 0] = False
    channels = sum(sum(layer.shape[:2]) for layer in net.sparse_layers if isinstance(layer, MaskedConv2d))
    assert active_share(net) == pytest.approx(1 - 1 / channels)


def test_the_learning_rate_falls_along_half_a_cosine() -> None:
    config = TrainConfig(epochs=100, schedule="cosine", lr=0.1, lr_final=0.0, lr_decay=1.0)
    assert config.learning_rate(0) == 0.1
    assert config.learning_rate(50) == pytest.approx(0.05)
    assert config.learning_rate(25) == pytest.approx(0.1 * (0.5 + 0.5 * 2**-0.5))
    assert replace(config, lr_decay=0.5).learning_rate(60) == pytest.approx(0.0)


def test_convolutions_evolve_by_their_own_defaults() -> None:
    conv = TrainConfig(model="vgg16", sparsity=0.5).evolution_config()
    assert (conv.rule, conv.zeta, conv.percolation) == ("CH3-L3n", 0.1, False)
    changed = TrainConfig(model="vgg16", sparsity=0.5, evolution={"zeta": 0.4, "rule": "CH2-L3n"}).evolution_config()
    assert (changed.rule, changed.zeta) == ("CH2-L3n", 0.4)
    decay = TrainConfig(model="vgg16", sparsity=0.78, method="chtss", evolution={"schedule": {"initial": 0.2, "final": 0.78}})
    schedule = decay.evolution_config().schedule
    assert schedule is not None
    assert (schedule.at(0), schedule.at(1)) == (0.2, 0.78)
    assert TrainConfig(model="vgg16", sparsity=0.5, method="static").evolution_config().zeta == 0


def test_the_loss_scale_is_part_of_the_state() -> None:
    assert Precision(torch.device("cpu"), "bfloat16").state() == {}
    one, two = (Precision(torch.device("cpu"), "float16") for _ in range(2))
    layer = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(layer.parameters(), 0.1)
    before = layer.weight.detach().clone()
    one.step(layer(torch.full((1, 2), torch.inf)).sum(), optimizer)  # an overflow skips the step and halves the scale
    assert torch.equal(layer.weight, before)
    one.step(layer(torch.ones(1, 2)).sum(), optimizer)
    assert not torch.equal(layer.weight, before)
    two.restore(one.state())
    assert two.state() == one.state() == {"scale": 2.0**15, "_growth_tracker": 1}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "vgg11"}, "training setting model is 'vgg11'; expected mlp, vgg-small, vgg16, resnet18, resnet20"),
        (
            {"model": "vgg16", "topology": "csti"},
            "topology is 'csti'; expected er: the only initial topology",
        ),
        ({"model": "vgg16", "width": 0.0}, "width is 0.0; expected above 0"),
        ({"conv_mode": "window"}, "conv_mode is 'window'; expected kernel, full, im2col"),
        ({"dropout": 1.0}, "dropout is 1.0; expected at least 0 and below 1"),
        ({"schedule": "step"}, "schedule is 'step'; expected linear or cosine"),
        ({"device": "tpu"}, "device is 'tpu'; expected cpu or cuda"),
        ({"model": "vgg16", "amp": "float16"}, "amp is 'float16'; expected none or bfloat16 for this vgg16 on cpu"),
        ({"amp": "bfloat16"}, "amp is 'bfloat16'; expected none for this mlp on cpu"),
        ({"model": "vgg16", "evolution": {"percolation": True}}, "vgg16 has percolation, expected none"),
        ({"model": "vgg16", "evolution": {"rule": "CH3-L3p"}}, "vgg16 has the rule CH3-L3p in mode 'kernel'; choose CH2-L3n"),
        ({"method": "chtss", "evolution": {"schedule": {"start": 0.2}}}, "sparsity schedule .* is malformed"),
    ],
)
def test_bad_settings_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TrainConfig.from_dict(changes)


def test_a_device_that_torch_does_not_find_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    with pytest.raises(ConfigError, match=r"device 'cuda' is not available to torch .*; use device 'cpu', or install a driver"):
        train(replace(TINY, device="cuda"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("fields", [{"model": "vgg16"}, {"model": "vgg16", "shape": [3, 32]}, {"model": 3, "depth": 1}])
def test_malformed_descriptions_are_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ModelError, match=r"is malformed .*; expected those of ConvNetSpec"):
        ConvNetSpec.from_dict(fields)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "lenet"}, "convolutional network 'lenet' is unknown; expected one of vgg-small"),
        ({"shape": (3, 0, 32)}, "expected channels, height, width and classes of at least 1"),
        ({"activation": "tanh"}, "activation 'tanh' is unknown"),
        ({"dropout": -0.1}, "dropout is -0.1"),
    ],
)
def test_impossible_networks_are_refused(changes: dict[str, object], message: str) -> None:
    fields = {"model": "vgg16", "shape": (3, 32, 32), "classes": 10, **changes}
    with pytest.raises(ConfigError, match=message):
        ConvNetSpec(**fields)  # type: ignore[arg-type]  # a parametrised mapping
