# SPDX-License-Identifier: Apache-2.0
"""Labels: a table (CSV, TSV, Parquet, JSON) joined to the rows by its best-matching column.

The column whose values name most images is the key: a row's key, series or study UID, a path, a
file name with or without suffix, a patient, or, in a column named as such (`image ID`), the number
that is an image's name. The other columns become, by name and content:

- `patient`, `subject`, …: the patient of images for whom nothing else tells one;
- `split`, `subset`, `fold`: the official split (`dev` counts as `val`, or as `test` where the table
  has no `test`);
- text of many words: the column `words`;
- `modality`, `plane`, `view`, `laterality`, `body_part`: also fill that column where it is empty;
- the rest: `label_<name>`, typed as whole numbers, numbers, truth values or text.

A key that appears in several rows with different values is contradictory there: the value is left
empty. The table is copied into the index, so that its size does not matter.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vesalius.cohorts.index import Index
from vesalius.cohorts.layouts.facts import MODALITIES, SPLITS, stem, tokens
from vesalius.cohorts.pseudonyms import Pseudonyms
from vesalius.cohorts.schema import label_column
from vesalius.cohorts.tables import measure, records
from vesalius.errors import CohortError, did_you_mean
from vesalius.types import Json

KINDS = ("key", "series", "study", "path", "name", "stem", "patient", "number")
_SPLITS = frozenset({"split", "subset", "partition", "set", "fold", "usage", "phase"})
_PATIENTS = frozenset({
    "patient", "patient_id", "patientid", "subject", "subject_id", "subjectid", "participant_id",
    "case", "case_id", "caseid", "person", "person_id",
})  # fmt: skip
_COLUMNS = {"modality": "modality", "plane": "plane", "view": "view", "laterality": "laterality",
            "body_part": "body_part", "bodypart": "body_part"}  # fmt: skip
_WORDS = frozenset({"words", "caption", "captions", "findings", "impression", "report", "text",
                    "description", "history", "indication"})  # fmt: skip
_NUMBERING = frozenset({"id", "image", "img", "file", "filename", "name", "number", "no", "nr",
                        "index", "case", "key", "slice", "frame"})  # fmt: skip
_MANY_WORDS = 5.0  # on average: prose, not a class
_SAMPLE = 5000  # rows of the table that choose the key
_MOST_EXAMPLES = 5
_MOST_NAMED = 100_000  # keys of the cohort that a suggestion is looked for among


@dataclass(slots=True)
class Joined:
    """How a table was joined.

    Attributes:
        column: the column that was the key, and `kind`, what it named.
        types: label column -> type.
        matched, unmatched: rows of the table whose key names an image, or does not.
        contradictions: keys whose rows disagree in a value.
        examples: sentences about unmatched keys. Patient data: for the terminal only.
    """

    source: str = ""
    column: str = ""
    kind: str = ""
    types: dict[str, str] = field(default_factory=dict)
    matched: int = 0
    unmatched: int = 0
    contradictions: int = 0
    examples: tuple[str, ...] = ()


class Labels:
    """A table that was joined: `of(row)` gives what it adds to a row.

    The index holds the table under `number` and remembers how it was joined.
    """

    def __init__(
        self,
        index: Index,
        number: int,
        report: Joined,
        roles: Mapping[str, str],
        pseudonym: Pseudonyms,
    ) -> None:
        self.report = report
        self.number = number
        self.roles = dict(roles)
        self._index = index
        self._db = index.db
        self._pseudonym = pseudonym

    def unmatched(self, most: int) -> list[int]:
        """Return the numbers (from 1) of the table's first rows that name no image."""
        rows = self._db.execute(
            f"SELECT rowid FROM labels_{self.number} WHERE used = 0 ORDER BY rowid LIMIT ?",  # noqa: S608  an integer
            (most,),
        )
        return [number for (number,) in rows]

    def recount(self, rows: Iterator[Json]) -> None:
        """Count again which rows of the table name an image, after the images changed."""
        _count(self._index, self.number, self.report, rows)

    def of(self, row: Json) -> Json:
        """Return `{column: value}` for a row of the cohort, `{}` where the table has none."""
        forms = identities(row)[self.report.kind]
        found = self._db.execute(
            f"SELECT value FROM labels_{self.number} "  # noqa: S608  an integer
            "WHERE name IN (SELECT value FROM json_each(?))",
            (json.dumps(forms),),
        ).fetchall()
        if not found:
            return {}
        values = _merged([json.loads(value) for (value,) in found])
        out: Json = {}
        words = []
        for name, value in values.items():
            role = self.roles.get(name, "")
            if value is None or not role:
                continue
            if role == "words":
                words.append(str(value))
            elif role == "patient":
                if row["patient_source"] in ("none", "path"):
                    out |= {"patient": value, "patient_source": "labels"}
            elif role == "split":
                out["split"] = value
            else:
                out[role] = value
                plain = re.sub(r"\W+", "_", name.strip().lower())
                if plain in _COLUMNS and not row.get(_COLUMNS[plain]):
                    text = str(value)
                    if plain == "modality":
                        text = MODALITIES.get(text.lower(), text)
                    out[_COLUMNS[plain]] = text.lower() if plain == "plane" else text
        if words:
            out["words"] = "\n".join(filter(None, [row.get("words") or "", *words]))
        return out


