# SPDX-License-Identifier: Apache-2.0
"""How well the site can be told from the features: near 0.5 nothing is left, near 1 all of it.

Cross-validated Gaussian discriminant analysis, one site against the rest, mean of the areas under
the ROC curve (Hand & Till's macro average in its one-vs-rest form). With `covariance="pooled"` it
is linear and sees shifts; with `"site"` it sees scales and correlations too (Friedman 1989).
Measure it on rows that the harmonizer was not fitted on: on its own training rows the sites' means
are equal by construction, and held-out folds then lean to the other side, below 0.5.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from vesalius.errors import NormalizationRefused, UsageError
from vesalius.normalization.table.site_moments import check_rows
from vesalius.types import Array

_COMPONENTS = 50  # principal components that the discriminant looks at, at most
_SHRINK = 0.1  # share of each covariance that is replaced by its diagonal


@dataclass(frozen=True, slots=True)
class SiteLeak:
    """Site AUC before and after harmonization."""

    before: float
    after: float


def site_leak(
    before: Array,
    after: Array,
    sites: Sequence[object] | Array,
    covariates: Array | None = None,
    *,
    seed: int = 0,
    covariance: Literal["pooled", "site"] = "pooled",
) -> SiteLeak:
    """Return `site_auc` of the same rows before and after harmonization, on the same folds."""
    return SiteLeak(
        *(
            site_auc(one, sites, covariates, seed=seed, covariance=covariance)
            for one in (before, after)
        )
    )


def site_auc(
    features: Array,
    sites: Sequence[object] | Array,
    covariates: Array | None = None,
    *,
    seed: int = 0,
    folds: int = 5,
    covariance: Literal["pooled", "site"] = "pooled",
) -> float:
    """Return the macro one-vs-rest AUC with which sites are told apart, cross-validated.

    Args:
        features: `(rows, features)`, finite.
        sites: one label a row.
        covariates: `(rows, covariates)` whose linear effect (within sites, on training folds) is
            taken out first, so that a true difference of populations is not called a leak.
        seed: of the folds, which are stratified by site.
        folds: at least 2.
        covariance: `pooled` or `site`, see above.

    Raises:
        UsageError: an argument is not allowed.
        NormalizationRefused: `not-covered` (one site), `too-few-rows` (a site with fewer than
            `folds` rows), `empty`, `non-finite`, or `constant` (no feature varies).
    """
    if covariance not in ("pooled", "site"):
        raise UsageError(f"covariance must be 'pooled' or 'site', got {covariance!r}")
    if folds < 2:
        raise UsageError(f"folds must be at least 2, got {folds}")
    y, labels, c = check_rows(features, sites, covariates)
    names, codes, rows = np.unique(labels, return_inverse=True, return_counts=True)
    if len(names) < 2:
        raise NormalizationRefused("not-covered", f"one site, {names[0]}: nothing to tell apart")
    if rows.min() < folds:
        raise NormalizationRefused(
            "too-few-rows",
            f"site {names[rows.argmin()]} has {rows.min()} rows, {folds} folds need as many",
        )
    if (y == y[0]).all():
        raise NormalizationRefused("constant", "no feature varies")
    fold = _folds(codes, folds, seed)
    scores = np.zeros((len(y), len(names)))
    for one in range(folds):
        test = fold == one
        scores[test] = _discriminant(
            *_without_covariates(y, c, codes, ~test), codes[~test], len(names), covariance
        )
    # each fold has a model of its own: ranks are compared within folds, then averaged
    areas = [
        _area(scores[fold == one, n], codes[fold == one] == n)
        for n in range(len(names))
        for one in range(folds)
    ]
    return float(np.mean(areas))


def _folds(codes: Array, folds: int, seed: int) -> Array:
    """Return a fold for every row; each site is dealt out evenly."""
    rng = np.random.default_rng(seed)
    out = np.empty(len(codes), int)
    for code in np.unique(codes):
        chosen = np.flatnonzero(codes == code)
        out[rng.permutation(chosen)] = np.arange(len(chosen)) % folds
    return out


def _without_covariates(y: Array, c: Array, codes: Array, train: Array) -> tuple[Array, Array]:
    """Return training and test rows, covariates' slopes taken out."""
    if c.shape[1] == 0:
        return y[train], y[~train]
    c_in, y_in = c[train].copy(), y[train].copy()
    for code in np.unique(codes):
        chosen = codes[train] == code
        c_in[chosen] -= c_in[chosen].mean(axis=0)
        y_in[chosen] -= y_in[chosen].mean(axis=0)
    slopes = np.linalg.lstsq(c_in, y_in, rcond=None)[0]
    rest = y - c @ slopes
    return rest[train], rest[~train]


def _discriminant(train: Array, test: Array, codes: Array, count: int, covariance: str) -> Array:
    """Return `(test rows, sites)`: posterior log odds of each site, up to a constant a row."""
    mean, sd = train.mean(axis=0), train.std(axis=0)
    sd = np.where(sd > 0, sd, 1.0)
    train, test = (train - mean) / sd, (test - mean) / sd
    _, lengths, directions = np.linalg.svd(train, full_matrices=False)
    keep = directions[:_COMPONENTS][lengths[:_COMPONENTS] > 1e-9 * lengths[0]]
    train, test = train @ keep.T, test @ keep.T
    centers = np.array([train[codes == n].mean(axis=0) for n in range(count)])
    pooled = _shrunk((train - centers[codes]).T @ (train - centers[codes]) / len(train))
    out = np.empty((len(test), count))
    for n in range(count):
        own = train[codes == n] - centers[n]
        # a site's own covariance leans half on the pooled one, so that few rows suffice
        spread = (
            pooled if covariance == "pooled" else (pooled + _shrunk(own.T @ own / len(own))) / 2
        )
        away = test - centers[n]
        distance = (away * np.linalg.solve(spread, away.T).T).sum(axis=1)
        out[:, n] = -0.5 * (distance + np.linalg.slogdet(spread)[1])
    out += np.log(np.bincount(codes, minlength=count))
    odds: Array = out - np.logaddexp.reduce(out, axis=1, keepdims=True)
    return odds


def _shrunk(matrix: Array) -> Array:
    diagonal = np.diag(np.diag(matrix))
    out: Array = (1 - _SHRINK) * matrix + _SHRINK * diagonal
    # a component without spread within sites: finite, and decisive all the same
    return out + np.eye(len(matrix)) * 1e-9


def _area(scores: Array, positive: Array) -> float:
    """Return the area under the ROC curve; ties count half."""
    from scipy.stats import rankdata

    ranks = rankdata(scores)
    hits = int(positive.sum())
    misses = len(positive) - hits
    return float((ranks[positive].sum() - hits * (hits + 1) / 2) / (hits * misses))
