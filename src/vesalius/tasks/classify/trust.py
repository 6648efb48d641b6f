# SPDX-License-Identifier: Apache-2.0
"""What makes a classifier's answers trustworthy: calibration, label sets, refusal of outliers.

All of it is fitted on calibration cases that serve nothing else. Each part sees the mixture's own
answers, none another part's: so all three may use all of the cases (decision 10).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np

from vesalius.errors import RunError
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

    def label_sets(self, raw: Array, calibrated: Array) -> Array | None:
        """Return Boolean sets `(n, classes)`, or None without a promise.

        Args:
            raw: `(n, classes)` answers of the mixture, which the sets were fitted on.
            calibrated: the same, calibrated: the class that is named is always in.
        """
        if self.sets is None:
            return None
        sets = self.sets.apply(raw)
        named = calibrated.argmax(axis=1)
        if self.sets.ordinal:
            low, high = sets.argmax(1), sets.shape[1] - 1 - sets[:, ::-1].argmax(1)
            places = np.arange(sets.shape[1])
            low, high = np.minimum(low, named)[:, None], np.maximum(high, named)[:, None]
            return np.asarray((low <= places) & (places <= high))
        sets[np.arange(len(sets)), named] = True
        return sets

    def to_json(self) -> Json:
        """Return all but the outlier score's arrays."""
        parts = {
            "calibrator": self.calibrator,
            "label_sets": self.sets,
            "intervals": self.intervals,
            "outliers": self.outliers,
            "operating": self.operating,
        }
        held = {name: part.to_json() for name, part in parts.items() if part is not None}
        return {**held, "notes": list(self.notes)}

    @classmethod
    def from_json(cls, held: Json, arrays: dict[str, Array]) -> Self:
        """Return what `to_json` wrote, with the arrays of `OutlierScore.arrays`.

        Raises:
            RunError: label sets of an earlier version, fitted on calibrated probabilities.
        """
        if "sets" in held:
            raise RunError(
                "the run's label sets were made by an earlier version, of calibrated "
                "probabilities; train it again"
            )
        return cls(
            Calibrator.from_json(held["calibrator"]) if "calibrator" in held else None,
            LabelSets.from_json(held["label_sets"]) if "label_sets" in held else None,
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
    """Fit on calibration cases.

    Args:
        table: answers of the mixture `(n, ...)`, as `Target.probabilities`.
        truths: of the cases.
        patients: of the cases; where methods are compared, a patient's cases stay together.
        target: of the truths.
        outliers: fitted on training cases, its threshold not yet.
        embeddings: `(n, F)` of the calibration cases, for that threshold.
    """
    if not len(truths):
        return Trust(notes=("no calibration cases: probabilities are as the networks gave them",))
    codes = target.encode(truths)
    notes = []
    calibrator: Calibrator | None = None
    sets, intervals = None, None
    if target.kind == "regression":
        truth = codes * target.unit_sd + target.unit_mean
        intervals = Intervals.fit(table[:, 0], truth, coverage=COVERAGE)
        notes.append(intervals.note)
    else:
        fit = fit_label_calibrator if target.kind == "multilabel" else fit_calibrator
        calibrator = fit(scores(table, target), codes, patients=list(patients))
        notes.append(calibrator.note)
    if target.kind not in ("regression", "multilabel"):
        is_ordinal = target.kind == "ordinal"
        sets = LabelSets.fit(table, codes, coverage=COVERAGE, ordinal=is_ordinal)
        notes.append(sets.note)
    if outliers is not None and embeddings is not None and len(truths) < 2:
        outliers = None
        notes.append("a single calibration case sets no threshold: no case is refused as unlike")
    elif outliers is not None and embeddings is not None:
        outliers = outliers.calibrate(embeddings, refused=REFUSED)
        notes.append(outliers.note)
    held = tuple(note for note in notes if note)
    return Trust(calibrator, sets, intervals, outliers, notes=held)
