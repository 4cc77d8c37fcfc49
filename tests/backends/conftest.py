"""A folder that cannot be written to, for root too."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

CAPABILITIES_VERSION_3 = 0x20080522
IGNORES_PERMISSIONS = 0b110
"""CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH, by which permissions do not hold for root."""


@pytest.fixture
def read_only() -> Iterator[Callable[[Path], None]]:
    """``read_only(folder)``: this thread and those it starts can make or remove nothing in the folder until the test ends."""
    header = (ctypes.c_uint32 * 2)(CAPABILITIES_VERSION_3, 0)
    before = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable; then the same of capabilities from 32
    system = ctypes.CDLL(None, use_errno=True)
    folders = []

    def make(folder: Path) -> None:
        folder.chmod(0o555)
        folders.append(folder)
        if os.geteuid() == 0:
            assert system.capget(header, before) == 0
            assert system.capset(header, (ctypes.c_uint32 * 6)(before[0] & ~IGNORES_PERMISSIONS, *before[1:])) == 0
        with pytest.raises(PermissionError):
            (folder / "file").touch()

    yield make
    if os.geteuid() == 0 and folders:
        assert system.capset(header, before) == 0
    for folder in folders:
        folder.chmod(0o755)
