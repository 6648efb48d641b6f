# SPDX-License-Identifier: Apache-2.0
"""Scores of boxes and of counts: average precision, FROC, error of a count and of its interval.

Average precision is the area below the precision envelope at every recall (Everingham et al.: The
Pascal VOC Challenge, 2010 rules); FROC as in Bunch et al. 1978, summarized by the mean sensitivity
at 1/8 to 8 false positives an image (van Ginneken et al., Medical Image Analysis 2010).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vesalius.errors import UsageError
from vesalius.metrics.bootstrap import DRAWS, estimate, patient_draws, patient_index
from vesalius.results import Estimate
from vesalius.types import Array, Json

IOU = 0.5
RATES = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)  # false positives an image
_POINTS = 200  # of a curve
_CHUNK = 4_000_000  # weights of detections held at a time


@dataclass(frozen=True, slots=True, eq=False)
class Matched:
    """All detections of one class over a set of images, best first.

    Attributes:
        scores: `(m,)`, falling.
        hits: `(m,)` whether it found an object that no better one had found.
        image: `(m,)` index of the image.
        truths: `(images,)` objects in each.
    """

    scores: Array
    hits: Array
    image: Array
    truths: Array


def overlaps(a: Array, b: Array) -> Array:
    """Return intersection over union of boxes `(n, 4)` and `(m, 4)` as `(x0, y0, x1, y1)`."""
    a, b = np.reshape(a, (-1, 4)), np.reshape(b, (-1, 4))
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = (high - low).clip(0).prod(axis=2)
    areas = [(one[:, 2:] - one[:, :2]).clip(0).prod(axis=1) for one in (a, b)]
    total = areas[0][:, None] + areas[1][None] - shared
    out: Array = np.divide(shared, total, out=np.zeros_like(shared, dtype=float), where=total > 0)
    return out


def match(found: Array, scores: Array, truth: Array, *, iou: float = IOU) -> Array:
    """Return for each detection the index of the object that it found, or -1.

    Best score first, each takes the free object that it overlaps most, if by `iou` at least.
    """
    table = overlaps(found, truth)
    out = np.full(len(table), -1)
    free = np.ones(len(truth), bool)
    for row in np.argsort(-np.asarray(scores), kind="stable"):
        if not free.any():
            break
        held = np.where(free, table[row], -1.0)
        best = int(held.argmax())
        if held[best] >= iou:
            out[row], free[best] = best, False
    return out


def match_images(
    found: Sequence[tuple[Array, Array]], truth: Sequence[Array], *, iou: float = IOU
) -> Matched:
    """Match one class over images.

    Args:
        found: corners `(n, 4)` and scores `(n,)` of each image's detections; none for an image
            that failed, whose objects are then missed.
        truth: corners `(m, 4)` of each image's objects.
        iou: overlap from which on an object counts as found.
    """
    if len(found) != len(truth):
        raise UsageError(f"found and truth need one entry an image: {len(found)} for {len(truth)}")
    scores = [np.asarray(s, float) for _, s in found]
    pairs = zip(found, truth, strict=True)
    hits = [match(corners, s, true, iou=iou) >= 0 for (corners, s), true in pairs]
    image = np.repeat(np.arange(len(found)), [len(s) for s in scores])
    flat = np.concatenate([*scores, np.zeros(0)])
    order = np.argsort(-flat, kind="stable")
    return Matched(
        flat[order],
        np.concatenate([*hits, np.zeros(0, bool)])[order],
        image[order],
        np.array([len(true) for true in truth]),
    )


def average_precision(matched: Matched, weights: Array | None = None) -> Array:
    """Return the average precision of each row of image weights `(draws, images)`.

    It is NaN where a draw holds no object.
    """
    true, false, total = _curves(matched, weights)
    precision = true / np.maximum(true + false, 1e-12)
    envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    gained = np.diff(true, axis=1, prepend=0.0)
    area = (envelope * gained).sum(axis=1)
    out: Array = np.divide(area, total, out=np.full(len(total), np.nan), where=total > 0)
    return out


def precision_recall(matched: Matched) -> Json:
    """Return the curve of precision over recall, thinned for drawing; empty without an object."""
    true, false, total = (part[0] for part in _curves(matched, None))
    if not total:
        return {"recall": [], "precision": []}
    ends = np.append(matched.scores[1:] != matched.scores[:-1], True)[: len(matched.scores)]
    recall, precision = true[ends] / total, true[ends] / (true[ends] + false[ends])
    thin = np.unique(np.linspace(0, max(0, len(recall) - 1), _POINTS).astype(int))[: len(recall)]
    return {name: np.round(values[thin], 5).tolist()
            for name, values in (("recall", recall), ("precision", precision))}  # fmt: skip


def sensitivities(
    matched: Matched, rates: Sequence[float] = RATES, weights: Array | None = None
) -> Array:
    """Return the sensitivity at each number of false positives an image, `(draws, rates)`."""
    true, false, total = _curves(matched, weights)
    images = np.full(1, len(matched.truths)) if weights is None else weights.sum(axis=1)
    out = np.full((len(total), len(rates)), np.nan)
    ends = np.append(matched.scores[1:] != matched.scores[:-1], True)[: len(matched.scores)]
    for row in np.flatnonzero(total > 0):
        for place, rate in enumerate(rates):
            allowed = ends & (false[row] <= rate * images[row] + 1e-9)
            out[row, place] = true[row][allowed].max(initial=0.0) / total[row]
    return out


def detection_scores(
    matched: Matched,
    patients: Sequence[Any] | Array,
    *,
    label: str,
    draws: int = DRAWS,
    seed: int = 0,
) -> list[Estimate]:
    """Return average precision and mean FROC sensitivity of one class, with intervals."""

    def statistic(weights: Array) -> Array:
        size = max(1, _CHUNK // max(1, len(matched.scores)))
        parts = [weights[start : start + size] for start in range(0, len(weights), size)]
        return np.concatenate(
            [
                np.column_stack(
                    [average_precision(matched, w), sensitivities(matched, weights=w).mean(axis=1)]
                )
                for w in parts
            ]
        )

    whole = statistic(np.ones((1, len(matched.truths))))[0]
    samples = patient_draws(statistic, patients, draws=draws, seed=seed)
    _, count = patient_index(patients, len(matched.truths))
    names = ("average_precision_50", "froc")
    return [
        estimate(
            name, value, samples[:, place], n=len(matched.truths), n_patients=count, label=label,
            baseline=0.0, baseline_name="nothing found",
        )
        for place, (name, value) in enumerate(zip(names, whole, strict=True))
    ]  # fmt: skip


def count_scores(
    predicted: Array,
    truth: Array,
    patients: Sequence[Any] | Array,
    *,
    label: str,
    constant: float,
    low: Array | None = None,
    high: Array | None = None,
    failed: Array | None = None,
    draws: int = DRAWS,
    seed: int = 0,
) -> list[Estimate]:
    """Return the mean absolute error of counts, and how often their intervals hold the truth.

    Args:
        predicted, truth: `(images,)` counts.
        patients: one an image.
        label: the class counted.
        constant: what the trivial prediction says of every image, for example the median of the
            training images.
        low, high: bounds of each image's interval.
        failed: images that could not be read or predicted: their error is their true count, one
            at least, and their interval holds nothing.
    """
    true, failures = np.asarray(truth, float), np.zeros(len(truth), bool)
    if failed is not None:
        failures = np.asarray(failed, bool)
    error = np.abs(np.asarray(predicted, float) - true)
    error[failures] = np.maximum(true[failures], 1.0)
    columns = [error]
    if low is not None and high is not None:
        columns.append((np.asarray(low) <= true) & (true <= np.asarray(high)) & ~failures)
    table = np.column_stack(columns).astype(float)
    samples = patient_draws(
        lambda w: w @ table / w.sum(axis=1, keepdims=True), patients, draws=draws, seed=seed
    )
    n, (_, count) = len(true), patient_index(patients, len(true))
    out = [
        estimate(
            "count_mae", float(table[:, 0].mean()), samples[:, 0], n=n, n_patients=count,
            label=label, unit="objects", bounded=False,
            baseline=float(np.abs(true - constant).mean()), baseline_name=f"always {constant:g}",
        )
    ]  # fmt: skip
    if len(columns) > 1:
        out.append(
            estimate(
                "count_coverage", float(table[:, 1].mean()), samples[:, 1], n=n, n_patients=count,
                label=label,
            )
        )  # fmt: skip
    return out


def _curves(matched: Matched, weights: Array | None) -> tuple[Array, Array, Array]:
    """Return cumulated true and false positives `(draws, m)` and objects `(draws,)`."""
    if weights is None:
        weights = np.ones((1, len(matched.truths)))
    each = weights[:, matched.image]
    true = np.cumsum(each * matched.hits, axis=1)
    false = np.cumsum(each * ~matched.hits, axis=1)
    return true, false, weights @ matched.truths
