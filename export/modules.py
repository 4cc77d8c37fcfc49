"""PyTorch modules as layers of a :class:`~sparsespike.export.network.Network`: what is read from each, and what is refused."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.prune import BasePruningMethod

from sparsespike.ann.activations import LAMBDA_MIN, QCFS, SoftplusQCFS
from sparsespike.ann.aec import AEC
from sparsespike.ann.masked import DenseConv2d, MaskedConv2d, MaskedLinear
from sparsespike.ann.sparse import DenseLinear, SparseLinear
from sparsespike.common.errors import ModelError
from sparsespike.export.exponential import ExponentialCode
from sparsespike.export.network import (
    Activate,
    AveragePool,
    Convolve,
    Dense,
    Flatten,
    FloatArray,
    Layer,
    Normalise,
    Pair,
    Same,
    finite,
)

OWN_LAYERS = (SparseLinear, MaskedLinear, DenseLinear, MaskedConv2d, DenseConv2d, QCFS, SoftplusQCFS, AEC)
"""Modules of this package that are read as a whole."""

POOLED = "composed into the next projection"
NEURONS = "a population of spiking neurons"
NOTHING = "nothing: without effect at inference"

_ADVICE: tuple[tuple[tuple[type[nn.Module], ...], str], ...] = (
    (
        (nn.MaxPool1d, nn.MaxPool2d, nn.AdaptiveMaxPool2d, nn.FractionalMaxPool2d),
        "a maximum is not linear in spikes: replace it by average pooling (sparsespike.export.trace.with_average_pooling does) "
        "and train a few epochs more",
    ),
    (
        (nn.Softmax, nn.LogSoftmax, nn.Softmax2d),
        "take it off the model: the class of the largest score is the same without it",
    ),
    (
        (nn.GELU, nn.SiLU, nn.ELU, nn.LeakyReLU, nn.PReLU, nn.ReLU6, nn.Hardswish, nn.Hardtanh, nn.Sigmoid, nn.Tanh, nn.Softplus),
        "integrate-and-fire neurons stand for ReLU or QCFS: replace the activation by one of these and train again",
    ),
    (
        (nn.LayerNorm, nn.GroupNorm, nn.InstanceNorm2d, nn.LocalResponseNorm),
        "it divides by statistics of each image, which no weights can hold: replace it by BatchNorm and train again",
    ),
    ((nn.Conv1d, nn.Conv3d, nn.ConvTranspose2d), "write it as Conv2d or Linear"),
)
_OTHERWISE = (
    "expected Linear, SparseLinear, MaskedLinear, Conv2d, MaskedConv2d, BatchNorm, ReLU, QCFS, SoftplusQCFS, AEC, "
    "AvgPool2d, AdaptiveAvgPool2d, Flatten, Dropout or Identity; replace it by these"
)


class Reading(NamedTuple):
    """A layer and what it becomes in the spiking graph, in words."""

    layer: Layer
    becomes: str


def read_module(module: nn.Module) -> Reading:
    """The layer that a module stands for at inference.

    Raises
    ------
    ModelError
        Saying why it cannot be converted and what to do; the message starts in the middle of a sentence about the module.
    """
    _check_hooks(module)
    if isinstance(module, SparseLinear | MaskedLinear | nn.Linear):
        return Reading(_dense(module), "a projection (sparse matrix)")
    if isinstance(module, MaskedConv2d):
        return Reading(_masked_convolution(module), "a projection (convolution)")
    if isinstance(module, nn.Conv2d):
        return Reading(_convolution(module), "a projection (convolution)")
    if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
        return Reading(_batch_norm(module), "folded into the weights and biases beside it")
    if isinstance(module, QCFS | SoftplusQCFS):
        return Reading(_qcfs(module), NEURONS)
    if isinstance(module, AEC):
        return Reading(_aec(module), "a population of spiking neurons (two graded spikes at most)")
    if type(module) is nn.ReLU:
        return Reading(Activate("relu"), NEURONS)
    if isinstance(module, nn.AvgPool2d):
        return Reading(_average_pool(module), POOLED)
    if isinstance(module, nn.AdaptiveAvgPool2d):
        return Reading(adaptive_pool(module.output_size), POOLED)
    if isinstance(module, nn.Flatten):
        if (module.start_dim, module.end_dim) not in ((1, -1), (1, 3)):
            raise ModelError(f"found Flatten({module.start_dim}, {module.end_dim}), expected all but the batch: Flatten()")
        return Reading(Flatten(), NOTHING)
    if isinstance(module, nn.Dropout | nn.Dropout1d | nn.Dropout2d | nn.AlphaDropout | nn.Identity):
        return Reading(Same(), NOTHING)
    advice = next((text for types, text in _ADVICE if isinstance(module, types)), _OTHERWISE)
    raise ModelError(advice)


def _aec(module: AEC) -> Activate:
    if module.smallest_as_silent:
        raise ModelError("found AEC(smallest_as_silent=True), whose output depends on the batch; set it to False and train again")
    return Activate("aec", code=ExponentialCode(*module.thresholds(), module.force_compensation))


def _check_hooks(module: nn.Module) -> None:
    """Hooks may change what a module computes; those of torch's pruning are understood."""
    before: Any = module._forward_pre_hooks.values()
    if module._forward_hooks or any(not isinstance(hook, BasePruningMethod) for hook in before):
        raise ModelError("found a forward hook, which may change what the layer computes; remove the hook")


