# SPDX-License-Identifier: Apache-2.0
"""Documentation is executed: every Python block of README and docs runs, in file order."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?://|#)([^)#]+)")


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with simulated DATA and a NEW_EXAM, as the pages assume."""
    from vesalius.cohorts.phantom import new_exam, write_phantom

    folder = tmp_path_factory.mktemp("docs")
    write_phantom(folder / "DATA", patients=10, seed=3, defects=False)
    new_exam(folder / "NEW_EXAM", seed=99)
    return folder


@pytest.mark.parametrize(
    "page", [page for page in PAGES if BLOCK.search(page.read_text())], ids=lambda page: page.stem
)
def test_python_blocks_run(page: Path, workplace: Path, tmp_path: Path) -> None:
    for name in ("DATA", "NEW_EXAM"):
        (tmp_path / name).symlink_to(workplace / name)
    # A file with a guard, since scan starts worker processes that import the main module.
    script = "\n".join(BLOCK.findall(page.read_text()))
    indented = "".join(f"    {line}\n" for line in script.splitlines())
    (tmp_path / "page.py").write_text(f"if __name__ == '__main__':\n{indented}")
    done = subprocess.run(
        [sys.executable, "page.py"],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "2"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(page.read_text()):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_documented_findings_are_current() -> None:
    from vesalius.cohorts.quality.findings import markdown

    page = ROOT / "docs" / "reference" / "findings.md"
    assert page.read_text() == markdown()


def test_the_documented_columns_are_complete() -> None:
    from vesalius.cohorts.schema import COLUMNS

    page = (ROOT / "docs" / "reference" / "cohort.md").read_text()
    assert [name for name in COLUMNS if f"`{name}`" not in page] == []


def test_every_verb_is_documented() -> None:
    from vesalius.cli.main import app

    page = (ROOT / "docs" / "reference" / "command-line.md").read_text()
    for command in app.registered_commands:
        assert command.callback is not None
        assert f"| `{command.callback.__name__}" in page
