"""Which Lava the worker's interpreter has."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
import tempfile

from sparsespike.common.errors import ConfigError, MissingExtraError

_PROBE = """
import importlib.metadata, json, sys
versions = [sys.version.split()[0]]
for package in ("lava-nc", "sparsespike"):
    try:
        versions.append(importlib.metadata.version(package))
    except importlib.metadata.PackageNotFoundError:
        versions.append(None)
print(json.dumps(versions))
"""


@functools.lru_cache
def lava_version(python: str) -> str:
    """Version of lava-nc that an interpreter would import.

    Raises
    ------
    ConfigError
        If ``python`` is not a Python interpreter.
    MissingExtraError
        If it has no lava-nc, or no sparsespike.
    """
    try:
        probe = subprocess.run([python, "-c", _PROBE], capture_output=True, check=True, cwd=tempfile.gettempdir(), timeout=60)
        version, lava, ours = json.loads(probe.stdout)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        raise ConfigError(
            f"backend 'lava': {python} does not run as a Python interpreter ({error}); "
            "give one that has lava-nc: LavaBackend(python=path)"
        ) from error
    for package, found in (("lava-nc", lava), ("sparsespike", ours)):
        if found is None:
            raise MissingExtraError(
                f"package {package!r} is not installed for {python} (Python {version}); the backend 'lava' needs it and comes "
                "with the extra 'lava', on Python 3.10 alone: pip install 'sparsespike[lava]' there"
                + (", or give an interpreter that has it: LavaBackend(python=path)" if python == sys.executable else "")
            )
    return str(lava)
