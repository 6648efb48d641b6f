# SPDX-License-Identifier: Apache-2.0
"""Scores of class probabilities: accuracy, ranking, calibration; failures count as failures.

A failed case (no prediction, or one that is not finite) is given the worst answer there is: a
wrong class, held with certainty; the last rank for its own class and the first for all others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from vesalius.errors import UsageError, did_you_mean
from vesalius.metrics.bootstrap import DRAWS, estimate, patient_draws, patient_index
from vesalius.metrics.groups import group_rows
from vesalius.results import Estimate
from vesalius.types import Array, Json

BINS = 15  # of the expected calibration error (Guo et al. 2017)
SMALLEST = 1e-7  # a probability below this counts as this in the logarithm
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
        `average_precision`, once per class (`label`).

    Raises `UsageError` for wrong shapes, unknown classes or no case at all.
    """
    truth, probabilities, failed = _checked(truth, probabilities, classes, failed)
    index, n_patients = patient_index(patients, len(truth))
    constant = _constant(truth, frequencies, len(classes))
    names, statistic = _statistics(truth, probabilities, failed, classes)
    ones = np.ones((1, len(truth)))
    values = statistic(ones)[0]
    samples = patient_draws(statistic, index, draws=draws, seed=seed)
    trivial = np.broadcast_to(constant, probabilities.shape)
    none_failed = np.zeros(len(truth), bool)
    baselines = _statistics(truth, trivial, none_failed, classes)[1](ones)[0]
    present = np.bincount(truth, minlength=len(classes)) > 0
    rarest = min(len(np.unique(index[truth == c])) for c in np.flatnonzero(present))
    majority = f"majority class ({classes[int(np.argmax(constant))]})"
    found = []
    for column, (name, label) in enumerate(names):
        note = ""
        own = classes.index(label) if label else None
        if not np.isfinite(values[column]):
            note = f"no case of class '{label}'" if own is not None and not present[own] else ""
            note = note or "needs cases of at least two classes"
        elif len(classes) == 2 and name in ("auc", "average_precision"):
            note = f"positive class: {classes[1]}"
        elif not label and name in ("auc", "average_precision"):
            note = "mean of one versus rest"
        independent = n_patients
        if name != "accuracy":
            independent = rarest if own is None else len(np.unique(index[truth == own]))
            if own is not None and name == "auc":  # pairs of a case of the class and another
                independent = min(independent, len(np.unique(index[truth != own])))
        by_rank = name in ("auc", "average_precision")
        by_frequency = name in ("brier", "nll", "ece")
        found.append(
            estimate(
                name,
                values[column],
                samples[:, column],
                n=len(truth),
                n_patients=n_patients,
                independent=independent,
                bounded=name not in ("brier", "nll", "ece"),
                label=label,
                unit="nat" if name == "nll" else "",
                baseline=baselines[column],
                baseline_name="random order"
                if by_rank
                else "label frequencies"
                if by_frequency
                else majority,
                note=note,
            )
        )
    return found


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
    """Return one split's entry of `metrics.json`: scores, confusion, ROC, calibration, groups.

    `groups` maps a column (`scanner`, `modality`) to each case's value there.
    """
    index, n_patients = patient_index(patients, len(truth))
    truth, probabilities, failed = _checked(truth, probabilities, classes, failed)
    common: dict[str, Any] = {"frequencies": frequencies, "draws": draws, "seed": seed}
    scores = classification_scores(truth, probabilities, classes, index, failed=failed, **common)
    by = []
    for column, rows in group_rows(groups or {}, len(truth)):
        for value, chosen in rows:
            some = classification_scores(
                truth[chosen], probabilities[chosen], classes, index[chosen],
                failed=failed[chosen], **common,
            )  # fmt: skip
            kept = [s.to_json() for s in some if s.name in _GROUP_SCORES and not s.label]
            by.append({"column": column, "value": value, "scores": kept})
    accuracy = scores[0]
    return {
        "n_cases": len(truth),
        "n_patients": n_patients,
        "n_failed": int(failed.sum()),
        "scores": [score.to_json() for score in scores],
        "confusion": confusion(truth, probabilities, classes, failed=failed),
        "roc": {
            name: curve
            for number, name in enumerate(classes)
            if (curve := roc(truth == number, _scores(probabilities, failed, truth, number)))
        },
        "calibration": {"bins": calibration(truth, probabilities, failed=failed)},
        "by": by,
        "baseline": {"name": accuracy.baseline_name, "accuracy": accuracy.baseline},
    }