def join(
    path: Path,
    index: Index,
    rows: Callable[[], Iterator[Json]],
    pseudonym: Pseudonyms,
    *,
    number: int = 0,
    least: float = 0.0,
) -> Labels | None:
    """Join a table to the rows of the index.

    Args:
        path: the table.
        rows: called for a fresh pass over the rows.
        number: under which the index keeps its copy.
        least: share of the table's keys that must name an image; below, None is returned.

    Raises:
        CohortError: the table cannot be read, is empty, or no column of it names any image.
    """
    try:
        columns, types = measure(path)
    except CohortError:
        if least:
            return None
        raise
    sample = [row for row, _ in zip(records(path, types), range(_SAMPLE), strict=False)]
    if not sample or not columns:
        if least:
            return None
        raise CohortError(f"the table of labels {path} holds no rows")
    key, kind, share = _choose(columns, sample, rows(), pseudonym)
    if least and share < least:
        return None
    if not key:
        raise CohortError(_nothing_matches(path, columns, sample, rows()))
    roles = _roles(columns, types, sample, key)
    report = Joined(path.name, key, kind)
    report.types = {role: types[name] for name, role in roles.items() if role.startswith("label_")}
    _copy(path, index, number, types, key, kind, roles, pseudonym)
    _count(index, number, report, rows())
    if not least:
        report.examples = _examples(path, types, key, kind, rows(), pseudonym)
    return Labels(index, number, report, roles, pseudonym)


def identities(row: Json) -> dict[str, list[str]]:
    """Return what may name a row, by kind, as the values of a key column are normalized."""
    files = [one for one in row["files"] if row["format"] != "dicom" or len(row["files"]) == 1]
    member = row["member"]
    names = [file.rpartition("/")[2] for file in files]
    stems = list(dict.fromkeys(s for name in names for s in _stems(name)))
    parts = [part for file in files for part in _tails(file)]
    if member:
        parts = [f"{part}#{member}" for part in parts] + [f"{part}:{member}" for part in parts]
        names, stems = [], []
    return {
        "key": [row["key"]],
        "series": [row["series"]] if row["series"] else [],
        "study": [row["study"]] if row["study"] else [],
        "path": [_plain(part) for part in parts],
        "name": [_plain(name) for name in names],
        "stem": [_plain(one) for one in stems],
        "number": [str(int(one)) for one in stems if one.isdecimal()],
        "patient": [row["patient"]] if row["patient_source"] in ("dicom", "path") else [],
    }


def digest_of(path: Path) -> str:
    """Return a hash of the table's file."""
    engine = hashlib.sha256()
    with open(path, "rb") as stream:
        while piece := stream.read(1 << 20):
            engine.update(piece)
    return engine.hexdigest()


