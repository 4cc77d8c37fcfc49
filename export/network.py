"""A network outside its framework: a directed acyclic graph of layers in float64.

Every layer is a pure function of batches and knows the shape of its output. What it means in spikes is decided elsewhere.
Torch is imported where convolutions and pools are computed: a network of NIR without them needs none.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from sparsespike.common.errors import ModelError
from sparsespike.common.extras import require
from sparsespike.export.exponential import ExponentialCode

FloatArray = NDArray[np.float64]
Shape = tuple[int, ...]
Pair = tuple[int, int]


def finite(values: Any, label: str) -> FloatArray:
    """``values`` as float64.

    Raises
    ------
    ModelError
        If one is NaN or infinite.
    """
    array = np.asarray(values, dtype=np.float64)
    bad = int(np.count_nonzero(~np.isfinite(array)))
    if bad:
        raise ModelError(
            f"{label}: found {bad} of {array.size} values that are NaN or infinite, expected finite ones; "
            "train again with a smaller learning rate"
        )
    return array


@dataclass(frozen=True, eq=False)
class Dense:
    """``W x + b`` on vectors.

    Parameters
    ----------
    weights : scipy CSR matrix of float64, shape (outputs, inputs)
        Rows are OUTPUTS, as in torch (a projection holds the transpose). Explicit zeros are dropped: a link whose weight is
        exactly zero carries nothing and is no synapse.
    bias : float64 array, shape (outputs,)
    links : int
        Links that the layer was trained with, those with the weight zero included.
    """

    weights: sp.csr_matrix
    bias: FloatArray
    links: int

    def __post_init__(self) -> None:
        weights = sp.csr_matrix(self.weights, dtype=np.float64)
        if not weights.has_canonical_format or not np.all(weights.data):
            weights = weights.copy()  # the steps below work in place
            weights.sum_duplicates()
            weights.eliminate_zeros()
        object.__setattr__(self, "weights", weights)

    def shape(self, before: Shape) -> Shape:
        """(outputs,) of (inputs,)."""
        if before != (self.weights.shape[1],):
            raise ModelError(
                f"found an input of shape {before}, expected ({self.weights.shape[1]},); flatten it first, or correct the "
                "number of inputs"
            )
        return (self.weights.shape[0],)

    def __call__(self, x: FloatArray) -> FloatArray:
        return np.asarray((self.weights @ x.T).T + self.bias, dtype=np.float64)


@dataclass(frozen=True, eq=False)
class Convolve:
    """Two-dimensional convolution (cross-correlation, as in torch) with zero padding.

    Parameters
    ----------
    kernel : float64 array, shape (c_out, c_in // groups, ky, kx)
    bias : float64 array, shape (c_out,)
    stride, padding, dilation : (int, int)
        Along y and x.
    groups : int
    links : int
        Kernel entries that the layer was trained with, those with the weight zero included.
    """

    kernel: FloatArray
    bias: FloatArray
    stride: Pair
    padding: Pair
    dilation: Pair
    groups: int
    links: int

    def shape(self, before: Shape) -> Shape:
        """(c_out, y, x) of (c_in, y, x)."""
        channels = self.kernel.shape[1] * self.groups
        if len(before) != 3 or before[0] != channels:
            raise ModelError(f"found an input of shape {before}, expected ({channels}, y, x)")
        y, x = (
            (size + 2 * pad - dilation * (k - 1) - 1) // stride + 1
            for size, pad, dilation, k, stride in zip(
                before[1:], self.padding, self.dilation, self.kernel.shape[2:], self.stride, strict=True
            )
        )
        if min(y, x) < 1:
            raise ModelError(f"found an input of shape {before}, which is smaller than the kernel {self.kernel.shape[2:]}")
        return len(self.kernel), y, x

    def __call__(self, x: FloatArray) -> FloatArray:
        arrays = (x, spread(self.kernel, self.dilation), self.bias)  # torch takes seconds for a dilation in float64
        torch = require("torch", extra="train")
        values, kernel, bias = (torch.from_numpy(np.ascontiguousarray(array)) for array in arrays)
        convolved = torch.nn.functional.conv2d(values, kernel, bias, self.stride, self.padding, groups=self.groups)
        return np.asarray(convolved.numpy(), np.float64)


def spread(kernel: FloatArray, dilation: Pair) -> FloatArray:
    """A kernel with the zeros of its dilation written out."""
    taps_y, taps_x = kernel.shape[2:]
    wide = np.zeros((*kernel.shape[:2], (taps_y - 1) * dilation[0] + 1, (taps_x - 1) * dilation[1] + 1))
    wide[:, :, :: dilation[0], :: dilation[1]] = kernel
    return wide


@dataclass(frozen=True, eq=False)
class Normalise:
    """``gain x + shift`` by channel: batch normalisation with its running statistics. Both have shape (C,)."""

    gain: FloatArray
    shift: FloatArray

    def shape(self, before: Shape) -> Shape:
        """That of its input."""
        if before[0] != len(self.gain):
            raise ModelError(f"found an input of shape {before}, expected {len(self.gain)} channels or features")
        return before

    def __call__(self, x: FloatArray) -> FloatArray:
        shape = (-1, *(1,) * (x.ndim - 2))
        return np.asarray(x * self.gain.reshape(shape) + self.shift.reshape(shape), np.float64)


@dataclass(frozen=True)
class AveragePool:
    """Mean over windows of ``kernel`` positions, those of the zero padding counted.

    ``output`` is set for adaptive pooling, whose windows follow from its input: kernel = stride = input / output.
    """

    kernel: Pair = (1, 1)
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    output: Pair | None = None
    ceil_mode: bool = False

    def windows(self, before: Shape) -> tuple[Pair, Pair, Pair]:
        """(kernel, stride, padding) on an input of a shape."""
        if self.output is None:
            return self.kernel, self.stride, self.padding
        y, x = before[1] // self.output[0], before[2] // self.output[1]
        return (y, x), (y, x), (0, 0)

    def shape(self, before: Shape) -> Shape:
        """(C, y, x) of (C, y, x)."""
        if len(before) != 3:
            raise ModelError(f"found an input of shape {before}, expected (C, y, x)")
        if self.output is not None:
            if any(size % out for size, out in zip(before[1:], self.output, strict=True)):
                raise ModelError(
                    f"found an input of {before[1]} x {before[2]} positions, expected a multiple of the output's "
                    f"{self.output[0]} x {self.output[1]}; replace it by AvgPool2d, or by AdaptiveAvgPool2d((1, 1))"
                )
            return before[0], *self.output
        spans = [size + 2 * pad - k for size, pad, k in zip(before[1:], self.padding, self.kernel, strict=True)]
        if min(spans) < 0:
            raise ModelError(f"found an input of shape {before}, which is smaller than the window {self.kernel}")
        if self.ceil_mode and any(span % stride for span, stride in zip(spans, self.stride, strict=True)):
            raise ModelError(
                "found ceil_mode=True with a last window that is cut, whose mean is over fewer positions; "
                "set ceil_mode=False, or pad the input"
            )
        y, x = (span // stride + 1 for span, stride in zip(spans, self.stride, strict=True))
        return before[0], y, x

    def __call__(self, x: FloatArray) -> FloatArray:
        torch = require("torch", extra="train")
        tensor = torch.from_numpy(np.ascontiguousarray(x))
        return np.asarray(torch.nn.functional.avg_pool2d(tensor, *self.windows(x.shape[1:])).numpy())


@dataclass(frozen=True)
class Flatten:
    """(C, y, x) to (N,), in that order."""

    def shape(self, before: Shape) -> Shape:
        """(N,)."""
        return (math.prod(before),)

    def __call__(self, x: FloatArray) -> FloatArray:
        return x.reshape(len(x), -1)


@dataclass(frozen=True)
class Same:
    """What changes nothing at inference: dropout, identity."""

    def shape(self, before: Shape) -> Shape:
        """That of its input."""
        return before

    def __call__(self, x: FloatArray) -> FloatArray:
        return x


@dataclass(frozen=True)
class Add:
    """Sum of two values of one shape: a residual connection."""

    def shape(self, *before: Shape) -> Shape:
        """That of both inputs."""
        if before[0] != before[1]:
            raise ModelError(f"found a sum of shapes {before[0]} and {before[1]}, expected twice the same (no broadcasting)")
        return before[0]

    def __call__(self, x: FloatArray, y: FloatArray) -> FloatArray:
        return x + y


@dataclass(frozen=True, eq=False)
class Activate:
    """ReLU; QCFS of threshold ``lam``, of shape () or one a channel (C,), with ``levels`` steps L; or AEC with its ``code``."""

    kind: Literal["relu", "qcfs", "aec"]
    lam: FloatArray | None = None
    levels: int | None = None
    code: ExponentialCode | None = None

    def shape(self, before: Shape) -> Shape:
        """That of its input."""
        if self.lam is not None and self.lam.shape not in ((), (before[0],)):
            raise ModelError(f"found {self.lam.size} thresholds lambda on an input of shape {before}, expected 1 or {before[0]}")
        return before

    def __call__(self, x: FloatArray) -> FloatArray:
        if self.code is not None:
            return self.code(x)
        if self.lam is None or self.levels is None:
            return np.maximum(x, 0.0)
        lam = self.lam.reshape((-1, *(1,) * (x.ndim - 2)))
        return qcfs_levels(x, lam, self.levels) * lam / self.levels


def qcfs_levels(x: FloatArray, lam: float | FloatArray, levels: int) -> NDArray[np.int64]:
    """Integer level n of QCFS, whose output is ``lam * n / L`` (Bu et al. 2022): ``n = floor(clip(x / lam, 0, 1) * L + 1/2)``."""
    return np.asarray(np.floor(np.clip(x / lam, 0.0, 1.0) * levels + 0.5), dtype=np.int64)


Layer = Dense | Convolve | Normalise | AveragePool | Flatten | Same | Add | Activate


@dataclass(frozen=True)
class Node:
    """A layer in its place.

    Attributes
    ----------
    name : str
        Path of the module in the model; a second call of the same module has ``-2`` appended, and so on.
    layer : Layer
    inputs : tuple of str
        Nodes that it reads, or ``INPUT``.
    shape : (N,) or (C, y, x)
        Of its output, without the batch.
    """

    name: str
    layer: Layer
    inputs: tuple[str, ...]
    shape: Shape


INPUT = "input"
"""Name under which nodes read the network's input."""


@dataclass(frozen=True)
class Network:
    """Layers in an order in which each comes after those that it reads; the last one is the output.

    Attributes
    ----------
    input_shape : (N,) or (C, y, x)
    nodes : tuple of Node
    """

    input_shape: Shape
    nodes: tuple[Node, ...]

    @property
    def activations(self) -> tuple[Node, ...]:
        """The nodes that become populations of spiking neurons."""
        return tuple(node for node in self.nodes if isinstance(node.layer, Activate))

    def evaluate(self, x: FloatArray) -> dict[str, FloatArray]:
        """Output of every node for a batch of real inputs, shape ``(B, *input_shape)``."""
        return self.run(x, lambda name, layer, drive: layer(drive))

    def constants(self, x: FloatArray) -> dict[str, FloatArray]:
        """Output of every node if no activation gave anything: the part that is there whatever fires.

        With zero padding a constant reaches the borders through fewer taps; going through the layers counts exactly those.
        """
        return self.run(x, lambda name, layer, drive: np.zeros_like(drive))

    def run(self, x: FloatArray, activate: Callable[[str, Activate, FloatArray], FloatArray]) -> dict[str, FloatArray]:
        """Output of every node if each activation gives ``activate(name, layer, drive)``, drive of shape ``(B, *shape)``."""
        values = {INPUT: np.asarray(x, np.float64).reshape(len(x), *self.input_shape)}
        for node in self.nodes:
            inputs = [values[name] for name in node.inputs]
            if isinstance(node.layer, Activate):
                values[node.name] = activate(node.name, node.layer, inputs[0])
            else:
                values[node.name] = node.layer(*inputs)
        return values
