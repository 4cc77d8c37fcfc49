"""The cache of built programs: whole or absent, never removed under a user, bounded."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from sparsespike.backends.brian2 import cache

SIZE = 1000


def build(folder: Path) -> Path:
    made = folder / "made"
    (made / "deep").mkdir(parents=True)
    (made / "deep" / "data").write_bytes(bytes(SIZE))
    return made


def no_build(folder: Path) -> Path:
    raise AssertionError("it is in the cache")


def use(folder: Path, name: str, age: float = 0) -> Path:
    """Get a program, and pretend that this was ``age`` seconds ago."""
    with cache.program(folder, name, build) as entry:
        assert (entry / "deep" / "data").stat().st_size == SIZE
    os.utime(entry, (time.time() - age,) * 2)
    return entry


def test_a_program_is_built_once(tmp_path: Path) -> None:
    entry = use(tmp_path / "new" / "folder", "one")
    with cache.program(tmp_path / "new" / "folder", "one", no_build) as again:
        assert again == entry
    assert list(entry.parent.iterdir()) == [entry]


def test_a_failed_build_leaves_nothing(tmp_path: Path) -> None:
    def fails(folder: Path) -> Path:
        build(folder)
        raise ValueError("no compiler")

    with pytest.raises(ValueError, match="no compiler"), cache.program(tmp_path, "one", fails):
        pass
    assert list(tmp_path.iterdir()) == []


def test_of_two_that_build_at_once_both_get_the_one_program(tmp_path: Path) -> None:
    both = threading.Barrier(2, timeout=30)
    got: list[Path] = []

    def builds(folder: Path) -> Path:
        both.wait()
        return build(folder)

    def work() -> None:
        with cache.program(tmp_path, "one", builds) as entry:
            both.wait()
            got.append(entry)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == [tmp_path / "one"] * 2
    assert list(tmp_path.iterdir()) == [tmp_path / "one"]


def test_programs_not_used_for_longest_give_way_but_not_those_in_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(tmp_path, "oldest", age=400)
    use(tmp_path, "older", age=300)
    use(tmp_path, "old", age=200)
    # An entry counts with its folder inside; room for three of them.
    whole = sum(path.stat().st_size for path in (tmp_path / "old").rglob("*"))
    monkeypatch.setattr(cache, "BYTES", 3 * whole)
    hold = (
        "import pathlib, sys; from sparsespike.backends.brian2 import cache\n"
        "with cache.program(pathlib.Path(sys.argv[1]), 'oldest', None):\n"
        "    print('held', flush=True); sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", hold, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        os.utime(tmp_path / "oldest", (0, 0))
        use(tmp_path, "new")
        process.communicate()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "old", "oldest"]


def test_what_a_killed_build_left_is_removed_after_a_day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, age in (("left", cache.DAY + 60), ("going-on", 60)):
        build(tmp_path / f"{cache.BUILDING}{name}")
        os.utime(tmp_path / f"{cache.BUILDING}{name}", (time.time() - age,) * 2)
    monkeypatch.setattr(cache, "BYTES", 1)
    use(tmp_path, "new")
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{cache.BUILDING}going-on", "new"]


def test_where_nothing_can_be_kept_a_warning_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.warns(UserWarning, match=r"cannot be kept in .*file \(File exists\), so every run builds it anew; set"),
        cache.program(tmp_path / "file", "one", build) as entry,
    ):
        assert (entry / "deep" / "data").exists()
    assert not entry.exists()
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


def test_in_a_cache_that_can_only_be_read_what_is_there_is_used(tmp_path: Path, read_only: Callable[[Path], None]) -> None:
    entry = use(tmp_path, "one")
    read_only(entry)
    read_only(tmp_path)
    with cache.program(tmp_path, "one", no_build) as again:
        assert again == entry
    with (
        pytest.warns(UserWarning, match=rf"cannot be kept in {tmp_path} \(Permission denied\), so every run builds it anew; set"),
        cache.program(tmp_path, "two", build) as other,
    ):
        assert (other / "deep" / "data").stat().st_size == SIZE
    assert not other.exists()
    assert list(tmp_path.iterdir()) == [entry]