def confusion(
    truth: Array, probabilities: Array, classes: Sequence[str], *, failed: Array | None = None
) -> Json:
    """Return `{"classes", "matrix" (row: truth, column: predicted), "failed" (per truth)}`."""
    truth, probabilities, failed = _checked(truth, probabilities, classes, failed)
    count = len(classes)
    predicted = _predicted(probabilities, failed)
    cells = np.bincount((truth * count + predicted)[~failed], minlength=count * count)
    return {
        "classes": list(classes),
        "matrix": cells.reshape(count, count).tolist(),
        "failed": np.bincount(truth[failed], minlength=count).tolist(),
    }


def roc(positive: Array, scores: Array, *, points: int = 200) -> Json:
    """Return `{"fpr", "tpr"}` from (0, 0) to (1, 1), or `{}` when one side has no case.

    At most about `points` points are kept, evenly along the curve.
    """
    positive = np.asarray(positive, bool)
    if not positive.any() or positive.all():
        return {}
    order, ends = _ranking(scores)
    hits = np.cumsum(positive[order])[ends]
    rest = ends + 1 - hits
    tpr = np.concatenate([[0.0], hits / hits[-1]])
    fpr = np.concatenate([[0.0], rest / rest[-1]])
    if len(tpr) > points:
        keep = np.unique(np.linspace(0, len(tpr) - 1, points).round().astype(int))
        tpr, fpr = tpr[keep], fpr[keep]
    return {"fpr": fpr.round(6).tolist(), "tpr": tpr.round(6).tolist()}


def calibration(
    truth: Array, probabilities: Array, *, failed: Array | None = None, bins: int = BINS
) -> list[Json]:
    """Return the filled bins of the top class's confidence: `{"confidence", "accuracy", "n"}`."""
    failed = np.zeros(len(truth), bool) if failed is None else np.asarray(failed, bool)
    confidence, correct = _confidence(np.asarray(truth), np.asarray(probabilities), failed)
    number = _bin(confidence, bins)
    return [
        {
            "confidence": float(confidence[number == b].mean()),
            "accuracy": float(correct[number == b].mean()),
            "n": int((number == b).sum()),
        }
        for b in np.unique(number)
    ]


def _statistics(
    truth: Array, probabilities: Array, failed: Array, classes: Sequence[str]
) -> tuple[list[tuple[str, str]], Callable[[Array], Array]]:
    """Return `(metric, label)` names and the function weights `(b, n)` -> values `(b, names)`."""
    count = len(classes)
    predicted = _predicted(probabilities, failed)
    truth_is = np.eye(count)[truth]  # (n, C)
    predicted_is = np.eye(count + 1)[predicted][:, :count]  # a failed case predicts no class
    squares = ((probabilities - truth_is) ** 2).sum(1) / (2 if count == 2 else 1)
    squares[failed] = 1.0 if count == 2 else 2.0
    own = np.where(failed, 0.0, probabilities[np.arange(len(truth)), truth])
    losses = -np.log(np.maximum(own, SMALLEST))
    confidence, correct = _confidence(truth, probabilities, failed)
    gaps = np.eye(BINS)[_bin(confidence, BINS)] * (confidence - correct)[:, None]  # (n, bins)
    sums = np.column_stack([truth_is, predicted_is, truth_is * predicted_is, squares, losses, gaps])
    positives = [1] if count == 2 else list(range(count))
    rankings = [_ranking(_scores(probabilities, failed, truth, c)) for c in positives]

    names = [
        (name, "")
        for name in (
            "accuracy", "balanced_accuracy", "auc", "average_precision",
            "macro_f1", "brier", "nll", "ece",
        )
    ]  # fmt: skip
    names += [("recall", label) for label in classes]
    if count > 2:
        names += [(metric, c) for metric in ("auc", "average_precision") for c in classes]

    def statistic(weights: Array) -> Array:
        total = weights.sum(1)  # (b,)
        table = weights @ sums  # (b, columns)
        actual, guessed, hits = (table[:, k * count : (k + 1) * count] for k in range(3))
        with np.errstate(divide="ignore", invalid="ignore"):
            recall = hits / actual  # NaN where the draw holds no case of the class
            f1 = 2 * hits / (actual + guessed)
            ranked = [
                _ranked(weights, order, ends, truth == c)
                for c, (order, ends) in zip(positives, rankings, strict=True)
            ]
        aucs = np.column_stack([auc for auc, _ in ranked])
        precisions = np.column_stack([precision for _, precision in ranked])
        rest = table[:, 3 * count :]
        columns = [
            hits.sum(1) / total,
            _mean_of_defined(recall),
            _mean_of_defined(aucs),
            _mean_of_defined(precisions),
            _mean_of_defined(f1),
            rest[:, 0] / total,
            rest[:, 1] / total,
            np.abs(rest[:, 2:]).sum(1) / total,
            recall,
        ]
        return np.column_stack(columns + ([aucs, precisions] if count > 2 else []))

    return names, statistic