def _form(value: Any, kind: str, pseudonym: Pseudonyms) -> str:
    """Return a value of a key column in the form that `identities` gives for `kind`."""
    text = str(value).strip()
    if not text:
        return ""
    if kind == "patient":
        return text if re.fullmatch(r"p-[0-9a-f]{16}", text) else pseudonym("patient", text)
    if kind in ("series", "study"):
        return pseudonym(kind, text)
    if kind == "number":
        return str(int(text)) if text.isdecimal() else ""
    if kind == "key":
        return text
    return _plain(text.replace("\\", "/").removeprefix("./"))


def _plain(text: str) -> str:
    return text.casefold()


def _stems(name: str) -> list[str]:
    """Return a name without its last suffix, and without all that look like one."""
    once = stem(name)
    return [once, stem(once)] if re.search(r"\.(dcm|nii|png|jpe?g|tiff?)$", once, re.I) else [once]


def _tails(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[n:]) for n in range(max(0, len(parts) - 6), len(parts))][:-1] or [path]


def _choose(
    columns: Sequence[str],
    sample: list[Json],
    rows: Iterator[Json],
    pseudonym: Pseudonyms,
) -> tuple[str, str, float]:
    """Return the column and kind that name most rows of the table, and their share."""
    kinds = KINDS
    wanted: dict[str, dict[str, list[str]]] = {kind: defaultdict(list) for kind in kinds}
    distinct: Counter[tuple[str, str]] = Counter()
    for name in columns:
        for text in {str(row[name]) for row in sample if row.get(name) not in (None, "")}:
            for kind in kinds:
                form = _form(text, kind, pseudonym)
                if form:
                    distinct[name, kind] += 1
                    wanted[kind][form].append(name)
    hits: dict[tuple[str, str], set[str]] = defaultdict(set)
    images: Counter[tuple[str, str]] = Counter()
    for row in rows:
        for kind, forms in identities(row).items():
            if kind not in wanted:
                continue
            for name in {n for form in forms for n in wanted[kind].get(form, ())}:
                images[name, kind] += 1
                hits[name, kind] |= {form for form in forms if name in wanted[kind].get(form, ())}
    for name, kind in list(hits):  # counts and grades are numbers too: only a named key may match
        if kind == "number" and not set(tokens(name)) & _NUMBERING:
            del hits[name, kind]
    if not hits:
        return "", "", 0.0

    def merit(choice: tuple[str, str]) -> tuple[float, ...]:
        name, kind = choice
        rate = len(hits[choice]) / max(1, distinct[choice])
        # Finer keys first among those that match as well: an image's name beats its patient.
        return (round(rate, 2), images[choice] > 0, len(hits[choice]), -kinds.index(kind),
                -list(columns).index(name))  # fmt: skip

    best = max(hits, key=merit)
    return *best, len(hits[best]) / max(1, distinct[best])


def _roles(
    columns: Sequence[str], types: Mapping[str, str], sample: list[Json], key: str
) -> dict[str, str]:
    """Return column -> what becomes of it: words, patient, split, a label column, or nothing."""
    roles = {}
    for name in columns:
        plain = re.sub(r"\W+", "_", name.strip().lower()).strip("_")
        values = [str(row[name]) for row in sample if row.get(name) not in (None, "")]
        if name == key:
            continue
        if plain in _PATIENTS:
            roles[name] = "patient"
        elif plain in _SPLITS and values and all(v.strip().lower() in SPLITS for v in values):
            roles[name] = "split"
        elif types[name] == "text" and values and _is_prose(plain, values):
            roles[name] = "words"
        elif values and not _is_path(values):
            roles[name] = label_column(name)
    return roles


def _is_prose(name: str, values: list[str]) -> bool:
    words = sum(len(value.split()) for value in values) / len(values)
    return words >= _MANY_WORDS or (name in _WORDS and words > 1)


def _is_path(values: list[str]) -> bool:
    return sum(
        bool(re.search(r"[^/\\]\.\w{2,4}(\.gz)?$", v) and "/" in v) for v in values
    ) > 0.9 * len(values)


