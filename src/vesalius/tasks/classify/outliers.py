# SPDX-License-Identifier: Apache-2.0
"""Out-of-distribution score of embeddings: distance from the training rows, refused when too far.

Lee et al.: A simple unified framework for detecting out-of-distribution samples, NeurIPS 2018
(Mahalanobis distance to the nearest class mean); Mueller and Hein: Mahalanobis++, ICML 2025
(embeddings scaled to length 1 first); Ledoit and Wolf: A well-conditioned estimator for
large-dimensional covariance matrices, JMVA 2004 (shrinkage); Tipping and Bishop: Probabilistic
principal component analysis, JRSS B 1999 (one variance outside the leading components).

Chosen by measurement on embeddings of EfficientNet-Lite0 over distance to the k-th neighbor (equal
within noise with many rows, worse with few, and it keeps training rows, which are patient data),
over the same without unit length, and over the relative distance.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from vesalius.errors import DataError, UsageError
from vesalius.tasks.classify.conformal import conformal_threshold
from vesalius.types import Array, Json

COMPONENTS = 128
ROWS = 5000  # at most these enter the fit
REFUSED = 0.01
_SMALLEST = 1e-12  # variance of embeddings that do not vary


@dataclass(frozen=True, slots=True, eq=False)
class OutlierScore:
    """Class means and one shrunk covariance of unit-length embeddings, with a threshold.

    Attributes:
        means: `(classes, features)` float32.
        axes: `(components, features)` float32, orthonormal.
        variances: `(components,)` float32, along the axes.
        rest: variance along every other direction.
        threshold: largest score that is not refused; None before `calibrate`.
        refused: share of rows like the calibration rows that may be refused.
        n: rows that the distance was fitted on.
        n_calibration: rows that the threshold was fitted on.
        note: where the share cannot be kept, or ``.
    """

    means: Array
    axes: Array
    variances: Array
    rest: float
    threshold: float | None = None
    refused: float = REFUSED
    n: int = 0
    n_calibration: int = 0
    note: str = ""

    @classmethod
    def fit(
        cls, embeddings: Array, labels: Sequence[Any] | Array | None = None, *, seed: int = 0
    ) -> Self:
        """Fit the distance on training rows, at most `ROWS` of them, drawn by `seed`.

        Args:
            embeddings: `(n, features)`.
            labels: `(n,)`, whose classes have a mean each; one mean when None.
            seed: of the draw.

        Raises:
            UsageError: wrong shapes. DataError: fewer than 2 rows, or values that are not finite.
        """
        table = _table(embeddings)
        names = np.zeros(len(table)) if labels is None else np.asarray(labels)
        if names.shape != (len(table),):
            raise UsageError(f"labels must be {len(table)}, one per embedding, got {names.shape}")
        if len(table) < 2 or not np.isfinite(table).all():
            raise DataError(
                f"an outlier score needs 2 finite embeddings or more, got {len(table)} rows, "
                f"{int(np.isfinite(table).all(axis=1).sum())} of them finite"
            )
        if len(table) > ROWS:
            kept = np.sort(np.random.default_rng(seed).choice(len(table), ROWS, replace=False))
            table, names = table[kept], names[kept]
        unit = _unit_length(table)
        index, count = np.unique(names, return_inverse=True)[1], np.unique(names).size
        means = np.stack([unit[index == label].mean(axis=0) for label in range(count)])
        axes, variances, rest = _shrunk_covariance(unit - means[index])
        return cls(
            means.astype(np.float32),
            axes.astype(np.float32),
            variances.astype(np.float32),
            rest,
            n=len(unit),
        )

    def calibrate(self, embeddings: Array, *, refused: float = REFUSED) -> Self:
        """Return a copy with the threshold that refuses `refused` of rows like these.

        Args:
            embeddings: `(n, features)` of calibration rows that serve nothing else.
            refused: above 0 and below 1. Fewer than 1 / refused - 1 rows do not reach that far:
                the threshold is then a prediction bound of normally distributed log-scores, or
                the largest score if that is more, and the note says so.

        Raises:
            UsageError: a bad share or shape. DataError: fewer than 2 finite rows.
        """
        if not 0 < refused < 1:
            raise UsageError(f"refused must be above 0 and below 1, got {refused}")
        scores = self.score(embeddings)
        scores = scores[np.isfinite(scores)]
        if len(scores) < 2:
            raise DataError(f"a threshold needs 2 finite calibration rows, got {len(scores)}")
        threshold, note = conformal_threshold(scores, 1 - refused), ""
        if threshold is None:
            threshold = max(float(scores.max()), _prediction_bound(scores, refused))
            note = (
                f"{len(scores)} calibration rows are too few to show that {refused:.1%} are "
                "refused: the threshold is extrapolated"
            )
        return replace(
            self, threshold=threshold, refused=refused, n_calibration=len(scores), note=note
        )

    def score(self, embeddings: Array) -> Array:
        """Return each row's distance to the nearest mean `(n,)`; infinite for a row with NaN."""
        table = _table(embeddings)
        if table.shape[1] != self.means.shape[1]:
            raise UsageError(
                f"the score was fitted on {self.means.shape[1]} features, got {table.shape[1]}"
            )
        finite = np.asarray(np.isfinite(table).all(axis=1))
        unit = _unit_length(np.where(finite[:, None], table, 0))
        squared = np.full(len(table), np.inf)
        for mean in self.means.astype(np.float64):
            away = unit - mean
            along = away @ self.axes.T.astype(np.float64)
            outside = np.maximum((away**2).sum(axis=1) - (along**2).sum(axis=1), 0)
            squared = np.minimum(squared, along**2 @ (1 / self.variances) + outside / self.rest)
        return np.where(finite, np.sqrt(squared), np.inf)

    def refuse(self, embeddings: Array) -> Array:
        """Return which rows lie beyond the threshold, Boolean `(n,)`.

        Raises:
            UsageError: there is no threshold yet, or another number of features.
        """
        if self.threshold is None:
            raise UsageError("the outlier score has no threshold; call calibrate() first")
        return np.asarray(self.score(embeddings) > self.threshold)

    def arrays(self) -> dict[str, Array]:
        """Return the float32 arrays to keep beside the weights; none is a training row."""
        return {"means": self.means, "axes": self.axes, "variances": self.variances}

    def to_json(self) -> Json:
        """Return the numbers to keep beside `arrays()`."""
        names = ("rest", "threshold", "refused", "n", "n_calibration", "note")
        return {name: getattr(self, name) for name in names}

    @classmethod
    def from_json(cls, held: Json, arrays: Mapping[str, Array]) -> Self:
        """Return the score whose `to_json` and `arrays` these are."""
        return cls(arrays["means"], arrays["axes"], arrays["variances"], **held)


