# SPDX-License-Identifier: Apache-2.0
"""The command line as a user meets it: outcomes, exit codes, no traceback for a user's mistake."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest


def vesalius(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "vesalius.cli.main", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        check=False,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for name in ("one", "two"):
        image = nib.Nifti1Image(rng.integers(0, 900, (24, 20, 9), dtype=np.int16), np.eye(4))
        (tmp_path / "scans").mkdir(exist_ok=True)
        nib.save(image, tmp_path / "scans" / f"{name}.nii.gz")
    (tmp_path / "labels.csv").write_text("file,diagnosis\none.nii.gz,a\ntwo.nii.gz,b\n")
    return tmp_path


def test_scan_then_check_from_a_folder_of_files(folder: Path) -> None:
    done = vesalius(
        "scan", "scans", "--labels", "labels.csv", "--out", "cohort", "--json", cwd=folder
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["images"] == 2
    (folder / "scans" / "broken.nii.gz").write_bytes(b"\x1f\x8b no gzip at all")
    done = vesalius("scan", "scans", "--labels", "labels.csv", "--out", "cohort", cwd=folder)
    assert done.returncode == 0, done.stderr
    done = vesalius("check", "cohort", "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    outcome = json.loads(done.stdout)
    assert outcome["images"] == 2
    assert outcome["counts"]["corrupt-file"] == 1
    assert Path(folder / outcome["report"]).read_text().startswith("<!")
    assert vesalius("check", "cohort", "--strict", cwd=folder).returncode == 7


def test_a_users_mistake_is_one_sentence_and_an_exit_code(tmp_path: Path) -> None:
    done = vesalius("check", tmp_path / "nowhere")
    assert done.returncode == 3
    assert done.stderr.startswith("vesalius: ")
    assert "Traceback" not in done.stderr
    done = vesalius("scan", tmp_path, "--out", tmp_path / "c", "--max-image-memory", "lots")
    assert done.returncode == 2
    assert "for example 4GB" in done.stderr
    done = vesalius("scan", tmp_path / "absent", "--out", tmp_path / "c")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_version_and_help_exit_with_zero() -> None:
    assert vesalius("--version").stdout == "vesalius 0.1.0\n"
    assert "segment" in vesalius("train", "--help").stdout


def test_doctor_tries_everything(tmp_path: Path) -> None:
    done = vesalius("doctor", "--json", cwd=tmp_path)
    checks = json.loads(done.stdout)
    assert done.returncode == 0, checks
    assert {"durable write", "DICOM codecs", "training step"} <= {check["name"] for check in checks}
