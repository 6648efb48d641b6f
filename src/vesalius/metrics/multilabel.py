# SPDX-License-Identifier: Apache-2.0
"""Scores of several labels at once, each present, absent or unknown in a case.

An unknown label enters nothing. A failed case is given the wrong answer to every label, held with
certainty, and the last rank where the label is present, the first where it is absent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vesalius.errors import UsageError
from vesalius.metrics.bootstrap import (
    DRAWS,
    Statistics,
    estimates,
    mean_of_defined,
    patient_index,
)
from vesalius.metrics.decision_curve import decision_curve
from vesalius.metrics.groups import group_scores
from vesalius.metrics.probabilities import SMALLEST, checked_table, rank_values
from vesalius.metrics.ranking import rank_scores, ranking, roc
from vesalius.results import Estimate
from vesalius.types import Array, Json

THRESHOLD = 0.5  # a label that reaches it is answered as present
_EACH = ("auc", "average_precision", "label_accuracy", "brier", "nll")
_OVERALL = (*_EACH, "exact_match", "micro_f1", "macro_f1")
_BY_RANK = ("auc", "average_precision")
_BY_FREQUENCY = ("brier", "nll")
_GROUP_SCORES = ("auc", "label_accuracy", "exact_match")


def multilabel_statistics(
    truth: Array,
    probabilities: Array,
    labels: Sequence[str],
    *,
    failed: Sequence[bool] | Array | None = None,
) -> Statistics:
    """Return the scores of `multilabel_scores` as a function of the cases' weights."""
    actual, table, lost = _checked(truth, probabilities, labels, failed)
    count = len(labels)
    known = np.isfinite(actual)
    present = np.where(known, actual, 0.0)
    guessed = (table >= THRESHOLD) & known
    right = (guessed == (present == 1)) & known
    own = np.where(present == 1, table, 1 - table)
    any_known = known.any(1)
    blocks = [
        known, present, guessed, present * guessed, right, np.where(known, (1 - own) ** 2, 0),
        np.where(known, -np.log(np.maximum(own, SMALLEST)), 0),
        np.column_stack([any_known, (right == known).all(1) & any_known]),
    ]  # fmt: skip
    sums = np.concatenate(blocks, axis=1).astype(np.float64)
    rows = [np.flatnonzero(known[:, column]) for column in range(count)]
    ranked = [
        ranking(rank_values(table[r, c], present[r, c] == 1, lost[r]), present[r, c] == 1)
        if len(r)
        else None
        for c, r in enumerate(rows)
    ]
    undefined = np.full((1, 2), np.nan)

    def of(weights: Array) -> Array:
        parts = np.split(weights @ sums, np.arange(1, 8) * count, axis=1)
        seen, positive, answered, hits, correct, squares, losses, cases = parts
        with np.errstate(divide="ignore", invalid="ignore"):
            by_rank = np.stack(
                [
                    np.broadcast_to(undefined, (len(weights), 2))
                    if one is None
                    else rank_scores(weights[:, r], one)[:, :2]
                    for one, r in zip(ranked, rows, strict=True)
                ],
                axis=2,
            )
            auc, precision = by_rank[:, 0], by_rank[:, 1]
            precision = np.where(positive > 0, precision, np.nan)
            each = [auc, precision, correct / seen, squares / seen, losses / seen]
            f1 = 2 * hits / (positive + answered)
            micro = 2 * hits.sum(1) / (positive + answered).sum(1)
            exact = cases[:, 1] / cases[:, 0]
        overall = [mean_of_defined(part) for part in each]
        return np.column_stack([*overall, exact, micro, mean_of_defined(f1), *each])

    names = [(name, "") for name in _OVERALL]
    names += [(name, label) for name in _EACH for label in labels]
    return Statistics(tuple(names), of, len(actual))


def multilabel_scores(
    truth: Array,
    probabilities: Array,
    labels: Sequence[str],
    patients: Sequence[Any] | Array,
    *,
    failed: Sequence[bool] | Array | None = None,
    frequencies: Sequence[float] | Array | None = None,
    draws: int = DRAWS,
    seed: int = 0,
) -> list[Estimate]:
    """Return every score with its interval and its trivial baseline.

    Args:
        truth: `(n, labels)`: 1 present, 0 absent, NaN unknown.
        probabilities: `(n, labels)`, each from 0 to 1; rows of failed cases are not read.
        labels: their names.
        patients: `(n,)` pseudonyms; the interval draws patients.
        failed: `(n,)`, True where no prediction came out.
        frequencies: `(labels,)`, the share of training cases with each label: what the trivial
            prediction answers; that of `truth` when None.
        draws, seed: of the bootstrap.

    Returns:
        `auc`, `average_precision`, `label_accuracy` (at 0.5), `brier` (0 to 1) and `nll` (nats),
        each the mean over labels, `exact_match` (every known label of a case right), `micro_f1`,
        `macro_f1`; then the first five once per label.

    Raises `UsageError` for wrong shapes, other truths, or no case at all.
    """
    actual, table, lost = _checked(truth, probabilities, labels, failed)
    index, n_patients = patient_index(patients, len(actual))
    shares = _label_shares(actual, frequencies)
    constant = multilabel_statistics(actual, np.broadcast_to(shares, actual.shape), labels)
    baselines = dict(zip(constant.names, constant.values().tolist(), strict=True))
    behind = {
        (side, label): len(np.unique(index[actual[:, column] == side]))
        for column, label in enumerate(labels)
        for side in (0, 1)
    }

    def describe(name: str, label: str, value: float) -> dict[str, Any]:
        independent = n_patients
        if label:
            independent = behind[1, label] if name in _BY_RANK else n_patients
            if name == "auc":
                independent = min(independent, behind[0, label])
        elif name in _BY_RANK:
            independent = min([count for count in behind.values() if count], default=n_patients)
        baseline_name = "majority of each label"
        if name in _BY_RANK:
            baseline_name = "random order"
        elif name in _BY_FREQUENCY:
            baseline_name = "label frequencies"
        note = "" if label or name in ("exact_match", "micro_f1") else "mean of the labels"
        if not np.isfinite(value):
            lacking = [
                w for s, w in ((1, "with"), (0, "without")) if label and not behind[s, label]
            ]
            note = f"no case {' and none '.join(lacking)} the label" if lacking else "undefined"
        return {
            "independent": independent,
            "bounded": name not in _BY_FREQUENCY,
            "unit": "nat" if name == "nll" else "",
            "baseline": baselines[name, label],
            "baseline_name": baseline_name,
            "note": note,
        }

    statistics = multilabel_statistics(actual, table, labels, failed=lost)
    return estimates(statistics, index, describe, draws=draws, seed=seed)


