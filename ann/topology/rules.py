"""The four Cannistraci-Hebb rules and the quantisation that makes their scores exact.

A candidate link (output u, input v) is scored over its paths of length three u - t - j - v (input t, output j). For a
local community node z, ``i_z`` counts its links inside the community and ``e_z`` those outside, its seed left out. In a
bipartite layer A these are closed forms::

    i_j = (A A^T)_uj,  e_j = d_j - i_j - 1        i_t = (A^T A)_vt,  e_t = d_t - i_t - 1

========  ========================================================  =====================================
rule      score                                                     source
========  ========================================================  =====================================
CH2-L3n   sum over nodes z of (1 + i_z) / (1 + e_z)                 Zhang et al., NeurIPS 2025, eq. 3
CH3-L3n   sum over nodes z of 1 / (1 + e_z)                         Bao et al., 2026, eq. A4
CH2-L3p   sum over paths of sqrt((1+i_t)(1+i_j)/((1+e_t)(1+e_j)))   Muscoloni et al., 2020
CH3-L3p   sum over paths of 1 / sqrt((1+e_t)(1+e_j))                Zhang et al., ICLR 2024, eq. 2
========  ========================================================  =====================================

**Exactness.** Floating-point sums depend on their order, and a sparse kernel, a matrix product and an enumeration of
paths add in different orders. So every factor is rounded to an integer multiple of a quantum 2^-b, b = 24 or, for
very large and dense layers, the largest b with which no sum can reach 2^53 quanta. Sums of such numbers are exact in
float64 in any order: all implementations give the same bits, and one update gives the same topology on all of them.
The node rules round g(i, e), the factor of a node. The path rules round the factor sqrt(g) of a node, and once more
the sum over the paths through one t::

    S_uv = sum over t of round(G_vt * (sum over j of G_uj))
"""

from __future__ import annotations

import math
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from sparsespike.ann.topology.pattern import Topology
from sparsespike.common.errors import ConfigError

Rule = Literal["CH2-L3n", "CH3-L3n", "CH2-L3p", "CH3-L3p"]
RULES: tuple[Rule, ...] = get_args(Rule)

FINEST = 24
"""The quantum is never finer than 2^-24, the resolution of float32 next to one."""


def check_rule(rule: str) -> None:
    """Raise ``ConfigError`` unless ``rule`` is one of the four rules."""
    if rule not in RULES:
        raise ConfigError(f"score rule is {rule!r}, expected one of {', '.join(RULES)}")


def is_path_rule(rule: Rule) -> bool:
    """Tell whether the rule sums over paths rather than over community nodes."""
    return rule.endswith("p")


def quantum_bits(topology: Topology, rule: Rule) -> int:
    """Return b: factors are rounded to multiples of 2^-b, and no score of ``topology`` can reach 2^(53 - b).

    Node rules: a factor is at most its node's degree, so a score is at most 2 nnz. Path rules: the factors of u's
    paths are at most sqrt(d_t) sqrt(d_j), which bounds each row by two sparse matrix-vector products.
    """
    check_rule(rule)
    if not is_path_rule(rule):
        bound = 2.0 * max(1, topology.nnz)
    else:
        transposed = topology.transpose()
        strength_j = np.sqrt(topology.in_degree)
        strength_t = np.sqrt(topology.out_degree)
        through_t = np.bincount(transposed.rows, strength_j[transposed.indices], minlength=topology.shape[1])
        of_u = np.bincount(topology.rows, (strength_t * through_t)[topology.indices], minlength=topology.shape[0])
        # + nnz for the rounding of each term
        bound = max(1.0, float(of_u.max())) + topology.nnz
    return bits_below(bound)


def bits_below(bound: float) -> int:
    """Return b such that sums up to ``bound`` of multiples of 2^-b are exact in float64; at most :data:`FINEST`."""
    return min(FINEST, 52 - math.ceil(math.log2(bound)))


def factor(inside: NDArray[np.float64], degree: NDArray[np.float64], rule: Rule, bits: int) -> NDArray[np.float64]:
    """Return the rounded factor of community nodes.

    Parameters
    ----------
    inside : float64[...]
        Links of the node inside the community, i.
    degree : float64[...]
        All its links, d; e = d - i - 1, at least 0.
    rule : {"CH2-L3n", "CH3-L3n", "CH2-L3p", "CH3-L3p"}
        g = (1 + i) / (1 + e) for CH2, 1 / (1 + e) for CH3; the path rules take sqrt(g).
    bits : int
        Multiples of 2^-bits are returned.
    """
    outside = np.maximum(degree - inside - 1.0, 0.0)
    g = (1.0 + inside if rule.startswith("CH2") else 1.0) / (1.0 + outside)
    if is_path_rule(rule):
        g = np.sqrt(g)
    return np.asarray(np.rint(g * 2.0**bits) * 2.0**-bits)


def factor_table(topology: Topology, rule: Rule, bits: int) -> NDArray[np.float64]:
    """Return every factor that an output of ``topology`` can have, float64[nnz].

    Output j with d links can share i = 1 .. d of them, so entry ``indptr[j] + i - 1`` holds its factor: one table as
    long as the links, and no division in the kernels. For inputs, pass the transposed topology.
    """
    degree = topology.in_degree.astype(np.float64)
    inside = np.arange(topology.nnz, dtype=np.float64) - topology.indptr[:-1].repeat(topology.in_degree) + 1.0
    return factor(inside, degree.repeat(topology.in_degree), rule, bits)
