"""Reading models: the network computes what the model computes, and every layer has its verdict."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import prune

from sparsespike.ann.activations import QCFS
from sparsespike.ann.convnets import ConvNet, ConvNetSpec
from sparsespike.ann.masked import MaskedLinear
from sparsespike.ann.models import MLP, MLPSpec
from sparsespike.ann.sparse import SparseLinear
from sparsespike.ann.topology import er
from sparsespike.common.errors import ModelError
from sparsespike.export.network import Activate, AveragePool, Convolve, Dense
from sparsespike.export.source import read_network, verdicts
from sparsespike.export.trace import trace, trace_network, with_average_pooling


def assert_same_function(model: nn.Module, shape: tuple[int, ...], images: int = 5) -> None:
    """The network equals the model in evaluation mode and float64, up to the order of sums."""
    x = torch.randn(images, *shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    network = trace_network(model, shape)
    with torch.no_grad():
        expected = model.double().eval()(x).numpy()
    np.testing.assert_allclose(network.evaluate(x.numpy())[network.nodes[-1].name], expected, rtol=1e-12, atol=1e-12)


def test_the_small_convolutional_net(small_conv_net: Callable[..., nn.Module]) -> None:
    model = small_conv_net()
    model.train()  # it is read as in evaluation mode all the same
    network, found = trace(model, (2, 8, 8))
    assert network is not None
    assert model.training
    assert [(v.layer, v.type, v.shape) for v in found] == [
        ("stem.0", "Conv2d", (6, 8, 8)),
        ("stem.1", "BatchNorm2d", (6, 8, 8)),
        ("stem.2", "ReLU", (6, 8, 8)),
        ("pool", "AvgPool2d", (6, 4, 4)),
        ("conv", "Conv2d", (6, 4, 4)),
        ("norm", "BatchNorm2d", (6, 4, 4)),
        ("add", "add", (6, 4, 4)),
        ("joined", "ReLU", (6, 4, 4)),
        ("down", "Conv2d", (4, 2, 2)),
        ("short", "Conv2d", (4, 2, 2)),
        ("add_1", "add", (4, 2, 2)),
        ("second", "ReLU", (4, 2, 2)),
        ("flatten", "flatten", (16,)),
        ("drop", "Dropout", (16,)),
        ("hidden", "Linear", (7,)),
        ("third", "ReLU", (7,)),
        ("head", "Linear", (3,)),
    ]
    assert all(verdict.accepted and verdict.text for verdict in found)
    assert_same_function(model, (2, 8, 8))
    assert_same_function(small_conv_net(lambda: QCFS(4, 1.5)), (2, 8, 8))


@pytest.mark.parametrize("model", [torchvision.models.resnet18, torchvision.models.vgg11_bn], ids=["resnet18", "vgg11_bn"])
def test_models_of_torchvision(model: Callable[..., nn.Module]) -> None:
    torch.manual_seed(0)
    made: Any = model(num_classes=10)
    made.avgpool = nn.AdaptiveAvgPool2d(1)
    if hasattr(made, "classifier"):
        made.classifier = nn.Linear(512, 10)
    refused = [verdict for verdict in trace(made, (3, 32, 32)).verdicts if not verdict.accepted]
    assert {verdict.type for verdict in refused} == {"MaxPool2d"}
    assert all("replace it by average pooling" in verdict.text for verdict in refused)
    with pytest.raises(ModelError, match=r"MaxPool2d.*a maximum is not linear in spikes"):
        trace_network(made, (3, 32, 32))
    assert_same_function(with_average_pooling(made), (3, 32, 32), images=1)
    assert any(isinstance(module, nn.MaxPool2d) for module in made.modules())  # the model itself is as it was


class Functional(nn.Module):
    """The same operations as functions and methods, ReLU used twice and once more as a module that is called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(2, 3, 3, padding="same"), nn.Conv2d(3, 3, 3, 1, 1)
        self.relu = nn.ReLU(inplace=True)
        self.c, self.d, self.e = nn.Linear(12, 9), nn.Linear(9, 9), nn.Linear(9, 4, bias=False)
        self.norm = nn.BatchNorm1d(9, affine=False)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.a(x))
        y = torch.add(self.b(x), x).relu()
        y = functional.avg_pool2d(y, kernel_size=2)
        y = functional.dropout(y, 0.5, self.training)
        y = self.relu(self.c(y.view(y.size(0), -1)))
        y = self.relu(self.norm(self.d(y.contiguous())))
        scores: Tensor = self.e(y)
        return scores


