# SPDX-License-Identifier: Apache-2.0
"""`vesalius plan`, and `vesalius train --plan`, as a user meets them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vesalius.flows.scan import scan


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a cohort of 40 noisy pictures of two classes."""
    root = tmp_path_factory.mktemp("plan")
    rng = np.random.default_rng(0)
    for number in range(40):
        pixels = rng.integers(0, 120 + 100 * (number % 2), (20, 20), dtype=np.uint8)
        place = root / "data" / ("dark", "light")[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(place / f"{number:02}.png")
    scan(root / "data", out=root / "cohort", workers=1)
    return root


def vesalius(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "vesalius.cli.main", *arguments],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )


def test_a_plan_is_printed_written_edited_and_trained(folder: Path) -> None:
    asked = ("classify", "cohort", "--model", "cnn", "--steps", "2")
    done = vesalius(folder, "plan", *asked, "--out", "plan.json")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("plan classify-")
    assert {"data:", "decisions:", "estimates:", "  budget.steps: 2"} <= set(lines)
    assert any(line.startswith("  disk: ") for line in lines)
    assert any(line.startswith("  memory: ") for line in lines)
    assert lines[-1] == "plan: plan.json — next: vesalius train classify cohort --plan plan.json"
    assert not (folder / "runs").exists()
    path = folder / "plan.json"
    plan = json.loads(path.read_text())
    plan["decisions"]["networks"][0]["batch"] = 4
    path.write_text(json.dumps(plan))
    done = vesalius(folder, "train", "classify", "cohort", "--plan", "plan.json")
    assert done.returncode == 0, done.stderr
    name = plan["decisions"]["networks"][0]["name"]
    assert f"decision networks.{name}.batch edited: 32 -> 4" in done.stdout.splitlines()
    (run,) = (folder / "runs").iterdir()
    trained = json.loads((run / "plan.json").read_text())
    assert trained["decisions"] == plan["decisions"]
    assert trained["id"] != plan["id"]
    assert trained["command"] == "vesalius train classify cohort --plan plan.json"
    plan["decisions"]["networks"][0]["bach"] = 4
    path.write_text(json.dumps(plan))
    done = vesalius(folder, "train", "classify", "cohort", "--plan", "plan.json")
    assert done.returncode == 2
    assert "has an unknown key 'bach'" in done.stderr
    assert "Did you mean 'batch'?" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_plan_as_json_is_the_file(folder: Path) -> None:
    asked = ("classify", "cohort", "--model", "cnn", "--steps", "2")
    done = vesalius(folder, "plan", *asked, "--out", "same.json", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == json.loads((folder / "same.json").read_text())
    done = vesalius(folder, "plan", "segment", "cohort", "--target", "label")
    assert done.returncode == 2
    assert "target belongs to classify" in done.stderr
