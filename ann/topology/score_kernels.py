"""Row kernels of the Cannistraci-Hebb scores. See :mod:`sparsespike.ann.topology.scores` for what they compute.

Patterns come as CSR (``indptr``, ``indices``: the inputs of each output) and its transpose (``t_indptr``,
``t_indices``: the outputs of each input); ``table`` and ``t_table`` hold the factors of outputs and inputs by their
number of common neighbours, aligned with the two patterns (:func:`~sparsespike.ann.topology.rules.factor_table`).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sparsespike.ann.topology.kernel import kernel

Indices = NDArray[np.int32]
Pointers = NDArray[np.int64]
Floats = NDArray[np.float64]


@kernel
def input_communities(
    starts: Pointers,
    ends: Pointers,
    indices: Indices,
    t_indptr: Pointers,
    t_indices: Indices,
    t_table: Floats,
    first: int,
    begin: int,
    stop: int,
    community: Floats,
) -> None:
    """Fill ``community[t, v - first]`` with E^V_vt, the factor of input t seen from input v, for t = begin .. stop - 1.

    ``starts[j]:ends[j]`` delimits the links of output j to the tile's inputs v, which start at ``first``. The factor is
    0 where t and v share no output.
    """
    columns = community.shape[1]
    common = np.zeros(columns, dtype=np.int32)
    for t in range(begin, stop):
        for link in range(t_indptr[t], t_indptr[t + 1]):
            j = t_indices[link]
            for position in range(starts[j], ends[j]):
                common[indices[position] - first] += 1
        table_of_t = t_indptr[t] - 1
        for v in range(columns):
            community[t, v] = t_table[table_of_t + common[v]] if common[v] > 0 else 0.0
            common[v] = 0


@kernel
def output_communities(
    indptr: Pointers, indices: Indices, t_indptr: Pointers, t_indices: Indices, table: Floats, row: int, community: Floats
) -> None:
    """Fill ``community[j, u - row]`` with E^U_uj, the factor of output j seen from output u, for a block of outputs u."""
    outputs = len(indptr) - 1
    common = np.zeros(outputs, dtype=np.int32)
    touched = np.empty(outputs, dtype=np.int32)
    community[:] = 0.0
    for local in range(community.shape[1]):
        neighbours = 0
        for link in range(indptr[row + local], indptr[row + local + 1]):
            t = indices[link]
            for position in range(t_indptr[t], t_indptr[t + 1]):
                j = t_indices[position]
                if common[j] == 0:
                    touched[neighbours] = j
                    neighbours += 1
                common[j] += 1
        for index in range(neighbours):
            j = touched[index]
            community[j, local] = table[indptr[j] + common[j] - 1]
            common[j] = 0


@kernel
def _add_rows(matrix: Floats, chosen: Indices, total: Floats) -> None:
    """Add the chosen rows of ``matrix`` to ``total``, four at a time to spare memory traffic."""
    columns = total.size
    whole = chosen.size - chosen.size % 4
    for at in range(0, whole, 4):
        a, b, c, d = matrix[chosen[at]], matrix[chosen[at + 1]], matrix[chosen[at + 2]], matrix[chosen[at + 3]]
        for k in range(columns):
            total[k] += (a[k] + b[k]) + (c[k] + d[k])
    for at in range(whole, chosen.size):
        a = matrix[chosen[at]]
        for k in range(columns):
            total[k] += a[k]


@kernel
def node_scores(
    indptr: Pointers,
    starts: Pointers,
    ends: Pointers,
    indices: Indices,
    t_indptr: Pointers,
    t_indices: Indices,
    of_outputs: Floats,
    of_inputs: Floats,
    first: int,
    row: int,
    scores: Floats,
) -> None:
    """Fill ``scores[rows, columns]`` for outputs from ``row`` and inputs from ``first`` on: sum_j E^U_uj + sum_t E^V_vt.

    Both sums add whole rows of the communities: those of u's inputs t, and, transposed, those of v's outputs j.
    ``of_outputs`` and ``of_inputs`` come from :func:`output_communities` and :func:`input_communities`.
    """
    rows, columns = scores.shape
    scores[:] = 0.0
    for local in range(rows):
        u = row + local
        _add_rows(of_inputs, indices[indptr[u] : indptr[u + 1]], scores[local])
    strip = 8  # columns at a time, a cache line of scores
    totals = np.empty((strip, rows), dtype=np.float64)
    for begin in range(0, columns, strip):
        width = min(strip, columns - begin)
        totals[:] = 0.0
        for k in range(width):
            v = first + begin + k
            _add_rows(of_outputs, t_indices[t_indptr[v] : t_indptr[v + 1]], totals[k])
        for local in range(rows):
            for k in range(width):
                scores[local, begin + k] += totals[k, local]
    for local in range(rows):
        for position in range(starts[row + local], ends[row + local]):
            scores[local, indices[position] - first] = 0.0


@kernel
def path_scores(
    indptr: Pointers,
    indices: Indices,
    t_indptr: Pointers,
    t_indices: Indices,
    table: Floats,
    t_table: Floats,
    quantum: float,
    row: int,
    scores: Floats,
) -> None:
    """Fill ``scores[rows, n]`` for outputs from ``row`` on: sum over t of round(G_vt sum_j G_uj)."""
    outputs = len(indptr) - 1
    inputs = scores.shape[1]
    common = np.zeros(outputs, dtype=np.int32)
    touched = np.empty(outputs, dtype=np.int32)
    factor_of = np.zeros(outputs, dtype=np.float64)
    through_t = np.zeros(inputs, dtype=np.float64)
    shared = np.zeros(inputs, dtype=np.int32)
    reached = np.empty(inputs, dtype=np.int32)
    for local in range(scores.shape[0]):
        u = row + local
        of_u = scores[local]
        of_u[:] = 0.0
        neighbours = 0
        for link in range(indptr[u], indptr[u + 1]):
            t = indices[link]
            for position in range(t_indptr[t], t_indptr[t + 1]):
                j = t_indices[position]
                if common[j] == 0:
                    touched[neighbours] = j
                    neighbours += 1
                common[j] += 1
        for index in range(neighbours):
            j = touched[index]
            factor_of[j] = table[indptr[j] + common[j] - 1]
            common[j] = 0
        for link in range(indptr[u], indptr[u + 1]):
            t = indices[link]
            candidates = 0
            for position in range(t_indptr[t], t_indptr[t + 1]):
                j = t_indices[position]
                for end in range(indptr[j], indptr[j + 1]):
                    v = indices[end]
                    if shared[v] == 0:
                        reached[candidates] = v
                        candidates += 1
                    shared[v] += 1
                    through_t[v] += factor_of[j]
            table_of_t = t_indptr[t] - 1
            for index in range(candidates):
                v = reached[index]
                of_u[v] += np.rint(through_t[v] * t_table[table_of_t + shared[v]] / quantum) * quantum
                through_t[v] = 0.0
                shared[v] = 0
        for link in range(indptr[u], indptr[u + 1]):
            of_u[indices[link]] = 0.0
