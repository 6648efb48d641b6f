# SPDX-License-Identifier: Apache-2.0
"""Frozen records that rooms hand to each other and to the user."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Severity = Literal["info", "warning", "error"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong, or suspected, with the data.

    Attributes:
        name: a name of the table in `cohorts.quality`, for example `missing-slices`.
        severity: `error` (do not train on it), `warning` (look at it), `info`.
        message: one sentence with what was found, what was expected and the way out.
        evidence: the numbers behind it; JSON-serializable, free of patient data.
        key: the row that it concerns, or `` for a file that became no row.
        file: path relative to the data root, or ``. Patient data: never in reports.
        slice: index along k where it was seen, or None for the whole image.
    """

    name: str
    severity: Severity
    message: str
    evidence: Mapping[str, Any] = field(default_factory=dict)
    key: str = ""
    file: str = ""
    slice: int | None = None


@dataclass(frozen=True, slots=True)
class Estimate:
    """A score with its interval and what it must be compared with (law 8).

    Attributes:
        name: the metric, for example `auc` or `dice`.
        value: the point estimate; None where it is undefined (and then `note` says why).
        low, high: the 95 % interval, clustered by patient; None where it is undefined.
        n: cases that entered, failures included.
        n_patients: independent patients among them.
        label: class or structure that it speaks of, or `` for all.
        unit: `` for a ratio, else for example `mm` or `ml`.
        baseline: value of the trivial prediction on the same cases.
        baseline_name: what that prediction is, for example `majority class`.
        method: how the interval was made, for example `patient bootstrap, 2000 draws`.
        note: a remark, for example why a value is undefined.
    """

    name: str
    value: float | None
    low: float | None
    high: float | None
    n: int
    n_patients: int
    label: str = ""
    unit: str = ""
    baseline: float | None = None
    baseline_name: str = ""
    method: str = ""
    note: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return a plain dictionary for `metrics.json`."""
        return asdict(self)

    def __str__(self) -> str:
        if self.value is None:
            return f"{self.name} undefined ({self.note})"
        unit = f" {self.unit}" if self.unit else ""
        interval = "" if self.low is None else f" [{self.low:.3f}, {self.high:.3f}]"
        base = "" if self.baseline is None else f"; {self.baseline_name} {self.baseline:.3f}"
        label = f" {self.label}" if self.label else ""
        counts = f"(n={self.n}, {self.n_patients} patients{base})"
        return f"{self.name}{label} {self.value:.3f}{unit}{interval} {counts}"
