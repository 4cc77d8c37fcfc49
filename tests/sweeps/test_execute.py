"""Carrying out plans: every unit once, failures kept apart, lost workers replaced."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from cloudpickle import register_pickle_by_value
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsespike.common.errors import ConfigError, ModelError
from sparsespike.sweeps.execute import Names, Progress, Work, execute
from sparsespike.sweeps.executors import LocalWorkers, local
from sparsespike.sweeps.folder import Desk, Failure, SweepFolder
from sparsespike.sweeps.units import Unit

register_pickle_by_value(sys.modules[__name__])  # worker processes cannot import a test


def add_up(unit: Unit, needs: Sequence[Path], desk: Desk, names: Names) -> None:
    """The unit's number, plus those of what it needs; a line is kept for every time it is computed."""
    if log := unit.settings.get("log"):
        with Path(log).open("a") as file:
            file.write(f"{unit.name}\n")
        time.sleep(0.05)
    if unit.settings.get("fails"):
        raise ModelError("training diverged")
    total = unit.settings["number"] + sum(int((need / "sum").read_text()) for need in needs)
    (desk.result / "sum").write_text(str(total))


def killed_at_first(unit: Unit, needs: Sequence[Path], desk: Desk, names: Names) -> None:
    """Killed as many times as the settings say; what it had done by then is found again."""
    before = len(list(desk.scratch.iterdir()))
    if before < unit.settings["kills"]:
        (desk.scratch / str(before)).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    (desk.result / "kills").write_text(str(before))


WORK: Mapping[str, Work] = {"sum": add_up, "killed": killed_at_first}


class Threads:
    """Threads of this process: enough where no unit takes its process down."""

    slots = 3
    attempts = 1

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(self.slots)

    def submit(self, function: Callable[..., Failure | None], /, *arguments: object) -> Future[Failure | None]:
        return self._pool.submit(function, *arguments)


@pytest.fixture(scope="module")
def threads() -> Iterator[Threads]:
    executor = Threads()
    yield executor
    executor._pool.shutdown()


@st.composite
def graphs(draw: st.DrawFn) -> list[Unit]:
    units: list[Unit] = []
    for number in range(draw(st.integers(1, 10))):
        needs = draw(st.lists(st.sampled_from(units), max_size=3, unique=True)) if units else []
        units.append(Unit("sum", {"number": number, "fails": draw(st.integers(0, 5)) == 0}, tuple(needs)))
    return units


@settings(max_examples=30, deadline=None)
@given(units=graphs())
def test_all_that_does_not_depend_on_a_failure_is_done(threads: Threads, units: list[Unit]) -> None:
    sums: dict[Unit, int] = {}
    for unit in units:
        if not unit.settings["fails"] and all(need in sums for need in unit.needs):
            sums[unit] = unit.settings["number"] + sum(sums[need] for need in unit.needs)
    failed = {unit for unit in units if unit.settings["fails"] and all(need in sums for need in unit.needs)}
    seen: list[Progress] = []
    with TemporaryDirectory() as root:
        folder = SweepFolder(root)
        state = execute(units, folder, WORK, threads, Names(), progress=lambda state, unit: seen.append(state))
        assert folder.names("units") == {unit.name for unit in sums}
        assert all(int((folder.result(unit.name) / "sum").read_text()) == total for unit, total in sums.items())
        assert folder.names("failures") == {unit.name for unit in failed}
        assert all(folder.failure(unit.name) for unit in failed)
        assert state == Progress(len(units), len(sums), len(failed), len(units) - len(sums) - len(failed))
        assert seen[-1] == state
        # Run again, nothing is computed.
        seen.clear()
        assert execute(units, folder, WORK, threads, Names(), progress=lambda state, unit: seen.append(state)) == state
        assert len(seen) == 1


def test_a_failure_is_kept_and_tried_again_when_asked(threads: Threads, tmp_path: Path) -> None:
    log = tmp_path / "log"
    bad = Unit("sum", {"number": 1, "fails": True, "log": str(log)})
    user = Unit("sum", {"number": 2}, (bad,))
    folder = SweepFolder(tmp_path / "sweep")
    for retry, times in ((False, 1), (False, 1), (True, 2)):
        state = execute([bad, user], folder, WORK, threads, Names(), retry_failed=retry)
        assert state == Progress(total=2, done=0, failed=1, waiting=1)
        assert len(log.read_text().splitlines()) == times
    failure = folder.failure(bad.name)
    assert failure is not None
    assert failure.message == "training diverged"
    assert "in add_up" in failure.traceback
    kept = json.loads((folder.root / "failures" / f"{bad.name}.json").read_text())
    assert kept["settings"] == bad.settings
    # Mended (the same unit, another function), it is no failure any more, and what waited for it goes on.
    mended: dict[str, Work] = {"sum": lambda unit, needs, desk, names: None}
    assert execute([bad, user], folder, mended, threads, Names(), retry_failed=True) == Progress(2, 2, 0, 0)
    assert folder.names("failures") == set()


def test_a_unit_of_unknown_kind_is_refused(threads: Threads, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="found units of kind fly, expected sum, killed"):
        execute([Unit("fly", {})], SweepFolder(tmp_path), WORK, threads, Names())


def test_two_sweeps_in_one_folder_compute_every_unit_once(threads: Threads, tmp_path: Path) -> None:
    log = tmp_path / "log"
    units = [Unit("sum", {"number": number, "log": str(log)}) for number in range(12)]
    others = Threads()
    sweeps = [
        threading.Thread(target=execute, args=(order, SweepFolder(tmp_path / "sweep"), WORK, executor, Names()))
        for order, executor in ((units, threads), (units[::-1], others))
    ]
    for sweep in sweeps:
        sweep.start()
    for sweep in sweeps:
        sweep.join()
    others._pool.shutdown()
    assert sorted(log.read_text().splitlines()) == sorted(unit.name for unit in units)
    assert SweepFolder(tmp_path / "sweep").names("units") == {unit.name for unit in units}


def test_a_lost_worker_is_replaced_and_only_its_unit_tried_again(workers: LocalWorkers, tmp_path: Path) -> None:
    units = [Unit("killed", {"kills": kills, "number": number}) for number, kills in enumerate([2, 0, 1, 3, 0])]
    folder = SweepFolder(tmp_path)
    assert execute(units, folder, WORK, workers, Names()) == Progress(total=5, done=4, failed=1, waiting=0)
    for unit in units:
        if unit.settings["kills"] < 3:
            assert (folder.result(unit.name) / "kills").read_text() == str(unit.settings["kills"])
    failure = folder.failure(units[3].name)
    assert failure is not None
    assert f"the worker process of {units[3].name} ended without a result" in failure.message
    # What it had done is still there: the next attempt ends well.
    assert execute(units, folder, WORK, workers, Names(), retry_failed=True) == Progress(5, 5, 0, 0)


def test_a_pool_without_processes_is_refused() -> None:
    with pytest.raises(ConfigError, match="found 0 jobs"), local(0):
        pass


def test_a_broken_process_says_so(workers: LocalWorkers) -> None:
    assert isinstance(workers.submit(os._exit, 3).exception(), BrokenProcessPool)
    assert [workers.submit(abs, -n).result() for n in range(4)] == [0, 1, 2, 3]
