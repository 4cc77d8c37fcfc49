"""One test set shared by several units: the parts joined are the whole, bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsespike.backends.bulk import BulkResult, join, run_blocks
from sparsespike.backends.native import NativeBackend
from sparsespike.backends.testing.case import Case
from sparsespike.backends.testing.cases import single_neuron
from sparsespike.backends.testing.strategies import aec_graphs, graphs
from sparsespike.cli.units import RECORD, WORK, completion, tables
from sparsespike.common.errors import BackendError
from sparsespike.sweeps.bulkfile import BY_POPULATION, BY_PROJECTION, SPIKES, load_bulk, part_of, save_bulk
from sparsespike.sweeps.execute import Names, execute
from sparsespike.sweeps.executors import LocalWorkers
from sparsespike.sweeps.expand import expand
from sparsespike.sweeps.experiment import read_experiment
from sparsespike.sweeps.folder import SweepFolder

BACKEND = NativeBackend(threads=1, counting="computed")


def assert_equal(one: BulkResult, other: BulkResult) -> None:
    for field in ("backend", "version", "dtype", "steps", "images", "counting"):
        assert getattr(one, field) == getattr(other, field)
    assert np.array_equal(one.predictions, other.predictions)
    for field in SPIKES:
        left, right = getattr(one, field), getattr(other, field)
        assert left.keys() == right.keys()
        for name in left:
            assert np.array_equal(left[name].positive, right[name].positive)
            assert np.array_equal(left[name].negative, right[name].negative)
    for field in (*BY_PROJECTION, *BY_POPULATION):
        left, right = getattr(one, field), getattr(other, field)
        assert left.keys() == right.keys()
        assert all(np.array_equal(left[key], right[key]) for key in left)


@settings(max_examples=15, deadline=None)
@given(case=graphs() | aec_graphs(), images=st.integers(1, 9), shards=st.integers(1, 9))
def test_shards_joined_are_the_whole(tmp_path_factory: pytest.TempPathFactory, case: Case, images: int, shards: int) -> None:
    pixels = case.inputs[np.arange(images) % len(case.inputs)]
    whole = run_blocks(BACKEND, case.graph, pixels, case.steps)
    folder = tmp_path_factory.mktemp("shards")
    parts = []
    for shard in range(min(shards, images)):
        part = pixels[part_of(images, shard, min(shards, images))]
        save_bulk(folder / str(shard), run_blocks(BACKEND, case.graph, part, case.steps))
        parts.append(load_bulk(folder / str(shard)))
    assert_equal(join(parts), whole)


@given(images=st.integers(0, 100), shards=st.integers(1, 20))
def test_shards_are_all_images_once_and_of_like_size(images: int, shards: int) -> None:
    parts = [range(images)[part_of(images, shard, shards)] for shard in range(shards)]
    assert [image for part in parts for image in part] == list(range(images))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_a_record_does_not_depend_on_the_shards(small: Callable[..., Path], tmp_path: Path, workers: LocalWorkers) -> None:
    folder = SweepFolder(tmp_path / "sweep")
    records = []
    for shards in (1, 3, 41):  # of 40 images
        plan = expand(read_experiment(small(1, shards), *tables()), completion(), {})
        assert execute(plan.units, folder, WORK, workers, Names()).failed == 0
        records.append((folder.result(plan.results[0].unit.name) / RECORD).read_bytes())
    assert records[0] == records[1] == records[2]
    # Training and conversion were computed once for all.
    assert len(folder.names("units")) == 3 + 2 + 4 + 42


def test_parts_that_do_not_belong_together_are_refused() -> None:
    case = single_neuron()
    one, other = (run_blocks(BACKEND, case.graph, case.inputs, steps) for steps in (3, 4))
    with pytest.raises(BackendError, match="parts with steps 3 and 4"):
        join([one, other])
    with pytest.raises(BackendError, match="found no part"):
        join([])


def test_a_damaged_file_is_said(tmp_path: Path) -> None:
    file = tmp_path / "counts.safetensors"
    file.write_bytes(b"\x00" * 40)
    with pytest.raises(BackendError, match="cannot be read"):
        load_bulk(file)
