"""Other programs, supervised: none of them outlives this process, an interruption, or its time limit."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from sparsespike.backends.brian2 import guard
from sparsespike.common.errors import BackendError, BackendTimeoutError

LAST_LINES = 15


class TimeLimit:
    """Seconds from now; None means that there is no limit."""

    def __init__(self, seconds: float | None) -> None:
        self.seconds = seconds
        self._end = None if seconds is None else time.monotonic() + seconds

    @property
    def left(self) -> float | None:
        """Seconds from now to the limit, at least zero."""
        return None if self._end is None else max(self._end - time.monotonic(), 0.0)


class Processes:
    """Commands that run until they end, or until ``end``; several threads may run some at once.

    Parameters
    ----------
    folder : Path
        Is removed when a command is ended before its time, and by whoever made it.
    time_limit : TimeLimit
        For all of them.
    """

    def __init__(self, folder: Path, time_limit: TimeLimit) -> None:
        self._folder = folder
        self._time_limit = time_limit
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[bytes]] = set()
        self._ended = False

    def run(self, what: str, command: Sequence[str], *, cwd: Path, log: Path, env: Mapping[str, str]) -> None:
        """Run a command to its end.

        Parameters
        ----------
        what : str
            For the message of an error.
        command : sequence of str
        cwd, log : Path
            Working folder, and the file that takes its output.
        env : mapping of str to str
            Variables beside those of this process. Its temporary files go to the log's folder.

        Raises
        ------
        BackendError
            If it failed; the message ends with the last lines of its output.
        BackendTimeoutError
            If the time is up.
        """
        start = [sys.executable, "-I", "-S", guard.__file__, str(self._folder), *command]
        with log.open("wb") as output:
            with self._lock:
                if self._ended:
                    raise BackendError(f"backend 'brian2-cpp': {what} was not started: another part of the run has failed")
                # Nothing is ever written to the guard's input: its end is what the guard waits for.
                process = subprocess.Popen(
                    start,
                    cwd=cwd,
                    env={**os.environ, "TMPDIR": str(log.parent), **env},
                    stdin=subprocess.PIPE,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
                self._running.add(process)
            try:
                process.wait(self._time_limit.left)
            except subprocess.TimeoutExpired:
                raise BackendTimeoutError(
                    f"backend 'brian2-cpp': {what} was ended when the time limit of {self._time_limit.seconds:g} s was over; "
                    "run fewer images or steps, or allow more: Brian2Backend(time_limit=seconds)"
                ) from None
            finally:
                _end(process)
                with self._lock:
                    self._running.discard(process)
        if process.returncode:
            raise BackendError(f"backend 'brian2-cpp': {what} failed; its output ends with:\n{last_lines(log)}")

    def end(self) -> None:
        """End what runs, and start nothing any more."""
        with self._lock:
            self._ended = True
            running = list(self._running)
        for process in running:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Make the guard end its command, if that has not ended by itself."""
    if process.stdin is not None:
        process.stdin.close()
    process.wait()


def last_lines(log: Path) -> str:
    """The end of a file of text, if it is still there."""
    try:
        lines = log.read_text(errors="replace").strip().splitlines()
    except FileNotFoundError:
        return "(it was ended)"
    return "\n".join(lines[-LAST_LINES:])
