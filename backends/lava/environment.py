"""Which interpreter runs Lava, and what it has: Lava needs Python 3.10, the caller does not."""

from __future__ import annotations

import functools
import importlib.metadata
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from sparsespike.common.errors import ConfigError, MissingExtraError

PYTHON_VARIABLE = "SPARSESPIKE_LAVA_PYTHON"
"""Environment variable with the path of an interpreter that has lava-nc and numba."""
REQUIREMENTS = ("lava-nc==0.10.0", "numba>=0.59")
"""All that the worker's interpreter needs: it takes this package's own code from the caller."""

_PROBE = """
import importlib.metadata, json, sys
versions = [sys.version.split()[0]]
for package in ("lava-nc", "numba"):
    try:
        versions.append(importlib.metadata.version(package))
    except importlib.metadata.PackageNotFoundError:
        versions.append(None)
print(json.dumps(versions))
"""


def environment_folder() -> Path:
    """Where ``doctor --install-lava`` puts an environment with Lava."""
    data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(data) / "sparsespike" / "lava"


def environment_python(folder: Path) -> Path:
    """Interpreter of a virtual environment."""
    return folder / "bin" / "python"


def lava_python() -> str:
    """The interpreter that runs Lava unless one is given.

    The first of: the one that the environment variable ``SPARSESPIKE_LAVA_PYTHON`` names; this one, if it has lava-nc; the one
    that ``sparsespike doctor --install-lava`` made; this one.
    """
    named = os.environ.get(PYTHON_VARIABLE)
    if named:
        return named
    try:
        importlib.metadata.version("lava-nc")
    except importlib.metadata.PackageNotFoundError:
        installed = environment_python(environment_folder())
        if installed.exists():
            return str(installed)
    return sys.executable


@functools.lru_cache
def lava_version(python: str) -> str:
    """Version of lava-nc that an interpreter would import.

    Raises
    ------
    ConfigError
        If ``python`` is not a Python interpreter.
    MissingExtraError
        If it has no lava-nc, or no numba.
    """
    try:
        probe = subprocess.run([python, "-c", _PROBE], capture_output=True, check=True, cwd=tempfile.gettempdir(), timeout=60)
        version, lava, numba = json.loads(probe.stdout)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        raise ConfigError(
            f"backend 'lava': {python} does not run as a Python interpreter ({error}); give one that has lava-nc: "
            f"LavaBackend(python=path), or the environment variable {PYTHON_VARIABLE}"
        ) from error
    for package, found in (("lava-nc", lava), ("numba", numba)):
        if found is None:
            raise MissingExtraError(
                f"package {package!r} is not installed for {python} (Python {version}); the backend 'lava' needs it, on Python "
                "3.10 alone: 'sparsespike doctor --install-lava' makes an environment for it, or on Python 3.10: pip install "
                f"'sparsespike[lava]', or give an interpreter that has it: LavaBackend(python=path) or {PYTHON_VARIABLE}"
            )
    return str(lava)
