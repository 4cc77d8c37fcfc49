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
def community_of_inputs(
    starts: Pointers,
    ends: Pointers,
    indices: Indices,
    t_indptr: Pointers,
    t_indices: Indices,
    t_table: Floats,
    first: int,
    columns: int,
) -> Floats:
    """Return E^V for candidates v = first .. first + columns - 1, transposed: ``[t, v - first]``, float64[n, columns].

    ``starts[j]:ends[j]`` delimits the links of output j to those inputs. E^V_vt is the factor of input t seen from
    input v, 0 where they share no output.
    """
    inputs = len(t_indptr) - 1
    community = np.zeros((inputs, columns), dtype=np.float64)
    common = np.zeros(columns, dtype=np.int32)
    for t in range(inputs):
        for link in range(t_indptr[t], t_indptr[t + 1]):
            j = t_indices[link]
            for position in range(starts[j], ends[j]):
                common[indices[position] - first] += 1
        table_of_t = t_indptr[t] - 1
        for v in range(columns):
            if common[v] > 0:
                community[t, v] = t_table[table_of_t + common[v]]
                common[v] = 0
    return community


@kernel
def node_scores(
    indptr: Pointers,
    starts: Pointers,
    ends: Pointers,
    indices: Indices,
    t_indptr: Pointers,
    t_indices: Indices,
    table: Floats,
    community: Floats,
    first: int,
    row: int,
    scores: Floats,
) -> None:
    """Fill ``scores[rows, columns]`` for outputs from ``row`` and inputs from ``first`` on: sum_j E^U_uj + sum_t E^V_vt.

    ``community`` is the result of :func:`community_of_inputs` for these inputs.
    """
    outputs = len(indptr) - 1
    columns = scores.shape[1]
    common = np.zeros(outputs, dtype=np.int32)
    touched = np.empty(outputs, dtype=np.int32)
    for local in range(scores.shape[0]):
        u = row + local
        of_u = scores[local]
        of_u[:] = 0.0
        neighbours = 0
        for link in range(indptr[u], indptr[u + 1]):
            t = indices[link]
            of_t = community[t]
            for v in range(columns):
                of_u[v] += of_t[v]
            for position in range(t_indptr[t], t_indptr[t + 1]):
                j = t_indices[position]
                if common[j] == 0:
                    touched[neighbours] = j
                    neighbours += 1
                common[j] += 1
        for index in range(neighbours):
            j = touched[index]
            factor_of_j = table[indptr[j] + common[j] - 1]
            common[j] = 0
            for position in range(starts[j], ends[j]):
                of_u[indices[position] - first] += factor_of_j
        for position in range(starts[u], ends[u]):
            of_u[indices[position] - first] = 0.0


@kernel
def path_scores(
    indptr: Pointers,
    starts: Pointers,
    ends: Pointers,
    indices: Indices,
    t_indptr: Pointers,
    t_indices: Indices,
    table: Floats,
    t_table: Floats,
    quantum: float,
    first: int,
    row: int,
    scores: Floats,
) -> None:
    """Fill ``scores[rows, columns]`` for outputs from ``row`` and inputs from ``first`` on: sum_t round(G_vt sum_j G_uj)."""
    outputs = len(indptr) - 1
    columns = scores.shape[1]
    common = np.zeros(outputs, dtype=np.int32)
    touched = np.empty(outputs, dtype=np.int32)
    factor_of = np.zeros(outputs, dtype=np.float64)
    through_t = np.zeros(columns, dtype=np.float64)
    shared = np.zeros(columns, dtype=np.int32)
    reached = np.empty(columns, dtype=np.int32)
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
                for end in range(starts[j], ends[j]):
                    v = indices[end] - first
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
        for position in range(starts[u], ends[u]):
            of_u[indices[position] - first] = 0.0
