# SPDX-License-Identifier: Apache-2.0
"""Annotated images of a cohort: those with boxes, one case each, and the classes of their boxes."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

from vesalius.errors import CohortError
from vesalius.tasks.cases import Case, Cases, class_order, flaws
from vesalius.types import Json

if TYPE_CHECKING:
    from vesalius.cohorts import Cohort

_COLUMNS = (
    "key", "root", "files", "member", "format", "patient", "modality", "kind", "scanner", "shape",
    "spacing", "affine", "calibrated", "stat_p01", "stat_p99", "boxes",
)  # fmt: skip


def detection_cases(cohort: Cohort) -> Cases:
    """Return the 2D images of a cohort that have boxes; an empty list of boxes is an annotation.

    Raises:
        CohortError: there is none.
    """
    table: list[Json] = cohort.to_arrow(columns=list(_COLUMNS)).to_pylist()
    rows = [row for row in table if (row["kind"] or "image") == "image"]
    flat = [row for row in rows if row["boxes"] is not None and row["shape"][3] == 1]
    if not any(json.loads(row["boxes"]) for row in flat):
        raise CohortError(
            f"none of the {len(rows)} images of the cohort is a 2D image with boxes; scan a folder "
            "that holds Pascal VOC or COCO annotations beside the images"
        )
    audit = [f"{len(flat)} images with boxes"]
    if len(flat) < len(rows):
        audit.append(f"{len(rows) - len(flat)} images have no boxes, or slices, and are left out")
    cases = [
        Case(row["key"], (row,), row["patient"] or row["key"])
        for row in sorted(flat, key=lambda row: str(row["key"]))
    ]
    return Cases(tuple(cases), "image", tuple(audit), flaws(cohort))


def box_classes(cases: Iterable[Case]) -> dict[str, int]:
    """Return the classes of the boxes, in order, with the number of images that show each."""
    found: Counter[str] = Counter()
    for case in cases:
        for row in case.rows:
            found.update({box["name"] for box in json.loads(row["boxes"])})
    return {name: found[name] for name in class_order(found)}
