# SPDX-License-Identifier: Apache-2.0
"""`vesalius check`: what is wrong with these data, image by image and slice by slice."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vesalius.types import PathLike

if TYPE_CHECKING:
    import pandas as pd

    from vesalius.cohorts import Cohort


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The findings of a cohort.

    Attributes:
        findings: one row a finding: key, name, severity, slice, message, evidence.
        counts: findings by name, most frequent first.
        errors, warnings: findings of that severity.
        images: images in the cohort.
        report: the HTML page with thumbnails.
    """

    findings: pd.DataFrame
    counts: dict[str, int]
    errors: int
    warnings: int
    images: int
    report: Path


def check(cohort: PathLike | Cohort, *, out: PathLike | None = None) -> CheckResult:
    """List what is wrong with a scanned cohort and write the page `check.html`.

    Args:
        cohort: a cohort or its folder.
        out: where the page goes; default `check.html` in the cohort folder.

    Raises:
        CohortError: `cohort` is not a cohort folder.
    """
    from vesalius.cohorts import Cohort
    from vesalius.reporting import write_check

    opened = cohort if isinstance(cohort, Cohort) else Cohort.open(cohort)
    findings = opened.findings()
    report = write_check(opened, Path(out) if out else Path(opened.path) / "check.html")
    severities = Counter(findings["severity"])
    return CheckResult(
        findings=findings,
        counts=dict(Counter(findings["name"]).most_common()),
        errors=severities["error"],
        warnings=severities["warning"],
        images=len(opened),
        report=report,
    )
