"""The worker: the only process of ours that imports Lava. Started by the supervisor in a folder with one job or more."""

from __future__ import annotations

import ctypes
import multiprocessing.shared_memory as shared_memory
import os
import secrets
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsespike.backends.lava.failure import report_exception
from sparsespike.backends.lava.job import Job

PREFIX_VARIABLE = "SPARSESPIKE_LAVA_PREFIX"
RESULT_FILE = "result.npz"
_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Run the jobs in the folders 0, 1, 2 ... of the current folder, one after the other, and write a result into each."""
    _die_with_parent()
    os.register_at_fork(after_in_child=_die_with_parent)
    _name_segments(os.environ[PREFIX_VARIABLE])
    try:
        from sparsespike.backends.lava.network import run_job

        for folder in sorted(
            (path for path in Path().iterdir() if path.is_dir() and path.name.isdigit()), key=lambda p: int(p.name)
        ):
            results = run_job(Job.read(folder))
            _save(folder / RESULT_FILE, results)
    except Exception as error:
        report_exception("the worker", error)
        raise
    sys.stdout.flush()
    os._exit(0)  # Lava's objects try to stop what has stopped when the interpreter takes them down


def _save(path: Path, results: Mapping[str, NDArray[Any]]) -> None:
    """Write results, or leave an empty file: on a full disk, room for the report of the failure."""
    try:
        np.savez(path, **results)
    except OSError:
        with suppress(FileNotFoundError):
            os.truncate(path, 0)  # not removed: it is still open
        raise


def _die_with_parent() -> None:
    """Ask the kernel to kill this process when its parent ends: should the supervisor itself be killed, the rest follows."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _name_segments(prefix: str) -> None:
    """Give all shared memory that is created from now on a name with ``prefix``, so that its owner is plain from its name."""

    class SharedMemory(shared_memory.SharedMemory):
        def __init__(self, name: str | None = None, create: bool = False, size: int = 0) -> None:
            super().__init__(prefix + secrets.token_hex(4) if create and name is None else name, create, size)

    shared_memory.SharedMemory = SharedMemory  # type: ignore[misc]  # replaced for Lava, which looks it up here
