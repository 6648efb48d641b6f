# SPDX-License-Identifier: Apache-2.0
"""Checks that need the whole table: duplicates, leaks of official splits, lacking labels."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from vesalius.cohorts.quality.findings import finding
from vesalius.cohorts.similarity import exact_duplicates, groups, table_near_duplicates
from vesalius.results import Finding
from vesalius.types import Array

if TYPE_CHECKING:
    import pyarrow as pa

NEEDED = (
    "key",
    "patient",
    "patient_source",
    "kind",
    "modality",
    "scanner",
    "content_hash",
    "phash",
    "signature",
    "stat_p01",
    "stat_p99",
    "mask_files",
    "mask_names",
    "split",
)
SCALE_RATIO = 10.0

_FEWEST_MASKS = 8
_NAMED = 100  # keys listed in one finding


def check_cohort(table: pa.Table) -> list[Finding]:
    """Return the findings that concern several rows of the table `images`.

    Columns used: `NEEDED` and all `label_…`. One finding a group of rows; `key` is its smallest
    key and `evidence["keys"]` lists the first hundred.
    Takes memory for these columns only (about 400 bytes a row).
    """
    table = table.sort_by("key")
    exact = list(_exact(table))
    return [
        *exact,
        *_near(table),
        *_leaks(table),
        *_unlabeled(table),
        *_rare_names(table),
        *_scales(table),
    ]


def _exact(table: pa.Table) -> Iterator[Finding]:
    for rows in _same(table, "content_hash"):
        keys, patients, _ = _of(table, rows)
        across = f", of {patients} patients" if patients > 1 else ""
        yield finding(
            "exact-duplicate",
            f"{len(rows)} rows hold the same voxels on the same grid{across}",
            {"rows": len(rows), "patients": patients, "keys": keys},
            severity="error" if patients > 1 else None,
            key=keys[0],
        )


def _near(table: pa.Table) -> Iterator[Finding]:
    group = _alike(table)
    gathered: dict[int, list[int]] = defaultdict(list)
    _, inverse, size = np.unique(group, return_inverse=True, return_counts=True)
    for row in np.flatnonzero(size[inverse] > 1).tolist():
        gathered[int(group[row])].append(row)
    hashes = table["content_hash"]
    for rows in gathered.values():
        if len({hashes[row].as_py() for row in rows}) < 2:
            continue
        keys, patients, _ = _of(table, rows)
        if patients == 1 and all(source != "none" for source in _sources(table, rows)):
            continue  # frames of one person resemble each other, and splits keep a person whole
        name = "near-duplicate-across-patients" if patients > 1 else "near-duplicate"
        yield finding(
            name,
            f"{len(rows)} rows look the same"
            + (f", of {patients} patients" if patients > 1 else ""),
            {"rows": len(rows), "patients": patients, "keys": keys},
            key=keys[0],
        )


def _leaks(table: pa.Table) -> Iterator[Finding]:
    """Yield official splits that share a patient, or the same or nearly the same image."""
    if not any(table["split"].to_pylist()):
        return
    looks: dict[int, list[int]] = defaultdict(list)
    for row, number in enumerate(_alike(table).tolist()):
        looks[number].append(row)
    for what, several in (
        ("patients", list(_same(table, "patient"))),
        ("images", [rows for rows in looks.values() if len(rows) > 1]),
    ):
        shared = []
        for rows in several:
            keys, _, subsets = _of(table, rows)
            if len(subsets) > 1:
                shared.append((keys, sorted(subsets)))
        if shared:
            yield finding(
                "leaking-split",
                f"{len(shared)} {what} are, or look, the same in several official splits "
                f"({', '.join(sorted({name for _, names in shared for name in names}))})",
                {what: len(shared), "keys": [key for keys, _ in shared for key in keys][:_NAMED]},
                key=shared[0][0][0],
            )


def _alike(table: pa.Table) -> Array:
    """Return the group of identical or nearly identical images of each row."""
    return groups(len(table), exact_duplicates(table), table_near_duplicates(table))


def _unlabeled(table: pa.Table) -> Iterator[Finding]:
    labels = [name for name in table.column_names if name.startswith("label_")]
    image = [kind in ("image", "", None) for kind in table["kind"].to_pylist()]
    keys = table["key"]
    for name in labels:
        lacking = [
            keys[row].as_py()
            for row, value in enumerate(table[name].to_pylist())
            if image[row] and (value is None or value == "")
        ]
        if 0 < len(lacking) < sum(image):
            yield finding(
                "image-without-label",
                f"{len(lacking)} of {sum(image)} images have no {name[6:]!r}",
                {"label": name[6:], "rows": len(lacking), "keys": lacking[:_NAMED]},
                key=lacking[0],
            )
    masks = table["mask_files"].to_pylist()
    groups_of: dict[str, list[int]] = defaultdict(list)
    for row, kind in enumerate(table["modality"].to_pylist()):
        if image[row]:
            groups_of[kind or ""].append(row)
    for modality, rows in sorted(groups_of.items()):
        lacking = [keys[row].as_py() for row in rows if not masks[row]]
        if 0 < len(lacking) < len(rows):
            of = f" of modality {modality}" if modality else ""
            yield finding(
                "image-without-mask",
                f"{len(lacking)} of {len(rows)} images{of} have no mask",
                {"modality": modality, "rows": len(lacking), "keys": lacking[:_NAMED]},
                key=lacking[0],
            )


def _rare_names(table: pa.Table) -> Iterator[Finding]:
    """Yield masks that name a structure hardly any other mask of the cohort names.

    Judged from eight masks on that state names, where half of them or more agree on a name.
    """
    named = {
        row: set(json.loads(names).values())
        for row, names in enumerate(table["mask_names"].to_pylist())
        if names
    }
    if len(named) < _FEWEST_MASKS:
        return
    counts = Counter(name for names in named.values() for name in names)
    usual = sorted(name for name, count in counts.items() if count >= len(named) / 2)
    rare = {name for name, count in counts.items() if count <= max(1, len(named) // 50)}
    for row, names in named.items() if usual else ():
        strange = sorted(names & rare)
        if strange:
            yield finding(
                "unknown-label-value",
                f"the mask names {strange}, which hardly any other of {len(named)} masks does; "
                f"usual are {usual}",
                {"names": strange, "usual": usual},
                severity="warning",
                key=table["key"][row].as_py(),
            )


def _scales(table: pa.Table) -> Iterator[Finding]:
    """Yield modalities without a unit whose scanners' median ranges differ 10-fold or more."""
    ranges: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    names = ("modality", "scanner", "stat_p01", "stat_p99")
    for modality, scanner, low, high in zip(
        *(table[name].to_pylist() for name in names), strict=True
    ):
        if modality and scanner and modality != "CT" and None not in (low, high) and high > low:
            ranges[modality][scanner].append(high - low)
    for modality, scanners in sorted(ranges.items()):
        middle = {name: float(np.median(found)) for name, found in sorted(scanners.items())}
        ratio = max(middle.values()) / min(middle.values())
        if len(middle) > 1 and ratio >= SCALE_RATIO:
            yield finding(
                "mixed-scanner-scale",
                f"intensity ranges of {len(middle)} {modality} scanners differ {ratio:.0f}-fold",
                {"modality": modality, "ratio": ratio, "scanners": middle},
            )


