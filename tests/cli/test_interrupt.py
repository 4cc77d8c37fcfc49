"""Ctrl-C on the command line: nothing that was finished is lost."""

from __future__ import annotations

import csv
import signal
import subprocess
import sys
import time
from pathlib import Path

COMMAND = (sys.executable, "-m", "sparsespike.cli", "train", "--hidden", "40,30", "--sparsity", "0.8", "--epochs", "3000")
PATIENCE = 120


def epochs(folder: Path) -> int:
    """Complete epochs of a run."""
    metrics = folder / "metrics.csv"
    return len(list(csv.DictReader(metrics.read_text().splitlines()))) if metrics.exists() else 0


def test_a_training_that_is_stopped_goes_on(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    for attempt in range(2):
        done = epochs(folder)
        resume = ("--resume",) if attempt else ()
        with subprocess.Popen([*COMMAND, "--out", str(folder), *resume], stderr=subprocess.PIPE, text=True) as process:
            deadline = time.monotonic() + PATIENCE
            while epochs(folder) < done + 2 and process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.02)
            process.send_signal(signal.SIGINT)
            _, message = process.communicate(timeout=PATIENCE)
        assert process.returncode == 130, message
        assert epochs(folder) >= done + 2
        assert f"holds {epochs(folder)} complete epochs" in message
        assert "the same command with --resume" in message
        assert "Traceback" not in message
