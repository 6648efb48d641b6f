# SPDX-License-Identifier: Apache-2.0
"""scan: rows against an independent reading, increments, hostile files, lock, roots, privacy."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import sqlite3
import stat
import sys
import time
from pathlib import Path

import numpy as np
import pydicom
import pytest

from vesalius.cohorts import Cohort
from vesalius.cohorts.scan import ScanResult, scan
from vesalius.errors import CohortError, UsageError

sys.path.insert(0, str(Path(__file__).parent))
import make


@pytest.fixture(scope="module")
def scanned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, ScanResult]:
    """Return data, cohort and result of one scan that no test changes."""
    work = tmp_path_factory.mktemp("scanned")
    make.mixed(work / "data")
    result = scan(work / "data", work / "cohort", labels=work / "labels.csv", workers=2)
    return work / "data", work / "cohort", result


def test_rows_agree_with_pydicom(scanned: tuple[Path, Path, ScanResult]) -> None:
    _, out, _ = scanned
    cohort = Cohort.open(out)
    rows = [row for row in cohort.iter_rows() if row["format"] == "dicom"]
    assert len(rows) == 3
    for row in rows:
        files = [cohort.roots[row["root"]] / file for file in row["files"]]
        datasets = [pydicom.dcmread(file) for file in files]
        assert [ds.InstanceNumber for ds in datasets] == [1, 2, 3, 4]
        values = np.stack([ds.pixel_array.T.astype(int) - 1024 for ds in datasets], axis=-1)
        volume = cohort.read(row)
        assert (volume.data[0] == values).all()
        assert row["shape"] == [1, 24, 24, 4]
        assert row["spacing"] == [1.5, 1.5, 3.0]
        assert row["affine"] == [-1.5, 0, 0, 0, 0, -1.5, 0, 0, 0, 0, 3, 0, 0, 0, 0, 1]
        assert (row["stat_min"], row["stat_max"]) == (values.min(), values.max())
        assert row["stat_mean"] == pytest.approx(values.mean())
        assert (row["modality"], row["scanner"], row["plane"]) == ("CT", "Maker|M1", "axial")
        assert row["kind"] == "image"
        assert row["bytes"] == sum(file.stat().st_size for file in files)
        hashes = [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
        assert row["file_hash"] == hashlib.sha256("".join(hashes).encode()).hexdigest()
        number = int(row["files"][0].split("/")[1][1:])
        assert row["label_grade"] == number
        assert row["patient_source"] == "dicom"
    assert len({row["patient"] for row in rows}) == 3
    assert len({row["site"] for row in rows}) == 1


def test_result_counts_and_findings(scanned: tuple[Path, Path, ScanResult]) -> None:
    _, out, result = scanned
    assert (result.files, result.changed, result.images) == (27, 27, 9)
    assert result.layouts == {"images+labels": 6, "DICOM series": 3, "loose": 1}
    findings = Cohort.open(out).findings()
    by_file = dict(zip(findings["file"], findings["name"], strict=True))
    assert by_file["broken.png"] == "corrupt-file"
    assert by_file["broken.dcm"] in ("corrupt-file", "limit-exceeded")
    assert result.findings["label-without-image"] == 1
    assert result.findings == findings["name"].value_counts().to_dict()
    text = "\n".join(result.lines())
    assert "'P99' in column 'patient' names no image." in text
    assert "P99" not in json.dumps(result.to_json())


def test_unchanged_rescan_reads_nothing_and_keeps_the_version(
    scanned: tuple[Path, Path, ScanResult],
) -> None:
    data, out, first = scanned
    before = Cohort.open(out)
    again = scan(data, out, labels=data.parent / "labels.csv", workers=2)
    assert (again.changed, again.units_read, again.version) == (0, 0, first.version)
    assert again.images == first.images
    assert Cohort.open(out).digest() == before.digest()


def test_patient_data_stay_out_of_the_cohort(scanned: tuple[Path, Path, ScanResult]) -> None:
    _, out, _ = scanned
    for path in out.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert b"Name^P" not in content
            assert b"Elsewhere" not in content
    assert stat.S_IMODE((out / "scan.sqlite").stat().st_mode) == 0o600
    with sqlite3.connect(out / "scan.sqlite") as db:
        facts = db.execute("SELECT group_concat(facts) FROM files").fetchone()[0]
    db.close()
    assert '"P1"' not in facts


def test_increment_equals_a_scan_from_nothing(tmp_path: Path) -> None:
    data, out = tmp_path / "data", tmp_path / "cohort"
    make.mixed(data, series_count=2, pairs=3)
    (data / "pairs/labels/c2.png").unlink()  # its mask comes later
    first = scan(data, out, workers=1)
    old = Cohort.open(out)
    old_digest, old_keys = old.digest(), set(old.keys())

    shutil.rmtree(data / "dicom/p1")  # gone
    make.png(data / "pairs/labels/c2.png", seed=99)  # new, and changes the row of its image
    files = make.series(data / "dicom/p7/s", patient="P7", uid="1.2.77", slices=3)
    changed = data / "dicom/p0/s/001.dcm"
    ds = pydicom.dcmread(changed)
    ds.PixelData = bytes(reversed(ds.PixelData))
    ds.save_as(changed)
    os.utime(changed, ns=(time.time_ns(), time.time_ns()))
    second = scan(data, out, workers=1)
    assert second.changed == 1 + len(files) + 1
    assert second.deleted == 4
    assert second.units_read == 3  # the changed series, the new one, the pair with its mask
    assert second.version > first.version

    fresh = scan(data, tmp_path / "fresh", pseudonym_key=out / "pseudonym.key", workers=1)
    one, other = Cohort.open(out), Cohort.open(tmp_path / "fresh")
    assert one.digest() == other.digest()
    assert fresh.images == second.images == len(one) == 5
    row = one.filter("array_has(files, 'pairs/images/c2.png')").to_arrow().to_pylist()[0]
    assert row["mask_files"] == ["pairs/labels/c2.png"]

    past = one.at(first.version)
    assert past.digest() == old_digest
    assert set(past.keys()) == old_keys
    assert [v.version for v in one.versions()] == [first.version, second.version]
    assert [v.rows for v in one.versions()] == [5, 5]


def test_roots_add_up_labels_stay_and_moved_data_are_found(tmp_path: Path) -> None:
    one, two, out = tmp_path / "one", tmp_path / "two", tmp_path / "cohort"
    make.series(one / "a", patient="P0", uid="1.2.5", slices=2)
    make.png(two / "x.png", seed=5)
    (tmp_path / "labels.csv").write_text("patient,grade\nP0,3\n")
    scan(one, out, labels=tmp_path / "labels.csv", pixels=False, workers=1)
    result = scan(two / "x.png", out, workers=1)  # a single file, and no labels named
    assert result.images == 2
    cohort = Cohort.open(out)
    rows = {row["root"]: row for row in cohort.iter_rows()}
    assert rows["one"]["label_grade"] == 3
    assert rows["one"]["content_hash"] is None  # headers only
    assert rows["two"]["content_hash"] is not None
    assert cohort.read(rows["two"]).shape == (24, 24, 1)

    one.rename(tmp_path / "elsewhere")
    with pytest.raises(CohortError, match="not at"):
        cohort.read(rows["one"])
    (tmp_path / "moved").mkdir()
    (tmp_path / "elsewhere").rename(tmp_path / "moved" / "one")
    moved = scan(tmp_path / "moved" / "one", out, pixels=False, workers=1)
    assert moved.images == 2
    assert set(Cohort.open(out).keys()) == {row["key"] for row in rows.values()}
    assert Cohort.open(out).read(rows["one"]).shape == (24, 24, 2)


def test_hostile_names_links_and_files(tmp_path: Path) -> None:
    data = tmp_path / "data"
    make.png(data / "ok.png")
    target = os.fsencode(data) + b"/caf\xe9.png"  # Latin-1: no UTF-8
    with open(data / "ok.png", "rb") as source, open(target, "wb") as copy:
        copy.write(source.read())
    (data / "deep").mkdir()
    (data / "deep" / "loop").symlink_to(data)
    (data / "dangling.png").symlink_to(data / "nowhere.png")
    os.mkfifo(data / "pipe.dcm")
    (data / ".hidden.png").write_bytes(b"x")
    (data / "empty.png").write_bytes(b"")
    make.png(data / "named.dcm.png").rename(data / "liar.dcm")  # a PNG that says DICOM
    result = scan(data, tmp_path / "cohort", workers=1)
    cohort = Cohort.open(tmp_path / "cohort")
    assert result.images == 3
    for row in cohort.iter_rows():
        assert cohort.read(row).shape == (24, 24, 1)
    findings = cohort.findings()
    by_file = dict(zip(findings["file"], findings["name"], strict=True))
    assert by_file["dangling.png"] == "unreadable-file"
    assert by_file["empty.png"] == "corrupt-file"
    assert {"pipe.dcm", ".hidden.png", "ok.png"}.isdisjoint(by_file)

    os.rename(tmp_path / "cohort", data / "inner")  # a cohort among the data is no data
    make.png(tmp_path / "nowhere.png", seed=3).rename(data / "nowhere.png")  # the link is whole now
    result = scan(data, tmp_path / "again", workers=1)
    assert result.images == 5
    assert set(result.findings) <= {"corrupt-file", "exact-duplicate", "near-duplicate"}


def test_what_could_not_be_opened_is_tried_again(tmp_path: Path) -> None:
    data = tmp_path / "data"
    make.png(data / "a.png")
    (data / "b.png").symlink_to(tmp_path / "later.png")
    assert scan(data, tmp_path / "cohort", workers=1).findings == {"unreadable-file": 1}
    make.png(tmp_path / "later.png", seed=8)
    result = scan(data, tmp_path / "cohort", workers=1)
    assert (result.images, result.findings) == (2, {})


def test_series_without_a_uid_is_its_folder(tmp_path: Path) -> None:
    for path in make.series(tmp_path / "data" / "exam"):
        ds = pydicom.dcmread(path)
        del ds.SeriesInstanceUID, ds.StudyInstanceUID, ds.PatientID
        ds.save_as(path)
    result = scan(tmp_path / "data", tmp_path / "cohort", workers=1)
    row = next(Cohort.open(tmp_path / "cohort").iter_rows())
    assert result.images == 1
    assert row["shape"] == [1, 24, 24, 4]
    assert row["patient_source"] == "none"
    assert row["patient"].startswith("p-")


def test_pattern_names_the_patient(tmp_path: Path) -> None:
    for n in range(4):
        make.png(tmp_path / f"data/visit{n}/k{n // 2}.png", seed=n)
    scan(tmp_path / "data", tmp_path / "cohort", patient_pattern=r"/(k\d)\.png$", workers=1)
    frame = Cohort.open(tmp_path / "cohort").to_pandas()
    assert sorted(frame.groupby("patient").size()) == [2, 2]


def test_refusals(tmp_path: Path) -> None:
    make.png(tmp_path / "data" / "a.png")
    data = tmp_path / "data"
    with pytest.raises(UsageError, match="existing"):
        scan(tmp_path / "nowhere", tmp_path / "c")
    with pytest.raises(UsageError, match="another folder"):
        scan(data, data)
    with pytest.raises(UsageError, match="workers"):
        scan(data, tmp_path / "c", workers=0)
    with pytest.raises(UsageError, match="regular expression"):
        scan(data, tmp_path / "c", patient_pattern="(")
    with pytest.raises(UsageError, match="labels"):
        scan(data, tmp_path / "c", labels=tmp_path / "no.csv")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("precious")
    with pytest.raises(CohortError, match="other files"):
        scan(data, tmp_path / "full")


def test_two_scans_do_not_mix_and_a_dead_one_does_not_block(tmp_path: Path) -> None:
    make.png(tmp_path / "data" / "a.png")
    out = tmp_path / "cohort"
    out.mkdir()
    handle = os.open(out / ".lock", os.O_CREAT | os.O_RDWR)
    os.write(handle, b"4242")
    fcntl.flock(handle, fcntl.LOCK_EX)
    with pytest.raises(CohortError, match="4242"):
        scan(tmp_path / "data", out)
    os.close(handle)
    assert scan(tmp_path / "data", out, workers=1).images == 1


@pytest.mark.parametrize(
    ("name", "images", "patients", "masks"),
    [
        ("hippocampus", 200, 200, 200),
        ("sunnybrook", 526, 30, 526),
        ("sts", 24, 8, 24),
        ("ct_abdomen", 3, 3, 3),
    ],
)
@pytest.mark.slow
def test_real_sets(data, tmp_path: Path, name: str, images: int, patients: int, masks: int) -> None:
    result = scan(data(name), tmp_path / "cohort")
    frame = Cohort.open(tmp_path / "cohort").to_pandas(["mask_files"])
    assert (result.images, result.patients) == (images, patients)
    assert (frame["mask_files"].map(len) > 0).sum() == masks