def _same(table: pa.Table, column: str) -> Iterator[list[int]]:
    """Yield the rows of each value of a column that more than one row has."""
    import pyarrow.compute as pc

    counts = pc.value_counts(table[column])
    often = counts.filter(pc.greater(pc.struct_field(counts, "counts"), 1))
    repeated = pc.struct_field(often, "values")
    repeated = repeated.filter(pc.and_kleene(pc.is_valid(repeated), pc.not_equal(repeated, "")))
    if not len(repeated):
        return
    rows = np.flatnonzero(pc.is_in(table[column], value_set=repeated).to_numpy())
    gathered: dict[str, list[int]] = defaultdict(list)
    for row, value in zip(rows.tolist(), table[column].take(rows).to_pylist(), strict=True):
        gathered[value].append(row)
    yield from gathered.values()


def _sources(table: pa.Table, rows: list[int]) -> list[str]:
    sources: list[str] = table["patient_source"].take(rows).to_pylist()
    return sources


def _of(table: pa.Table, rows: list[int]) -> tuple[list[str], int, set[str]]:
    """Return the first keys, the number of known patients and the official splits of rows."""
    part = table.select(["key", "patient", "patient_source", "split"]).take(rows).to_pydict()
    stated = zip(part["patient"], part["patient_source"], strict=True)
    patients = len({patient for patient, source in stated if patient and source != "none"})
    return part["key"][:_NAMED], patients, {split for split in part["split"] if split}
