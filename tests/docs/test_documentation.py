"""What the README and the guides show works: every block of code runs, and every command is one that its program accepts.

A block's info string says what becomes of it: ``bash`` and ``python`` run, all blocks of a page in order and in one folder;
``text``, ``json`` and ``toml`` are shown only. Readers do not see the comments that may stand on the line before a block::

    <!-- not run: reason -->    a bash or python block that no test can run; its commands are parsed all the same
    <!-- prints -->             lines that the block which ran before must have printed, in this order ("..." stands for any)
    <!-- file: name -->         the block is written to a file of this name, for those that follow

A block that readers do not need is hidden whole: ``<!-- run bash`` or ``<!-- run python``, its lines, ``-->``.
"""

from __future__ import annotations

import ast
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import typer
from typer.core import TyperGroup

from sparsespike.cli.main import app, main

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
PAGES = ("README.md", *sorted(str(p.relative_to(ROOT)) for p in (ROOT / "docs").rglob("*.md") if "_build" not in p.parts))
QUICK = {"README.md", "docs/concepts.md", "docs/format.md"}
"""Pages that run in the ordinary suite; the others are full checks."""
NOT_RUN = {
    "README.md": ["it makes the environment that the tests run in"],
    "docs/backends.md": ["the example backend would have to be installed in the environment of the tests"],
    "docs/benchmarks.md": ["some minutes on a quiet machine", "an hour on a quiet machine"],
    "docs/conversion.md": ["the images are not at hand, and it takes a day"],
    "docs/howto/sweep.md": ["a cluster; the tests of the sweeps run one on this machine"],
    "docs/quickstart.md": ["it makes the environment that the tests run in"],
    "docs/training.md": [
        "27 runs, a quarter of an hour; the tests of the command run a smaller one",
        "downloads, and hours",
        "the images are not at hand, and it takes days",
    ],
}
"""Every block that no test runs, and why."""

_BLOCK = re.compile(
    r"(?:^<!-- (?P<mark>[^\n]*?) -->\n)?^(?P<fence>```+|:::+)(?P<info>[^\n]*)\n(?P<code>.*?)^(?P=fence)$"
    r"|^<!-- run (?P<hidden_info>\w+)\n(?P<hidden>.*?)^-->$",
    re.MULTILINE | re.DOTALL,
)
_SHOWN = {"text", "json", "toml"}
_DIRECTIVES = {"{toctree}", "{include}", "{eval-rst}", "{note}", "{math}"}
_PROGRAMS = ("sparsespike", "python", "make", "pip", "cd", "export")
COMMANDS = typer.main.get_command(app)


class Block(NamedTuple):
    """One block of code."""

    where: str
    language: str
    code: str
    mark: str = ""

    @property
    def reason(self) -> str | None:
        """Why it is not run, if it is not."""
        return self.mark.removeprefix("not run: ") if self.mark.startswith("not run: ") else None


def blocks(page: str) -> list[Block]:
    text = (ROOT / page).read_text(encoding="utf-8")
    return [
        Block(
            f"{page}:{text.count(chr(10), 0, found.start()) + 1}",
            found["hidden_info"] or found["info"].partition(" ")[0],
            found["hidden"] if found["hidden_info"] else found["code"],
            found["mark"] or "",
        )
        for found in _BLOCK.finditer(text)
    ]


def lines(code: str) -> Iterator[str]:
    """The commands of a bash block."""
    for line in code.replace("\\\n", " ").splitlines():
        if line.strip() and not line.startswith("#"):
            yield line


def commands() -> list[str]:
    """Every command line of the pages' blocks and of the help texts."""
    found = [line for page in PAGES for block in blocks(page) if block.language == "bash" for line in lines(block.code)]
    assert isinstance(COMMANDS, TyperGroup)
    for command in COMMANDS.commands.values():
        found += re.findall(r"^(?:Example: )?(sparsespike [a-z].*)$", command.help or "", re.MULTILINE)
    return list(dict.fromkeys(found))


def accept_sparsespike(arguments: list[str]) -> None:
    """Parsed by the command itself, which is not run."""
    command: Any = COMMANDS
    name = "sparsespike"
    while isinstance(command, TyperGroup):
        if arguments == ["--help"]:
            return
        assert arguments[0] in command.commands
        command, name, arguments = command.commands[arguments[0]], arguments[0], arguments[1:]
    command.make_context(name, arguments).close()


def accept_python(arguments: list[str]) -> None:
    """A script of the repository with options that it declares, or of a program that an export wrote."""
    script, *options = arguments
    if not (ROOT / script).exists():
        assert script.endswith("run.py")
        return
    calls = (node for node in ast.walk(ast.parse((ROOT / script).read_text(encoding="utf-8"))) if isinstance(node, ast.Call))
    known = {
        argument.value
        for call in calls
        if isinstance(call.func, ast.Attribute) and call.func.attr == "add_argument"
        for argument in call.args
        if isinstance(argument, ast.Constant)
    }
    assert {option for option in options if option.startswith("-")} <= known


