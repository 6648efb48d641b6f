# SPDX-License-Identifier: Apache-2.0
"""kill -9 in every stage of a scan, of the scan itself and of its workers: nothing is lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from vesalius.cohorts import Cohort
from vesalius.cohorts.pool import Died, Pool
from vesalius.cohorts.scan import scan

sys.path.insert(0, str(Path(__file__).parent))
import make

_SCAN = """
import os, signal, sys
from vesalius.cohorts import scan as module
module._CHUNK, module._TOGETHER, module._COMMIT_SECONDS = 3, 2, 0.0
stage, at = sys.argv[4], int(sys.argv[5])
def progress(name, done, total):
    if name.startswith(stage) and done >= at:
        os.kill(os.getpid(), signal.SIGKILL)
module.scan(sys.argv[1], sys.argv[2], labels=sys.argv[3], workers=1, progress=progress)
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    work = tmp_path_factory.mktemp("crash")
    make.mixed(work / "data", series_count=4, pairs=5)
    return work / "data"


def test_killed_in_each_stage_the_same_command_finishes(data: Path, tmp_path: Path) -> None:
    labels = data.parent / "labels.csv"
    scan(data, tmp_path / "whole", labels=labels, workers=1)
    whole = Cohort.open(tmp_path / "whole")
    out = tmp_path / "killed"
    out.mkdir()
    (out / "pseudonym.key").write_bytes((tmp_path / "whole" / "pseudonym.key").read_bytes())
    for stage, at in (("parse", 6), ("read", 3), ("publish", 1)):
        command = [sys.executable, "-c", _SCAN, data, out, labels, stage, str(at)]
        assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    result = scan(data, out, labels=labels, workers=1)
    again = Cohort.open(out)
    assert result.units_read == 0  # all of them were read before the last kill
    assert again.digest() == whole.digest()
    assert len(again) == len(whole) == 9
    assert len(again.findings()) == len(whole.findings())


def test_a_killed_worker_is_replaced(data: Path, tmp_path: Path) -> None:
    scan(data, tmp_path / "whole", workers=1)
    killed: list[int] = []

    def progress(stage: str, done: int, total: int | None) -> None:
        del total
        if (stage.startswith("read") or stage == "parse") and len(killed) < 2 and done:
            for child in _children():
                os.kill(child, signal.SIGKILL)
                killed.append(child)

    out = tmp_path / "killed"
    scan(
        data, out, workers=2, pseudonym_key=tmp_path / "whole" / "pseudonym.key", progress=progress
    )
    assert killed
    assert Cohort.open(out).digest() == Cohort.open(tmp_path / "whole").digest()


def test_a_file_that_kills_its_readers_costs_itself_alone() -> None:
    """An item whose handling crashes every worker comes back as `Died`, its neighbors do not."""
    worker = Path(__file__).parent / "deadly_worker.py"
    results = {}
    with Pool(1, {"deadly": 3}, worker=[str(worker)]) as pool:
        for _, items, found in pool.run(iter([("any", [1, 2]), ("any", [3, 4])])):
            for n, item in enumerate(items):
                results[item] = found if isinstance(found, Died) else found[n]
    assert isinstance(results.pop(3), Died)
    assert results == {1: 10, 2: 20, 4: 40}


def _children() -> list[int]:
    me = os.getpid()
    found = []
    for task in os.listdir(f"/proc/{me}/task"):
        found += Path(f"/proc/{me}/task/{task}/children").read_text().split()
    return [
        int(pid)
        for pid in found
        if b"vesalius.cohorts.worker" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]
