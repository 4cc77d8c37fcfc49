"""Cannistraci-Hebb scores of absent weights of a convolution (CHT-Conv).

A weight of a convolution is a link between every window of an output channel and one position of an input channel.
The scores of its unfolded copies are averaged. By translation invariance (stride 1, away from the border) the average
has a closed form in the mask ``M[o, i, a]``, a = (y, x), and nothing needs to be unfolded:

``kernel``
    Each kernel (o, i) on its own. With the autocorrelation r_s = sum_a m_a m_(a+s) of its n weights,
    score_a = 2 sum_(s != 0) g(r_s, n - r_s - 1) m_(a-s).
``full``
    All channels together: shared inputs r_(oo's) = sum_(i,a) M[o,i,a] M[o',i,a-s] between windows of output channels,
    shared windows between positions of input channels, in the same way.
``im2col``
    The layer as a matrix of c_out x (c_in kh kw) links: windows that overlap are not related.

The preprint (Li, Wang, Zhang and Cannistraci, 2025) is known from its abstract only; Bao et al. (2026) say that it
unfolds the layers and applies CH3-L3n. ``full`` is the literal reading, ``kernel`` the form known from derived code.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import product
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sparsespike.ann.topology.pattern import Topology
from sparsespike.ann.topology.rules import Rule, bits_below, check_rule, factor, is_path_rule
from sparsespike.ann.topology.scores import score_matrix
from sparsespike.common.errors import ConfigError, ModelError

ConvMode = Literal["kernel", "full", "im2col"]

TABLE_TAPS = 9
"""Kernels of up to so many taps (3 x 3) are scored by a table of all their masks."""


def conv_scores(mask: ArrayLike, rule: Rule = "CH3-L3n", mode: ConvMode = "kernel") -> NDArray[np.float64]:
    """Return the score of every absent weight of a convolution, 0 where a weight exists.

    Parameters
    ----------
    mask : bool[c_out, c_in, kh, kw]
        Which weights exist.
    rule : {"CH2-L3n", "CH3-L3n", "CH2-L3p", "CH3-L3p"}
        Score rule; path rules in mode ``im2col`` only.
    mode : {"kernel", "full", "im2col"}
        See the module's description.

    Returns
    -------
    float64[c_out, c_in, kh, kw]

    Raises
    ------
    ModelError
        If the mask is not four-dimensional.
    ConfigError
        If rule or mode are unknown or do not go together.
    """
    check_rule(rule)
    if mode not in get_args(ConvMode):
        raise ConfigError(f"mode of convolution scores is {mode!r}, expected one of {', '.join(get_args(ConvMode))}")
    if mode != "im2col" and is_path_rule(rule):
        raise ConfigError(f"rule {rule} has no closed form in mode {mode!r}: choose CH2-L3n or CH3-L3n, or mode 'im2col'")
    kernels = np.asarray(mask, dtype=np.bool_)
    if kernels.ndim != 4:
        raise ModelError(f"mask of a convolution has shape {kernels.shape}, expected (c_out, c_in, kh, kw)")
    if mode == "full":
        return _full_scores(kernels, rule)
    if mode == "im2col":
        return score_matrix(Topology.from_dense(kernels.reshape(len(kernels), -1)), rule).reshape(kernels.shape)
    taps = kernels.shape[2] * kernels.shape[3]
    if taps > TABLE_TAPS:
        return _kernel_scores(kernels, rule)
    codes = kernels.reshape(*kernels.shape[:2], taps) @ (1 << np.arange(taps))
    return kernel_table(kernels.shape[2], kernels.shape[3], rule)[codes].reshape(kernels.shape)


@cache
def kernel_table(height: int, width: int, rule: Rule) -> NDArray[np.float64]:
    """Return the scores of all masks of a kernel, float64[2^taps, taps]; mask b has tap k where bit k of b is set."""
    taps = height * width
    masks = (np.arange(2**taps)[:, None] >> np.arange(taps)) & 1
    table = _kernel_scores(masks.reshape(-1, height, width).astype(np.bool_), rule).reshape(-1, taps)
    table.flags.writeable = False
    return table


def _offsets(height: int, width: int) -> Iterator[tuple[int, int]]:
    return product(range(1 - height, height), range(1 - width, width))


def _shifted(array: NDArray[np.float64], y: int, x: int) -> NDArray[np.float64]:
    """Return B with B[..., a] = A[..., a - (y, x)], 0 where that lies outside."""
    height, width = array.shape[-2:]
    result = np.zeros_like(array)
    result[..., max(0, y) : height + min(0, y), max(0, x) : width + min(0, x)] = array[
        ..., max(0, -y) : height - max(0, y), max(0, -x) : width - max(0, x)
    ]
    return result


def _weight(common: NDArray[np.float64], degree: NDArray[np.float64], rule: Rule, bits: int) -> NDArray[np.float64]:
    return np.where(common > 0.0, factor(common, degree, rule, bits), 0.0)


def _kernel_scores(kernels: NDArray[np.bool_], rule: Rule) -> NDArray[np.float64]:
    """Scores of separate kernels, bool[..., kh, kw]. (The offset 0 relates a window to itself: it adds to weights only.)"""
    height, width = kernels.shape[-2:]
    mask = kernels.astype(np.float64)
    count = mask.sum(axis=(-2, -1))
    bits = bits_below(2.0 * (2 * height - 1) * (2 * width - 1) * height * width)
    scores = np.zeros_like(mask)
    for y, x in _offsets(height, width):
        moved = _shifted(mask, y, x)
        shared = (mask * moved).sum(axis=(-2, -1))
        scores += 2.0 * _weight(shared, count, rule, bits)[..., None, None] * moved
    scores[kernels] = 0.0
    return scores


def _full_scores(kernels: NDArray[np.bool_], rule: Rule) -> NDArray[np.float64]:
    """Scores over all channels of the unfolded layer."""
    height, width = kernels.shape[-2:]
    mask = kernels.astype(np.float64)
    bits = bits_below(2.0 * (2 * height - 1) * (2 * width - 1) * max(1.0, mask.sum()))
    # Once from the side of the windows, once, with channels exchanged, from the side of the positions they cover.
    by_output, by_input = mask, np.ascontiguousarray(mask.swapaxes(0, 1))
    scores = _side_scores(by_output, rule, bits) + _side_scores(by_input, rule, bits).swapaxes(0, 1)
    scores[kernels] = 0.0
    return scores


def _side_scores(mask: NDArray[np.float64], rule: Rule, bits: int) -> NDArray[np.float64]:
    """Sum over channels c' and offsets s of g(shared(c, c', s)) M[c', :, a - s], for mask[c, other, kh, kw]."""
    channels = len(mask)
    flat = mask.reshape(channels, -1)
    degree = flat.sum(axis=1)
    scores = np.zeros_like(flat)
    for y, x in _offsets(*mask.shape[-2:]):
        moved = _shifted(mask, y, x).reshape(channels, -1)
        scores += _weight(flat @ moved.T, degree[None, :], rule, bits) @ moved
    return scores.reshape(mask.shape)
