"""Carry out a plan: every unit once, what it needs first, failures kept and all that does not depend on them continued."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from sparsespike.common.errors import ConfigError
from sparsespike.sweeps.folder import Desk, Failure, SweepFolder, failure_of
from sparsespike.sweeps.units import Unit


@dataclass(frozen=True)
class Names:
    """What the names in an experiment stand for on this machine, and how units are computed; no result depends on it.

    Parameters
    ----------
    data : mapping of str to str
        Data set by name, where it is not the name itself.
    runs : mapping of str to str
        Folder of a trained run, by name.
    download : bool
        Whether data sets may be downloaded.
    """

    data: Mapping[str, str] = field(default_factory=dict)
    runs: Mapping[str, str] = field(default_factory=dict)
    download: bool = False


Work = Callable[[Unit, Sequence[Path], Desk, Names], None]
"""Computes a unit: from its settings and the result folders of what it needs, into ``desk.result``."""


class Executor(Protocol):
    """Where units are computed: processes of this machine, or a cluster."""

    @property
    def slots(self) -> int:
        """Units that may be submitted at a time."""
        ...

    @property
    def attempts(self) -> int:
        """Workers that may be lost over a unit before it counts as failed."""
        ...

    def submit(self, function: Callable[..., Failure | None], /, *arguments: object) -> Future[Failure | None]:
        """Call ``function(*arguments)`` in another process."""
        ...


@dataclass(frozen=True)
class Progress:
    """How far a sweep is. ``waiting`` units need one that failed."""

    total: int
    done: int
    failed: int
    waiting: int


def execute(
    units: Sequence[Unit],
    folder: SweepFolder,
    work: Mapping[str, Work],
    executor: Executor,
    names: Names,
    *,
    retry_failed: bool = False,
    progress: Callable[[Progress, Unit | None], None] = lambda state, unit: None,
) -> Progress:
    """Compute all units that are not finished yet.

    Parameters
    ----------
    units : sequence of Unit
        Each after all that it needs, see :func:`sparsespike.sweeps.units.in_order`. Of those that can be computed, the first
        goes first.
    folder : SweepFolder
    work : mapping of kind to function
        Functions that another process can import.
    executor : Executor
    names : Names
    retry_failed : bool
        Whether units that failed in an earlier run are tried again.
    progress : callable, optional
        Called as ``progress(state, unit)`` at the start, with None, and after every unit.

    Raises
    ------
    ConfigError
        If a unit is of a kind that ``work`` does not have.
    """
    if unknown := sorted({unit.kind for unit in units} - set(work)):
        raise ConfigError(f"sweep: found units of kind {', '.join(unknown)}, expected {', '.join(work)}")
    course = _Course(units, folder, retry_failed)
    progress(course.state, None)
    running: dict[Future[Failure | None], Unit] = {}
    lost: Counter[Unit] = Counter()
    while course.ready or running:
        while course.ready and len(running) < executor.slots:
            unit = course.next()
            running[executor.submit(perform, folder.root, unit, work[unit.kind], names)] = unit
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            unit = running.pop(future)
            error = future.exception()
            if error is not None:
                lost[unit] += 1
                if lost[unit] < executor.attempts:
                    course.give_back(unit)
                    continue
            failure = future.result() if error is None else _lost(unit, error)
            if failure is not None:
                folder.record_failure(unit, failure)
            course.finish(unit, failed=failure is not None)
            progress(course.state, unit)
    return course.state


def perform(root: Path, unit: Unit, work: Work, names: Names) -> Failure | None:
    """Compute one unit in this process, unless it is finished; why it failed, if it did."""
    folder = SweepFolder(root)
    with folder.lock(unit.name):
        if not folder.done(unit.name):
            try:
                with folder.desk(unit) as desk:
                    work(unit, [folder.result(need.name) for need in unit.needs], desk, names)
            except Exception as error:
                return failure_of(error)
        folder.forget_failure(unit.name)
        return None


def _lost(unit: Unit, error: BaseException) -> Failure:
    """The worker ended without an answer."""
    kept = failure_of(error)
    return Failure(
        f"the worker process of {unit.name} ended without a result, killed or out of memory ({kept.message})", kept.traceback
    )


class _Course:
    """Which units are finished, failed, ready to be computed."""

    def __init__(self, units: Sequence[Unit], folder: SweepFolder, retry_failed: bool) -> None:
        self._units = list(units)
        self._place = {unit: place for place, unit in enumerate(units)}
        finished = folder.names("units")
        failed = set() if retry_failed else folder.names("failures") - finished
        self._done = {unit for unit in units if unit.name in finished}
        self._failed = {unit for unit in units if unit.name in failed}
        self._users: dict[Unit, list[Unit]] = {}
        self._missing: dict[Unit, int] = {}
        self.ready: list[int] = []
        for unit in units:
            if unit in self._done or unit in self._failed:
                continue
            missing = [need for need in set(unit.needs) if need not in self._done]
            for need in missing:
                self._users.setdefault(need, []).append(unit)
            self._missing[unit] = len(missing)
            if not missing:
                heapq.heappush(self.ready, self._place[unit])

    @property
    def state(self) -> Progress:
        """How far it is."""
        return Progress(len(self._units), len(self._done), len(self._failed), len(self._waiting()))

    def next(self) -> Unit:
        """The first unit that is ready; it is taken."""
        return self._units[heapq.heappop(self.ready)]

    def give_back(self, unit: Unit) -> None:
        """A unit that was taken is ready again."""
        heapq.heappush(self.ready, self._place[unit])

    def finish(self, unit: Unit, *, failed: bool) -> None:
        """Take note of a unit's end."""
        if failed:
            self._failed.add(unit)
            return
        self._done.add(unit)
        for user in self._users.get(unit, []):
            self._missing[user] -= 1
            if self._missing[user] == 0:
                heapq.heappush(self.ready, self._place[user])

    def _waiting(self) -> set[Unit]:
        """Units that need, directly or not, one that failed."""
        found: set[Unit] = set()
        for unit in self._units:
            if unit not in self._done and unit not in self._failed and any(n in self._failed or n in found for n in unit.needs):
                found.add(unit)
        return found