def multilabel_summary(
    truth: Array,
    probabilities: Array,
    labels: Sequence[str],
    patients: Sequence[Any] | Array,
    *,
    failed: Sequence[bool] | Array | None = None,
    groups: Mapping[str, Sequence[Any]] | None = None,
    frequencies: Sequence[float] | Array | None = None,
    draws: int = DRAWS,
    seed: int = 0,
) -> Json:
    """Return one split's entry of `metrics.json`: scores, counts, ROC and decision curves, groups.

    Curves are there for labels with known cases of both sides.
    """
    actual, table, lost = _checked(truth, probabilities, labels, failed)
    index, n_patients = patient_index(patients, len(actual))
    common: dict[str, Any] = {"frequencies": frequencies, "draws": draws, "seed": seed}

    def of_rows(rows: Array) -> list[Estimate]:
        return multilabel_scores(
            actual[rows], table[rows], labels, index[rows], failed=lost[rows], **common
        )

    def of_group(rows: Array) -> list[Estimate]:
        return [s for s in of_rows(rows) if s.name in _GROUP_SCORES and not s.label]

    scores = of_rows(np.arange(len(actual)))
    curves, decisions = {}, {}
    for column, label in enumerate(labels):
        rows = np.flatnonzero(np.isfinite(actual[:, column]))
        positive = actual[rows, column] == 1
        values = rank_values(table[rows, column], positive, lost[rows])
        if curve := roc(positive, values):
            curves[label] = curve
            decisions[label] = decision_curve(positive, values, index[rows], draws=draws, seed=seed)
    accuracy = next(s for s in scores if s.name == "label_accuracy")
    return {
        "n_cases": len(actual),
        "n_patients": n_patients,
        "n_failed": int(lost.sum()),
        "scores": [score.to_json() for score in scores],
        "labels": {
            label: {
                "present": int((actual[:, column] == 1).sum()),
                "absent": int((actual[:, column] == 0).sum()),
                "unknown": int(np.isnan(actual[:, column]).sum()),
            }
            for column, label in enumerate(labels)
        },
        "roc": curves,
        "by": group_scores(groups, len(actual), of_group),
        "baseline": {"name": accuracy.baseline_name, "label_accuracy": accuracy.baseline},
        "decision_curve": decisions,
    }


def _label_shares(actual: Array, frequencies: Sequence[float] | Array | None) -> Array:
    """Return the trivial prediction `(labels,)`: how often each label is present."""
    count = actual.shape[1]
    if frequencies is None:
        known = np.isfinite(actual)
        present: Array = np.where(known, actual, 0).sum(0) / np.maximum(known.sum(0), 1)
        return present
    given = np.asarray(frequencies, np.float64)
    if given.shape != (count,) or not ((given >= 0) & (given <= 1)).all():
        raise UsageError(f"frequencies must be {count} numbers from 0 to 1, one per label")
    return given


def _checked(
    truth: Array,
    probabilities: Array,
    labels: Sequence[str],
    failed: Sequence[bool] | Array | None,
) -> tuple[Array, Array, Array]:
    """Return truth (0, 1, NaN) and probabilities `(n, labels)` as float64, and failures."""
    actual = np.asarray(truth, np.float64)
    if not len(labels):
        raise UsageError("labels must name at least one label")
    if actual.ndim != 2 or actual.shape[1] != len(labels):
        raise UsageError(
            f"truth must have shape (cases, {len(labels)}), one column per label, "
            f"got {actual.shape}"
        )
    if not len(actual):
        raise UsageError("truth holds no case: there is nothing to score")
    if not (np.isnan(actual) | (actual == 0) | (actual == 1)).all():
        raise UsageError("truth must hold 1 (present), 0 (absent) or NaN (unknown) only")
    table, lost = checked_table(probabilities, len(actual), len(labels), "labels", failed)
    table[lost] = np.where(actual[lost] == 1, 0.0, 1.0)
    return actual, table, lost
