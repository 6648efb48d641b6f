# SPDX-License-Identifier: Apache-2.0
"""The images that a retrieval run learns from: one case each, with their labels and words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vesalius.errors import CohortError, UsageError
from vesalius.tasks.cases import Case, Cases, flaws, target_names
from vesalius.tasks.retrieve.pairs import CAPTIONS, PAIRS, SAME_LABEL, SAME_STUDY
from vesalius.types import Json

if TYPE_CHECKING:
    from vesalius.cohorts import Cohort

_COLUMNS = (
    "key", "root", "files", "member", "format", "patient", "study", "series", "site", "modality",
    "body_part", "kind", "plane", "scanner", "shape", "spacing", "affine", "calibrated", "stat_p01",
    "stat_p99", "findings", "description", "words",
)  # fmt: skip


def retrieval_cases(cohort: Cohort, pairs: str, target: str | None) -> Cases:
    """Return every image of a cohort as a case.

    Args:
        cohort: of any images.
        pairs: what belongs together, names of `PAIRS` joined by commas.
        target: labels, joined by commas, that images share (same-label).

    Raises:
        UsageError: unknown pairs or label. CohortError: nothing to learn these pairs from.
    """
    kinds = pair_kinds(pairs)
    names = wanted_labels(cohort, pairs, target)
    columns = [label_column_of(name) for name in names]
    table = cohort.to_arrow(columns=[*dict.fromkeys((*_COLUMNS, *columns))]).to_pylist()
    rows: list[Json] = [row for row in table if (row["kind"] or "image") == "image"]
    audit = [f"{len(rows)} images, one case each; pairs: {', '.join(kinds)}"]
    if len(rows) < len(table):
        audit.append(f"{len(table) - len(rows)} rows that are no images are left out")
    if SAME_LABEL in kinds:
        for name, column in zip(names, columns, strict=True):
            known = {row[column] for row in rows} - {None, ""}
            if len(known) < 2:
                raise CohortError(
                    f"the label '{name}' has {len(known)} value(s), and pairs need two at least; "
                    "choose another --target"
                )
            audit.append(f"pairs share {name}: {len(known)} values")
    if CAPTIONS in kinds:
        worded = sum(bool((row["words"] or "").strip()) for row in rows)
        if worded < 2:
            raise CohortError(
                f"{worded} of {len(rows)} images bear words, and --pairs captions learns from "
                "them; scan with a table that has a caption or report column, or choose other pairs"
            )
        audit.append(f"{worded} images bear words")
    if SAME_STUDY in kinds and len({row["study"] for row in rows if row["study"]}) in (
        0,
        len(rows),
    ):
        raise CohortError(
            "no two images of the cohort share a study, and --pairs same-study learns from those "
            "that do; choose other pairs"
        )
    cases = tuple(
        Case(row["key"], (row,), row["patient"] or row["key"])
        for row in sorted(rows, key=lambda row: str(row["key"]))
    )
    return Cases(cases, "image", tuple(audit), flaws(cohort))


def pair_kinds(pairs: str) -> list[str]:
    """Return the kinds of pairs that are asked for.

    Raises:
        UsageError: an unknown one, or one that is named twice.
    """
    kinds = [part.strip() for part in pairs.split(",")]
    if not set(kinds) <= set(PAIRS) or len(set(kinds)) < len(kinds):
        raise UsageError(f"--pairs takes {', '.join(PAIRS)}, each once, got '{pairs}'")
    return kinds


def wanted_labels(cohort: Cohort, pairs: str, target: str | None) -> list[str]:
    """Return the labels that pairs share; none where no pairs of labels are asked for.

    Raises:
        UsageError: an unknown label, none where several are there, or one that is not used.
    """
    if SAME_LABEL in pair_kinds(pairs):
        return target_names(cohort, target)
    if target is not None:
        raise UsageError("--target belongs to --pairs same-label; leave it out, or ask for both")
    return []


def label_column_of(name: str) -> str:
    """Return the column of a label."""
    from vesalius.cohorts.schema import label_column

    return label_column(name)
