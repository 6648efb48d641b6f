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


def test_normalize_then_explain(folder: Path) -> None:
    done = vesalius("normalize", "scans", "--to", "out", "--workers", "1", "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    outcome = json.loads(done.stdout)
    assert outcome["counts"] == {
        "passed": 2, "passed after escalation": 0, "fixed units": 0, "refused": 0,
    }  # fmt: skip
    assert Path(folder / outcome["report"]).read_text().startswith("<!")
    done = vesalius("normalize", "--explain", "out", cwd=folder)
    assert done.returncode == 0, done.stderr
    for certificate in outcome["certificates"]:
        assert certificate["key"] in done.stdout
    assert "zscore" in done.stdout
    assert "2 series: 2 passed" in done.stdout
    done = vesalius("normalize", "scans", "--to", "out", "--method", "zscore", cwd=folder)
    assert done.returncode == 2
    assert "holds another normalization (different: method)" in done.stderr
    assert "Traceback" not in done.stderr


def test_normalize_names_the_files_that_it_refuses_on_the_terminal_alone(folder: Path) -> None:
    flat = nib.Nifti1Image(np.full((24, 20, 9), 7, np.int16), np.eye(4))
    (folder / "scans" / "deep").mkdir()
    nib.save(flat, folder / "scans" / "deep" / "Mustermann.nii.gz")
    done = vesalius("normalize", "scans", "--to", "out", "--workers", "1", cwd=folder)
    assert done.returncode == 0, done.stderr
    header, row, *_ = done.stdout.splitlines()
    assert header.split("\t")[-1] == "file"
    assert row.split("\t")[-1] == "deep/Mustermann.nii.gz"
    assert "one.nii.gz" not in done.stdout
    written = [path for path in (folder / "out").iterdir() if path.is_file()]
    assert all(b"Mustermann" not in path.read_bytes() for path in written)
    done = vesalius("normalize", "scans", "--to", "out", "--json", cwd=folder)
    assert "Mustermann" not in done.stdout


def test_normalize_ends_with_3_where_every_series_is_refused(tmp_path: Path) -> None:
    (tmp_path / "scans").mkdir()
    flat = nib.Nifti1Image(np.full((24, 20, 9), 7, np.int16), np.eye(4))
    nib.save(flat, tmp_path / "scans" / "flat.nii.gz")
    done = vesalius("normalize", "scans", "--to", "out", "--workers", "1", cwd=tmp_path)
    assert done.returncode == 3
    assert "1 series: 1 refused" in done.stdout
    assert "Traceback" not in done.stderr


def test_normalize_lists_its_methods() -> None:
    listed = json.loads(vesalius("normalize", "--list", "--json").stdout)
    assert {"mad", "zscore", "nyul", "n4", "macenko", "combat"} <= {one["name"] for one in listed}
    assert all(one["formula"] and one["source"] for one in listed)
    table = vesalius("normalize", "--list").stdout
    assert all(one["name"] in table for one in listed)


def test_a_wrong_normalize_is_one_sentence(tmp_path: Path) -> None:
    fusing = (tmp_path, "--to", tmp_path / "o", "--fuse", "CT,MR")
    for arguments, code, words in (
        ((), 2, "normalize takes DATA and --to FOLDER"),
        ((tmp_path, "--to", tmp_path / "o", "--method", "zscroe"), 2, "Did you mean 'zscore'"),
        ((tmp_path / "absent", "--to", tmp_path / "o"), 2, "data must be an existing folder"),
        (("--explain", tmp_path), 3, "holds no normalization"),
        ((tmp_path, "--to", tmp_path / "o", "--spacing", "1"), 2, "--spacing needs --fuse"),
        ((tmp_path, "--to", tmp_path / "o", "--kind", "rigid"), 2, "--kind needs --fuse"),
        ((*fusing, "--method", "auto"), 2, "--method does not go with --fuse"),
        ((*fusing, "--option", "clip=2"), 2, "--option does not go with --fuse"),
        ((*fusing, "--rescale-units"), 2, "--rescale-units does not go with --fuse"),
    ):
        done = vesalius("normalize", *arguments)
        assert (done.returncode, words in done.stderr) == (code, True), done.stderr
        assert "Traceback" not in done.stderr


def test_version_and_help_exit_with_zero() -> None:
    assert vesalius("--version").stdout == "vesalius 0.1.0\n"
    assert "segment" in vesalius("train", "--help").stdout


def test_doctor_tries_everything(tmp_path: Path) -> None:
    done = vesalius("doctor", "--json", cwd=tmp_path)
    checks = json.loads(done.stdout)
    assert done.returncode == 0, checks
    assert {"durable write", "DICOM codecs", "training step"} <= {check["name"] for check in checks}
