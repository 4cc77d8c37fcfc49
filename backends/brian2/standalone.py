"""Brian2 as a C++ program: compiled once a job, run once a batch.

Brian2 has one device a process and keeps global state about it, so the work is done in a fresh interpreter, which gets a job
and gives an outcome through a temporary folder.
"""

from __future__ import annotations

import os
import pickle
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from sparsespike.backends.brian2.job import Job, Outcome
from sparsespike.common.errors import BackendError, SparseSpikeError

JOB, OUTCOME, LOG = "job.pickle", "outcome.pickle", "log.txt"
"""Files in the folder that both processes share."""


def compiler() -> str:
    """The command that compiles C++: ``$CXX``, or g++ if that is not set."""
    return os.environ.get("CXX") or "g++"


def missing_tools() -> list[str]:
    """What a build needs and this machine lacks, of ``make`` and the C++ compiler."""
    return [tool for tool in ("make", shlex.split(compiler())[0]) if shutil.which(tool) is None]


def run_standalone(job: Job) -> Outcome:
    """Simulate a job in a worker process; the build's folder and everything that was started are gone afterwards.

    Raises
    ------
    BackendError
        If the build or the run failed; the message ends with the last lines of its output.
    MembraneOverflowError
        If a membrane left the range in which float64 is exact.
    """
    with tempfile.TemporaryDirectory(prefix="sparsespike-brian2-") as name:
        folder = Path(name)
        (folder / JOB).write_bytes(pickle.dumps(job))
        _supervise([sys.executable, "-m", "sparsespike.backends.brian2.worker", name], folder)
        if not (folder / OUTCOME).exists():
            tail = (folder / LOG).read_text(errors="replace").strip().splitlines()[-15:]
            raise BackendError(
                "backend 'brian2-cpp': the build or run of the C++ program failed; its output ends with:\n" + "\n".join(tail)
            )
        result: Outcome | SparseSpikeError = pickle.loads((folder / OUTCOME).read_bytes())
    if isinstance(result, SparseSpikeError):
        raise result
    return result


def _supervise(command: list[str], folder: Path) -> None:
    """Run a command to its end; if this is interrupted, end it with all that it started (make, compilers, the simulation).

    Nothing is ever written to the command's standard input: its end tells the command that this process is gone. Temporary
    files, of Brian2 and of compilers, go to the folder.
    """
    with (
        (folder / LOG).open("wb") as log,
        subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, "TMPDIR": str(folder)},
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        ) as process,
    ):
        try:
            process.wait()
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
