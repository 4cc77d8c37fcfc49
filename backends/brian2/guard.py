"""Runs a command and gives its exit code; ends it when standard input ends, that is, when its starter is gone or wants it to.

``python -I -S guard.py FOLDER COMMAND...``. When the command is ended before its time, FOLDER is removed. Only the standard
library, so that it starts within milliseconds.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

PATIENCE = 500
"""Times, a hundredth of a second apart, that a folder is removed which dying processes still write to."""


def main(folder: str, command: list[str]) -> int:
    """The exit code of the command, or 128 + the signal that ended it."""
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True) as process:
        ended = threading.Event()
        watch = threading.Thread(target=end_with_input, args=(process, folder, ended), daemon=True)
        watch.start()
        code = process.wait()
        if ended.is_set():
            watch.join()
        return code if code >= 0 else 128 - code


def end_with_input(process: subprocess.Popen[bytes], folder: str, ended: threading.Event) -> None:
    """Wait for the end of standard input; then leave no process and no file behind."""
    os.read(0, 1)
    ended.set()
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for _ in range(PATIENCE):
        shutil.rmtree(folder, ignore_errors=True)
        if not Path(folder).exists():
            return
        time.sleep(0.01)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
