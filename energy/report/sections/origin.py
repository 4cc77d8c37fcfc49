"""Where everything comes from: versions, seeds, digests, files and the commands to make it again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from sparsespike.energy.report.blocks import Block, Cell, Column, Commands, Facts, Table, Text
from sparsespike.energy.report.documents import MadeBy
from sparsespike.energy.report.folder import Contents, Network
from sparsespike.energy.report.sections.training import flat

MOST_FILES = 100
"""Files listed: a sweep has one for each network."""


def origin_blocks(network: Network) -> list[Block]:
    """Seed, digests, versions and command lines of one network."""
    blocks: list[Block] = [Facts(rows=(("seed", _seed(network)),))]
    digests = tuple(_digests(network))
    if digests:
        columns = (Column("what"), Column("SHA-256"))
        blocks.append(Table(caption="Digests of the graph and of the graph that was run", columns=columns, rows=digests))
    lines = tuple(dict.fromkeys(_commands(network)))
    if lines:
        blocks.append(Commands(caption="To make it again", lines=lines))
    else:
        blocks.append(
            Text(
                text="No command line was kept with these files: Python code or an older version wrote them. Settings are above."
            )
        )
    versions = dict(_versions(network))
    if versions:
        names = list(dict.fromkeys(name for found in versions.values() for name in found))
        blocks.append(
            Table(
                caption="Versions",
                columns=(Column("made"), *(Column(name) for name in names)),
                rows=tuple((what, *(found.get(name) for name in names)) for what, found in versions.items()),
            )
        )
    return blocks


def files_blocks(contents: Contents) -> list[Block]:
    """Every file that was read."""
    rows = tuple((_relative(file, contents.path), file.stat().st_size) for file in contents.files[:MOST_FILES])
    caption = f"{len(contents.files):,} files were read" + (
        f", the first {MOST_FILES} of them" if len(rows) < len(contents.files) else ""
    )
    return [Table(caption=caption, columns=(Column("file"), Column("size", "bytes")), rows=rows)]


def _seed(network: Network) -> Cell:
    seed = network.training.get("seed")
    return seed if isinstance(seed, int | str) else "not said"


def _digests(network: Network) -> Iterator[tuple[str, Cell]]:
    for path, graph in network.graphs.items():
        yield _relative(path, network.path), graph.digest()
    held = {graph.digest() for graph in network.graphs.values()}
    for path, results in network.results.items():
        digest = results.runs[0].graph_digest
        note = "" if digest in held else " (no graph file here has it)" if not held else " (another graph than the files here)"
        yield f"{_relative(path, network.path)}, graph that was run", f"{digest}{note}"


def _made(network: Network) -> Iterator[tuple[str, MadeBy]]:
    if network.made_by is not None:
        yield "training", network.made_by
    for path, results in network.results.items():
        if results.made_by is not None:
            yield _relative(path, network.path), results.made_by
    if network.topology is not None and network.topology.made_by is not None:
        yield "topology", network.topology.made_by
    for path, diagnosis in network.diagnoses.items():
        if diagnosis.made_by is not None:
            yield _relative(path, network.path), diagnosis.made_by


def _commands(network: Network) -> Iterator[str]:
    made = dict(_made(network))
    if "training" in made:
        yield made.pop("training").command
    for graph in network.graphs.values():
        command = graph.provenance.get("command")
        if isinstance(command, str):
            yield command
    for each in made.values():
        yield each.command


def _versions(network: Network) -> Iterator[tuple[str, dict[str, str]]]:
    for what, made in _made(network):
        yield what, made.versions
    for path, graph in network.graphs.items():
        versions = graph.provenance.get("versions")
        if isinstance(versions, dict):
            yield _relative(path, network.path), {name: str(value) for name, value in flat(versions)}


def _relative(file: Path, folder: Path) -> str:
    return file.relative_to(folder).as_posix() if file.is_relative_to(folder) else str(file)
