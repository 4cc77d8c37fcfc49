"""How anything that goes wrong in the worker reaches the caller: one file in the worker's folder.

Lava itself would swallow an exception in a process model, or wait for ever. So the first failure is written to a file beside the
job, which is the current folder of the worker and of every process it starts; the supervisor sees it and ends them all.
"""

from __future__ import annotations

import errno
import functools
import json
import os
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sparsespike.common.errors import MembraneOverflowError

FAILURE_FILE = "failure.json"
FEWER_IMAGES = "run fewer images at once (simulate --block, run_blocks(block=...)), or fewer steps"
"""What to do when memory runs out."""
MORE_ROOM = "free space on the disk, or name a folder with room in TMPDIR"
"""What to do when the disk is full."""


def report(where: str, what: str, details: str, *, overflow: bool = False) -> None:
    """Write the failure file, whole or not at all; a later failure follows from the first and is dropped.

    Parameters
    ----------
    where : str
        The object that failed, for example ``"population 'hidden'"``.
    what : str
        One line.
    details : str
        The traceback, or nothing.
    overflow : bool
        Whether a number left its range: then ``what`` says it all.
    """
    handle, name = tempfile.mkstemp(dir=".")
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        json.dump({"where": where, "what": what, "details": details, "overflow": overflow}, file)
    try:
        os.link(name, FAILURE_FILE)
    except FileExistsError:
        pass
    finally:
        Path(name).unlink()


def report_exception(where: str, error: BaseException) -> None:
    """Write the failure file for an exception that was just caught."""
    if isinstance(error, MembraneOverflowError):
        report(where, str(error), "", overflow=True)
        return
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        details = f" ({error})" if str(error) else ""
        report(where, f"out of memory{details}; {FEWER_IMAGES}", "")
        return
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        report(where, f"no room for its files ({error}); {MORE_ROOM}", "")
        return
    # Lava hands on an exception from the building of a process model without its traceback, which it puts into `trace`.
    report(where, f"{type(error).__name__}: {error}", getattr(error, "trace", traceback.format_exc()))


def guarded(method: Callable[..., None]) -> Callable[..., None]:
    """Decorate what a process model does in a step, so that its exceptions are reported; its object has a ``label``."""

    @functools.wraps(method)
    def guard(self: Any, *arguments: Any) -> None:
        try:
            method(self, *arguments)
        except Exception as error:
            report_exception(f"{self.label}, Lava time step {self.time_step}", error)
            raise

    return guard
