"""The supervisor: a small process that ends a Lava run with everything it started, whatever happens to the caller.

Lava starts a dozen processes and shared-memory segments. When one of them fails it waits for ever, and when its starter is killed
they stay. So a run is a chain of three sessions::

    caller  --stdin/stdout-->  supervisor  -->  worker  -->  Lava's processes

The supervisor owns the folder of the run. One line of JSON goes each way in each stage: the supervisor says where the folder is;
the caller writes its job there and gives the order; the supervisor starts the worker, waits, ends all of it and says how it
ended; the caller reads the results and closes the pipe; the supervisor removes the folder. If the caller dies or closes the pipe
at any stage, or the supervisor gets SIGTERM, SIGINT or SIGHUP, the worker's processes are killed, its shared memory is unlinked
and the folder is removed. Neither Ctrl-C nor a signal to the caller's process group reaches this session.

Run by path, with the standard library alone, so that it starts in a few milliseconds. Linux only (/dev/shm, prctl).
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

FOLDER_PREFIX = "sparsespike-lava-"
SHARED_MEMORY = Path("/dev/shm")
_POLL_SECONDS = 0.02
_PR_SET_CHILD_SUBREAPER = 36


class Caller:
    """The process that asked for the run, at the other end of stdin and stdout."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._signalled = False
        self._closed = False
        self._buffer = b""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, frame: object) -> None:
        self._signalled = True

    def wait(self) -> None:
        """Wait a moment, or shorter if the caller does something."""
        if select.select([0], [], [], _POLL_SECONDS)[0]:
            data = os.read(0, 2**16)
            self._buffer += data
            self._closed |= not data

    @property
    def reason_to_end(self) -> str | None:
        """``"signalled"``, ``"deserted"`` (the caller died or closed the pipe), or None."""
        if self._signalled:
            return "signalled"
        # A process that the caller forked may hold the pipe open, so the parent is asked for too.
        return "deserted" if self._closed or os.getppid() != self._pid else None

    def order(self) -> Any:
        """The next line of the caller, or None if there is a reason to end."""
        while b"\n" not in self._buffer:
            if self.reason_to_end:
                return None
            self.wait()
        line, self._buffer = self._buffer.split(b"\n", 1)
        return json.loads(line)

    def wait_until_gone(self) -> None:
        """Wait until the caller has closed the pipe or died; a signal alone does not take its results away."""
        while not self._closed and os.getppid() == self._pid:
            self.wait()

    def tell(self, message: dict[str, Any]) -> None:
        """One line to the caller, if it is still there."""
        try:
            os.write(1, json.dumps(message).encode() + b"\n")
        except BrokenPipeError:
            self._closed = True


def supervise(caller: Caller, folder: Path, order: dict[str, Any]) -> dict[str, Any]:
    """Run the worker to its end, or to the first reason to end it; nothing of it is left when this returns.

    Parameters
    ----------
    caller : Caller
    folder : Path
        Current folder of the worker, and its folder for temporary files; its output goes to ``log.txt`` there.
    order : dict
        ``command``, ``environment`` (added to this process's), ``prefix`` of the names of its shared memory, ``failure`` (the
        file that the worker writes when something fails) and ``time_limit`` in seconds or None.

    Returns
    -------
    dict
        ``end``: ``exited``, ``failed``, ``timeout``, ``signalled`` or ``deserted``; ``code``: the worker's exit code.
    """
    with (folder / "log.txt").open("wb") as log:
        worker = subprocess.Popen(
            order["command"],
            cwd=folder,
            # Temporary files go to the worker's folder; as a relative path, for Lava's socket there has a limit on its length.
            env={**os.environ, "TMPDIR": os.curdir, **order["environment"]},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    deadline = float("inf") if order["time_limit"] is None else time.monotonic() + order["time_limit"]
    end = None
    while end is None:
        # WNOWAIT: until it is reaped, nobody else can get the worker's process id and with it the group that is killed below.
        if os.waitid(os.P_PID, worker.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            end = "exited"
        elif (folder / order["failure"]).exists():
            end = "failed"
        elif time.monotonic() > deadline:
            end = "timeout"
        else:
            caller.wait()
            end = caller.reason_to_end
    os.killpg(worker.pid, signal.SIGKILL)
    code = worker.wait()
    _reap()
    unlink_segments(order["prefix"])
    return {"end": end, "code": code}


def _reap() -> None:
    """Wait until the worker's orphans, which are ours since we are their subreaper, are gone."""
    try:
        while True:
            os.wait()
    except ChildProcessError:
        pass


def unlink_segments(prefix: str) -> None:
    """Unlink the shared-memory segments whose names begin with ``prefix``, which is random and was given to one worker alone."""
    for segment in SHARED_MEMORY.iterdir():
        if segment.name.startswith(prefix):
            segment.unlink(missing_ok=True)


def main() -> None:
    """``supervisor.py PID``, where PID is the caller's process id."""
    caller = Caller(int(sys.argv[1]))
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)
    folder = Path(tempfile.mkdtemp(prefix=FOLDER_PREFIX))
    try:
        caller.tell({"folder": str(folder)})
        order = caller.order()
        if order is not None:
            caller.tell(supervise(caller, folder, order))
            caller.wait_until_gone()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
