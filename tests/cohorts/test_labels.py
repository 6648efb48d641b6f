# SPDX-License-Identifier: Apache-2.0
"""Joining tables of labels: which column is the key, types, roles, contradictions, suggestions."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vesalius.cohorts.index import Index
from vesalius.cohorts.labels import Labels, join
from vesalius.cohorts.pseudonyms import Pseudonyms
from vesalius.cohorts.schema import empty_row
from vesalius.errors import CohortError

PSEUDONYM = Pseudonyms(b"k" * 32)


def image(n: int, **values: Any) -> dict[str, Any]:
    """Return a row of image n, of patient n // 2, in study n // 2."""
    return empty_row() | {
        "key": f"{n:016x}",
        "format": "png",
        "files": [f"images/{n:03d}.png"],
        "patient": PSEUDONYM("patient", f"P{n // 2}"),
        "patient_source": "path",
        "study": PSEUDONYM("study", f"1.2.{n // 2}"),
        "series": PSEUDONYM("series", f"1.2.{n // 2}.{n}"),
        **values,
    }


ROWS = [image(n) for n in range(6)]


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    folder = tmp_path / "cohort"
    folder.mkdir()
    with Index(folder) as opened:
        yield opened


def joined(index: Index, path: Path, text: str | None = None, rows: Any = ROWS) -> Labels:
    if text is not None:
        path.write_text(text)
    found = join(path, index, lambda: iter(rows), PSEUDONYM)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("column", "values", "kind"),
    [
        ("file", [f"images/{n:03d}.png" for n in range(6)], "path"),
        ("file", [f".\\images\\{n:03d}.png" for n in range(6)], "path"),
        ("f", [f"{n:03d}.PNG" for n in range(6)], "name"),
        ("id", [f"{n:03d}" for n in range(6)], "stem"),
        ("image ID", [str(n) for n in range(6)], "number"),
        ("who", ["P0", "P1", "P2"], "patient"),
        ("study", ["1.2.0", "1.2.1", "1.2.2"], "study"),
        ("uid", [f"1.2.{n // 2}.{n}" for n in range(6)], "series"),
        ("key", [f"{n:016x}" for n in range(6)], "key"),
    ],
)
def test_key_is_the_column_that_names_images(
    index: Index, tmp_path: Path, column: str, values: list[str], kind: str
) -> None:
    lines = [f"{column},grade,other"] + [f"{v},{n % 3},x{n}" for n, v in enumerate(values)]
    labels = joined(index, tmp_path / "l.csv", "\n".join(lines))
    assert (labels.report.column, labels.report.kind) == (column, kind)
    assert (labels.report.matched, labels.report.unmatched) == (len(values), 0)
    assert labels.of(ROWS[5]) == {
        "label_grade": (len(values) - 1) % 3,
        "label_other": f"x{len(values) - 1}",
    }


def test_types_and_roles(index: Index, tmp_path: Path) -> None:
    table = (
        "file;code;score;ok;grade;note;Split;patient;modality\n"
        "000.png;007;1;true;3;one two three four five six;train;Q1;MRI\n"
        "001.png;010;2.5;false;;the lung is clear and the heart is normal;validation;Q1;MRI\n"
        "002.png;011;NA;true;4;;test;Q2;CT\n"
    )
    labels = joined(
        index, tmp_path / "l.csv", table, [r | {"patient_source": "none"} for r in ROWS]
    )
    assert labels.report.types == {
        "label_code": "text",
        "label_score": "double",
        "label_ok": "boolean",
        "label_grade": "integer",
        "label_modality": "text",
    }
    first = labels.of(ROWS[0])
    assert first == {
        "label_code": "007",
        "label_score": 1.0,
        "label_ok": True,
        "label_grade": 3,
        "label_modality": "MRI",
        "modality": "MR",
        "split": "train",
        "words": "one two three four five six",
        "patient": PSEUDONYM("patient", "Q1"),
        "patient_source": "labels",
    }
    assert labels.of(ROWS[1])["split"] == "val"
    assert "label_score" not in labels.of(ROWS[2])
    dicom = ROWS[0] | {"patient_source": "dicom", "modality": "US"}
    assert "patient" not in labels.of(dicom)
    assert "modality" not in labels.of(dicom)


