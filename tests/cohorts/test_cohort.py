# SPDX-License-Identifier: Apache-2.0
"""Cohort: views, columns with did-you-mean, forms, digest, pickling, damage."""

from __future__ import annotations

import copy
import json
import pickle
import sys
from pathlib import Path

import pytest

from vesalius.cohorts import Cohort
from vesalius.cohorts.scan import scan
from vesalius.cohorts.schema import COLUMNS, label_column
from vesalius.errors import CohortError, UsageError

sys.path.insert(0, str(Path(__file__).parent))
import make


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    work = tmp_path_factory.mktemp("cohort")
    make.mixed(work / "data", series_count=2, pairs=4)
    (work / "data" / "broken.dcm").unlink()
    scan(work / "data", work / "out", labels=work / "labels.csv", license="CC BY 4.0", workers=1)
    return Cohort.open(work / "out")


def test_all_forms_hold_the_same_rows_by_key(cohort: Cohort) -> None:
    table = cohort.to_arrow()
    keys = table["key"].to_pylist()
    assert keys == sorted(keys) == cohort.keys()
    assert len(cohort) == len(keys) == 6
    assert table.column_names == [*COLUMNS, "label_grade"]
    assert cohort.to_pandas()["key"].tolist() == keys
    assert cohort.to_polars()["key"].to_list() == keys
    assert list(cohort.iter_rows(batch_size=2)) == table.to_pylist()
    assert [row["shape"] for row in cohort.iter_rows(["shape"])]
    assert cohort.row(keys[3]) == table.slice(3, 1).to_pylist()[0]
    assert cohort.targets == ["grade"]
    assert cohort.license == "CC BY 4.0"


def test_filters_join_by_and_and_stay_lazy(cohort: Cohort) -> None:
    ct = cohort.filter("modality = 'CT'")
    assert len(ct) == 2
    both = ct.filter("label_grade = 1 OR label_grade = 99")
    assert [row["label_grade"] for row in both.iter_rows()] == [1]
    assert len(cohort) == 6
    assert len(cohort.filter("array_has(findings, 'image-without-label')").keys()) <= 6
    assert len(ct.findings()) <= len(cohort.findings())
    assert set(ct.findings()["key"]) <= set(ct.keys())


def test_unknown_names_are_suggested(cohort: Cohort) -> None:
    with pytest.raises(UsageError, match=r"'modalty'.*Did you mean 'modality'"):
        cohort.filter("modalty = 'CT'")
    with pytest.raises(UsageError, match=r"'CT'.*single quotes"):
        cohort.filter("modality = CT")
    with pytest.raises(UsageError, match="not understood"):
        cohort.filter("modality = 'CT' AND AND")
    with pytest.raises(UsageError, match="Did you mean 'patient'"):
        cohort.to_pandas(["patien"])
    with pytest.raises(CohortError, match="no version 77"):
        cohort.at(77)
    with pytest.raises(CohortError, match="no image 'x'"):
        cohort.row("x")


def test_digest_tells_views_apart_and_survives_copies(cohort: Cohort) -> None:
    view = cohort.filter("modality = 'CT'")
    assert view.digest() != cohort.digest()
    for again in (pickle.loads(pickle.dumps(view)), copy.deepcopy(view)):
        assert again.digest() == view.digest()
        assert len(again) == 2


def test_masks_come_with_names_and_rows_without_are_refused(cohort: Cohort) -> None:
    masked = next(row for row in cohort.iter_rows() if row["mask_files"])
    plain = next(row for row in cohort.iter_rows() if not row["mask_files"])
    assert cohort.read_mask(masked).data.max() == 1
    with pytest.raises(CohortError, match="has no mask"):
        cohort.read_mask(plain)
    with pytest.raises(CohortError, match="outside its root"):
        cohort.read({**plain, "files": ["../../etc/passwd"]})


def test_what_is_no_cohort_is_refused(cohort: Cohort, tmp_path: Path) -> None:
    with pytest.raises(CohortError, match="vesalius scan"):
        Cohort.open(tmp_path)
    (tmp_path / "scan.sqlite").touch()
    with pytest.raises(CohortError, match="unfinished"):
        Cohort.open(tmp_path)
    info = json.loads((cohort.path / "cohort.json").read_text())
    (tmp_path / "cohort.json").write_text(json.dumps({**info, "format": 99}))
    with pytest.raises(CohortError, match="format 99"):
        Cohort.open(tmp_path)
    (tmp_path / "cohort.json").write_text(json.dumps(info))
    with pytest.raises(CohortError, match="cannot be opened"):
        len(Cohort.open(tmp_path))


def test_label_columns_are_plain_words() -> None:
    assert label_column("Class label") == "label_class_label"
    assert label_column(" T-Stage (2) ") == "label_t_stage_2"
    assert label_column("日") == "label_value"
