"""What the README and the guides show works: every command line is accepted, and the Python runs."""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from typer.core import TyperGroup

from sparsespike.cli.main import app
from sparsespike.energy.ledger import Ledger
from sparsespike.export.connections import CSRConnection
from sparsespike.export.graph import Population, Projection, SpikingGraph
from sparsespike.export.graphfile import save_graph

ROOT = Path(__file__).parent.parent
COMMANDS = typer.main.get_command(app)


def command_lines() -> list[str]:
    """Every line that starts with the program's name, in the guides and in the help texts."""
    texts = [path.read_text(encoding="utf-8") for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))]
    assert isinstance(COMMANDS, TyperGroup)
    texts += [command.help or "" for command in COMMANDS.commands.values()]
    joined = (text.replace("\\\n", " ") for text in texts)
    lines = (line for text in joined for line in re.findall(r"^(?:Example: |\$ )?(sparsespike [a-z].*)$", text, re.MULTILINE))
    return list(dict.fromkeys(line.partition(" #")[0].strip() for line in lines))


def test_there_are_command_lines_of_every_command() -> None:
    assert isinstance(COMMANDS, TyperGroup)
    assert {line.split()[1] for line in command_lines()} >= set(COMMANDS.commands) - {"benchmark"}


@pytest.mark.parametrize("line", command_lines())
def test_a_command_line_is_accepted(line: str) -> None:
    """Parsed by the command itself, which is not run."""
    command: Any = COMMANDS
    name, *arguments = shlex.split(line)
    while isinstance(command, TyperGroup):
        assert arguments[0] in command.commands, line
        command, name, arguments = command.commands[arguments[0]], arguments[0], arguments[1:]
    command.make_context(name, arguments).close()


def python_blocks() -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)


def test_the_python_of_the_readme_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    hidden = Population(name="hidden1", shape=(9,), kind="if", threshold=np.full(9, 40), v_init=np.full(9, 20))
    graph = SpikingGraph(
        [
            Population(name="input", shape=(12,), kind="input", value_range=(0, 16)),
            hidden,
            Population(name="readout", shape=(4,), kind="readout"),
        ],
        [
            Projection(*ends, CSRConnection.from_scipy(rng.integers(-5, 9, shape)))
            for ends, shape in ((("input", "hidden1"), (12, 9)), (("hidden1", "readout"), (9, 4)))
        ],
    )
    save_graph(graph, tmp_path / "runs" / "demo" / "sparse" / "graph.safetensors")
    monkeypatch.chdir(tmp_path)
    (block,) = python_blocks()
    tree = ast.parse(block)
    # `images = ...` stands for the reader's own.
    tree.body = [
        node
        for node in tree.body
        if not (isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant) and node.value.value is ...)
    ]
    names: dict[str, object] = {"images": rng.integers(0, 17, (3, 12))}
    exec(compile(tree, "README.md", "exec"), names)
    results = names["results"]
    assert isinstance(results, list)
    ledger = Ledger.from_results(graph, results)
    assert ledger.backends == ("native", "brian2", "lava")
    assert ledger.reconciled
    assert "hidden1" in capsys.readouterr().out


def test_links_of_the_readme_and_guides_lead_somewhere() -> None:
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        for target in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8")):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name}: {target}"
