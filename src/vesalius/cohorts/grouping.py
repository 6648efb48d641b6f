# SPDX-License-Identifier: Apache-2.0
"""Which rows of a cohort must stay together, and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from vesalius.cohorts.similarity import (
    exact_duplicates,
    groups,
    repeated,
    side_pairs,
    signatures_matrix,
    table_near_duplicates,
)
from vesalius.types import Array

if TYPE_CHECKING:
    import pyarrow as pa

NEEDED = (
    "key",
    "patient",
    "patient_source",
    "study",
    "modality",
    "content_hash",
    "phash",
    "signature",
    "shape",
    "stat_median",
    "stat_p99",
    "stat_mad",
    "stat_mean",
    "stat_std",
)
_STATISTICS = ("stat_median", "stat_p99", "stat_mad", "stat_mean", "stat_std")
_DEEP = 9  # slices


@dataclass(frozen=True, slots=True)
class Grouping:
    """The result: `of[row]` is the group's number; `audit` says what was joined and why."""

    of: Array  # (n,)
    audit: tuple[str, ...]


def group_rows(table: pa.Table) -> Grouping:
    """Join rows of one patient, of one study, of equal and of nearly equal images.

    Volumes whose patient is unknown are also joined by `similarity.side_pairs`: the left and the
    right organ of one person may both be there.
    """
    n = len(table)
    patients = _known_patients(table)
    joined = groups(n, patients, repeated(table["study"]))
    audit = [
        f"{n:,} rows; patients are known for {_known(table):,} of them: {_count(joined):,} groups"
    ]
    exact = exact_duplicates(table)
    near = table_near_duplicates(table)
    sides = _sides(table)
    for name, links, why in (
        ("identical images", exact, "equal voxels and grid"),
        ("near-duplicates", near, "perceptual hash, confirmed by 256 frequencies"),
        ("probable sides of one person", sides, "mirrored likeness and equal intensity scale"),
    ):
        before = _count(joined)
        joined = groups(n, _chain(joined), links)
        if len(links):
            audit.append(
                f"{name} ({why}): {len(np.unique(links)):,} rows; joined {before:,} groups to "
                f"{_count(joined):,}"
            )
    unseen = int(table["content_hash"].null_count)
    if unseen:
        audit.append(
            f"WARNING: {unseen:,} rows were scanned without pixels: their duplicates are not "
            "known; scan them with pixels"
        )
    largest = int(np.bincount(joined).max()) if n else 0
    if _count(joined) > 1 and largest > max(10, n // 4):
        audit.append(f"WARNING: one group holds {largest:,} of {n:,} rows; look at its findings")
    return Grouping(joined, tuple(audit))


def _known_patients(table: pa.Table) -> Array:
    import pyarrow.compute as pc

    known = pc.fill_null(pc.not_equal(table["patient_source"], "none"), False)
    return repeated(pc.if_else(known, table["patient"], None))


def _known(table: pa.Table) -> int:
    return sum(
        bool(patient) and source != "none"
        for patient, source in zip(
            table["patient"].to_pylist(), table["patient_source"].to_pylist(), strict=True
        )
    )


def _sides(table: pa.Table) -> Array:
    shapes, sources = table["shape"].to_pylist(), table["patient_source"].to_pylist()
    signatures = table["signature"]
    rows = np.array(
        [
            row
            for row, (shape, source) in enumerate(zip(shapes, sources, strict=True))
            if source == "none" and shape and shape[-1] >= _DEEP and signatures[row].is_valid
        ],
        np.int64,
    )
    if len(rows) < 2:
        return np.empty((0, 2), np.int64)
    part = table.take(rows)
    statistics = np.stack([part[name].to_numpy() for name in _STATISTICS], axis=1)
    pairs: Array = rows[side_pairs(signatures_matrix(part["signature"].to_pylist()), statistics)]
    return pairs


def _chain(joined: Array) -> Array:
    return np.array([np.arange(len(joined)), joined], np.int64).T


def _count(joined: Array) -> int:
    return len(np.unique(joined))
