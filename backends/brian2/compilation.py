"""From the C++ sources that Brian2 writes to a program.

Brian2 writes a source of its own for every piece of code of every object, seventy for five populations, each with the same
headers and the same helper functions. Compiled together they take a third of the time.
"""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from sparsespike.backends.brian2.program import BINARY
from sparsespike.common.processors import available_processors

FLAGS = (
    "-w",
    "-O3",
    *(("-march=native",) if platform.machine() == "x86_64" else ()),
    "-ffp-contract=off",
    "-fwrapv",
    "-std=c++11",
)
"""Compiler flags: Brian2's own without -ffast-math, and with counters that begin again at 2^32. A program is for the processor
that it is compiled on."""
ONCE = ("main.cpp", "objects.cpp", "run.cpp")
"""Sources that run before and after the simulation: not worth the optimiser's time."""
HELPERS, USE = "\nnamespace {", "using namespace brian;"
SOURCES_A_UNIT = 24


def compiler() -> str:
    """The command that compiles C++: ``$CXX``, or g++ if that is not set."""
    return os.environ.get("CXX") or "g++"


def processor() -> str:
    """What tells processors apart that run different programs: the first one's features, where the system lists them."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith(("flags", "Features"))), platform.processor())


def missing_compiler() -> str | None:
    """The compiler's command, if it cannot be found."""
    command: str = shlex.split(compiler())[0]
    return command if shutil.which(command) is None else None


def compile_program(project: Path) -> None:
    """Compile and link all sources in the folder of a project.

    Raises
    ------
    subprocess.CalledProcessError
        If the compiler fails; it has written why on this process's standard error.
    """
    frame = [*sorted(project.glob("*.cpp")), *sorted(project.glob("brianlib/*.cpp"))]
    # The linker takes the first of several compiled copies of an inline function: the optimised ones are to come first.
    sources = [*merged(sorted((project / "code_objects").glob("*.cpp")), project), *frame]
    command = shlex.split(compiler())
    _run_all(
        [
            [*command, *FLAGS, *(["-O0"] if source.name in ONCE else []), "-I.", "-c", str(source), "-o", f"{source}.o"]
            for source in sources
        ],
        project,
    )
    _run_all([[*command, *(f"{source}.o" for source in sources), "-o", BINARY]], project)


def merged(sources: Sequence[Path], folder: Path) -> list[Path]:
    """Fewer sources with the same code, written to ``folder``.

    The helper functions of a source are in a namespace without a name; each gets one of its own, so that they do not meet. A
    source that does not look like that is left as it is.
    """
    alone, together = [], []
    for number, source in enumerate(sources):
        text = source.read_text()
        if text.count(HELPERS) == 1:
            text = text.replace(HELPERS, f"\nnamespace unit{number} {{").replace(USE, f"{USE} using namespace unit{number};")
            together.append(text)
        else:
            alone.append(source)
    units = min(-(-len(together) // SOURCES_A_UNIT), 4 * available_processors())
    paths = [folder / f"unit{number}.cpp" for number in range(units)]
    for number, path in enumerate(paths):
        path.write_text("\n".join(together[number::units]))
    return [*alone, *paths]


def _run_all(commands: Sequence[list[str]], folder: Path) -> None:
    """Run commands, as many side by side as there are processors; when one fails, no more are started."""
    waiting, running = list(commands), list[tuple[list[str], subprocess.Popen[bytes]]]()
    while waiting or running:
        while waiting and len(running) < available_processors():
            command = waiting.pop(0)
            running.append((command, subprocess.Popen(command, cwd=folder)))
        command, process = running.pop(0)
        if code := process.wait():
            for _, other in running:
                other.wait()  # nothing is to write into the folder when it is removed
            raise subprocess.CalledProcessError(code, command)