def _ranking(scores: Array) -> tuple[Array, Array]:
    """Return the order from the highest score down and the last place of each run of ties."""
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    return order, np.append(np.flatnonzero(ranked[1:] != ranked[:-1]), len(scores) - 1)


def _ranked(weights: Array, order: Array, ends: Array, positive: Array) -> tuple[Array, Array]:
    """Return area under the ROC curve and average precision for each row of weights, `(b,)`."""
    drawn = weights[:, order]
    passed = np.cumsum(drawn, axis=1)[:, ends]  # (b, thresholds)
    drawn *= positive[order]
    hits = np.cumsum(drawn, axis=1)[:, ends]
    alarms = passed - hits
    steps = np.diff(hits, axis=1, prepend=0)
    positives, negatives = hits[:, -1], alarms[:, -1]
    area = (np.diff(alarms, axis=1, prepend=0) * (hits - steps / 2)).sum(1)
    precision = np.divide(hits, passed, out=np.zeros_like(hits), where=passed > 0)
    defined = (positives > 0) & (negatives > 0)
    auc = np.where(defined, area / (positives * negatives), np.nan)
    return auc, np.where(positives > 0, (steps * precision).sum(1) / positives, np.nan)


def _mean_of_defined(table: Array) -> Array:
    """Return each row's mean over its finite entries, NaN where there is none."""
    finite = np.isfinite(table)
    with np.errstate(invalid="ignore"):
        means: Array = np.where(finite, table, 0).sum(1) / finite.sum(1)
    return means


def _predicted(probabilities: Array, failed: Array) -> Array:
    return np.where(failed, -1, np.argmax(probabilities, axis=1))


def _scores(probabilities: Array, failed: Array, truth: Array, number: int) -> Array:
    """Return class `number`'s scores, a failed case ranked as wrongly as it can be."""
    return np.where(failed, np.where(truth == number, -np.inf, np.inf), probabilities[:, number])


def _confidence(truth: Array, probabilities: Array, failed: Array) -> tuple[Array, Array]:
    confidence = np.where(failed, 1.0, probabilities.max(1))
    return confidence, (_predicted(probabilities, failed) == truth).astype(float)


def _bin(confidence: Array, bins: int) -> Array:
    number: Array = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    return number


def _constant(truth: Array, frequencies: Sequence[float] | Array | None, count: int) -> Array:
    """Return the trivial prediction `(classes,)`: how often each class occurs."""
    given = np.bincount(truth, minlength=count) if frequencies is None else np.asarray(frequencies)
    if given.shape != (count,) or not np.isfinite(given).all() or given.sum() <= 0:
        raise UsageError(f"frequencies must be {count} finite numbers with a sum above 0")
    shares: Array = given / given.sum()
    return shares


def _checked(
    truth: Sequence[Any] | Array,
    probabilities: Array,
    classes: Sequence[str],
    failed: Sequence[bool] | Array | None,
) -> tuple[Array, Array, Array]:
    """Return truth as indices, probabilities as float64 and failures, all of one length."""
    if len(classes) < 2:
        raise UsageError(f"classes must name at least two classes, got {list(classes)}")
    labels = np.asarray(truth)
    if labels.dtype.kind not in "iu":
        known = {str(name): number for number, name in enumerate(classes)}
        for name in labels.tolist():
            if str(name) not in known:
                hint = did_you_mean(str(name), known)
                raise UsageError(f"truth holds '{name}', which is no class of {list(known)}.{hint}")
        labels = np.array([known[str(name)] for name in labels.tolist()], np.int64)
    table = np.array(probabilities, np.float64)
    n = len(labels)
    if not n:
        raise UsageError("truth holds no case: there is nothing to score")
    if labels.min() < 0 or labels.max() >= len(classes):
        raise UsageError(f"truth must hold class indices from 0 to {len(classes) - 1}")
    if table.shape != (n, len(classes)):
        raise UsageError(
            f"probabilities must have shape ({n}, {len(classes)}) (cases, classes), "
            f"got {table.shape}"
        )
    lost = np.zeros(n, bool) if failed is None else np.array(failed, bool)
    if lost.shape != (n,):
        raise UsageError(f"failed must have {n} entries, got shape {lost.shape}")
    lost |= ~np.isfinite(table).all(1)
    table[lost] = 0.0
    return labels.astype(np.int64), table, lost
