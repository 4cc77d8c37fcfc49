"""Lava in another interpreter than the caller's: how it is found, that it needs none of our code, and how it is installed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sparsespike.backends.lava import LavaBackend
from sparsespike.backends.lava.environment import (
    PYTHON_VARIABLE,
    environment_folder,
    environment_python,
    lava_python,
    lava_version,
)
from sparsespike.backends.lava.install import find_python, install_lava
from sparsespike.backends.testing import CASES, assert_equal, reference
from sparsespike.common.errors import ConfigError, MissingExtraError

LAVA = lava_python()


def script(path, command):
    """An executable that passes its arguments on."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'#!/bin/sh\n{command} "$@"\n')
    path.chmod(0o755)
    return path


def foreign_python(path):
    """An interpreter that has the packages of Lava's, but not ours: those who install it in place put it behind ``site``."""
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site_packages = subprocess.run([LAVA, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    return script(path, f'PYTHONPATH="$PYTHONPATH:{site_packages}" exec {LAVA} -S')


def test_the_worker_needs_no_package_of_ours(tmp_path):
    python = str(foreign_python(tmp_path / "python"))
    absent = subprocess.run([python, "-c", "import sparsespike.backends"], capture_output=True, text=True, cwd=tmp_path)
    assert "ModuleNotFoundError" in absent.stderr
    graph, inputs, steps = CASES["signed_memory"]()
    assert_equal(LavaBackend(python=python).run(graph, inputs, steps), reference(graph, inputs, steps))


def test_interpreter_by_environment_variable(tmp_path, monkeypatch):
    monkeypatch.delenv(PYTHON_VARIABLE, raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))  # with nothing installed
    assert LavaBackend().python == lava_python() == sys.executable
    monkeypatch.setenv(PYTHON_VARIABLE, "/nowhere/python")
    assert LavaBackend().python == "/nowhere/python"
    assert LavaBackend(python="/else/python").python == "/else/python"
    (reason,) = LavaBackend().check(CASES["tie"]().graph)
    assert "/nowhere/python does not run as a Python interpreter" in reason
    assert PYTHON_VARIABLE in reason


RUN = """
from sparsespike.backends.lava import LavaBackend
from sparsespike.backends.testing import CASES, assert_equal, reference
backend, case = LavaBackend(), CASES["tie"]()
assert_equal(backend.run(*case), reference(*case))
print(backend.python)
"""
HIDE = """
import importlib.metadata, os

def from_name(name, found=importlib.metadata.Distribution.from_name):
    if name == "lava-nc" and os.environ.get("HIDE_LAVA"):
        raise importlib.metadata.PackageNotFoundError(name)
    return found(name)

importlib.metadata.Distribution.from_name = from_name
"""


def test_installed_environment_is_found_where_this_one_has_no_lava(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(HIDE)
    environment = os.environ | {"PYTHONPATH": str(tmp_path), "HIDE_LAVA": "1", "XDG_DATA_HOME": str(tmp_path / "data")}
    environment.pop(PYTHON_VARIABLE, None)

    def run():
        return subprocess.run([sys.executable, "-c", RUN], env=environment, capture_output=True, text=True, cwd=tmp_path)

    without = run()
    assert without.returncode == 1
    assert "package 'lava-nc' is not installed" in without.stderr
    assert "sparsespike doctor --install-lava" in without.stderr
    python = script(tmp_path / "data" / "sparsespike" / "lava" / "bin" / "python", f"HIDE_LAVA= exec {LAVA}")
    found = run()
    assert (found.returncode, found.stdout) == (0, f"{python}\n"), found.stderr


def test_folder_of_the_environment(monkeypatch):
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    assert environment_folder() == Path.home() / ".local/share/sparsespike/lava"
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    assert environment_python(environment_folder()) == Path("/data/sparsespike/lava/bin/python")


def test_python_that_does_not_run_is_passed_over(tmp_path, monkeypatch):
    script(tmp_path / "bin" / "python3.10", "exit 127 #")  # as pyenv's, where another version is asked for
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "pyenv"))
    assert find_python() is None
    with pytest.raises(ConfigError, match=r"found neither a Python 3\.10 that runs nor uv"):
        install_lava(tmp_path / "lava")
    assert not (tmp_path / "lava").exists()
    works = script(tmp_path / "pyenv" / "versions" / "3.10.99" / "bin" / "python3.10", f"exec {LAVA}")
    assert find_python() == str(works)


def test_failed_installation_leaves_nothing(tmp_path, monkeypatch):
    script(
        tmp_path / "bin" / "python3.10",
        f'[ "$2" = venv ] && mkdir -p "$3/bin" && ln -s /bin/false "$3/bin/python" && exit; exec {LAVA}',
    )
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    with pytest.raises(ConfigError, match=r"lava/bin/python -m pip install .*lava-nc==0.10.0 .* ended with exit code 1"):
        install_lava(tmp_path / "lava")
    assert not (tmp_path / "lava").exists()


def test_what_is_there_already_is_left_as_it_is(tmp_path):
    python = foreign_python(tmp_path / "lava" / "bin" / "python")
    assert install_lava(tmp_path / "lava") == python
    (tmp_path / "other").mkdir()
    with pytest.raises(ConfigError, match="other/bin/python does not run as a Python interpreter"):
        install_lava(tmp_path / "other")
    assert (tmp_path / "other").exists()


@pytest.mark.full
def test_installation(tmp_path):
    """Downloads lava-nc and numba: minutes."""
    python = install_lava(tmp_path / "lava")
    assert lava_version(str(python)) == "0.10.0"
    code = "import sys; assert sys.version_info[:2] == (3, 10); import sparsespike"
    assert "ModuleNotFoundError" in subprocess.run([python, "-c", code], capture_output=True, text=True, cwd=tmp_path).stderr
    graph, inputs, steps = CASES["aec_skips"]()
    assert_equal(LavaBackend(python=str(python)).run(graph, inputs, steps), reference(graph, inputs, steps))


def test_interpreter_without_lava(tmp_path):
    (tmp_path / "bare").mkdir()
    python = script(tmp_path / "bare" / "python", f"exec {sys.executable} -S")
    with pytest.raises(MissingExtraError, match=r"package 'lava-nc' is not installed for .*bare/python"):
        lava_version(str(python))
