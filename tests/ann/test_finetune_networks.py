"""What fine-tuning is made of: settings, ranges, and descriptions that rebuild networks with other activations."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from sparsespike.ann.activations import SoftplusQCFS
from sparsespike.ann.aec import AEC
from sparsespike.ann.checkpoint import load_model, save_model
from sparsespike.ann.config import TrainConfig
from sparsespike.ann.convnets import ConvNetSpec
from sparsespike.ann.finetune_config import FinetuneConfig
from sparsespike.ann.models import MLPSpec
from sparsespike.ann.networks import build, spec_from_dict
from sparsespike.ann.ranges import ranges
from sparsespike.ann.replace import replace_modules, with_spiking_pools
from sparsespike.common.errors import ConfigError


def test_percentiles_are_of_positive_values() -> None:
    model = nn.Sequential(nn.Identity(), nn.ReLU())
    x = torch.tensor([[-3.0, 1.0, 2.0], [0.0, 3.0, 5.0]])
    assert ranges(model, x, (nn.ReLU,), 100) == [5.0]
    assert ranges(model, x, (nn.ReLU,), 50) == [2.5]
    assert not model[1]._forward_hooks


def test_settings_follow_the_first_training() -> None:
    training = TrainConfig(data="cifar10", validation=0.2, seed=3, batch=7, augment="crop-flip", threads=2)
    config = FinetuneConfig.of_run("runs/a", training, "aec", lr=0.5)
    assert (config.data, config.validation, config.split_seed, config.seed) == ("cifar10", 0.2, 3, 0)
    assert (config.source, config.batch, config.augment, config.threads) == ("runs/a", 7, "crop-flip", 2)
    assert (config.stages, config.lr, config.weight_decay) == ((10,), 0.5, 0.0)
    other = FinetuneConfig.of_run("runs/a", training, "cs-qcfs", batch=64)
    assert (other.stages, other.batch, other.weight_decay) == ((10, 10), 64, 5e-4)


@pytest.mark.parametrize("kind", ["s-qcfs", "cs-qcfs", "aec"])
@pytest.mark.parametrize("base", [MLPSpec((64, 20, 12, 10)), ConvNetSpec("vgg-small", (1, 8, 8), 10, 0.1)])
def test_a_description_in_json_rebuilds_the_network(tmp_path: Path, base: MLPSpec | ConvNetSpec, kind: str) -> None:
    quirks = ("force_compensation",) if kind == "aec" else ()
    spec = replace(base, activation=kind, levels=3, steps=7, quirks=quirks, sparse=False)
    assert spec_from_dict(json.loads(json.dumps(spec.to_dict()))) == spec
    model = build(spec)
    model.reset_parameters(np.random.default_rng(0))
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, SoftplusQCFS):
                module.rho.copy_(torch.rand(module.rho.shape))
            if isinstance(module, AEC):
                module.log_rate.copy_(torch.rand(2))
                assert module.force_compensation
                assert not module.smallest_as_silent
    save_model(tmp_path / "model.safetensors", model, {})
    x = torch.randn(5, 64)
    assert torch.equal(load_model(tmp_path)[0](x), model.eval()(x))


def test_in_aec_pools_are_layers_of_spiking_neurons() -> None:
    model = build(ConvNetSpec("vgg-small", (3, 32, 32), 10, 0.1, activation="aec"))
    names = [name for name, module in model.named_modules() if isinstance(module, AEC)]
    expected = [*("activation1", "activation2", "pool1.1", "activation3", "activation4", "pool2.1")]
    assert names == [f"network.{name}" for name in [*expected, "activation5", "activation6", "pool3.1"]]
    residual = build(ConvNetSpec("resnet20", (3, 32, 32), 10, 0.1, activation="aec"))
    assert sum(isinstance(module, AEC) for module in residual.modules()) == 19 + 1


@pytest.mark.parametrize("base", [MLPSpec((64, 20, 10)), ConvNetSpec("vgg-small", (1, 8, 8), 10, 0.1)])
def test_unknown_activations_and_quirks_are_refused(base: MLPSpec | ConvNetSpec) -> None:
    with pytest.raises(ConfigError, match="activation 'gelu' is unknown; expected one of relu, qcfs, s-qcfs, cs-qcfs, aec"):
        replace(base, activation="gelu")
    with pytest.raises(ConfigError, match=r"activation relu has the quirks force_compensation; expected none"):
        replace(base, quirks=("force_compensation",))
    with pytest.raises(
        ConfigError, match="activation aec has the quirks magic; expected smallest_as_silent or force_compensation"
    ):
        replace(base, activation="aec", quirks=("magic",))


def test_any_model_gets_spiking_layers_in_the_place_of_its_modules() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 3)))
    convolution = model[0]
    replace_modules(model, (nn.ReLU,), lambda module: AEC(5))
    with_spiking_pools(model, lambda: AEC(4))
    assert [(name, type(m).__name__) for name, m in model.named_modules() if not list(m.children())] == [
        ("0", "Conv2d"),
        ("1", "AEC"),
        ("2.0.0", "AdaptiveAvgPool2d"),
        ("2.0.1", "AEC"),
        ("2.1", "Flatten"),
        ("2.2", "Linear"),
    ]
    assert model[0] is convolution
    assert model(torch.rand(4, 1, 6, 6)).shape == (4, 3)
