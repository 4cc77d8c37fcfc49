"""The connectivity of one sparse layer, without its weights."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike, NDArray

from sparsespike.common.errors import ConfigError, ModelError


def link_count(shape: tuple[int, int], sparsity: float) -> int:
    """Return the number of links that a layer of ``shape`` holds at ``sparsity``: ``m n - int(sparsity m n)``.

    Every topology, initial or evolved, uses this one rule, so the density of a layer is exact and comparable.

    Raises
    ------
    ConfigError
        If ``sparsity`` is not in [0, 1).
    """
    if not 0.0 <= sparsity < 1.0:
        raise ConfigError(f"sparsity is {sparsity}, expected 0 <= sparsity < 1: give the share of absent links, such as 0.99")
    total = shape[0] * shape[1]
    return total - int(sparsity * total)


@dataclass(frozen=True, eq=False)
class Topology:
    """Which links a layer has: a CSR pattern with **rows = outputs, columns = inputs**, as in ``torch.nn.Linear.weight``.

    (A spiking graph's projections hold the transpose, rows = presynaptic neurons.)

    Parameters
    ----------
    shape : (int, int)
        ``(m, n)``: number of outputs and of inputs.
    indptr : int64[m + 1]
        Row pointers.
    indices : int32[nnz]
        Input of each link, ascending and unique within a row.

    Raises
    ------
    ModelError
        If the arrays do not form such a pattern.

    Notes
    -----
    The *link id* of (output u, input v) is ``u n + v``. Links are always listed by ascending id, which is CSR order;
    arrays of weights or optimizer state with one entry per link follow that order.
    """

    shape: tuple[int, int]
    indptr: NDArray[np.int64]
    indices: NDArray[np.int32]

    def __post_init__(self) -> None:
        m, n = self.shape
        if m < 1 or n < 1 or n > np.iinfo(np.int32).max:
            raise ModelError(f"topology has shape {self.shape}, expected two sizes of at least 1 and fewer than 2^31 inputs")
        indptr = np.ascontiguousarray(self.indptr, dtype=np.int64)
        indices = np.ascontiguousarray(self.indices, dtype=np.int32)
        object.__setattr__(self, "shape", (int(m), int(n)))
        object.__setattr__(self, "indptr", indptr)
        object.__setattr__(self, "indices", indices)
        if indptr.shape != (m + 1,) or indptr[0] != 0 or indptr[-1] != indices.size or (np.diff(indptr) < 0).any():
            raise ModelError(
                f"topology of shape {self.shape} has row pointers of shape {indptr.shape} for {indices.size} links, "
                f"expected {m + 1} ascending pointers from 0 to the number of links"
            )
        if indices.size and (indices.min() < 0 or indices.max() >= n):
            raise ModelError(f"topology of shape {self.shape} has inputs {indices.min()}..{indices.max()}, expected 0..{n - 1}")
        if (np.diff(self.links) <= 0).any():
            raise ModelError(
                f"topology of shape {self.shape} has unsorted or repeated inputs in a row; sort them and drop repeats"
            )

    @classmethod
    def from_links(cls, shape: tuple[int, int], links: ArrayLike) -> Topology:
        """Build the topology that holds the links with the given ids, in any order, without repeats."""
        m, n = shape
        ids = np.sort(np.asarray(links, dtype=np.int64))
        if ids.size and (ids[0] < 0 or ids[-1] >= m * n):
            raise ModelError(f"link ids run over {ids[0]}..{ids[-1]}, expected 0..{m * n - 1} for a layer of shape {shape}")
        indptr = np.searchsorted(ids, np.arange(m + 1, dtype=np.int64) * n)
        return cls(shape, indptr.astype(np.int64), (ids % n).astype(np.int32))

    @classmethod
    def from_dense(cls, mask: ArrayLike) -> Topology:
        """Build the topology whose links are the non-zero entries of ``mask[m, n]``."""
        array = np.asarray(mask)
        if array.ndim != 2:
            raise ModelError(f"mask has {array.ndim} dimensions, expected 2: outputs x inputs")
        return cls.from_links((array.shape[0], array.shape[1]), np.flatnonzero(array))

    @classmethod
    def full(cls, shape: tuple[int, int]) -> Topology:
        """Build the fully connected topology."""
        m, n = shape
        return cls(shape, np.arange(m + 1, dtype=np.int64) * n, np.tile(np.arange(n, dtype=np.int32), m))

    @property
    def nnz(self) -> int:
        """Number of links."""
        return self.indices.size

    @property
    def density(self) -> float:
        """Links over possible links."""
        return self.nnz / math.prod(self.shape)

    @property
    def in_degree(self) -> NDArray[np.int64]:
        """Fan-in: links of each output, int64[m]."""
        return np.diff(self.indptr)

    @property
    def out_degree(self) -> NDArray[np.int64]:
        """Fan-out: links of each input, int64[n]."""
        return np.bincount(self.indices, minlength=self.shape[1]).astype(np.int64)

    @property
    def rows(self) -> NDArray[np.int64]:
        """Output of each link, int64[nnz]."""
        return np.repeat(np.arange(self.shape[0], dtype=np.int64), self.in_degree)

    @property
    def links(self) -> NDArray[np.int64]:
        """Ascending link ids ``u n + v``, int64[nnz]."""
        return self.rows * self.shape[1] + self.indices

    def to_dense(self) -> NDArray[np.bool_]:
        """Return the mask, bool[m, n]."""
        mask = np.zeros(self.shape, dtype=np.bool_)
        mask.ravel()[self.links] = True
        return mask

    def transpose(self) -> Topology:
        """Return the pattern of the transposed weight matrix (rows = inputs)."""
        m, n = self.shape
        csc = sp.csr_matrix((np.ones(self.nnz, dtype=np.int8), self.indices, self.indptr), shape=self.shape).tocsc()
        return Topology((n, m), csc.indptr.astype(np.int64), csc.indices.astype(np.int32))

    def where(self, keep: NDArray[np.bool_]) -> Topology:
        """Return the topology of the links for which ``keep[nnz]`` is true."""
        return Topology.from_links(self.shape, self.links[keep])

    def with_links(self, links: NDArray[np.int64]) -> Topology:
        """Return the topology with the given absent links added."""
        return Topology.from_links(self.shape, np.concatenate([self.links, links]))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Topology):
            return NotImplemented
        return (
            self.shape == other.shape
            and np.array_equal(self.indptr, other.indptr)
            and np.array_equal(self.indices, other.indices)
        )

    def __repr__(self) -> str:
        return f"Topology(shape={self.shape}, nnz={self.nnz}, density={self.density:.4g})"
