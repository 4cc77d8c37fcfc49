"""``sparsespike report``: valid HTML that holds the numbers of the run, with every text escaped and nothing from elsewhere."""

from __future__ import annotations

import itertools
import json
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

import html5lib
import numpy as np
import pytest
import typer

from sparsespike.backends.native import NativeBackend
from sparsespike.cli.main import app, main
from sparsespike.cli.options import images_for
from sparsespike.energy.ledger import Ledger
from sparsespike.energy.model import EnergyModel
from sparsespike.energy.profiles import builtin_profiles
from sparsespike.energy.record import PopulationCounts, ProjectionCounts, Record
from sparsespike.export.graphfile import load_graph

Command = Callable[..., Any]
SECTIONS = ("training", "conversion", "accuracy", "rasters", "ledger", "energy", "topology", "diagnosis", "mapping", "origin")
SVG = "{http://www.w3.org/2000/svg}svg"
STEPS, IMAGES = 20, 30
HOSTILE = "<script>alert('1')</script> & \"quoted\" <img src=x onerror=alert(2)> é漢\u202e{{ 7 * 7 }} " + "long" * 100


def command(*arguments: object) -> None:
    """Run the program in this process; it must succeed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["sparsespike", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
    assert not ended.value.code


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small run with everything that the commands make of it."""
    folder = tmp_path_factory.mktemp("runs") / "small"
    command("train", "--out", folder, "--hidden", "40,30", "--sparsity", "0.8", "--epochs", 2, "--seed", 7)
    command("convert", folder)
    graph = folder / "graph.safetensors"
    command("simulate", graph, "--steps", STEPS, "--images", IMAGES, "--out", folder / "results.json")
    command("topology", folder)
    command("diagnose", folder, graph, "--images", 40, "--steps", 8, "--out", folder / "diagnosis")
    return folder


def parse(page: Path) -> Element:
    """The page as a browser reads it; anything that is no valid HTML is an error."""
    parser = html5lib.HTMLParser(strict=True, namespaceHTMLElements=False)
    document: Element = parser.parse(page.read_text(encoding="utf-8"))
    return document


def report(folder: Path, out: Path) -> Element:
    command("report", folder, "--out", out)
    return parse(out)


def text(element: Element | None) -> str:
    assert element is not None
    return " ".join("".join(element.itertext()).split())


def by_id(page: Element, id: str) -> Element:
    (found,) = (element for element in page.iter() if element.get("id") == id)
    return found


def tables(section: Element) -> dict[str, list[list[Any]]]:
    """Tables by caption; cells of numbers are their exact values, others their texts."""
    found = {}
    for table in section.iter("table"):
        rows = []
        for row in table.findall("tbody/tr"):
            cells = []
            for cell in row:
                data = cell.find("data")
                cells.append(text(cell) if data is None else float(data.get("value", "")))
            rows.append(cells)
        found[text(table.find("caption"))] = rows
    return found


