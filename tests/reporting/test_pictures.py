# SPDX-License-Identifier: Apache-2.0
"""Pictures from a scanned cohort on disk: what cannot, or must not, be shown says so."""

from __future__ import annotations

import re

import pytest

from vesalius.cohorts import Cohort
from vesalius.cohorts.phantom import write_phantom
from vesalius.cohorts.scan import scan
from vesalius.reporting import write_check
from vesalius.reporting.pictures import picture, rows_of


@pytest.fixture(scope="module")
def scanned(tmp_path_factory):
    """One simulated patient, whose CT series has lost a slice in its middle."""
    root = tmp_path_factory.mktemp("pictures")
    write_phantom(root / "data", patients=1, seed=3, defects=False)
    first = scan(root / "data", root / "all", workers=1, pixels=False)
    assert first.images
    whole = Cohort.open(root / "all")
    row = next(r for r in whole.iter_rows() if r["modality"] == "CT")
    (whole.roots[row["root"]] / row["files"][len(row["files"]) // 2]).unlink()
    scan(root / "data", root / "cohort", workers=1, pixels=False)
    return Cohort.open(root / "cohort")


def test_a_series_with_a_gap_is_shown_slice_by_slice(scanned):
    findings = scanned.findings()
    gap = findings[findings["name"] == "missing-slices"].iloc[0]
    (row,) = rows_of(scanned, [gap["key"]])
    shown = picture(scanned, row, int(gap["slice"]))
    assert "data:image/jpeg" in shown
    assert f"slice {int(gap['slice'])} (0 to {len(row['files']) - 1})" in shown


def test_burned_in_text_is_withheld(scanned):
    row = next(scanned.iter_rows())
    assert "<img" in picture(scanned, row)
    shown = picture(scanned, {**row, "findings": ["burned-in-text-suspected"]})
    assert "<img" not in shown
    assert "no picture: burned-in-text-suspected" in shown


def test_check_page_of_a_scanned_cohort(scanned, tmp_path):
    html = write_check(scanned, tmp_path / "check.html").read_text(encoding="utf-8")
    words = re.sub(r'"data:image/[^"]*"', '""', html)
    assert "missing-slices" in words
    assert "All images of this cohort are simulated" in words
    for root in scanned.roots.values():
        assert str(root) not in words
    for row in scanned.iter_rows(columns=["files"]):
        assert all(name not in words for name in row["files"])
