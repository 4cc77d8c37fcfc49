"""Convolutional networks for small images, described by plain values so that a file can rebuild one without running code.

=============  ========================================================================================================
``vgg-small``  32, 32, pool, 64, 64, pool, 128, 128, pool: for training on a CPU
``vgg16``      the thirteen convolutions of VGG-16 (Simonyan and Zisserman, 2015), one fully connected layer
``resnet18``   basic blocks of 64, 128, 256, 512 channels, two each (He et al., 2016), with a 3 x 3 stem for small images
``resnet20``   basic blocks of 16, 32, 64 channels, three each (the same)
=============  ========================================================================================================

All have batch normalisation after every convolution and average pooling, which conversion can fold into the weights.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from torch import Tensor, nn

from sparsespike.ann.masked import DenseConv2d, MaskedConv2d
from sparsespike.ann.replace import check_activation, make_activation, with_spiking_pools
from sparsespike.ann.sparse import DenseLinear, SparseLayer
from sparsespike.common.errors import ConfigError, ModelError

POOL = 0
"""Stands for an average pool of 2 x 2 between the channels of a VGG."""

VGGS: dict[str, tuple[int, ...]] = {
    "vgg-small": (32, 32, POOL, 64, 64, POOL, 128, 128, POOL),
    "vgg16": (64, 64, POOL, 128, 128, POOL, *(256,) * 3, POOL, *(512,) * 3, POOL, *(512,) * 3, POOL),
}
RESNETS: dict[str, tuple[tuple[int, int], ...]] = {
    "resnet18": ((64, 2), (128, 2), (256, 2), (512, 2)),
    "resnet20": ((16, 3), (32, 3), (64, 3)),
}
"""Channels and number of the blocks of each stage."""

CONVNETS = (*VGGS, *RESNETS)


@dataclass(frozen=True)
class ConvNetSpec:
    """What a convolutional network is made of.

    Parameters
    ----------
    model : str
        One of :data:`CONVNETS`.
    shape : (int, int, int)
        Channels, height and width of the input images. A VGG leaves out the pools for which height or width is odd, so that
        small images work: 32 x 32 takes all five of VGG-16, 8 x 8 the first three.
    classes : int
    width : float
        Factor on all numbers of channels.
    sparse : bool
        Whether the convolutions hold a topology. The classifier is always dense.
    sparse_stem : bool
        Whether the first convolution does too.
    activation, levels, lam, steps, quirks
        See :class:`~sparsespike.ann.models.MLPSpec`; with AEC, average pools are layers of spiking neurons too.
    dropout : float
        Probability with which an input of the classifier is dropped in training.

    Raises
    ------
    ConfigError
        If a value is out of its range.
    """

    model: str
    shape: tuple[int, int, int]
    classes: int
    width: float = 1.0
    sparse: bool = True
    sparse_stem: bool = True
    activation: str = "relu"
    levels: int = 8
    lam: float = 4.0
    dropout: float = 0.0
    steps: int = 5
    quirks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.model not in CONVNETS:
            raise ConfigError(f"convolutional network {self.model!r} is unknown; expected one of {', '.join(CONVNETS)}")
        if len(self.shape) != 3 or min(*self.shape, self.classes) < 1 or not self.width > 0:
            raise ConfigError(
                f"network {self.model} has images of shape {self.shape}, {self.classes} classes and width {self.width}; "
                "expected channels, height, width and classes of at least 1, and a width above 0"
            )
        check_activation(self)
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"dropout is {self.dropout}; expected at least 0 and below 1")

    def channels(self, nominal: int) -> int:
        """Number of channels where the unscaled network has ``nominal``."""
        return max(1, round(nominal * self.width))

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> ConvNetSpec:
        """Inverse of :meth:`to_dict`, for values read back from JSON.

        Raises
        ------
        ModelError
            If a field is absent, unknown or of the wrong type.
        """
        try:
            channels, height, width = fields["shape"]
            quirks = tuple(fields.get("quirks", ()))
            return cls(**{**fields, "shape": (int(channels), int(height), int(width)), "quirks": quirks})
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(f"model description {fields!r} is malformed ({error}); expected those of ConvNetSpec") from error


class ConvNet(nn.Module):
    """A convolutional network.

    Parameters
    ----------
    spec : ConvNetSpec
        A sparse network starts without links; set or load the topology of each of its ``sparse_layers``.

    Attributes
    ----------
    network : Sequential
        From images ``[B, C, y, x]`` to class scores: of a VGG ``conv1, norm1, activation1, conv2, ..., pool1, ...``, of a ResNet
        ``conv1, norm1, activation1, block1, ..., pool`` with every block a :class:`ResidualBlock`; then ``flatten, dropout,
        classifier``.
    """

    def __init__(self, spec: ConvNetSpec) -> None:
        super().__init__()
        self.spec = spec
        layers, features = _vgg(spec) if spec.model in VGGS else _resnet(spec)
        layers.update(flatten=nn.Flatten(), dropout=nn.Dropout(spec.dropout), classifier=DenseLinear(features, spec.classes))
        self.network = nn.Sequential(layers)
        if spec.activation == "aec":
            with_spiking_pools(self.network, lambda: make_activation(spec, 1))

    def reset_parameters(self, generator: np.random.Generator) -> None:
        """Draw all weights and biases, layer by layer: weights have variance 2 / fan-in."""
        for layer in self.modules():
            if isinstance(layer, SparseLayer | DenseConv2d | DenseLinear):
                layer.reset_parameters(generator)

    @property
    def sparse_layers(self) -> list[SparseLayer]:
        """The layers that hold a topology, in order."""
        return [layer for layer in self.modules() if isinstance(layer, SparseLayer)]

    def forward(self, x: Tensor) -> Tensor:
        """Class scores ``[B, classes]`` of real inputs ``[B, inputs]`` (images flattened in the order C, y, x)."""
        scores: Tensor = self.network(x.reshape(-1, *self.spec.shape).contiguous())
        return scores


class ResidualBlock(nn.Module):
    """``activation2(norm2(conv2(activation1(norm1(conv1(x))))) + shortcut(x))``.

    The shortcut is the identity, or a normalised 1 x 1 convolution where the block changes the shape.
    """

    def __init__(self, spec: ConvNetSpec, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = _convolution(spec, (c_out, c_in, 3, 3), stride)
        self.norm1 = nn.BatchNorm2d(c_out)
        self.activation1 = make_activation(spec, c_out)
        self.conv2 = _convolution(spec, (c_out, c_out, 3, 3))
        self.norm2 = nn.BatchNorm2d(c_out)
        self.activation2 = make_activation(spec, c_out)
        self.shortcut = nn.Sequential()
        if stride != 1 or c_in != c_out:
            self.shortcut.append(_convolution(spec, (c_out, c_in, 1, 1), stride)).append(nn.BatchNorm2d(c_out))

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[B, c_in, y, x]`` to ``[B, c_out, y / stride, x / stride]``, rounded up."""
        y = self.activation1(self.norm1(self.conv1(x)))
        y = self.activation2(self.norm2(self.conv2(y)) + self.shortcut(x))
        return y  # type: ignore[no-any-return]  # torch's modules return Any