def test_functions_methods_and_modules_called_twice() -> None:
    torch.manual_seed(0)
    model = Functional()
    model.norm.running_mean.normal_()
    model.norm.running_var.uniform_(0.5, 2)
    assert_same_function(model, (2, 4, 4))
    network = trace_network(model, (2, 4, 4))
    assert [node.name for node in network.activations] == ["relu-2", "relu_1", "relu", "relu-3"] or [
        node.name for node in network.activations
    ] == ["relu", "relu_1", "relu-2", "relu-3"]
    assert len({node.name for node in network.nodes}) == len(network.nodes)


def test_pruned_models_are_read_as_they_compute() -> None:
    """The mask counts even where the pruned weight was not yet computed anew, and for weights, biases, Linear and Conv2d."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 3))
    prune.random_unstructured(model[0], "weight", 0.5)
    prune.l1_unstructured(model[3], "weight", 0.75)
    prune.l1_unstructured(model[3], "bias", 0.25)
    with torch.no_grad():
        model[3].weight_orig.add_(1.0)  # a step of an optimizer: model[3].weight is out of date until the next call
    network = trace_network(model, (1, 4, 4))
    convolution, dense = network.nodes[0].layer, network.nodes[3].layer
    assert isinstance(convolution, Convolve)
    assert isinstance(dense, Dense)
    assert (np.count_nonzero(convolution.kernel), convolution.links) == (18, 18)
    assert (dense.weights.nnz, dense.links) == (32, 32)
    assert np.count_nonzero(dense.bias) == 6
    assert_same_function(model, (1, 4, 4))
    prune.remove(model[3], "weight")
    removed = trace_network(model, (1, 4, 4)).nodes[3].layer
    assert isinstance(removed, Dense)
    assert (removed.weights.nnz, removed.links) == (32, 128)


def test_layers_of_this_package() -> None:
    rng = np.random.default_rng(0)
    sparse_layer = SparseLinear(er((6, 5), 0.5, rng))
    sparse_layer.reset_parameters(rng)
    masked = MaskedLinear.from_sparse(sparse_layer)
    with torch.no_grad():
        masked.weight[~masked.mask] = 7.0  # under the mask
    for layer in (sparse_layer, masked):
        (node,) = trace_network(nn.Sequential(layer), (5,)).nodes
        assert isinstance(node.layer, Dense)
        assert node.layer.links == node.layer.weights.nnz == sparse_layer.topology.nnz
        assert np.array_equal(node.layer.weights.toarray() != 0, sparse_layer.topology.to_dense())


def test_an_mlp_has_numbered_populations() -> None:
    model = MLP(MLPSpec((6, 5, 4, 3), False))
    assert [node.name for node in read_network(model).activations] == ["hidden1", "hidden2"]
    assert [verdict.type for verdict in verdicts(model)] == [*["DenseLinear", "ReLU", "dropout"] * 2, "DenseLinear"]


@pytest.mark.parametrize("name", ["vgg-small", "resnet20"])
def test_convolutional_networks_of_this_package(name: str) -> None:
    model = ConvNet(ConvNetSpec(name, (2, 8, 8), 5, width=0.125))
    rng = np.random.default_rng(0)
    for layer in model.sparse_layers:
        layer.reset_topology(er(layer.topology.shape, 0.5, rng))
    model.reset_parameters(rng)
    network = read_network(model)
    x = torch.randn(3, 128, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with torch.no_grad():
        expected = model.double().eval()(x).numpy()
    np.testing.assert_allclose(network.evaluate(x.numpy())[network.nodes[-1].name], expected, rtol=1e-12, atol=1e-12)
    assert network.activations[0].name == "activation1"


def test_adaptive_pools_and_thresholds_by_channel() -> None:
    qcfs = QCFS(4, 2.0)
    qcfs.lam = nn.Parameter(torch.tensor([[[1.0]], [[0.5]]]))
    network = trace_network(nn.Sequential(qcfs, nn.AdaptiveAvgPool2d((2, 1)), nn.Flatten(), nn.Linear(4, 2)), (2, 4, 6))
    activation, pool = network.nodes[0].layer, network.nodes[1].layer
    assert isinstance(activation, Activate)
    assert activation.lam is not None
    assert activation.lam.tolist() == [1.0, 0.5]
    assert isinstance(pool, AveragePool)
    assert pool.windows((2, 4, 6)) == ((2, 6), (2, 6), (0, 0))
    x = np.array([[[0.3, 0.3]], [[0.3, 0.3]]])[None]
    assert activation(x).tolist() == [[[[0.25, 0.25]], [[0.25, 0.25]]]]


class Wrapped(nn.Module):
    """A model from a function of its input and one convolution."""

    def __init__(self, forward: Callable[[nn.Module, Tensor], Any]) -> None:
        super().__init__()
        self.f = forward
        self.conv, self.relu, self.in_place = nn.Conv2d(2, 2, 1), nn.ReLU(), nn.ReLU(inplace=True)
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Any:
        return self.f(self, x)


def images(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(*layers, nn.Flatten(), nn.LazyLinear(2))


def hooked() -> nn.Module:
    model = nn.Sequential(nn.Conv2d(2, 2, 1), nn.Flatten(), nn.Linear(32, 2))
    model[0].register_forward_hook(lambda module, inputs, output: 2 * output)
    return model


def with_nan() -> nn.Module:
    model = nn.Sequential(nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(32, 2))
    with torch.no_grad():
        model[0].weight[0, 0] = torch.nan
        model[1].running_var[1] = torch.inf
    return model


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda: images(nn.MaxPool2d(2)), "layer '0' (MaxPool2d): a maximum is not linear in spikes: replace it by"),
        (lambda: images(nn.Conv2d(2, 2, 1), nn.GELU()), "layer '1' (GELU): integrate-and-fire neurons stand for ReLU or QCFS"),
        (lambda: images(nn.ReLU6()), "layer '0' (ReLU6): integrate-and-fire neurons stand for"),
        (lambda: images(nn.GroupNorm(1, 2)), "layer '0' (GroupNorm): it divides by statistics of each image"),
        (lambda: images(nn.ConvTranspose2d(2, 2, 1)), "layer '0' (ConvTranspose2d): write it as Conv2d or Linear"),
        (lambda: images(nn.Upsample(scale_factor=2)), "layer '0' (Upsample): expected Linear, SparseLinear"),
        (lambda: nn.Sequential(nn.Flatten(), nn.Linear(32, 2), nn.Softmax(1)), "layer '2' (Softmax): take it off the model"),
        (lambda: nn.Sequential(nn.Flatten(), nn.Linear(32, 2), nn.ReLU()), "found an activation as the last layer"),
        (lambda: nn.Sequential(nn.Conv2d(2, 2, 1)), "found scores of shape (2, 4, 4), expected (classes,)"),
        (lambda: nn.Sequential(nn.Linear(2, 2)), "layer '0' (Linear): found an input of shape (2, 4, 4), expected (2,); flatten"),
        (lambda: nn.Sequential(nn.Conv2d(3, 2, 1)), "layer '0' (Conv2d): found an input of shape (2, 4, 4), expected (3, y, x)"),
        (lambda: nn.Sequential(nn.Conv2d(2, 2, 7)), "smaller than the kernel (7, 7)"),
        (lambda: nn.Sequential(nn.AvgPool2d(7)), "smaller than the window (7, 7)"),
        (lambda: images(nn.Conv2d(2, 2, 3, padding=1, padding_mode="reflect")), "found padding_mode='reflect', expected 'zeros'"),
        (lambda: images(nn.Conv2d(2, 2, 2, padding="same")), "found padding='same' with an even kernel"),
        (lambda: images(nn.BatchNorm2d(2, track_running_stats=False)), "found no running statistics"),
        (lambda: images(nn.BatchNorm2d(3)), "layer '0' (BatchNorm2d): found an input of shape (2, 4, 4), expected 3 channels"),
        (lambda: images(nn.AvgPool2d(2, padding=1, count_include_pad=False)), "found count_include_pad=False with padding"),
        (lambda: images(nn.AvgPool2d(3, ceil_mode=True)), "found ceil_mode=True with a last window that is cut"),
        (lambda: images(nn.AvgPool2d(2, divisor_override=3)), "found divisor_override=3, expected none"),
        (lambda: images(nn.AdaptiveAvgPool2d(3)), "found an input of 4 x 4 positions, expected a multiple of the output's 3 x 3"),
        (lambda: images(nn.AdaptiveAvgPool2d((None, 2))), "found the output size (None, 2), expected two numbers"),
        (lambda: nn.Sequential(nn.Flatten(2), nn.Linear(16, 2)), "found Flatten(2, -1), expected all but the batch"),
        (hooked, "layer '0' (Conv2d): found a forward hook"),
        (with_nan, "layer '0' (Conv2d): weight: found 1 of 4 values that are NaN or infinite"),
        (with_nan, "layer '1' (BatchNorm2d): running_var: found 1 of 2 values that are NaN or infinite"),
        (lambda: Wrapped(lambda m, x: functional.gelu(x)), "(gelu): this operation is not known"),
        (lambda: Wrapped(lambda m, x: m.conv(x) * m.scale), "found a parameter or buffer used by itself"),
        (lambda: Wrapped(lambda m, x: m.conv(x) + 1), "found the operand 1, expected the output of a layer"),
        (lambda: Wrapped(lambda m, x: torch.add(x, m.conv(x), alpha=2)), "found a scaled addition (alpha)"),
        (lambda: Wrapped(lambda m, x: x + m.conv(x).flatten(1)), "found a sum of shapes (2, 4, 4) and (32,)"),
        (lambda: Wrapped(lambda m, x: x + m.in_place(x)), "found an operation in place on a value that is used elsewhere too"),
        (lambda: Wrapped(lambda m, x: (x.relu_(), m.conv(x))[1]), "found an operation in place on a value that is used"),
        (lambda: Wrapped(lambda m, x: x.view(2, -1)), "found a change of shape to (2, -1)"),
        (lambda: Wrapped(lambda m, x: torch.flatten(x, 2)), "found flatten(2, -1), expected all but the batch"),
        (lambda: Wrapped(lambda m, x: (m.conv(x), x)), "layer 'output' (tuple): expected one tensor of class scores"),
        (lambda: Wrapped(lambda m, x: x if x.sum() > 0 else -x), "cannot be traced with torch.fx"),
    ],
)  # fmt: skip
def test_what_cannot_be_converted_is_refused_with_advice(model: Callable[[], nn.Module], message: str) -> None:
    with pytest.raises(ModelError) as caught:
        trace_network(model(), (2, 4, 4))
    assert message in str(caught.value)


def test_every_refused_layer_is_named_and_the_rest_still_judged() -> None:
    model = nn.Sequential(nn.Conv2d(2, 3, 1), nn.GELU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(12, 2))
    network, found = trace(model, (2, 4, 4))
    assert network is None
    assert [verdict.accepted for verdict in found] == [True, False, False, True, True]
    assert [verdict.shape for verdict in found] == [(3, 4, 4), (3, 4, 4), (3, 2, 2), (12,), (2,)]
    with pytest.raises(ModelError, match=r"layer '1' \(GELU\).*; layer '2' \(MaxPool2d\)"):
        trace_network(model, (2, 4, 4))


def test_what_the_output_does_not_depend_on_is_said_to_be_left_out() -> None:
    class Auxiliary(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head, self.auxiliary = nn.Linear(4, 2), nn.GELU()

        def forward(self, x: Tensor) -> Tensor:
            self.auxiliary(x)
            scores: Tensor = self.head(x)
            return scores

    network, found = trace(Auxiliary(), (4,))
    assert network is not None
    assert [node.name for node in network.nodes] == ["head"]
    assert (found[0].layer, found[0].text) == ("auxiliary", "nothing: the output does not depend on it")


@pytest.mark.parametrize("shape", [(), (2, 2), (0,), (1, 2, 3, 4)])
def test_input_shapes(shape: tuple[int, ...]) -> None:
    with pytest.raises(ModelError, match="input_shape: found"):
        trace(nn.Linear(2, 2), shape)


def test_max_pools_that_have_no_average_counterpart() -> None:
    with pytest.raises(ModelError, match="found a dilation or return_indices"):
        with_average_pooling(nn.Sequential(nn.MaxPool2d(2, dilation=2)))
    assert isinstance(with_average_pooling(nn.MaxPool2d(3, 2, 1)), nn.AvgPool2d)
