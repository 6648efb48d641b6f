# SPDX-License-Identifier: Apache-2.0
"""What makes a classifier's answers trustworthy: calibration, label sets, refusal of outliers.

All of it is fitted on calibration cases that serve nothing else: one half of them calibrates, the
other half decides on label sets (or intervals) and on what is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np

from vesalius.tasks.classify.calibration import Calibrator, fit_calibrator
from vesalius.tasks.classify.conformal import LabelSets
from vesalius.tasks.classify.intervals import Intervals
from vesalius.tasks.classify.label_calibration import fit_label_calibrator
from vesalius.tasks.classify.outliers import OutlierScore
from vesalius.tasks.classify.thresholds import OperatingPoint
from vesalius.tasks.targets import Target
from vesalius.types import Array, Json

COVERAGE = 0.9
REFUSED = 0.01  # of cases like those of training
_SMALLEST = 1e-6


@dataclass(frozen=True, slots=True)
class Trust:
    """The fitted parts; each may be absent where there were no calibration cases."""

    calibrator: Calibrator | None = None
    sets: LabelSets | None = None
    intervals: Intervals | None = None
    outliers: OutlierScore | None = None
    operating: OperatingPoint | None = None
    notes: tuple[str, ...] = field(default=())

    def calibrate(self, table: Array, target: Target) -> Array:
        """Return calibrated answers `(n, ...)`, in the form of `Target.probabilities`."""
        if self.calibrator is None:
            return table
        return self.calibrator.apply(scores(table, target))

    def to_json(self) -> Json:
        """Return all but the outlier score's arrays."""
        parts = {
            "calibrator": self.calibrator,
            "sets": self.sets,
            "intervals": self.intervals,
            "outliers": self.outliers,
            "operating": self.operating,
        }
        held = {name: part.to_json() for name, part in parts.items() if part is not None}
        return {**held, "notes": list(self.notes)}

    @classmethod
    def from_json(cls, held: Json, arrays: dict[str, Array]) -> Self:
        """Return what `to_json` wrote, with the arrays of `OutlierScore.arrays`."""
        return cls(
            Calibrator.from_json(held["calibrator"]) if "calibrator" in held else None,
            LabelSets.from_json(held["sets"]) if "sets" in held else None,
            Intervals.from_json(held["intervals"]) if "intervals" in held else None,
            OutlierScore.from_json(held["outliers"], arrays) if "outliers" in held else None,
            OperatingPoint.from_json(held["operating"]) if "operating" in held else None,
            tuple(held["notes"]),
        )


def scores(table: Array, target: Target) -> Array:
    """Return what a calibrator maps: log-probabilities, or logits of labels."""
    p = np.clip(np.asarray(table, np.float64), _SMALLEST, 1 - _SMALLEST)
    return np.asarray(np.log(p) - np.log1p(-p) if target.kind == "multilabel" else np.log(p))


def fit_trust(
    table: Array,
    truths: Sequence[str],
    patients: Sequence[Any],
    target: Target,
    outliers: OutlierScore | None,
    embeddings: Array | None,
) -> Trust:
    """Fit on calibration cases, every other one for each purpose.

    Args:
        table: answers of the mixture `(n, ...)`, as `Target.probabilities`.
        truths: of the cases.
        patients: of the cases; a patient's cases serve one purpose.
        target: of the truths.
        outliers: fitted on training cases, its threshold not yet.
        embeddings: `(n, F)` of the calibration cases, for that threshold.
    """
    if not len(truths):
        return Trust(notes=("no calibration cases: probabilities are as the networks gave them",))
    order = {name: place for place, name in enumerate(dict.fromkeys(patients))}
    first = np.array([order[name] % 2 == 0 for name in patients])
    codes = target.encode(truths)
    second = ~first
    if not second.any():
        first, second = second, first
    notes = []
    calibrator: Calibrator | None = None
    if target.kind != "regression" and first.any():
        fit = fit_label_calibrator if target.kind == "multilabel" else fit_calibrator
        calibrator = fit(
            scores(table[first], target),
            codes[first],
            patients=[p for p, chosen in zip(patients, first, strict=True) if chosen],
        )
        notes.append(calibrator.note)
    sets, intervals = None, None
    if target.kind == "regression":
        truth = codes * target.unit_sd + target.unit_mean
        intervals = Intervals.fit(table[:, 0], truth, coverage=COVERAGE)
        notes.append(intervals.note)
    elif target.kind != "multilabel":
        calibrated = table if calibrator is None else calibrator.apply(scores(table, target))
        sets = LabelSets.fit(
            calibrated[second],
            codes[second],
            coverage=COVERAGE,
            ordinal=target.kind == "ordinal",
        )
        notes.append(sets.note)
    if outliers is not None and embeddings is not None and second.sum() < 2:
        outliers = None
        notes.append("a single calibration case sets no threshold: no case is refused as unlike")
    elif outliers is not None and embeddings is not None:
        outliers = outliers.calibrate(embeddings[second], refused=REFUSED)
        notes.append(outliers.note)
    held = tuple(note for note in notes if note)
    return Trust(calibrator, sets, intervals, outliers, notes=held)