def test_identifiers_do_not_enter_the_index(index: Index, tmp_path: Path) -> None:
    joined(index, tmp_path / "l.csv", "file,patient\n000.png,Smith^John\n001.png,Doe^Jane\n")
    stored = index.db.execute("SELECT group_concat(name || value) FROM labels_0").fetchone()[0]
    assert "Smith" not in stored
    assert "000.png" in stored


def test_contradicting_rows_leave_the_value_empty(index: Index, tmp_path: Path) -> None:
    labels = joined(
        index, tmp_path / "l.csv", "file,a,b\n000.png,1,x\n000.png,1,x\n000.png,1,y\n001.png,2,z\n"
    )
    assert labels.of(ROWS[0]) == {"label_a": 1}
    assert labels.report.contradictions == 1


def test_unmatched_keys_are_counted_and_suggested(index: Index, tmp_path: Path) -> None:
    labels = joined(index, tmp_path / "l.csv", "file,a\n000.png,1\n001.png,2\n003png,3\nzzzz,4\n")
    assert (labels.report.matched, labels.report.unmatched) == (2, 2)
    assert labels.unmatched(10) == [3, 4]
    assert "Did you mean '003.png'?" in labels.report.examples[0]
    with pytest.raises(CohortError, match=r"names any image.*Did you mean .003.png."):
        joined(index, tmp_path / "m.csv", "file,a\n003png,1\n")


def test_a_table_nobody_asked_for_must_match(index: Index, tmp_path: Path) -> None:
    path = tmp_path / "l.csv"
    path.write_text("a,b\n1,2\n3,4\n900,5\n")
    assert join(path, index, lambda: iter(ROWS), PSEUDONYM, least=0.9) is None
    path.write_text("class,count\n1,10\n2,20\n1,30\n2,40\n1,50\n2,60\n1,70\n")  # 1 and 2 are stems
    assert join(path, index, lambda: iter(ROWS), PSEUDONYM, least=0.9) is None


def test_dev_is_validation_unless_it_is_all_that_is_held_out(index: Index, tmp_path: Path) -> None:
    labels = joined(index, tmp_path / "l.csv", "file,split\n000.png,train\n001.png,dev\n")
    assert labels.of(ROWS[1]) == {"split": "test"}
    labels = joined(index, tmp_path / "m.csv", "file,split\n000.png,test\n001.png,dev\n")
    assert labels.of(ROWS[1]) == {"split": "val"}


@pytest.mark.parametrize(
    "form", ["tsv", "parquet", "list.json", "lines.jsonl", "keys.json", "columns.json"]
)
def test_same_table_in_every_format(index: Index, tmp_path: Path, form: str) -> None:
    records = [{"file": f"{n:03d}.png", "grade": n, "name": f"n{n}"} for n in range(4)]
    path = tmp_path / f"t.{form}"
    if form == "tsv":
        path.write_text(
            "\n".join(["file\tgrade\tname"] + ["\t".join(map(str, r.values())) for r in records])
        )
    elif form == "parquet":
        pq.write_table(pa.Table.from_pylist(records), path)
    elif form == "list.json":
        path.write_text(json.dumps(records))
    elif form == "lines.jsonl":
        path.write_text("\n".join(map(json.dumps, records)))
    elif form == "keys.json":
        path.write_text(
            json.dumps({r["file"]: {"grade": r["grade"], "name": r["name"]} for r in records})
        )
    else:
        path.write_text(json.dumps({k: [r[k] for r in records] for k in records[0]}))
    labels = joined(index, path)
    assert labels.of(ROWS[3]) == {"label_grade": 3, "label_name": "n3"}
    assert labels.report.types == {"label_grade": "integer", "label_name": "text"}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"", "no rows"),
        ("a.csv", b"\xff\xfe\x00bad", "cannot be read"),
        ("a.json", b"{nonsense", "cannot be read"),
        ("a.json", b"[" * 100_000, "cannot be read"),
        ("a.json", b"[1, 2]", "list of objects"),
        ("a.parquet", b"PAR1 no", "damaged|cannot be read"),
        ("a.docx", b"x", "CSV, TSV, Parquet or JSON"),
    ],
)
def test_broken_tables_are_refused(
    index: Index, tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(CohortError, match=message):
        join(path, index, lambda: iter(ROWS), PSEUDONYM)
