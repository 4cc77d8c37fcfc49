"""Which links of a layer to keep when a share of them is removed.

========  ==============================================================  ==========================================
rule      strength of link (i, j)                                         choice
========  ==============================================================  ==========================================
wm        ``|W_ij|``                                                      the strongest
ri        ``|W_ij| / sum |W_*j| + |W_ij| / sum |W_i*|`` (CHTs25 eq. 1)    the strongest
wm_soft   as wm                                                           sampled, probability ~ strength^temperature
ri_soft   as ri                                                           sampled, probability ~ strength^temperature
========  ==============================================================  ==========================================

The soft rules sample the links to *keep*, without replacement (Zhang et al., NeurIPS 2025, eq. 2, at alpha = 1 and
alpha = 0, the only values used there; the temperature is their delta / (1 - delta)).
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sparsespike.ann.topology.pattern import Topology
from sparsespike.ann.topology.randomness import link_uniforms
from sparsespike.common.errors import ConfigError, ModelError

Removal = Literal["wm", "ri", "wm_soft", "ri_soft"]
REMOVALS: tuple[Removal, ...] = get_args(Removal)

FLOOR = 1e-12
"""Strengths are not taken below this, so that an active link whose weight is exactly 0 can still be kept."""


def check_weights(topology: Topology, weights: ArrayLike) -> NDArray[np.float64]:
    """Return the weights as float64[nnz], in link order.

    Raises
    ------
    ModelError
        If there is not one weight for each link, or a weight is not finite.
    """
    values = np.asarray(weights, dtype=np.float64)
    if values.shape != (topology.nnz,):
        raise ModelError(f"weights have shape {values.shape}, expected ({topology.nnz},): one for each link of {topology}")
    bad = np.flatnonzero(~np.isfinite(values))
    if bad.size:
        raise ModelError(
            f"weight of link {bad[0]} of {topology} is {values[bad[0]]} ({bad.size} are not finite); "
            "training has diverged: lower the learning rate"
        )
    return values


def strengths(topology: Topology, weights: ArrayLike, rule: Removal) -> NDArray[np.float64]:
    """Return the strength of each link under ``rule``, float64[nnz], at least :data:`FLOOR`."""
    if rule not in REMOVALS:
        raise ConfigError(f"removal rule is {rule!r}, expected one of {', '.join(REMOVALS)}")
    magnitude = np.maximum(np.abs(check_weights(topology, weights)), FLOOR)
    if rule.startswith("wm"):
        return magnitude
    m, n = topology.shape
    rows = topology.rows
    of_output = np.bincount(rows, magnitude, minlength=m)
    of_input = np.bincount(topology.indices, magnitude, minlength=n)
    return np.asarray(magnitude / of_input[topology.indices] + magnitude / of_output[rows])


def links_to_keep(
    topology: Topology, weights: ArrayLike, keep: int, rule: Removal, seed: np.uint64, temperature: float = 1.0
) -> NDArray[np.bool_]:
    """Choose exactly ``keep`` links.

    Parameters
    ----------
    topology : Topology
        The layer.
    weights : array[nnz]
        Weight of each link, in link order.
    keep : int
        How many links to keep, 0 .. nnz.
    rule : {"wm", "ri", "wm_soft", "ri_soft"}
        See the table above.
    seed : uint64
        Seed of the layer's random numbers; it breaks ties, or drives the sampling.
    temperature : float
        Exponent of the soft rules: 0 is uniform, large values approach the hard rule.

    Returns
    -------
    bool[nnz]

    Raises
    ------
    ConfigError
        If the rule is unknown or ``keep`` is out of range.
    ModelError
        If the weights do not fit the topology or are not finite.
    """
    if not 0 <= keep <= topology.nnz:
        raise ConfigError(f"{keep} links are to be kept of {topology}, expected 0..{topology.nnz}")
    key, tie = _keys(topology, weights, rule, seed, temperature)
    chosen = np.zeros(topology.nnz, dtype=np.bool_)
    chosen[np.lexsort((tie, key))[:keep]] = True
    return chosen


def links_to_keep_by_output(
    topology: Topology,
    weights: ArrayLike,
    keep: NDArray[np.int64],
    rule: Removal,
    seed: np.uint64,
    temperature: float = 1.0,
) -> NDArray[np.bool_]:
    """Choose exactly ``keep[u]`` links of each output u; otherwise as :func:`links_to_keep`."""
    degree = topology.in_degree
    if keep.shape != degree.shape or (keep < 0).any() or (keep > degree).any():
        raise ConfigError(f"the links to be kept of each output of {topology} do not lie between 0 and its fan-in")
    key, tie = _keys(topology, weights, rule, seed, temperature)
    order = np.lexsort((tie, key, topology.rows))  # outputs stay in place, the best links of each come first
    rank = np.arange(topology.nnz) - np.repeat(topology.indptr[:-1], degree)
    chosen = np.zeros(topology.nnz, dtype=np.bool_)
    chosen[order] = rank < np.repeat(keep, degree)
    return chosen


def _keys(
    topology: Topology, weights: ArrayLike, rule: Removal, seed: np.uint64, temperature: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return a key and a tie-breaker for each link; the smallest pairs are to be kept."""
    strength = strengths(topology, weights, rule)
    uniform = link_uniforms(seed, topology.links)
    if not rule.endswith("soft"):
        return -strength, uniform
    # The smallest E / strength^T, E exponential; in logarithms, so that no power under- or overflows.
    return np.log(-np.log1p(-uniform)) - temperature * np.log(strength), uniform