def _copy(
    path: Path,
    index: Index,
    number: int,
    types: Mapping[str, str],
    key: str,
    kind: str,
    roles: Mapping[str, str],
    pseudonym: Pseudonyms,
) -> None:
    """Copy the table into the index, keyed by the chosen column's normalized values."""
    db = index.db
    index.begin()
    db.execute(f"DROP TABLE IF EXISTS labels_{number}")
    db.execute(f"CREATE TABLE labels_{number} (name TEXT, value TEXT, used INTEGER DEFAULT 0)")
    subsets = {name for name, role in roles.items() if role == "split"}
    held_out = {
        name: not any(
            str(row.get(name)).strip().lower() in ("test", "testing")
            for row in records(path, types)
        )
        for name in subsets
    }

    def entries() -> Iterator[tuple[str, str]]:
        for row in records(path, types):
            form = _form(row.get(key) if row.get(key) is not None else "", kind, pseudonym)
            if not form:
                continue
            for name in subsets:
                word = str(row.get(name) or "").strip().lower()
                subset = SPLITS.get(word)
                row[name] = "test" if word == "dev" and held_out[name] else subset
            kept = {name: row.get(name) for name in roles}
            for name, role in roles.items():  # identifiers never enter the index
                if role == "patient" and kept[name] is not None:
                    kept[name] = pseudonym("patient", str(kept[name]))
            yield form, json.dumps(kept)

    db.executemany(f"INSERT INTO labels_{number} (name, value) VALUES (?, ?)", entries())  # noqa: S608  an integer
    db.execute(f"CREATE INDEX labels_{number}_name ON labels_{number} (name)")
    index.commit()


def _count(index: Index, number: int, report: Joined, rows: Iterator[Json]) -> None:
    """Count matched and unmatched rows of the table, and describe a few unmatched keys."""
    db = index.db
    index.begin()
    db.execute(f"UPDATE labels_{number} SET used = 0 WHERE used = 1")  # noqa: S608  an integer
    for row in rows:
        forms = identities(row)[report.kind]
        if forms:
            db.execute(
                f"UPDATE labels_{number} SET used = 1 "  # noqa: S608  an integer
                "WHERE name IN (SELECT value FROM json_each(?))",
                (json.dumps(forms),),
            )
    report.matched, report.unmatched = (
        db.execute(f"SELECT count(*) FROM labels_{number} WHERE used = ?", (used,)).fetchone()[0]  # noqa: S608  an integer
        for used in (1, 0)
    )
    report.contradictions = db.execute(
        f"SELECT count(*) FROM (SELECT name FROM labels_{number} GROUP BY name "  # noqa: S608  an integer
        "HAVING count(DISTINCT value) > 1)"
    ).fetchone()[0]
    index.commit()


def _examples(
    path: Path,
    types: Mapping[str, str],
    key: str,
    kind: str,
    rows: Iterator[Json],
    pseudonym: Pseudonyms,
) -> tuple[str, ...]:
    """Return sentences about the first unmatched keys, with the nearest name that exists."""
    known = {form for row in rows for form in identities(row)[kind]}
    readable = sorted(known)[:_MOST_NAMED] if kind in ("path", "name", "stem", "key") else []
    found = []
    for row in records(path, types):
        value = row.get(key)
        if value is None or _form(value, kind, pseudonym) in known:
            continue
        found.append(
            f"'{value}' in column '{key}' names no image.{did_you_mean(str(value), readable)}"
        )
        if len(found) == _MOST_EXAMPLES:
            break
    return tuple(found)


def _merged(rows: list[Json]) -> Json:
    """Return the values that all rows of one key agree in; None where they differ."""
    merged = dict(rows[0])
    for row in rows[1:]:
        for name, value in row.items():
            if merged[name] is None:
                merged[name] = value
            elif value is not None and value != merged[name]:
                merged[name] = None
    return merged


def _nothing_matches(
    path: Path, columns: Sequence[str], sample: list[Json], rows: Iterator[Json]
) -> str:
    known = [
        file.rpartition("/")[2]
        for row, _ in zip(rows, range(2000), strict=False)
        for file in row["files"][:1]
    ]
    near = next(
        (
            f" '{row[name]}' in '{name}':{hint}"
            for row in sample[:200]
            for name in columns
            if row.get(name) and (hint := did_you_mean(str(row[name]), known))
        ),
        "",
    )
    return (
        f"no column of {path} ({', '.join(columns[:20])}) names any image: one of them must hold "
        f"patient IDs, file names or paths, study or series UIDs, or keys of rows.{near}"
    )
