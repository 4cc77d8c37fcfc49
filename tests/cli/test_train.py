"""What ``sparsespike train`` shows while it works, and the command it names at the end."""

from __future__ import annotations

import io
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from sparsespike.ann.config import TrainConfig
from sparsespike.ann.data import load
from sparsespike.ann.train import TrainResult, train
from sparsespike.cli.train import TrainingBars

SMALL = TrainConfig(hidden=(32,), sparsity=0.9, epochs=3)
OPTIONS = ("--hidden", 32, "--sparsity", 0.9, "--epochs", 3)


def shown(folder: Path, *, terminal: bool) -> tuple[TrainResult, str]:
    """What a small run shows."""
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=terminal, force_interactive=terminal, width=150, color_system=None)
    with TrainingBars("digits", console) as bars:
        result = train(SMALL, folder, progress=bars)
    return result, screen.getvalue()


def test_bars_show_accuracy_sparsity_and_loss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    result, screen = shown(tmp_path / "run", terminal=True)
    last = result.history[-1]
    bar = f"digits: accuracy {last.validation_accuracy:.2%}, sparsity 90.0%, active neurons {last.anp:.0%}"
    assert re.search(re.escape(bar) + r" \S+ 3/3 ", screen)
    steps = -(-len(load("digits", validation=SMALL.validation).train) // SMALL.batch)
    assert re.search(rf"  loss \d+\.\d{{3}} +\S+ {steps}/{steps} ", screen)
    assert "epoch 3 of 3" not in screen


def test_without_a_terminal_every_epoch_is_a_line(tmp_path: Path) -> None:
    result, text = shown(tmp_path / "run", terminal=False)
    assert text.splitlines() == [
        f"digits: epoch {record.epoch} of 3: accuracy {record.validation_accuracy:.2%}, sparsity 90.0%, "
        f"active neurons {record.anp:.0%}"
        for record in result.history
    ]


@pytest.mark.parametrize(("activation", "hint"), [("qcfs", ""), ("relu", " --method snm")])
def test_the_command_named_at_the_end_works(sparsespike: Callable[..., Any], tmp_path: Path, activation: str, hint: str) -> None:
    ended = sparsespike("train", "--out", tmp_path / "run", *OPTIONS, "--activation", activation)
    assert ended.code == 0, ended.err
    assert [line.split(": accuracy")[0] for line in ended.err.splitlines()] == [f"training: epoch {n} of 3" for n in (1, 2, 3)]
    command = ended.out.splitlines()[-1].removeprefix("Next: sparsespike ")
    assert command == f"convert {tmp_path / 'run'}{hint}"
    converted = sparsespike(*shlex.split(command))
    assert converted.code == 0, converted.err
    assert (tmp_path / "run/graph.safetensors").exists()
