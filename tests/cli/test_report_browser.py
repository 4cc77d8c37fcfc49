"""The report in a real browser, headless Chromium: desktop and phone width, without scripts, in print, and without a network."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from sparsespike.backends.native import NativeBackend
from sparsespike.cli.doctor import small_network
from sparsespike.cli.rasters import rasters
from sparsespike.cli.results import run_document
from sparsespike.energy.ledger import Ledger
from sparsespike.energy.report.account import Account
from sparsespike.energy.report.page import write_report
from sparsespike.export.graphfile import save_graph

pytestmark = pytest.mark.full

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
DESKTOP, PHONE, PAPER = 1280, 390, 688
"""Widths in CSS pixels; 688 is A4 less the page's margins."""

MEASURE = """<script>
const wide = [];
for (const each of document.querySelectorAll("body *")) {
  const box = each.getBoundingClientRect();
  if (!box.width || each.closest(".scroll, pre, svg, .skip")) continue;
  if (box.right > innerWidth + 1) wide.push(each.outerHTML.slice(0, 200));
}
const clipped = [...document.querySelectorAll("table, pre")].filter(each => each.getBoundingClientRect().right > innerWidth + 1);
const found = {inner: innerWidth, scroll: document.documentElement.scrollWidth, wide, clipped: clipped.length,
  tables: document.querySelectorAll("table").length};
parent.postMessage(JSON.stringify(found), "*");
</script>"""
FRAME = """<!DOCTYPE html><title>frame</title><iframe src="{name}" style="border:0" width="{width}" height="900"></iframe>
<p id="found"></p><script>
addEventListener("message", event => {{ document.getElementById("found").textContent = event.data }});
</script>"""
"""A browser's window has a least width; a frame has none, and media queries within it go by its width."""


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """Runs headless Chromium and gives what it prints; fails, and says what to install, where there is none."""
    program = next((found for name in NAMES if (found := shutil.which(name))), None)
    if program is None:
        pytest.fail(f"found none of {', '.join(NAMES)} on the PATH; install one: apt-get install chromium (Debian, Ubuntu)")
    profile = tmp_path_factory.mktemp("profile")

    def run(*arguments: str, page: Path) -> str:
        flags = ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run")
        quiet = ("--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage")
        done = subprocess.run(
            [program, *flags, *quiet, f"--user-data-dir={profile}", *arguments, page.as_uri()],
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout

    return run


@pytest.fixture(scope="session")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report with wide tables and very long names."""
    root = tmp_path_factory.mktemp("report")
    folder = root / ("a-very-long-name-without-a-space" * 6)
    graph, inputs = small_network()
    labels = inputs[:, 0] * 0
    run = NativeBackend().run(graph, inputs, 32)
    ledger = Ledger.from_results(graph, [run])
    graph.provenance |= {"training": {"data": "digits", "remark": "unbroken" * 40}, "command": "sparsespike convert " + "x" * 300}
    save_graph(graph, folder / "graph.safetensors")
    document = {
        "graph": str(folder),
        "reconciled": ledger.reconciled,
        "runs": [run_document(graph, run, labels)],
        "account": Account.of(ledger).to_dict(),
        "rasters": rasters(graph, inputs, labels, 32),
        "provenance": graph.provenance,
    }
    (folder / "results.json").write_text(json.dumps(document, default=lambda array: array.tolist()))
    (folder / "made_by.json").write_text(json.dumps({"command": "sparsespike train " + "y" * 300, "versions": {"v": "1" * 99}}))
    write_report(folder, root / "report.html")
    return root / "report.html"


def measured(chromium: Callable[..., str], page: Path, width: int, *, printed: bool = False) -> dict[str, Any]:
    """What a script of ours, put into a copy of the page, measures at a width."""
    text = page.read_text(encoding="utf-8")
    copy = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", text).replace("</body>", MEASURE + "</body>")
    if printed:
        assert "@media print" in copy
        copy = copy.replace("@media print", "@media all").replace("@media (max-width: 40rem)", "@media (max-width: 0)")
    file = page.with_name(f"measured-{width}-{printed}.html")
    file.write_text(copy, encoding="utf-8")
    frame = page.with_name(f"frame-{width}-{printed}.html")
    frame.write_text(FRAME.format(name=file.name, width=width), encoding="utf-8")
    dom = chromium("--window-size=1400,1000", "--virtual-time-budget=10000", "--dump-dom", page=frame)
    found = re.search(r'<p id="found">(.+?)</p>', dom, re.DOTALL)
    assert found is not None, dom[:500]
    return dict(json.loads(html.unescape(found[1])))


@pytest.mark.parametrize("width", [DESKTOP, PHONE])
def test_no_horizontal_scrolling(chromium: Callable[..., str], page: Path, width: int) -> None:
    found = measured(chromium, page, width)
    assert found["inner"] == width
    assert found["scroll"] <= width
    assert found["wide"] == []
    assert found["tables"] > 5


def test_no_table_is_clipped_in_print(chromium: Callable[..., str], page: Path) -> None:
    found = measured(chromium, page, PAPER, printed=True)
    assert found["inner"] == PAPER
    assert found["wide"] == []
    assert found["clipped"] == 0


def test_it_needs_no_scripts_and_runs_none(chromium: Callable[..., str], page: Path, tmp_path: Path) -> None:
    """A script that finds its way into the page is refused by the page's own policy; and there is something to see."""
    text = page.read_text(encoding="utf-8")
    script = "<script>document.title = 'taken over'</script>"
    assert "<script" not in text
    for policy in (True, False):
        file = tmp_path / f"{policy}.html"
        kept = text if policy else re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", text)
        file.write_text(kept.replace("</body>", script + "</body>"), encoding="utf-8")
        assert ("<title>taken over" in chromium("--dump-dom", page=file)) is not policy
    shot = tmp_path / "page.png"
    chromium(f"--window-size={DESKTOP},3000", f"--screenshot={shot}", page=page)
    with Image.open(shot) as image:
        assert image.size == (DESKTOP, 3000)
        colours = image.convert("RGB").resize((320, 750)).getcolors(maxcolors=1_000_000)
    assert colours is not None
    assert len(colours) > 100  # not blank


def test_it_asks_for_nothing(chromium: Callable[..., str], page: Path, tmp_path: Path) -> None:
    """By the browser's own log of requests, next to a page that asks for a picture."""

    def requests(page: Path) -> set[tuple[str, str]]:
        log = tmp_path / f"{page.stem}.json"
        chromium(f"--log-net-log={log}", "--dump-dom", page=page)
        return set(re.findall(r'"traffic_annotation":(\d+),"url":"([^"]+)"', log.read_text(encoding="utf-8")))

    asking = tmp_path / "asking.html"
    asking.write_text('<!DOCTYPE html><title>x</title><img src="http://127.0.0.1:9/x.png">')
    # What a page asks for is told from what the browser asks for its own ends by the kind of traffic.
    (kind,) = {kind for kind, url in requests(asking) if url == "http://127.0.0.1:9/x.png"}
    assert [url for each, url in requests(page) if each == kind and not url.startswith("data:")] == []


def test_it_prints(chromium: Callable[..., str], page: Path, tmp_path: Path) -> None:
    file = tmp_path / "page.pdf"
    chromium("--no-pdf-header-footer", f"--print-to-pdf={file}", page=page)
    content = file.read_bytes()
    assert content.startswith(b"%PDF-")
    assert len(re.findall(rb"/Type\s*/Page\b", content)) >= 3
