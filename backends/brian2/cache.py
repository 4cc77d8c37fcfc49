"""Built programs, kept between runs: a folder each, under the user's cache folder.

A program appears there whole or not at all (it is built beside its place and renamed), is never changed, and is not removed
while anybody runs it (a shared lock on its folder); of two processes that build the same one at once, one's is kept. When all
of them take too much room, those not used for longest are removed.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

BYTES = 2**31
"""Room for all programs."""
BUILDING = ".building-"
DAY = 24 * 3600
"""Seconds after which what is being built was left behind by a process that was killed."""


def default_folder() -> Path:
    """``$SPARSESPIKE_CACHE/brian2``, else ``~/.cache/sparsespike/brian2``."""
    return Path(os.environ.get("SPARSESPIKE_CACHE") or Path.home() / ".cache" / "sparsespike") / "brian2"


@contextmanager
def program(folder: Path, name: str, build: Callable[[Path], Path]) -> Iterator[Path]:
    """The folder of the program called ``name``, from the cache or built now; it stays as long as the block.

    Where the cache cannot be written to, a warning says so and the program is built in a temporary folder.

    Parameters
    ----------
    folder : Path
        The cache.
    name : str
        Says everything that the program depends on.
    build : function
        Takes an empty folder, makes the program in a folder inside, and gives that.
    """
    entry = folder / name
    while (descriptor := _hold(entry)) is None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            building = tempfile.mkdtemp(dir=folder, prefix=BUILDING)
        except OSError as error:
            warnings.warn(
                f"Brian2: the compiled program cannot be kept in {folder} ({error.strerror}), so every run builds it anew; "
                "set SPARSESPIKE_CACHE to a folder that can be written to",
                stacklevel=2,
            )
            with tempfile.TemporaryDirectory(prefix="sparsespike-brian2-") as temporary:
                yield build(Path(temporary))
            return
        try:
            _publish(build(Path(building)), entry)
            _make_room(folder, keep=name)
        finally:
            shutil.rmtree(building, ignore_errors=True)
    try:
        yield entry
    finally:
        os.close(descriptor)


def _hold(entry: Path) -> int | None:
    """A descriptor that keeps a program from being removed until it is closed; None if there is none."""
    try:
        descriptor = os.open(entry, os.O_RDONLY)
    except OSError:
        return None
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    if not entry.exists():  # removed before it was locked
        os.close(descriptor)
        return None
    with suppress(OSError):  # in a cache that can only be read nothing is removed
        os.utime(entry)
    return descriptor


def _publish(made: Path, entry: Path) -> None:
    try:
        made.rename(entry)
    except OSError:
        if not entry.is_dir():  # then it is not that another process was first
            raise


def _make_room(folder: Path, keep: str) -> None:
    """Remove the programs not used for longest until all take at most BYTES; those in use stay."""
    used, sizes = {}, {}
    for path in folder.iterdir():
        with suppress(OSError):  # another process is at it, too
            used[path] = path.stat().st_mtime
            sizes[path] = sum(file.stat().st_size for file in path.rglob("*"))
    for path in sorted(sizes, key=used.__getitem__):
        if sum(sizes.values()) <= BYTES:
            return
        being_built = path.name.startswith(BUILDING) and time.time() - used[path] < DAY
        if path.name != keep and not being_built and _remove(path):
            del sizes[path]


def _remove(entry: Path) -> bool:
    """Remove a program unless somebody runs it; it is renamed first, so that nobody finds a part of it."""
    try:
        descriptor = os.open(entry, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        condemned = Path(tempfile.mkdtemp(dir=entry.parent, prefix=BUILDING))
        entry.rename(condemned / entry.name)
        shutil.rmtree(condemned)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True
