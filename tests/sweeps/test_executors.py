"""Which Dask cluster is meant."""

from __future__ import annotations

import threading

import pytest

from sparsespike.common.errors import ConfigError
from sparsespike.sweeps.executors import dask


@pytest.mark.parametrize(
    "where",
    [
        "tls://head:8786",
        "head",
        "",
        "local",
        "local:0",
        "http://head:8786",
        "tcp://head",
        "tcp://head:port",
        "tcp://:8786",
        "tcp://head:99999",
        "head:1/",
    ],
)
def test_a_malformed_address_is_refused_before_anything_begins(where: str) -> None:
    """Or one that needs a certificate. A client of Dask that cannot begin takes a minute to end: none is made, nor its thread."""
    before = set(threading.enumerate())
    with pytest.raises(ConfigError, match=r"Dask cluster .*expected (.*local:N|one in Dask)"), dask(where):
        pass
    assert set(threading.enumerate()) <= before


@pytest.mark.parametrize("where", ["127.0.0.1:1", "tcp://127.0.0.1:1", "tcp://[::1]:1"])
def test_an_address_without_a_scheduler(where: str) -> None:
    from dask import config

    with (
        config.set({"distributed.comm.timeouts.connect": "0.2s"}),
        pytest.raises(ConfigError, match="no scheduler answers"),
        dask(where),
    ):
        pass
