"""The conformance suite: what every backend must do, for our own backends and for those of others.

>>> from sparsespike.backends.native import NativeBackend
>>> from sparsespike.backends.testing import check_conformance
>>> check_conformance(NativeBackend())
{}

Random graphs for hypothesis are in ``sparsespike.backends.testing.strategies``, which needs the package ``hypothesis``.
"""

from sparsespike.backends.reference import ReferenceResult, reference
from sparsespike.backends.testing.case import Case
from sparsespike.backends.testing.cases import CASES
from sparsespike.backends.testing.conformance import assert_equal, check_conformance

__all__ = ["CASES", "Case", "ReferenceResult", "assert_equal", "check_conformance", "reference"]