def _numbers(tensor: Tensor) -> FloatArray:
    return np.asarray(tensor.detach().cpu().numpy(), dtype=np.float64)


def _parameter(module: nn.Module, name: str) -> FloatArray | None:
    """A parameter as it takes part in the forward pass, or None.

    ``torch.nn.utils.prune`` keeps ``name_orig`` and ``name_mask`` and sets ``name`` only when the module is called, so that it
    may be out of date; a ``mask`` of our own layers is applied in their forward pass.
    """
    original, mask = getattr(module, f"{name}_orig", None), getattr(module, f"{name}_mask", None)
    if isinstance(original, Tensor) and isinstance(mask, Tensor):
        values = _numbers(original) * _numbers(mask)
    elif getattr(module, name) is None:
        return None
    else:
        values = _numbers(getattr(module, name))
    own_mask = getattr(module, "mask", None)
    if name == "weight" and isinstance(own_mask, Tensor):
        values = values * _numbers(own_mask)
    return finite(values, name)


def _bias(module: nn.Module, outputs: int) -> FloatArray:
    bias = _parameter(module, "bias")
    return np.zeros(outputs) if bias is None else bias


def _links(module: nn.Module, size: int) -> int:
    """Weights that the layer was trained with: all, or those that its mask leaves."""
    for name in ("weight_mask", "mask"):
        mask = getattr(module, name, None)
        if isinstance(mask, Tensor):
            return int(np.count_nonzero(_numbers(mask)))
    return size


def _dense(module: Any) -> Dense:
    bias = _bias(module, module.out_features)
    if isinstance(module, SparseLinear):
        topology, values = module.topology, finite(_numbers(module.values), "weight")
        weights = sp.csr_matrix((values, topology.indices, topology.indptr), shape=topology.shape)
        return Dense(weights, bias, topology.nnz)
    weight = _parameter(module, "weight")
    assert weight is not None  # a linear layer has one
    return Dense(sp.csr_matrix(weight), bias, _links(module, weight.size))


def _masked_convolution(module: MaskedConv2d) -> Convolve:
    weight = _parameter(module, "weight")
    assert weight is not None  # a convolution has one
    stride, bias = (module.stride, module.stride), np.zeros(module.shape[0])
    return Convolve(weight, bias, stride, module.padding, (1, 1), 1, module.topology.nnz)


