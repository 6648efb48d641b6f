# SPDX-License-Identifier: Apache-2.0
"""Cases of a cohort that nothing is known of but a teacher's answer, and that judge nothing."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import TYPE_CHECKING

from vesalius.types import Json

if TYPE_CHECKING:
    from vesalius.cohorts import Cohort
    from vesalius.tasks.cases import Case, Cases

_COLUMNS = (
    "key", "root", "files", "member", "format", "patient", "study", "series", "modality", "kind",
    "plane", "scanner", "shape", "spacing", "affine", "calibrated",
)  # fmt: skip


def unlabeled_cases(
    cohort: Cohort, cases: Cases, subsets: Mapping[str, str]
) -> tuple[list[Case], list[str]]:
    """Return sound cases without a truth that may be learned from, and lines for the audit.

    An image of a patient, or a look-alike of one, that validates, calibrates or tests is left out,
    whether the split knows it or it was added to the cohort since.

    Args:
        cohort: of the teacher.
        cases: with a truth, or with a mask.
        subsets: image key -> subset, of the teacher's split.
    """
    from vesalius.cohorts.grouping import NEEDED, group_rows
    from vesalius.tasks.cases import Case

    told = {row["key"] for case in cases.cases for row in case.rows}
    rows = cohort.to_arrow(list(_COLUMNS)).to_pylist()
    plain = [
        row
        for row in rows
        if (row["kind"] or "image") == "image"
        and row["key"] not in told
        and row["key"] not in cases.flawed
    ]
    if not plain:
        return [], []
    table = cohort.to_arrow(list(NEEDED))
    group = dict(zip(table["key"].to_pylist(), group_rows(table).of.tolist(), strict=True))
    judging = {group[k] for k, s in subsets.items() if s != "train" and k in group}
    judging |= {group[key] for key in told if key not in subsets}  # a search set them apart
    kept = [
        row
        for row in plain
        if subsets.get(row["key"], "train") == "train" and group[row["key"]] not in judging
    ]
    members: dict[str, list[Json]] = defaultdict(list)
    for row in kept:
        level = "key" if cases.kind == "image" else cases.kind
        members[str(row[level] or row["key"])].append(row)
    found = [
        Case(name, tuple(sorted(own, key=lambda row: row["key"])), own[0]["patient"] or name)
        for name, own in sorted(members.items())
    ]
    line = (
        f"{len(kept)} images without a label teach by the teacher's answers alone; "
        f"{len(plain) - len(kept)} are left out, of patients or look-alikes that judge the student"
    )
    return found, [line]
