"""Other programs, supervised: none of them outlives this process, an interruption, or its time limit."""

from __future__ import annotations

import errno
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from sparsespike.backends.brian2 import guard
from sparsespike.common.errors import BackendError, BackendTimeoutError

LAST_LINES = 15
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What the system says when a disk is full, or this user's share of it, or a file longer than this process may write."""
KILLED = 128 + signal.SIGKILL
NO_MEMORY = ("std::bad_alloc", "MemoryError", "virtual memory exhausted", "out of memory", "Cannot allocate memory")
"""What C++, Python, the compiler and the system say when there is no memory left."""


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

    def run(self, what: str, command: Sequence[str], *, cwd: Path, temporary: Path, env: Mapping[str, str]) -> str:
        """Run a command to its end, and give the last lines of its output.

        The output is never on a disk: it is needed most when that is full.

        Parameters
        ----------
        what : str
            For the message of an error.
        command : sequence of str
        cwd, temporary : Path
            Working folder, and the folder for temporary files.
        env : mapping of str to str
            Variables beside those of this process.

        Raises
        ------
        BackendError
            If it failed; the message ends with the last lines of its output.
        BackendTimeoutError
            If the time is up.
        """
        start = [sys.executable, "-I", "-S", guard.__file__, str(self._folder), *command]
        with self._lock:
            if self._ended:
                raise BackendError(f"backend 'brian2-cpp': {what} was not started: another part of the run has failed")
            # Nothing is ever written to the guard's input: its end is what the guard waits for.
            process = subprocess.Popen(
                start,
                cwd=cwd,
                env={**os.environ, "TMPDIR": str(temporary), **env},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            self._running.add(process)
        output = _Output(process)
        try:
            process.wait(self._time_limit.left)
        except subprocess.TimeoutExpired:
            raise BackendTimeoutError(
                f"backend 'brian2-cpp': {what} was ended when the time limit of {self._time_limit.seconds:g} s was over; "
                "run fewer images or steps, or allow more: --time-limit SECONDS, or Brian2Backend(time_limit=seconds)"
            ) from None
        finally:
            _end(process)
            with self._lock:
                self._running.discard(process)
            text = output.text()
        if process.returncode:
            if _lacks_room(text):
                raise no_room(what)
            if process.returncode == KILLED or any(words in text for words in NO_MEMORY):
                raise BackendError(
                    f"backend 'brian2-cpp': {what} failed: not enough memory, or the system ended it for that; run fewer images "
                    "at a time (--block), or in fewer programs: Brian2Backend(batch=..., processes=1)"
                )
            raise BackendError(f"backend 'brian2-cpp': {what} failed; its output ends with:\n{last_lines(text)}")
        return last_lines(text)

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


class _Output:
    """What a process writes, read as it comes: a pipe that nobody reads would stop it."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        self._pipe = process.stdout
        self._bytes = b""
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        with self._pipe:
            self._bytes = self._pipe.read()

    def text(self) -> str:
        """All of it, once no process is left that could write more."""
        self._thread.join()
        return self._bytes.decode(errors="replace")


def last_lines(text: str) -> str:
    """The end of an output."""
    return "\n".join(text.strip().splitlines()[-LAST_LINES:])


def _lacks_room(text: str) -> bool:
    """Whether an output says so: in the system's words, the compiler's for a process that a limit ended, or NumPy's."""
    said = [*map(os.strerror, NO_ROOM), str(signal.strsignal(signal.SIGXFSZ))]
    return any(words in text for words in said) or re.search(r"\d+ requested and \d+ written", text) is not None


def no_room(what: str) -> BackendError:
    """The error for a disk that is full."""
    return BackendError(
        f"backend 'brian2-cpp': {what} failed: the disk is full, or a file too large; free space, or name folders with room: "
        "SPARSESPIKE_CACHE for programs, TMPDIR for what a run writes"
    )