def _convolution(module: nn.Conv2d) -> Convolve:
    if module.padding_mode != "zeros":
        raise ModelError(f"found padding_mode={module.padding_mode!r}, expected 'zeros'; train again with zero padding")
    weight = _parameter(module, "weight")
    assert weight is not None  # a convolution has one
    return Convolve(
        kernel=weight,
        bias=_bias(module, module.out_channels),
        stride=_pair(module.stride),
        padding=_padding(module),
        dilation=_pair(module.dilation),
        groups=module.groups,
        links=_links(module, weight.size),
    )


def _padding(module: nn.Conv2d) -> Pair:
    if module.padding == "valid":
        return 0, 0
    if module.padding == "same":
        total = [dilation * (k - 1) for dilation, k in zip(module.dilation, module.kernel_size, strict=True)]
        if any(n % 2 for n in total):
            raise ModelError("found padding='same' with an even kernel, which pads one side more; use an odd kernel")
        return total[0] // 2, total[1] // 2
    return _pair(module.padding)


def _pair(value: Any) -> Pair:
    y, x = (value, value) if isinstance(value, int) else value
    return int(y), int(x)


def _batch_norm(module: _BatchNorm) -> Normalise:
    if module.running_mean is None or module.running_var is None:
        raise ModelError(
            "found no running statistics (track_running_stats=False), so that it depends on the batch; train again with them"
        )
    mean, variance = finite(_numbers(module.running_mean), "running_mean"), finite(_numbers(module.running_var), "running_var")
    weight, shift = _parameter(module, "weight"), _bias(module, module.num_features)
    gain = (1.0 if weight is None else weight) / np.sqrt(variance + module.eps)
    return Normalise(np.asarray(gain), shift - mean * gain)


def _qcfs(module: QCFS | SoftplusQCFS) -> Activate:
    lam = _numbers(module.lam)
    # A forward pass clamps a small lambda; one that training left at or below zero is a failed training.
    if not (np.all(np.isfinite(lam)) and np.all(lam > 0)):
        worst = lam.ravel()[int(np.argmin(np.where(np.isfinite(lam), lam, -np.inf)))]
        raise ModelError(
            f"found the QCFS threshold lambda = {worst}, expected a finite value > 0; a threshold that is not positive would "
            "fire at every step: train again with a larger initial lambda"
        )
    return Activate("qcfs", np.maximum(lam.reshape(-1) if lam.size > 1 else lam.reshape(()), LAMBDA_MIN), module.levels)


def _average_pool(module: nn.AvgPool2d) -> AveragePool:
    kernel = _pair(module.kernel_size)
    return average_pool(
        kernel,
        _pair(module.stride) if module.stride else kernel,
        _pair(module.padding),
        module.ceil_mode,
        module.count_include_pad,
        module.divisor_override,
    )


def average_pool(
    kernel: Pair, stride: Pair, padding: Pair, ceil_mode: bool, count_include_pad: bool, divisor: int | None
) -> AveragePool:
    """Average pooling with torch's arguments.

    Raises
    ------
    ModelError
        If the mean is over another number of positions than the window has.
    """
    if padding != (0, 0) and not count_include_pad:
        raise ModelError("found count_include_pad=False with padding: means over fewer positions at the border; set it to True")
    if divisor is not None and divisor != kernel[0] * kernel[1]:
        raise ModelError(f"found divisor_override={divisor}, expected none")
    return AveragePool(kernel, stride, padding, ceil_mode=ceil_mode)


def adaptive_pool(output_size: Any) -> AveragePool:
    """Adaptive average pooling to ``output_size``.

    Raises
    ------
    ModelError
        If it leaves an axis open.
    """
    sizes = (output_size, output_size) if isinstance(output_size, int) else tuple(output_size)
    if None in sizes:
        raise ModelError(f"found the output size {sizes}, expected two numbers; give both")
    return AveragePool(output=_pair(sizes))
