"""The error tree. Every message says what object, what was found, what was expected and what to do.

::

    SparseSpikeError
    ├── DataError               a data set is unknown, absent or malformed
    ├── ModelError              a model cannot be built, trained or converted
    ├── GraphError              a spiking graph breaks its contract
    │   └── GraphFileError      a graph file breaks the format
    ├── BackendError            a backend cannot run a graph, or failed while it ran
    │   ├── MembraneOverflowError   a membrane left the backend's exact range
    │   └── BackendTimeoutError     a run took longer than its time limit
    ├── MissingExtraError       an optional package is not installed
    └── ConfigError             a setting, flag or file path is wrong
"""

from __future__ import annotations


class SparseSpikeError(Exception):
    """Base of every error that sparsespike raises on purpose."""


class DataError(SparseSpikeError):
    """A data set is unknown, absent or malformed."""


class ModelError(SparseSpikeError):
    """A model cannot be built, trained or converted."""


class GraphError(SparseSpikeError):
    """A spiking graph breaks its contract."""


class GraphFileError(GraphError):
    """A graph file breaks the format."""


class BackendError(SparseSpikeError):
    """A backend cannot run a graph, or failed while it ran."""


class MembraneOverflowError(BackendError):
    """A membrane or current left the range in which the backend computes exactly."""


class BackendTimeoutError(BackendError):
    """A run took longer than its time limit and was ended."""


class MissingExtraError(SparseSpikeError):
    """An optional package is not installed."""


class ConfigError(SparseSpikeError):
    """A setting, flag or file path is wrong."""
