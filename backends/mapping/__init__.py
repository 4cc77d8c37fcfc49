"""How many cores of a neuromorphic chip a graph would take: an estimate from published limits, not a mapping tool's answer.

>>> from sparsespike.backends.mapping import LOIHI_1, estimate
>>> from sparsespike.backends.testing import CASES
>>> found = estimate(CASES["reset_zero"]().graph, LOIHI_1)
>>> found.cores, found.lower_bound
(3, False)
"""

from sparsespike.backends.mapping.chips import CHIPS, LOIHI_1, LOIHI_2, Chip, Limit
from sparsespike.backends.mapping.estimate import Estimate, PopulationEstimate, estimate

__all__ = ["CHIPS", "LOIHI_1", "LOIHI_2", "Chip", "Estimate", "Limit", "PopulationEstimate", "estimate"]
