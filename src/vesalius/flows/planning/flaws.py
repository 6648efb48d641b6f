# SPDX-License-Identifier: Apache-2.0
"""Images that training leaves out since a scan found an error in them: how many, and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from vesalius.errors import CohortError
from vesalius.types import Json

if TYPE_CHECKING:
    from vesalius.tasks.cases import Cases


def flawed_images(cases: Cases, rows: Mapping[str, str], request: Json) -> list[str]:
    """Return what the audit says of training images that are left out for their findings.

    Args:
        cases: of the task.
        rows: image key -> subset.
        request: what was asked for.

    Raises:
        CohortError: no training image is left, or no validation image of a segmentation.
    """
    folds = request["folds"] > 1
    keys, out, listed = _flaws(cases, rows, ("train", "val") if folds else ("train",))
    if out and out == keys:
        raise CohortError(
            f"none of the {len(keys)} training images can be learned from: {listed}; `vesalius "
            "check` says what each finding is and the way out"
        )
    lines = [f"{len(out)} of {len(keys)} training images are left out: {listed}"] if out else []
    if request["task"] != "segment" or folds:
        return lines
    keys, out, listed = _flaws(cases, rows, ("val",))
    if out and out == keys:
        raise CohortError(
            f"none of the {len(keys)} validation images can serve: {listed}; mend them (`vesalius "
            "check` says how), or give a --split whose validation images are sound"
        )
    return lines


def _flaws(
    cases: Cases, rows: Mapping[str, str], subsets: Sequence[str]
) -> tuple[set[str], set[str], str]:
    """Return the images of some subsets, those with an error, and the errors with their counts."""
    keys = {key for key, subset in rows.items() if subset in subsets}
    keys &= {row["key"] for case in cases.cases for row in case.rows}
    out = keys & cases.flawed.keys()
    names = Counter(name for key in out for name in cases.flawed[key])
    return keys, out, ", ".join(f"{name} ({count})" for name, count in sorted(names.items()))
