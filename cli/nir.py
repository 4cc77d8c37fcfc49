"""``sparsespike convert network.nir``: a network of another framework becomes a graph."""

from __future__ import annotations

from pathlib import Path

from sparsespike.cli.choice import whole_or_auto
from sparsespike.cli.console import err, out, print_json, print_table
from sparsespike.common.errors import ConfigError
from sparsespike.common.extras import require
from sparsespike.export.graph import SpikingGraph
from sparsespike.export.graphfile import save_graph


def convert_nir(
    network: Path,
    graph_file: Path | None,
    bits: str | None,
    values: str | None,
    dt: float | None,
    data: str | None,
    as_json: bool,
) -> None:
    """Read a NIR network, write its graph, and say what rounding it cost.

    Raises
    ------
    ConfigError, ModelError
        If an option is malformed, or the network cannot be read or held by a graph.
    """
    require("nir", extra="nir")
    from sparsespike.export.nir.reading import read_nir

    width = 24 if bits is None else whole_or_auto("--bits", bits)
    if width is None:
        raise ConfigError("--bits auto is for trained models: it needs their data; give a number")
    found = read_nir(network, value_range(values or "0..255"), bits=width, dt=dt)
    graph = SpikingGraph(found.graph.populations, found.graph.projections, {**found.graph.provenance, "dataset": data})
    target = graph_file or network.with_suffix(".safetensors")
    save_graph(graph, target)
    errors = {
        name: {"weights": found.weight_error[name], "thresholds": found.threshold_error[name], "decays": found.decay_error[name]}
        for name in found.weight_error
    }
    if as_json:
        digest, synapses = graph.digest(), graph.nnz
        print_json({"graph": str(target), "digest": digest, "synapses": synapses, "exact": found.exact, "errors": errors})
        return
    rows = []
    for name, error in errors.items():
        population = graph.population(name)
        rows.append((name, population.kind, population.size, sum(p.connection.nnz for p in graph.into(name)), *error.values()))
    columns = ("population", "kind", "neurons", "synapses", *(f"error of {what}" for what in ("weights", "thresholds", "decays")))
    print_table(f"Read {network}, {width} bits", columns, rows)
    if any(population.kind == "lif" for population in graph.populations):
        err.print("note: what leaks is rounded toward zero in each step: spikes may differ from those of real numbers.")
    elif not found.exact:
        err.print("note: numbers were rounded to integers: spikes may differ from those of real numbers.")
    inputs = "" if data else " --data inputs.npy"
    out.print(f"Wrote {target} ({target.stat().st_size / 1e6:.2f} MB). Next: sparsespike simulate {target}{inputs}")


def value_range(text: str) -> tuple[int, int]:
    """Two integers from ``LOW..HIGH``.

    Raises
    ------
    ConfigError
        If it is anything else.
    """
    try:
        low, high = (int(number) for number in text.split(".."))
    except ValueError:
        raise ConfigError(f"--values {text!r}: expected LOW..HIGH, two integers, such as 0..255") from None
    if low > high:
        raise ConfigError(f"--values {text!r}: found {low} above {high}, expected LOW..HIGH")
    return low, high
