"""Small sweeps of real units, and processes that several tests share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sparsespike.sweeps.executors import LocalWorkers, local

SMALL = """
name = "small"

[[study]]
name = "snm"
data = "digits"
train_images = 200
test_images = 40
train = {{ hidden = [8], epochs = 2, batch = 64, sparsity = 0.5 }}
convert = {{ method = "snm", calibration = 32 }}
simulate = {{ steps = 16, shards = {shards} }}
[study.grid]
train.lr = {lrs}
train.seed = {seeds}
"""


@pytest.fixture
def small(tmp_path: Path) -> Callable[..., Path]:
    """``small(networks, shards=1)`` writes an experiment file of that many networks an lr, 4 + shards units each."""

    def write(networks: int, shards: int = 1, lrs: tuple[float, ...] = (0.05,)) -> Path:
        file = tmp_path / f"small-{networks}-{shards}.toml"
        file.write_text(SMALL.format(seeds=list(range(networks)), shards=shards, lrs=list(lrs)), encoding="utf-8")
        return file

    return write


@pytest.fixture(scope="session")
def workers() -> Iterator[LocalWorkers]:
    """Two processes."""
    with local(2) as executor:
        yield executor
