"""A sweep that is killed and run again ends with the bytes of one that was not."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from sparsespike.cli.sweep import results
from sparsespike.cli.units import WORK, completion, tables
from sparsespike.sweeps.execute import Names, execute
from sparsespike.sweeps.executors import LocalWorkers, dask
from sparsespike.sweeps.expand import Plan, expand
from sparsespike.sweeps.experiment import read_experiment
from sparsespike.sweeps.folder import SweepFolder
from sparsespike.sweeps.table import as_csv
from sparsespike.sweeps.units import Unit

SWEEP = [sys.executable, "-m", "sparsespike.cli", "sweep", "run"]
PATIENCE_SECONDS = 600

Small = Callable[..., Path]


def contents(folder: Path) -> dict[str, str]:
    """Every file below a folder with the digest of its bytes."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def plan_of(file: Path) -> Plan:
    return expand(read_experiment(file, *tables()), completion(), {})


def run(file: Path, root: Path, workers: LocalWorkers) -> SweepFolder:
    """A sweep from where it is to its end, in this process's workers."""
    folder, plan = SweepFolder(root), plan_of(file)
    folder.save_plan({**plan.to_dict(), "names": {"data": {}, "runs": {}}})
    state = execute(plan.units, folder, WORK, workers, Names())
    assert state.done == state.total
    return folder


def run_and_kill(file: Path, root: Path, done: int, seconds: float, jobs: int) -> None:
    """A sweep that is killed some time after it has finished ``done`` units in all."""
    process = subprocess.Popen([*SWEEP, str(file), "--out", str(root), "--jobs", str(jobs)], stderr=subprocess.DEVNULL)
    end = time.monotonic() + PATIENCE_SECONDS
    while len(SweepFolder(root).names("units")) < done:
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.01)
    time.sleep(seconds)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL


def assert_same(one: SweepFolder, other: SweepFolder, networks: int) -> None:
    assert contents(one.root / "units") == contents(other.root / "units")
    table = as_csv(results(one))
    assert table == as_csv(results(other))
    assert len(table.splitlines()) == 1 + networks
    for folder in (one, other):
        assert list((folder.root / "work").iterdir()) == []
        assert folder.names("failures") == set()


def compare_killed(file: Path, tmp_path: Path, workers: LocalWorkers, kills: list[int], networks: int) -> None:
    chance = random.Random(0)
    whole = run(file, tmp_path / "whole", workers)
    for done in kills:
        run_and_kill(file, tmp_path / "killed", done, chance.uniform(0, 0.3), jobs=2 if len(kills) > 1 else 1)
        assert SweepFolder(tmp_path / "killed").names("units") < whole.names("units")
    assert_same(run(file, tmp_path / "killed", workers), whole, networks)


def test_a_sweep_that_is_killed_goes_on(small: Small, tmp_path: Path, workers: LocalWorkers) -> None:
    compare_killed(small(5), tmp_path, workers, [2], 5)


@pytest.mark.full
def test_a_sweep_of_200_units_killed_three_times(small: Small, tmp_path: Path, workers: LocalWorkers) -> None:
    assert len(plan_of(small(40)).units) == 200
    compare_killed(small(40), tmp_path, workers, [17, 66, 131], 40)


def compare_dask(file: Path, tmp_path: Path, workers: LocalWorkers, kills: list[int], networks: int) -> None:
    """The same on a Dask cluster whose workers are killed one by one, after so many units."""
    from distributed import LocalCluster

    whole = run(file, tmp_path / "whole", workers)
    folder, plan = SweepFolder(tmp_path / "dask"), plan_of(file)
    folder.save_plan({**plan.to_dict(), "names": {"data": {}, "runs": {}}})
    left = list(kills)
    finished: list[Unit] = []
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster:

        def kill_one(state: object, unit: Unit | None) -> None:
            finished.extend([unit] if unit else [])
            if left and len(finished) >= left[0]:
                left.pop(0)
                os.kill(cluster.workers[len(left) % 2].pid, signal.SIGKILL)

        with dask(cluster.scheduler_address) as executor:
            state = execute(plan.units, folder, WORK, executor, Names(), progress=kill_one)
    assert left == []
    assert state.done == state.total
    assert sorted(unit.name for unit in finished) == sorted(unit.name for unit in plan.units)
    assert_same(folder, whole, networks)


def test_a_dask_worker_that_is_killed_loses_nothing(small: Small, tmp_path: Path, workers: LocalWorkers) -> None:
    compare_dask(small(5), tmp_path, workers, [4], 5)


@pytest.mark.full
def test_200_units_on_dask_with_three_workers_killed(small: Small, tmp_path: Path, workers: LocalWorkers) -> None:
    compare_dask(small(40), tmp_path, workers, [20, 80, 140], 40)
