"""Runs of the spiking network: accuracy over T beside the ANN, and rasters."""

from __future__ import annotations

import base64
import shlex
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

from sparsespike.energy.report.blocks import Band, Block, Chart, Column, Heading, Missing, Raster, Series, Table, Text
from sparsespike.energy.report.documents import RasterImage, RasterPopulation, Rasters, Results
from sparsespike.energy.report.folder import Network
from sparsespike.energy.saturation import saturation

MARKS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


def accuracy_blocks(network: Network) -> list[Block]:
    """Accuracy over T of every results file, beside the ANN's."""
    if not network.results:
        return [missing_results(network, "accuracy over time")]
    blocks: list[Block] = []
    for path, results in network.results.items():
        blocks += _heading(network, path)
        blocks += _accuracy(network, results)
    ran = {run.graph_digest for results in network.results.values() for run in results.runs}
    blocks += [_simulation(path, f"a run of {path.name}") for path, graph in network.graphs.items() if graph.digest() not in ran]
    return blocks


def raster_blocks(network: Network) -> list[Block]:
    """Rasters of a few images."""
    blocks: list[Block] = []
    for path, results in network.results.items():
        if results.rasters is not None and results.rasters.images:
            blocks += _heading(network, path)
            blocks += [_raster(image, results.rasters) for image in results.rasters.images]
            blocks.append(
                Text(
                    text="Every dash is a spike, at the local step of its population. Where a population has more neurons than "
                    "lines, evenly spread ones are shown; spikes of a negative sign are drawn in the second colour."
                )
            )
    return blocks or [missing_results(network, "rasters")]


def ann_accuracy(network: Network, results: Results) -> float | None:
    """Accuracy of the ANN on all test images, as far as a file says it."""
    known = [results.ann_test_accuracy, results.provenance.get("ann_test_accuracy")]
    if network.summary is not None:
        known.append(network.summary.test_accuracy)
    return next((float(value) for value in known if isinstance(value, int | float)), None)


def missing_results(network: Network, what: str) -> Missing:
    """The command that makes a results file."""
    return _simulation(next(iter(network.graphs), network.path / "graph.safetensors"), what)


def _simulation(graph: Path, what: str) -> Missing:
    out = graph.with_suffix(".json") if graph.stem != "graph" else graph.with_name("results.json")
    command = f"sparsespike simulate {shlex.quote(str(graph))} --backend native --out {shlex.quote(str(out))}"
    return Missing(what=what, command=command)


def answers_once(results: Results) -> bool:
    """Whether only the last step has an answer, as in an AEC network."""
    return results.provenance.get("method") == "aec"


def _accuracy(network: Network, results: Results) -> Iterator[Block]:
    first = results.runs[0]
    ann = ann_accuracy(network, results)
    whole = results.snn_test_accuracy_by_step
    summary = f"{100 * first.accuracy_by_step[-1]:.2f} % of {first.images:,} images at T = {first.steps}"
    if whole:
        summary += f", and {100 * whole[-1]:.2f} % of all test images"
    if ann is not None:
        summary += f"; the ANN classifies {100 * ann:.2f} % of all test images"
    if whole and ann is not None:
        summary += f" ({100 * (whole[-1] - ann):+.2f} points)"
    yield Text(text=f"The spiking network classifies {summary}.")
    if not answers_once(results):
        found = saturation([round(share * first.images) for share in first.accuracy_by_step])
        if found is None:
            yield Text(text=f"Accuracy does not saturate within T = {first.steps} (1 % over 10 steps).")
        else:
            window = f"improvements of at most 1 % over the 10 steps from T = {found.start}"
            yield Text(text=f"Accuracy saturates at T = {found.end} ({window}).")
        yield _curves(results, ann, summary)
    else:
        yield Text(text=f"An AEC network answers once, after its {first.steps} slots: it has no accuracy over time.")
    marks = [t for t in MARKS if t < first.steps and not answers_once(results)] + [first.steps]
    yield Table(
        caption=f"Accuracy by backend, {first.images:,} test images",
        columns=(
            Column("backend"),
            Column("version"),
            Column("membranes", "type"),
            *(Column(f"T = {t}", "%", 2) for t in marks),
            Column("build", "s", 2),
            Column("run", "s", 2),
        ),
        rows=tuple(
            (
                run.backend,
                run.version,
                run.dtype,
                *(100 * run.accuracy_by_step[t - 1] if t <= run.steps else None for t in marks),
                run.wall_seconds.get("build"),
                run.wall_seconds.get("run"),
            )
            for run in results.runs
        ),
    )
    if results.differences_from_quantised_ann:
        yield Table(
            caption="Spike counts at T = L against the levels of the quantised ANN, all test images",
            columns=(
                Column("layer"),
                Column("neurons that differ", "%", 2),
                Column("mean |difference|", "spikes"),
                Column("largest", "spikes"),
            ),
            rows=tuple((d.name, 100 * d.fraction, d.mean, d.max) for d in results.differences_from_quantised_ann),
        )


