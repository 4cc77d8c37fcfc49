"""An environment for Lava beside the caller's own: Python 3.10 with lava-nc, whatever Python the caller runs."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from sparsespike.backends.lava.environment import REQUIREMENTS, environment_folder, environment_python, lava_version
from sparsespike.common.errors import ConfigError

_OUTPUT_TAIL = 2000


def install_lava(folder: Path | None = None) -> Path:
    """Make a virtual environment with lava-nc, which backend ``lava`` then finds by itself.

    It is made by a ``python3.10`` that runs (on the PATH, or one of pyenv's), otherwise by ``uv``, which can download one. About
    400 MB are downloaded and a few minutes taken. An environment that is already there and works is left as it is.

    Parameters
    ----------
    folder : Path or None
        Where to; by default the folder in which the backend looks.

    Returns
    -------
    Path
        The environment's interpreter.

    Raises
    ------
    ConfigError
        If there is neither a Python 3.10 nor uv, or the installation failed; nothing half made is left.
    """
    folder = folder or environment_folder()
    python = environment_python(folder)
    if folder.exists():
        lava_version(str(python))  # raises if it is not an environment with Lava
        return python
    uv = shutil.which("uv")
    base = find_python()
    if base is not None:
        commands = [[base, "-m", "venv", str(folder)], [str(python), "-m", "pip", "install", "--quiet", *REQUIREMENTS]]
    elif uv is not None:
        commands = [
            [uv, "venv", "--python", "3.10", str(folder)],
            [uv, "pip", "install", "--quiet", "--python", str(python), *REQUIREMENTS],
        ]
    else:
        raise ConfigError(
            "installing Lava: found neither a Python 3.10 that runs nor uv, expected one of them; install Python 3.10 (pyenv "
            "install 3.10, apt install python3.10-venv) or uv (https://docs.astral.sh/uv)"
        )
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        for command in commands:
            _run(command)
        lava_version(str(python))
    except BaseException as error:
        shutil.rmtree(folder, ignore_errors=True)
        if isinstance(error, OSError):
            raise ConfigError(
                f"installing Lava: cannot write to {folder} ({error.strerror or error}); free space there"
            ) from error
        raise
    return python


def find_python() -> str | None:
    """A Python 3.10 that runs and can make environments, or None."""
    for candidate in _candidates():
        code = "import sys, venv, ensurepip; sys.exit(sys.version_info[:2] != (3, 10))"
        try:
            # Run elsewhere: pyenv's shims answer by the version that the current folder asks for.
            done = subprocess.run([candidate, "-c", code], capture_output=True, timeout=60, cwd=tempfile.gettempdir())
        except (OSError, subprocess.SubprocessError):
            continue
        if done.returncode == 0:
            return candidate
    return None


def _candidates() -> Iterator[str]:
    """Paths that may be a Python 3.10."""
    for directory in os.environ.get("PATH", os.defpath).split(os.pathsep):
        path = Path(directory) / "python3.10"
        if path.is_file():
            yield str(path)
    versions = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    for path in sorted(versions.glob("3.10*/bin/python3.10")):
        yield str(path)


def _run(command: list[str]) -> None:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=tempfile.gettempdir())
    if done.returncode != 0:
        raise ConfigError(
            f"installing Lava: {' '.join(command)} ended with exit code {done.returncode}; the end of its output:\n"
            f"{done.stdout[-_OUTPUT_TAIL:].strip()}"
        )
