"""Which form sparse linear layers take while they are trained."""

from __future__ import annotations

CSR_DENSITY = 0.8
"""On a CPU, sparse layers of at most this density train in CSR, denser ones as masked matrices (benchmarks/training.py)."""


def takes_masks(device: str, sparsity: float) -> bool:
    """Whether sparse linear layers are trained as masked matrices: on a GPU, and where they are too dense for CSR to be faster.

    Links, weights and saved state do not depend on it.
    """
    return device == "cuda" or 1 - sparsity > CSR_DENSITY
