"""What `docs/backends.md` shows runs and prints what it says, in order, with the example backend."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs" / "backends.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```(.*?)(?=```|\Z)", GUIDE, re.DOTALL)


@pytest.mark.parametrize(("block", "after"), BLOCKS)
def test_python_of_the_guide(
    block: str, after: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.syspath_prepend(ROOT / "examples" / "own_backend")
    monkeypatch.delitem(sys.modules, "scipy_backend", raising=False)
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "docs/backends.md", "exec"), {"__name__": "guide"})
    printed = re.findall(r"It prints `([^`]+)`", after)
    assert capsys.readouterr().out.splitlines() == [" ".join(text.split()) for text in printed]


def test_the_guide_has_all_its_parts() -> None:
    assert len(BLOCKS) == 3
    declared = re.search(r"```toml\n(.*?)```", GUIDE, re.DOTALL)
    assert declared
    assert declared[1] in (ROOT / "examples" / "own_backend" / "pyproject.toml").read_text(encoding="utf-8")