def accept_make(arguments: list[str]) -> None:
    assert arguments[0] in re.findall(r"^([\w.-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)


def accept_pip(arguments: list[str]) -> None:
    """Something of this repository, with extras that it has."""
    verb, *rest = arguments
    assert verb == "install"
    (what,) = (part for part in rest if not part.startswith("-"))
    folder, _, extras = what.partition("[")
    declared = tomllib.loads((ROOT / folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert set(filter(None, extras.removesuffix("]").split(","))) <= set(declared.get("optional-dependencies", {}))


ACCEPT: dict[str, Callable[[list[str]], None]] = {
    "sparsespike": accept_sparsespike,
    "python": accept_python,
    "make": accept_make,
    "pip": accept_pip,
}


def test_there_are_command_lines_of_every_command() -> None:
    assert isinstance(COMMANDS, TyperGroup)
    assert {line.split()[1] for line in commands() if line.startswith("sparsespike ")} >= set(COMMANDS.commands)


def test_commands_within_the_text_exist() -> None:
    """Those in backticks may leave out arguments: their words and options are checked."""
    for page in PAGES:
        for line in re.findall(r"`(sparsespike [a-z][^`]*)`", (ROOT / page).read_text(encoding="utf-8")):
            command: Any = COMMANDS
            words = shlex.split(line)[1:]
            while isinstance(command, TyperGroup) and words:
                command = command.commands[words.pop(0)]
            known = {option for parameter in command.params for option in parameter.opts} | {"--help"}
            assert {word for word in words if word.startswith("-")} <= known, f"{page}: {line}"


@pytest.mark.parametrize("line", commands())
def test_a_command_line_is_accepted(line: str) -> None:
    program, *arguments = shlex.split(line, comments=True)
    ACCEPT[program](arguments)


@pytest.mark.parametrize("page", PAGES)
def test_every_block_says_what_it_is(page: str) -> None:
    """No command hides in a block that is not run, and none is left out of the runs but those listed here."""
    for block in blocks(page):
        assert block.language in {"bash", "python"} | _SHOWN | _DIRECTIVES, block.where
        # Near misses, such as a mark without its colon, are no marks; other comments are none of ours.
        known = block.mark == "prints" or block.mark.startswith("file: ") or block.reason
        assert known or not re.match("not|print|file|run|skip", block.mark), block.where
        if block.language == "text":
            assert not re.search(rf"^(?:\$ )?(?:{'|'.join(_PROGRAMS)}) ", block.code, re.MULTILINE), block.where
    assert [block.reason for block in blocks(page) if block.reason] == NOT_RUN.get(page, [])


def in_this_process(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command of ours, without the seconds that a fresh interpreter takes to import torch."""
    monkeypatch.setattr(sys, "argv", shlex.split(line, comments=True))
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code, line


def run_bash(code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if all(re.fullmatch(r"sparsespike [^|<>&;$]+", line) for line in lines(code)):
        for line in lines(code):
            in_this_process(line, monkeypatch)
        return
    ended = subprocess.run(["bash", "-euo", "pipefail", "-c", code], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    print(ended.stdout)


def words(text: str) -> list[str]:
    """Lines without what depends on the width of a terminal."""
    return [" ".join(line.split()) for line in text.splitlines() if line.strip()]


def assert_printed(expected: str, printed: str, where: str) -> None:
    rest = iter(words(printed))
    for line in words(expected):
        assert line == "..." or line in rest, f"{where}: {line!r} was not printed, or not after what stands before it:\n{printed}"


@pytest.mark.parametrize(
    "page", [page if page in QUICK else pytest.param(page, marks=pytest.mark.full) for page in PAGES if blocks(page)]
)
def test_the_blocks_of_a_page_run(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder in ("examples", "benchmarks"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "scipy_backend", raising=False)
    names: dict[str, object] = {"__name__": "page"}
    printed = ""
    for block in blocks(page):
        if block.mark == "prints":
            assert_printed(block.code, printed, block.where)
        elif block.mark.startswith("file: "):
            (tmp_path / block.mark.removeprefix("file: ")).write_text(block.code, encoding="utf-8")
        elif block.reason is None and block.language in ("bash", "python"):
            capsys.readouterr()
            if block.language == "bash":
                run_bash(block.code, monkeypatch)
            else:
                exec(compile(block.code, block.where, "exec"), names)
            printed = capsys.readouterr().out


def test_links_of_the_pages_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#\s]+)", (ROOT / page).read_text(encoding="utf-8")):
            if "://" not in target:
                assert ((ROOT / page).parent / target).exists(), f"{page}: {target}"