def _curves(results: Results, ann: float | None, summary: str) -> Chart:
    """One curve for each set of equal accuracies, and the ANN as a level."""
    groups: dict[tuple[float, ...], list[str]] = {}
    for run in results.runs:
        groups.setdefault(tuple(run.accuracy_by_step), []).append(run.backend)
    images = results.runs[0].images
    named = {f"{', '.join(names)}, {images:,} images": curve for curve, names in groups.items()}
    if results.snn_test_accuracy_by_step:
        named["all test images, native"] = tuple(results.snn_test_accuracy_by_step)
    series = [
        Series(f"SNN: {name}", tuple((float(t), 100 * share) for t, share in enumerate(curve, 1)), style)
        for style, (name, curve) in enumerate(named.items(), 1)
    ]
    steps = float(results.runs[0].steps)
    if ann is not None:
        series.append(Series("ANN, all test images", ((1.0, 100 * ann), (max(steps, 2.0), 100 * ann)), 6, "dashed"))
    return Chart(
        caption="Accuracy over inference steps T",
        x="T (steps)",
        y="accuracy (%)",
        series=tuple(series),
        summary=summary,
    )


def _raster(image: RasterImage, rasters: Rasters) -> Raster:
    verdict = "right" if image.label == image.predicted else f"wrong: its class is {image.label}"
    populations = ", ".join(f"{_spikes(each):,} in {each.population}" for each in image.populations)
    return Raster(
        caption=f"An image of class {image.label}, classified as {image.predicted} ({verdict}); {rasters.backend}",
        steps=rasters.steps,
        bands=tuple(_band(population) for population in image.populations),
        picture=picture(image),
        alt=f"Spikes shown over {rasters.steps} steps: {populations}.",
    )


def _band(population: RasterPopulation) -> Band:
    rows = len(population.shown)
    name = f"{population.population}: {population.neurons:,} neurons"
    if rows < population.neurons:
        name = f"{population.population}: {rows:,} of {population.neurons:,} neurons"
    positive, negative = (
        tuple((t, row) for row, times in enumerate(fired) for t in times) for fired in (population.positive, population.negative)
    )
    return Band(name, population.neurons, max(rows, 1), positive, negative)


def _spikes(population: RasterPopulation) -> int:
    return sum(map(len, (*population.positive, *population.negative)))


def picture(image: RasterImage) -> str | None:
    """An image of shape (1 or 3, y, x) as a PNG in a data URI; None for other shapes."""
    if len(image.shape) != 3 or image.shape[0] not in (1, 3):
        return None
    channels, height, width = image.shape
    low, high = image.value_range
    scaled = [max(0, min(255, round(255 * (value - low) / max(1, high - low)))) for value in image.values]
    size = height * width
    rows = (b"\0" + bytes(scaled[c * size + y * width + x] for x in range(width) for c in range(channels)) for y in range(height))

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0 if channels == 1 else 2, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"".join(rows))) + chunk(b"IEND", b"")
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


def _heading(network: Network, path: Path) -> list[Block]:
    return [Heading(text=path.name)] if len(network.results) > 1 else []
