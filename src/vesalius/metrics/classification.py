# SPDX-License-Identifier: Apache-2.0
"""Scores of class probabilities: accuracy, ranking, calibration; failures count as failures.

What a failed case counts as, `probabilities` says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from vesalius.metrics.agreement import confusion
from vesalius.metrics.bootstrap import DRAWS, estimates, patient_index
from vesalius.metrics.calibration import calibration
from vesalius.metrics.class_statistics import (
    AT_SPECIFICITY,
    classification_statistics,
    positives_of,
)
from vesalius.metrics.decision_curve import decision_curve
from vesalius.metrics.groups import group_scores
from vesalius.metrics.probabilities import checked, class_shares, rank_values
from vesalius.metrics.ranking import roc
from vesalius.results import Estimate
from vesalius.types import Array, Json

_BY_RANK = ("auc", "average_precision", *AT_SPECIFICITY)
_BY_FREQUENCY = ("brier", "nll", "ece", "calibration_intercept")
_UNBOUNDED = ("brier", "nll", "ece", "mcc", "calibration_slope", "calibration_intercept")
_UNITS = {"nll": "nat", "calibration_intercept": "logit"}
_GROUP_SCORES = ("accuracy", "balanced_accuracy", "auc")


def classification_scores(
    truth: Sequence[Any] | Array,
    probabilities: Array,
    classes: Sequence[str],
    patients: Sequence[Any] | Array,
    *,
    failed: Sequence[bool] | Array | None = None,
    frequencies: Sequence[float] | Array | None = None,
    draws: int = DRAWS,
    seed: int = 0,
) -> list[Estimate]:
    """Return every score with its interval and its trivial baseline.

    Args:
        truth: `(n,)` class indices, or class names when the entries are strings.
        probabilities: `(n, classes)`, rows that sum to 1; rows of failed cases are not read.
        classes: their names; of two, the second is the positive one.
        patients: `(n,)` pseudonyms; the interval draws patients.
        failed: `(n,)`, True where no prediction came out.
        frequencies: `(classes,)` of the training labels: what the trivial prediction answers;
            those of `truth` when None.
        draws: bootstrap draws.
        seed: of the draws.

    Returns:
        `accuracy`, `balanced_accuracy`, `auc` (two classes: of the second; else the mean of one
        versus rest), `average_precision` (likewise), `macro_f1`, `brier` (two classes: 0 to 1;
        else 0 to 2), `nll` (nats), `ece`, then `recall`, and with more than two classes `auc` and
        `average_precision`, once per class (`label`); then `mcc`,
        `sensitivity_at_specificity_90` and `_95` (as `auc`), `calibration_slope` and
        `calibration_intercept` (logits; with more than two classes once per class).

    Raises `UsageError` for wrong shapes, unknown classes or no case at all.
    """
    truth, probabilities, failed = checked(truth, probabilities, classes, failed)
    index, n_patients = patient_index(patients, len(truth))
    shares = class_shares(truth, frequencies, len(classes))
    trivial = np.broadcast_to(shares, probabilities.shape)
    constant = classification_statistics(truth, trivial, classes)
    baselines = dict(zip(constant.names, constant.values().tolist(), strict=True))
    for name, specificity in AT_SPECIFICITY.items():
        baselines[name, ""] = round(1 - specificity, 9)  # of a random order
    behind = [len(np.unique(index[truth == c])) for c in range(len(classes))]
    majority = f"majority class ({classes[int(np.argmax(shares))]})"

    def describe(name: str, label: str, value: float) -> dict[str, Any]:
        own = classes.index(label) if label else None
        independent = n_patients
        if name != "accuracy":
            independent = min(b for b in behind if b) if own is None else behind[own]
            if own is not None and name == "auc":  # pairs of a case of the class and another
                independent = min(independent, len(np.unique(index[truth != own])))
        baseline_name = majority
        if name in _BY_RANK:
            baseline_name = "random order"
        elif name in _BY_FREQUENCY:
            baseline_name = "label frequencies"
        elif name == "calibration_slope":
            baseline_name = ""
        return {
            "independent": independent,
            "bounded": name not in _UNBOUNDED,
            "unit": _UNITS.get(name, ""),
            "baseline": baselines[name, label],
            "baseline_name": baseline_name,
            "note": _note(name, classes, own, np.array(behind) > 0, value),
        }

    statistics = classification_statistics(truth, probabilities, classes, failed=failed)
    return estimates(statistics, index, describe, draws=draws, seed=seed)


def classification_summary(
    truth: Sequence[Any] | Array,
    probabilities: Array,
    classes: Sequence[str],
    patients: Sequence[Any] | Array,
    *,
    failed: Sequence[bool] | Array | None = None,
    groups: Mapping[str, Sequence[Any]] | None = None,
    frequencies: Sequence[float] | Array | None = None,
    draws: int = DRAWS,
    seed: int = 0,
) -> Json:
    """Return one split's entry of `metrics.json`.

    It holds scores, confusion, ROC, calibration, decision curve (of the positive class, or of each
    versus the rest), scores by group (with two classes sensitivity and specificity too), baseline.
    `groups` maps a column (`scanner`, `modality`) to each case's value there.
    """
    index, n_patients = patient_index(patients, len(truth))
    truth, probabilities, failed = checked(truth, probabilities, classes, failed)
    common: dict[str, Any] = {"frequencies": frequencies, "draws": draws, "seed": seed}

    def of_rows(chosen: Array) -> list[Estimate]:
        some = classification_scores(
            truth[chosen], probabilities[chosen], classes, index[chosen],
            failed=failed[chosen], **common,
        )  # fmt: skip
        kept = [s for s in some if s.name in _GROUP_SCORES and not s.label]
        return kept + (_sides(some, truth[chosen], classes) if len(classes) == 2 else [])

    scores = classification_scores(truth, probabilities, classes, index, failed=failed, **common)
    ranked = {
        name: (truth == c, rank_values(probabilities[:, c], truth == c, failed))
        for c, name in enumerate(classes)
    }
    return {
        "n_cases": len(truth),
        "n_patients": n_patients,
        "n_failed": int(failed.sum()),
        "scores": [score.to_json() for score in scores],
        "confusion": confusion(truth, probabilities, classes, failed=failed),
        "roc": {name: curve for name, pair in ranked.items() if (curve := roc(*pair))},
        "calibration": {"bins": calibration(truth, probabilities, failed=failed)},
        "by": group_scores(groups, len(truth), of_rows),
        "baseline": {"name": scores[0].baseline_name, "accuracy": scores[0].baseline},
        "decision_curve": {
            classes[c]: decision_curve(*ranked[classes[c]], index, draws=draws, seed=seed)
            for c in positives_of(len(classes))
        },
    }


def _sides(scores: Sequence[Estimate], truth: Array, classes: Sequence[str]) -> list[Estimate]:
    """Return the recall of both classes by their names in diagnostics, with the cases behind."""
    recall = {score.label: score for score in scores if score.name == "recall"}
    return [
        replace(
            recall[classes[c]], name=name, label="",
            note="; ".join(
                part for part in (f"{int((truth == c).sum())} cases of class '{classes[c]}'",
                                  recall[classes[c]].note) if part
            ),
        )
        for name, c in (("sensitivity", 1), ("specificity", 0))
    ]  # fmt: skip


def _note(name: str, classes: Sequence[str], own: int | None, present: Array, value: float) -> str:
    """Return what must be known of a score: why it is undefined, or what it speaks of."""
    if not np.isfinite(value):
        if own is not None and not present[own]:
            return f"no case of class '{classes[own]}'"
        if present.sum() < 2:
            return "needs cases of at least two classes"
        return "no finite slope: the classes are separated, or all predictions alike"
    if own is not None or name not in (*_BY_RANK, "calibration_intercept"):
        return ""
    return f"positive class: {classes[1]}" if len(classes) == 2 else "mean of one versus rest"
