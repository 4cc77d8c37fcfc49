"""How a file was made, kept in it or beside it, so that it can be made again: the command line and the versions."""

from __future__ import annotations

import json
import platform
import shlex
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from sparsespike.common.files import write_text

FILE = "made_by.json"
PACKAGES = ("sparsespike", "numpy", "torch", "brian2", "lava-nc")


def made_by() -> dict[str, Any]:
    """The command line of this process (without ``--resume``, which a run from the start does not need) and versions."""
    versions = {"python": platform.python_version(), "platform": platform.platform()}
    installed = {package: _version(package) for package in PACKAGES}
    return {"command": command_line(), "versions": versions | {name: found for name, found in installed.items() if found}}


def command_line() -> str:
    """The command as it can be typed again."""
    return shlex.join(["sparsespike", *(argument for argument in sys.argv[1:] if argument != "--resume")])


def write_made_by(folder: Path) -> None:
    """Write ``made_by.json`` into a run's folder."""
    write_text(folder / FILE, json.dumps(made_by(), indent=2) + "\n")


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