@pytest.fixture(scope="module")
def page(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Element:
    return report(run, tmp_path_factory.mktemp("page") / "report.html")


def test_every_section_is_there_and_says_something(page: Element) -> None:
    assert text(page.find("head/title")) == "Report: small" == text(next(page.iter("h1")))
    for name in SECTIONS:
        section = by_id(page, f"n1-{name}")
        heading, *content = section
        assert heading.tag == "h3"
        assert text(heading)
        assert sum(len(text(element)) for element in content) > 60, name
    assert not [element for element in page.iter("p") if element.get("class") == "missing"]
    assert len(list(by_id(page, "n1-rasters").iter(SVG))) == 3
    assert len(list(by_id(page, "n1-topology").iter("img"))) == 2
    assert len(list(by_id(page, "n1-diagnosis").iter("img"))) == 3


def check_structure(page: Element) -> None:
    """What screen readers, links and printers rely on, and that nothing is loaded."""
    assert page.get("lang") == "en"
    ids = [element.get("id") for element in page.iter() if element.get("id")]
    assert len(ids) == len(set(ids))
    for element in page.iter():
        tag = str(element.tag).rpartition("}")[2]
        assert tag not in ("script", "iframe", "object", "embed", "link", "base", "form", "input", "button")
        assert not [name for name in element.attrib if str(name).startswith("on")]
        for name in ("src", "srcset", "poster", "data", "action", "background"):
            assert element.get(name, "data:image/png;base64,").startswith("data:image/png;base64,"), (tag, name)
        if tag == "a":
            assert element.get("href", "").startswith("#")
            assert element.get("href", "")[1:] in ids
        if tag == "img":
            assert element.get("alt")
        for name in ("aria-labelledby", "aria-describedby"):
            assert set(element.get(name, "").split()) <= set(ids)
        if tag == "table":
            assert text(element.find("caption"))
            heads = element.findall("thead/tr/th")
            assert heads
            assert all(head.get("scope") == "col" and text(head) for head in heads)
            for row in element.findall("tbody/tr"):
                assert [cell.get("scope") for cell in row.findall("th")] == ["row"]
                assert len(row) == len(heads)
        if tag == "svg":
            assert element.get("role") == "img"
            assert element.get("aria-labelledby")
    levels = [int(str(element.tag)[1]) for element in page.iter() if element.tag in ("h1", "h2", "h3", "h4")]
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    style = text(page.find("head/style"))
    assert "url(" not in style
    assert "@import" not in style
    assert "@media print" in style
    policy = next(m.get("content", "") for m in page.iter("meta") if m.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in policy


def test_structure(page: Element) -> None:
    check_structure(page)


def test_the_numbers_are_those_of_the_ledger(run: Path, page: Element) -> None:
    """From a run of its own, not from the results file."""
    graph = load_graph(run / "graph.safetensors")
    inputs, labels = images_for(graph, "digits", IMAGES)
    result = NativeBackend().run(graph, inputs, STEPS)
    ledger = Ledger.from_results(graph, [result])
    frame = ledger.to_frame(images="mean")
    found = tables(by_id(page, "n1-ledger"))
    events = found[f"Synaptic events of the mean image, T = {STEPS}, {IMAGES} images"]
    names = ("synapses", "pre_spikes", "native_measured_events", "computed_events", "analytic_graph_events", "covariance_events")
    columns = (*names, "native_residual_events")
    assert [row[0] for row in events] == [f"{p.pre} → {p.post}" for p in graph.projections] + ["total"]
    assert [row[1:] for row in events] == [[float(row[name]) for name in columns] for _, row in frame.iterrows()]
    terms = found["From the paper's formula (Eq. 2-4) to the graph's own, events of the mean image"]
    columns = ("analytic_paper_events", "rate_term_events", "border_events", "pool_events", "analytic_graph_events")
    assert [row[1:] for row in terms] == [[float(row[name]) for name in columns] for _, row in frame.iterrows()]

    energies = tables(by_id(page, "n1-energy"))
    rows = {row[0]: row for row in energies[f"Energy of the mean image under each profile, T = {STEPS}"]}
    ways = {row[0]: row for row in energies["The first layer charged in three ways: energy of the mean image"]}
    assert list(rows) == list(ways) == list(builtin_profiles())

    def nanojoules(model: EnergyModel) -> float:
        return float(ledger.energy(model).total_pj / IMAGES / 1000)

    for name, profile in builtin_profiles().items():
        energy = ledger.energy(EnergyModel(profile=profile))
        assert rows[name][1] == nanojoules(EnergyModel(profile=profile))
        assert rows[name][2] == float(100 * energy.share_pj("MAC") / energy.total_pj)
        assert rows[name][6] == nanojoules(EnergyModel(profile=profile, counts="paper"))
        found_ways = [ways[name][1], ways[name][3], ways[name][5]]
        expected = [nanojoules(EnergyModel(profile=profile, first_layer=w)) for w in ("every_step", "zeros_skipped", "once")]
        assert found_ways == expected

    correct = (result.predictions == labels[:, None]).sum(axis=0)
    (accuracy,) = tables(by_id(page, "n1-accuracy")).values()
    assert accuracy[0][0] == "native"
    assert accuracy[0][3:-2] == [pytest.approx(100 * correct[t - 1] / IMAGES) for t in (1, 2, 4, 8, 16, 20)]
    overview = tables(by_id(page, "overview-summary"))["Networks, mean image, profile paper"]
    assert overview[0][6:] == [float(frame["computed_events"].iloc[-1]), nanojoules(EnergyModel())]


def test_shown_numbers_are_the_exact_ones_rounded(page: Element) -> None:
    checked = 0
    for data in page.iter("data"):
        shown, exact = text(data).replace(",", ""), float(data.get("value", ""))
        if shown in ("yes", "no"):
            continue
        digits = len(shown.partition("e")[0].partition(".")[2])
        unit = Fraction(10) ** (int(shown.partition("e")[2] or 0) - digits)
        # Whole numbers of five digits and more are shown to the unit, small ones to four digits.
        assert abs(Fraction(float(shown)) - Fraction(exact)) <= unit * Fraction(51, 100) or abs(float(shown) / exact - 1) < 6e-4
        checked += 1
    assert checked > 200


def test_the_commands_that_made_it(run: Path, page: Element) -> None:
    (lines,) = (text_of.text for text_of in by_id(page, "n1-origin").iter("code"))
    commands = [shlex.split(line) for line in str(lines).splitlines()]
    assert [words[:2] for words in commands] == [
        ["sparsespike", c] for c in ("train", "convert", "simulate", "topology", "diagnose")
    ]
    assert commands[0][2:6] == ["--out", str(run), "--hidden", "40,30"]
    assert "7" in commands[0]
    origin = text(by_id(page, "n1-origin"))
    assert load_graph(run / "graph.safetensors").digest() in origin
    assert "seed 7" in origin
    assert "torch" in origin


def suggested(page: Element) -> Iterator[list[str]]:
    for missing in page.iter("p"):
        if missing.get("class") == "missing":
            yield shlex.split(text(missing.find("code")))


def test_what_is_missing_is_named_with_a_command_that_exists(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "only trained & so on"
    folder.mkdir()
    for name in ("config.json", "summary.json", "metrics.csv", "model.safetensors"):
        shutil.copy(run / name, folder)
    page = report(folder, tmp_path / "page.html")
    check_structure(page)
    commands = list(suggested(page))
    assert {words[1] for words in commands} == {"convert", "simulate", "topology", "diagnose"}
    group: Any = typer.main.get_command(app)
    for program, name, *arguments in commands:
        assert program == "sparsespike"
        assert any(str(folder) in word for word in arguments)
        group.commands[name].make_context(name, arguments).close()
    # Done in that order, they fill the page.
    for _, name, *arguments in sorted(
        commands, key=lambda words: ["convert", "simulate", "topology", "diagnose"].index(words[1])
    ):
        command(name, *arguments)
    assert not list(suggested(report(folder, tmp_path / "page.html")))


def replaced(value: Any, keep: tuple[str, ...]) -> Any:
    """Every text in a document made hostile, but for those that name something."""
    if isinstance(value, dict):
        return {key: each if key in keep else replaced(each, keep) for key, each in value.items()}
    if isinstance(value, list):
        return [replaced(each, keep) for each in value]
    return HOSTILE if isinstance(value, str) else value


def test_hostile_names_are_text(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "<b>'run' & \"q\" é<script>"
    shutil.copytree(run, folder)
    keep = ("account", "graph_digest", "operation", "ann_flops", "covariance")
    for file in [*folder.rglob("*.json")]:
        file.write_text(json.dumps(replaced(json.loads(file.read_text()), keep)))
    results = json.loads((folder / "results.json").read_text())
    for entry in results["account"]["sets"][0]["entries"]:
        entry |= {"pre": HOSTILE, "backends": [HOSTILE], "measured": {HOSTILE: entry["computed"]}}
    results["account"]["backends"] = [HOSTILE]
    (folder / "results.json").write_text(json.dumps(results))
    page = report(folder, tmp_path / "page.html")
    check_structure(page)
    shown = text(page)
    assert shown.count("<script>alert('1')</script> & \"quoted\" <img src=x onerror=alert(2)>") > 50
    assert "{{ 7 * 7 }}" in shown
    assert "<b>'run' & \"q\" é<script>" in shown
    assert "<script" not in (tmp_path / "page.html").read_text(encoding="utf-8")
    assert not list(page.iter("b"))


def test_a_demo_shows_both_networks_and_the_saving(run: Path, tmp_path: Path) -> None:
    demo = tmp_path / "demo"
    shutil.copytree(run, demo / "sparse")
    command("train", "--out", demo / "dense", "--hidden", "40,30", "--sparsity", "0", "--epochs", 1)
    command("convert", demo / "dense")
    out = demo / "dense" / "results.json"
    command("simulate", demo / "dense" / "graph.safetensors", "--steps", STEPS, "--images", IMAGES, "--out", out)
    page = report(demo, tmp_path / "page.html")
    check_structure(page)
    assert [text(heading) for heading in page.iter("h2")][1:3] == ["dense", "sparse"]
    found = tables(by_id(page, "overview-summary"))
    networks = {row[0]: row for row in found["Networks, mean image, profile paper"]}
    rows = found["Sensitivity: what the sparse network saves of the dense one's energy, under each profile"]
    saving = {row[0]: row for row in rows}
    assert list(saving) == list(builtin_profiles())
    _, dense, sparse, share, *_ = saving["paper"]
    assert [dense, sparse] == [networks["dense"][7], networks["sparse"][7]]
    assert share == pytest.approx(100 * (dense - sparse) / dense, rel=1e-12)
    assert "A dense network" in text(by_id(page, "n1-topology"))


def record(sparsity: float, correct: list[int], rates: list[int], **what: Any) -> Record:
    steps = len(correct)
    silent = (0,) * steps
    return Record(
        what={"dataset": "digits", "model": "mlp", "method": "qcfs", "sparsity": sparsity, **what},
        images=1000,
        steps=steps,
        slots=None,
        correct=tuple(correct),
        ann_correct=990,
        populations=(
            PopulationCounts(name="input", kind="input", neurons=64, positive=(50_000,) * steps, negative=silent),
            PopulationCounts(name="hidden1", kind="if", neurons=50, positive=tuple(rates), negative=silent),
            PopulationCounts(name="readout", kind="readout", neurons=10, positive=silent, negative=silent),
        ),
        projections=(
            ProjectionCounts(
                pre="input",
                post="hidden1",
                operation="MAC",
                synapses=320,
                nominal=320,
                ann_flops="320",
                events=(250_000,) * steps,
            ),
            ProjectionCounts(
                pre="hidden1",
                post="readout",
                operation="AC",
                synapses=500,
                nominal=500,
                ann_flops="500",
                events=tuple(10 * r for r in rates),
            ),
        ),
        backend="native",
        version="0.1.0",
        graph_digest="0" * 64,
    )


def records() -> list[Record]:
    """Accuracy rises for 6 or 9 steps, the rate is constant: lags of 6 and 9 - 0 steps, in closed form."""
    found = []
    for index in range(8):
        rising = 6 + 3 * (index % 2)
        correct = [500 + 40 * min(t, rising) for t in range(30)]
        found.append(record(0.9 * (index % 2), correct, [9000] * 30, seed=index, note=HOSTILE if index == 3 else "plain"))
    return found


@pytest.mark.parametrize("sweep", [False, True])
def test_records_and_a_sweep(tmp_path: Path, sweep: bool) -> None:
    folder = tmp_path / "study"
    for index, each in enumerate(records()):
        each.save(folder / "units" / f"record-{index}" / "record.json")
    if sweep:
        (folder / "plan.json").write_text("{}")
        (folder / "failures").mkdir()
        (folder / "failures" / "train-1.json").write_text(json.dumps({"message": f"broke: {HOSTILE}", "traceback": ""}))
    page = report(folder, tmp_path / "page.html")
    check_structure(page)
    (rows,) = (rows for caption, rows in tables(by_id(page, "study-records")).items() if caption == "8 networks")
    assert [row[-3:] for row in rows] == [[17 + 3 * (i % 2), 11, 6 + 3 * (i % 2)] for i in range(8)]
    expected = [float(each.energy().total_pj / 1000 / 1000) for each in records()]
    assert [row[-4] for row in rows] == expected
    lag = next(iter(tables(by_id(page, "study-lag")).values()))
    assert [row[:3] for row in lag] == [["all", 8, 8], ["dense", 4, 4], ["sparse", 4, 4]]
    assert [row[6] for row in lag] == [7.5, 6, 9]
    assert len(list(by_id(page, "study-lag").iter("img"))) == 1
    if sweep:
        (failures,) = tables(by_id(page, "study-failures")).values()
        assert failures[0][0] == "train-1"
        assert "<script>alert('1')</script>" in failures[0][1]


def test_profiles_of_ones_own(run: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(
        '[my-chip]\ntitle = "x"\nmac_pJ = 2\nac_pJ = 1\nprocess = "<i>1 nm</i>"\nsource = "me & co"\nleaves_out = ["all"]\n'
    )
    command("report", run, "--profiles", tmp_path / "mine.toml", "--out", tmp_path / "page.html")
    page = parse(tmp_path / "page.html")
    check_structure(page)
    rows = tables(by_id(page, "n1-energy"))[f"Energy of the mean image under each profile, T = {STEPS}"]
    assert [row[0] for row in rows] == [*builtin_profiles(), "my-chip"]
    assert "<i>1 nm</i>" in text(by_id(page, "profiles"))


def broken(change: Callable[[Path], Any], expected: str) -> Any:
    return pytest.param(change, expected, id=expected)


def edit(name: str, **fields: Any) -> Callable[[Path], Any]:
    def change(folder: Path) -> None:
        file = folder / name
        file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))

    return change


def damaged(place: str, value: Any, message: str, at: str | None = None) -> Any:
    """A results file with another value at one place; the message is expected at ``at``, the place itself by default."""

    def change(folder: Path) -> None:
        file = folder / "results.json"
        document = json.loads(file.read_text())
        *way, last = (int(key) if key.isdecimal() else key for key in place.split("."))
        reduce(getitem, way, document)[last] = value
        file.write_text(json.dumps(document))

    return pytest.param(change, f"results.json, {place if at is None else at}: {message}", id=f"{place} = {value}")


ENTRY = "account.sets.0.entries.0"
SIZE, COUNT = "Input should be greater than or equal to 1", "Input should be greater than or equal to 0"
ONE = "Tuple should have at least 1 item"
SHOWN = "rasters.images.0.populations.0"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        damaged("account.backends", [], ONE),
        damaged("account.sets", [], ONE),
        damaged("account.sets.0.entries", [], ONE),
        *(damaged(f"{ENTRY}.{name}", 0, SIZE) for name in ("steps", "images", "neurons", "post_neurons")),
        *(damaged(f"{ENTRY}.{name}", -5, COUNT) for name in ("nnz", "nominal", "spikes", "post_spikes", "computed")),
        damaged(f"{ENTRY}.ann_flops", "-1/2", COUNT),
        damaged(f"{ENTRY}.ann_flops", "1/0", "Input is not a valid fraction"),
        damaged(f"{ENTRY}.computed", 10**400, "Input should be less than"),
        damaged(f"{ENTRY}.measured.native", -1, COUNT),
        damaged("account.sets.0.activities.0.updates", -1, COUNT),
        damaged(f"{ENTRY}.steps", STEPS + 1, f"entries with steps [{STEPS}, {STEPS + 1}]", "account"),
        damaged(f"{ENTRY}.backends", ["other"], "entries of backends ['other']", "account"),
        damaged("runs.0.populations.0.neurons", 0, SIZE),
        damaged("runs.0.populations.0.positive_spikes", -1, COUNT),
        damaged("rasters.steps", 0, SIZE),
        damaged("rasters.steps", 1, "a spike at step", "rasters"),
        damaged("rasters.images.0.shape.0", -1, SIZE),
        damaged(f"{SHOWN}.neurons", 0, SIZE),
        damaged(f"{SHOWN}.shown", [], "spike times of", SHOWN),
        damaged(f"{SHOWN}.positive.0", [-1], COUNT, f"{SHOWN}.positive.0.0"),
        broken(lambda folder: shutil.rmtree(folder), "does not exist"),
        broken(lambda folder: (shutil.rmtree(folder), folder.write_text("x")), "is a file, expected a folder"),
        broken(lambda folder: (shutil.rmtree(folder), folder.mkdir()), "found no run, graph, results or record"),
        broken(lambda folder: (folder / "results.json").write_text('{"runs": [1, '), "results.json is no valid JSON"),
        broken(lambda folder: (folder / "results.json").write_bytes(b"\xff\xfe"), "results.json cannot be read"),
        broken(lambda folder: (folder / "x.json").write_text("[" * 100_000), "x.json is no valid JSON"),
        broken(edit("results.json", runs=[]), "results.json, runs: "),
        broken(edit("results.json", account={"backends": ["native"]}), "results.json, account.sets: "),
        broken(edit("summary.json", test_accuracy=97), "summary.json, test_accuracy: "),
        broken(edit("topology.json", layers=[{"final": {}}]), "topology.json, layers.0.final.shape: "),
        broken(edit("diagnosis/diagnosis.json", stages=[{}]), "diagnosis.json, stages.0.stage: "),
        broken(lambda folder: (folder / "metrics.csv").write_text("a,b\n1,2\n"), "metrics.csv cannot be read"),
        broken(lambda folder: (folder / "topology_ccdf.png").write_text("<svg>"), "topology_ccdf.png is no PNG"),
        broken(lambda folder: (folder / "graph.safetensors").write_bytes(b"12345678901"), "graph.safetensors"),
    ],
)
def test_errors(sparsespike: Command, run: Path, tmp_path: Path, change: Callable[[Path], Any], expected: str) -> None:
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    change(folder)
    page = tmp_path / "page.html"
    page.write_text("the report of yesterday")
    ended = sparsespike("report", folder, "--out", page)
    assert ended.code == 2
    assert expected in ended.err
    assert ended.err.startswith("error: ")
    assert "Traceback" not in ended.err
    assert page.read_text() == "the report of yesterday"
    assert not list(tmp_path.glob("*.tmp"))


def test_files_of_others_are_left_alone(run: Path, tmp_path: Path) -> None:
    """Other JSON in the folder is no error, and the page itself is not read by the next report."""
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    (folder / "package.json").write_text('{"name": "x"}')
    (folder / "list.json").write_text("[1, 2]")
    command("report", folder)
    first = (folder / "report.html").read_bytes()
    command("report", folder)
    assert (folder / "report.html").read_bytes() == first


def test_a_results_file_without_its_graph(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copied"
    folder.mkdir()
    shutil.copy(run / "results.json", folder / "of-yesterday.json")
    page = report(folder, tmp_path / "page.html")
    check_structure(page)
    assert tables(by_id(page, "n1-ledger"))
    assert "no graph file here has it" in text(by_id(page, "n1-origin"))
    assert tables(by_id(page, "overview-summary"))["Networks, mean image, profile paper"][0][1] == float(
        sum(p.connection.nnz for p in load_graph(run / "graph.safetensors").projections)
    )


def test_missing_values_are_dashes(page: Element) -> None:
    """Never nan, None or <NA>."""
    shown = text(page)
    assert "<NA>" not in shown
    assert "nan" not in shown.split()
    assert "None" not in shown.split()
    assert np.isfinite([float(d.get("value", "")) for d in page.iter("data") if text(d) not in ("yes", "no")]).all()
