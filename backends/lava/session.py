"""The caller's end of a supervised run."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Any

import sparsespike.backends
import sparsespike.common
import sparsespike.export
from sparsespike.backends.lava import supervisor
from sparsespike.backends.lava.failure import FAILURE_FILE, FEWER_IMAGES
from sparsespike.backends.lava.worker import PREFIX_VARIABLE
from sparsespike.common.errors import BackendError, BackendTimeoutError, MembraneOverflowError

_LOG_TAIL = 4000
# One thread each: Lava's processes are the parallelism. Warnings of Lava's own code are not the caller's, who may have made
# warnings errors.
_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}


class Session:
    """A supervisor and its folder, which are gone when the context is left, however it is left.

    Parameters
    ----------
    name : str
        Name of the backend, for messages.
    python : str
        Interpreter for supervisor and worker.
    """

    def __init__(self, name: str, python: str) -> None:
        self._name = name
        self._python = python
        self._prefix = f"psm_{secrets.token_hex(8)}_"
        command = [python, "-I", "-S", supervisor.__file__, str(os.getpid())]
        # A session of its own: neither Ctrl-C nor a signal to this process's group must reach the supervisor.
        self._process = subprocess.Popen(
            command, bufsize=0, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
        )
        self._folder: Path | None = None
        try:
            self._folder = Path(self._receive()["folder"])
        except BaseException:
            self._close()
            raise

    def __enter__(self) -> Session:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._close()

    @property
    def folder(self) -> Path:
        """Where jobs are written to and results are found."""
        assert self._folder is not None
        return self._folder

    def _close(self) -> None:
        """Close the pipe, upon which the supervisor ends and removes whatever is left, and wait for it."""
        with self._process:  # closes both ends and waits
            pass
        if self._process.returncode != 0:
            # It was killed itself. The kernel has killed the worker's processes with it; what they leave is removed here.
            supervisor.unlink_segments(self._prefix)
            if self._folder is not None:
                shutil.rmtree(self._folder, ignore_errors=True)

    def run(self, time_limit: float | None) -> None:
        """Run the worker on the jobs in the folder; returns when it has done them all and no process of it is left.

        Raises
        ------
        BackendError
            If something failed in the worker, or it was ended.
        MembraneOverflowError
            If a fixed-point word left its range.
        BackendTimeoutError
            If it was ended for taking longer than ``time_limit`` seconds.
        """
        order = {
            "command": [self._python, "-c", "from sparsespike.backends.lava.worker import main; main()"],
            "environment": {**_ENVIRONMENT, PREFIX_VARIABLE: self._prefix, "PYTHONPATH": self._packages()},
            "prefix": self._prefix,
            "failure": FAILURE_FILE,
            "time_limit": time_limit,
        }
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # then the answer says what happened
            self._process.stdin.write(json.dumps(order).encode() + b"\n")
        outcome = self._receive()
        if outcome["end"] == "timeout":
            raise BackendTimeoutError(
                f"backend {self._name!r}: the run took longer than its time limit of {time_limit:g} s and was ended, with all "
                "its processes; run fewer images or steps at once, or allow more: --time-limit SECONDS, or "
                "LavaBackend(time_limit=seconds)"
            )
        if outcome["end"] == "signalled":
            raise BackendError(
                f"backend {self._name!r}: the run's supervisor was told to end (SIGTERM, SIGINT or SIGHUP) and ended the run"
            )
        failure = self.folder / FAILURE_FILE
        if failure.exists():
            report = json.loads(failure.read_text(encoding="utf-8"))
            if report["overflow"]:
                raise MembraneOverflowError(f"backend {self._name!r}: {report['what']}")
            raise BackendError(
                f"backend {self._name!r}: {report['where']} failed: {report['what']}\n{report['details']}".rstrip()
            )
        if outcome["code"] != 0:
            raise BackendError(
                f"backend {self._name!r}: the worker ended with exit code {outcome['code']} (-9 is often: out of memory; then "
                f"{FEWER_IMAGES}); the end of its output:\n{self._log_tail()}"
            )

    def _packages(self) -> str:
        """A path on which the worker finds this very code, wherever it is installed, and nothing else of the caller's."""
        path = self.folder / "packages"
        (path / "sparsespike").mkdir(parents=True)
        for package in (sparsespike.backends, sparsespike.common, sparsespike.export):
            (path / package.__name__.replace(".", "/")).symlink_to(Path(package.__path__[0]).resolve())
        return os.pathsep.join(filter(None, (str(path), os.environ.get("PYTHONPATH"))))

    def _log_tail(self) -> str:
        log = (self.folder / "log.txt").read_text(encoding="utf-8", errors="replace")
        return log[-_LOG_TAIL:].strip() or "(nothing)"

    def _receive(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise BackendError(
                f"backend {self._name!r}: the run's supervisor ended with exit code {self._process.wait()}; the run was lost "
                "with it"
            )
        message: dict[str, Any] = json.loads(line)
        return message
