"""The folder of a sweep: one folder a finished unit, written so that a reader never meets half a result.

::

    plan.json              the units of the last run, and what its names stood for
    units/NAME/            result of a finished unit; unit.json says what it is. Equal settings give equal bytes.
    times/NAME.json        how long it took, where and when
    failures/NAME.json     message and traceback of a unit that failed
    work/NAME/             a unit that is being computed; what it left when it was killed is taken up again
    work/NAME.lock         held while it is computed

Two sweeps may work in one folder at once, from several machines too, if their file system has locks: a unit that one of them
computes is waited for by the other, and computed once.
"""

from __future__ import annotations

import fcntl
import json
import os
import platform
import shutil
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparsespike.common.errors import ConfigError, SparseSpikeError
from sparsespike.common.files import write_text
from sparsespike.sweeps.units import Unit


@dataclass(frozen=True)
class Desk:
    """Where a unit is computed.

    Attributes
    ----------
    result : Path
        Empty folder that becomes the unit's result.
    scratch : Path
        Folder that outlives a killed worker, for what can be taken up again.
    """

    result: Path
    scratch: Path


@dataclass(frozen=True)
class Failure:
    """Why a unit failed."""

    message: str
    traceback: str


class SweepFolder:
    """The files of one sweep.

    Parameters
    ----------
    root : path
        On a cluster: a folder that all machines share.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = Path(root).absolute()

    def result(self, name: str) -> Path:
        """Folder of a unit's result; it exists once the unit is finished."""
        return self.root / "units" / name

    def done(self, name: str) -> bool:
        """Whether a unit is finished."""
        return self.result(name).is_dir()

    def names(self, what: str) -> set[str]:
        """Names of all finished units (``units``) or failures (``failures``)."""
        try:
            return {entry.name.removesuffix(".json") for entry in os.scandir(self.root / what)}
        except FileNotFoundError:
            return set()

    def failure(self, name: str) -> Failure | None:
        """Why a unit failed, if it did."""
        try:
            found = json.loads((self.root / "failures" / f"{name}.json").read_text(encoding="utf-8"))
            return Failure(found["message"], found["traceback"])
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            return Failure(f"its record cannot be read ({error})", "")

    def record_failure(self, unit: Unit, failure: Failure) -> None:
        """Keep why a unit failed."""
        text = json.dumps({**unit.description(), "message": failure.message, "traceback": failure.traceback}, indent=1)
        write_text(self.root / "failures" / f"{unit.name}.json", text + "\n")

    def forget_failure(self, name: str) -> None:
        """Let a unit be tried again."""
        (self.root / "failures" / f"{name}.json").unlink(missing_ok=True)

    def seconds(self, name: str) -> float | None:
        """How long a finished unit took."""
        try:
            return float(json.loads((self.root / "times" / f"{name}.json").read_text(encoding="utf-8"))["seconds"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def save_plan(self, plan: Mapping[str, Any]) -> None:
        """Write what the sweep is."""
        write_text(self.root / "plan.json", json.dumps(plan, indent=1) + "\n")

    def load_plan(self) -> dict[str, Any] | None:
        """What the sweep is; None if there is none yet.

        Raises
        ------
        ConfigError
            If it cannot be read.
        """
        path = self.root / "plan.json"
        try:
            plan = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise ConfigError(f"sweep {path}: cannot be read ({error}); run the experiment file again") from error
        if not isinstance(plan, dict) or not {"experiment", "units", "results", "names"} <= set(plan):
            raise ConfigError(f"sweep {path}: found no plan of a sweep; run the experiment file again")
        return plan

    @contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """Hold a unit's lock, waiting for whoever has it; the system releases that of a process that is killed."""
        path = self.root / "work" / f"{name}.lock"
        path.parent.mkdir(parents=True, exist_ok=True)
        while True:
            with path.open("a") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                # The one that waited for may have removed the file: then another one has the lock's name by now.
                if _is_at(path, file.fileno()):
                    try:
                        yield
                    finally:
                        path.unlink(missing_ok=True)
                    return

    @contextmanager
    def desk(self, unit: Unit) -> Iterator[Desk]:
        """A place to compute a unit; what the body leaves in ``result`` becomes its result in one step.

        Call with the unit's lock held. If the body raises, ``scratch`` is removed too: it may be what is wrong.
        """
        work = self.root / "work" / unit.name
        desk = Desk(work / "result", work / "scratch")
        shutil.rmtree(desk.result, ignore_errors=True)
        for path in (desk.result, desk.scratch):
            path.mkdir(parents=True, exist_ok=True)
        began, clock = time.time(), time.perf_counter()
        try:
            yield desk
        except Exception:
            shutil.rmtree(work, ignore_errors=True)
            raise
        write_text(desk.result / "unit.json", json.dumps(unit.description(), indent=1) + "\n")
        spent = {"seconds": round(time.perf_counter() - clock, 3), "began": began, "host": platform.node()}
        write_text(self.root / "times" / f"{unit.name}.json", json.dumps(spent) + "\n")
        target = self.result(unit.name)
        target.parent.mkdir(parents=True, exist_ok=True)
        desk.result.rename(target)
        shutil.rmtree(work, ignore_errors=True)


def _is_at(path: Path, descriptor: int) -> bool:
    """Whether an open file is the one at ``path``."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def failure_of(error: BaseException) -> Failure:
    """What to keep of an error: its own words if it is one for people, else its kind as well."""
    message = str(error) if isinstance(error, SparseSpikeError) else f"{type(error).__name__}: {error}"
    return Failure(message, "".join(traceback.format_exception(error)))
