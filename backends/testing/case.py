"""What a conformance test runs."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sparsespike.export.graph import SpikingGraph


class Case(NamedTuple):
    """A graph, its inputs of shape (B, N) and the number of local steps."""

    graph: SpikingGraph
    inputs: NDArray[np.int64]
    steps: int