def _shrunk_covariance(centered: Array) -> tuple[Array, Array, float]:
    """Return leading axes `(q, d)`, variances along them `(q,)` and the variance elsewhere.

    The Ledoit–Wolf mixture of the covariance of `(n, d)` rows and a sphere of its mean variance.
    """
    from scipy.linalg import eigh

    n, d = centered.shape
    wide = n < d
    small = (centered @ centered.T if wide else centered.T @ centered) / n  # same eigenvalues
    size = len(small)
    variances, vectors = eigh(small, subset_by_index=[max(0, size - COMPONENTS), size - 1])
    total, squares = float(np.trace(small)), float((small**2).sum())
    mean = max(total / d, _SMALLEST)
    kept = variances > max(1e-9 * total, _SMALLEST)
    variances, vectors = variances[kept], vectors[:, kept]
    axes = (centered.T @ vectors / np.sqrt(n * variances) if wide else vectors).T
    rest = max(total - float(variances.sum()), 0.0) / max(d - len(variances), 1)
    from_sphere = squares - d * mean**2
    noise = float(((centered**2).sum(axis=1) ** 2).sum() / n - squares) / n
    shrinkage = min(1.0, max(0.0, noise / from_sphere)) if from_sphere > 0 else 1.0
    shrunk = (1 - shrinkage) * variances + shrinkage * mean
    return axes, shrunk, max((1 - shrinkage) * rest + shrinkage * mean, _SMALLEST)


def _prediction_bound(scores: Array, beyond: float) -> float:
    """Return what one further log-normal score exceeds with probability `beyond`."""
    from scipy.special import stdtrit  # quantile of Student's t

    logs = np.log(np.maximum(scores, _SMALLEST))
    n = len(logs)
    quantile = float(stdtrit(n - 1, 1 - beyond))
    bound = float(logs.mean() + quantile * logs.std(ddof=1) * (1 + 1 / n) ** 0.5)
    return float(np.exp(min(bound, 700.0)))  # finite


def _unit_length(table: Array) -> Array:
    length = np.linalg.norm(table, axis=1, keepdims=True)
    return np.asarray(table / np.where(length > 0, length, 1))


def _table(embeddings: Array) -> Array:
    table = np.asarray(embeddings, np.float64)
    if table.ndim != 2 or not table.shape[1]:
        raise UsageError(f"embeddings must be (n, features), got {table.shape}")
    return table