def _convolution(
    spec: ConvNetSpec, shape: tuple[int, int, int, int], stride: int = 1, *, stem: bool = False
) -> MaskedConv2d | DenseConv2d:
    sparse = spec.sparse and (spec.sparse_stem or not stem)
    return MaskedConv2d(shape, stride) if sparse else DenseConv2d(shape, stride)


def _vgg(spec: ConvNetSpec) -> tuple[OrderedDict[str, nn.Module], int]:
    """The layers of a VGG before the classifier, and how many features they give."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    channels, height, width = spec.shape
    convolutions = pools = 0
    for nominal in VGGS[spec.model]:
        if nominal != POOL:
            convolutions += 1
            c_in, channels = channels, spec.channels(nominal)
            layers[f"conv{convolutions}"] = _convolution(spec, (channels, c_in, 3, 3), stem=convolutions == 1)
            layers[f"norm{convolutions}"] = nn.BatchNorm2d(channels)
            layers[f"activation{convolutions}"] = make_activation(spec, channels)
        elif height % 2 == 0 and width % 2 == 0:
            pools += 1
            layers[f"pool{pools}"] = nn.AvgPool2d(2)
            height, width = height // 2, width // 2
    return layers, channels * height * width


def _resnet(spec: ConvNetSpec) -> tuple[OrderedDict[str, nn.Module], int]:
    """The layers of a ResNet before the classifier, and how many features they give."""
    c_in, height, width = spec.shape
    stages = RESNETS[spec.model]
    channels = spec.channels(stages[0][0])
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        conv1=_convolution(spec, (channels, c_in, 3, 3), stem=True),
        norm1=nn.BatchNorm2d(channels),
        activation1=make_activation(spec, channels),
    )
    blocks = 0
    for stage, (nominal, count) in enumerate(stages):
        for position in range(count):
            stride = 2 if stage > 0 and position == 0 else 1
            c_in, channels = channels, spec.channels(nominal)
            blocks += 1
            layers[f"block{blocks}"] = ResidualBlock(spec, c_in, channels, stride)
            height, width = -(-height // stride), -(-width // stride)
    layers["pool"] = nn.AvgPool2d((height, width))
    return layers, channels
