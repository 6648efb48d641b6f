# SPDX-License-Identifier: Apache-2.0
"""Calibration of a multi-label target: Platt scaling, with one shared slope for rare labels.

Platt: Probabilistic outputs for support vector machines, 1999. The mode is taken under a
log-normal prior of the slopes and a normal one of the intercepts, as in `calibration`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vesalius.errors import UsageError
from vesalius.tasks.classify.calibration import (
    COLDEST,
    HOTTEST,
    Calibrator,
    find_mode,
    score_table,
    sigmoid,
)
from vesalius.tasks.classify.method_choice import ONE_PATIENT, choose_method, patient_folds
from vesalius.types import Array

LABEL_METHODS = ("identity", "shared", "platt")
ROWS_LABEL = 20  # positives, and negatives, of a label for a slope of its own
_SD_INTERCEPT = 2.0  # rare labels are often weighted up in training


def fit_label_calibrator(
    logits: Array,
    truth: Array,
    *,
    method: str = "auto",
    patients: Sequence[Any] | Array | None = None,
) -> Calibrator:
    """Fit Platt scaling of each label of a multi-label target.

    Args:
        logits: `(n, labels)`.
        truth: `(n, labels)` of 0, 1 or NaN (unknown: the entry is not used).
        method: `identity`, `shared` (one slope, an intercept per label), `platt` (a slope per
            label that has at least 20 positives and 20 negatives, the shared one for others), or
            `auto`: chosen as in `fit_calibrator`.
        patients: `(n,)`; rows of one patient stay in one fold.

    Raises:
        UsageError: an unknown method, wrong shapes, values other than 0, 1 and NaN, no row.
    """
    if method not in ("auto", *LABEL_METHODS):
        raise UsageError(f"method must be one of auto, {', '.join(LABEL_METHODS)}, got '{method}'")
    table, truth = score_table(logits, "sigmoid"), np.asarray(truth, np.float64)
    known = np.isfinite(truth)
    if not len(table) or truth.shape != table.shape or not np.isin(truth[known], (0, 1)).all():
        raise UsageError(f"truth must be 0, 1 or NaN, a row at least, in the shape {table.shape}")
    tried = LABEL_METHODS if known.any() else LABEL_METHODS[:1]

    def losses(name: str, fit: Array, held: Array) -> Array:
        slopes, bias = _fit_labels(name, table[fit], truth[fit])
        side = np.where(known[held], 1 - 2 * truth[held], 0)
        entries = np.logaddexp(0, (table[held] * slopes + bias) * side)
        sums = np.where(known[held], entries, 0).sum(1)
        return np.asarray(sums / np.maximum(known[held].sum(1), 1))

    nll: Mapping[str, float] = {}
    note = "" if known.any() else "no known label: probabilities are left as they are"
    if method == "auto":
        positives = np.nansum(truth, axis=1).astype(np.int64)
        method, nll = choose_method(tried, losses, patient_folds(positives, patients))
        note = note if nll else note or ONE_PATIENT
    slopes, bias = _fit_labels(method, table, truth)
    rows = tuple(map(tuple, np.diag(slopes).tolist()))
    return Calibrator(method, "sigmoid", rows, tuple(bias.tolist()), len(table), nll, note)


def _fit_labels(method: str, table: Array, truth: Array) -> tuple[Array, Array]:
    """Return slopes `(labels,)` and intercepts `(labels,)`."""
    k = table.shape[1]
    slopes, bias = np.ones(k), np.zeros(k)
    if method == "identity":
        return slopes, bias
    shared, bias = _platt(table, truth)
    slopes *= shared
    for label in range(k) if method == "platt" else ():
        column = truth[:, [label]]
        if min((column == 0).sum(), (column == 1).sum()) >= ROWS_LABEL:
            slopes[label], bias[[label]] = _platt(table[:, [label]], column)
    return slopes, bias


def _platt(table: Array, truth: Array) -> tuple[float, Array]:
    """Return one positive slope and `(labels,)` intercepts; NaN in `truth` is left out."""
    known = np.isfinite(truth)
    target = np.where(known, truth, 0)

    def objective(flat: Array) -> tuple[float, Array]:
        slope = np.exp(flat[0])  # a log-normal prior, like the temperature's
        logits = slope * table + _SD_INTERCEPT * flat[1:]
        loss = np.where(known, np.logaddexp(0, logits) - target * logits, 0).sum()
        rest = np.where(known, sigmoid(logits) - target, 0)
        gradient = np.array([(rest * table).sum() * slope, *(rest.sum(0) * _SD_INTERCEPT)])
        return float(0.5 * flat @ flat + loss), gradient + flat

    labels = table.shape[1]
    bounds = [(-np.log(HOTTEST), -np.log(COLDEST)), *[(None, None)] * labels]
    flat = find_mode(objective, np.zeros(1 + labels), bounds)
    return float(np.exp(flat[0])), _SD_INTERCEPT * flat[1:]
