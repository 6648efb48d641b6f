# SPDX-License-Identifier: Apache-2.0
"""CovBat: covariances meet, covariates stay, and the paper's steps written out."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vesalius.errors import NormalizationRefused, UsageError
from vesalius.normalization.table.combat import Combat, UnseenSite
from vesalius.normalization.table.covbat import CovBat


def table(seed: int, rows: int = 240, features: int = 6) -> tuple[np.ndarray, ...]:
    """Return features whose correlation depends on the site, sites, and one covariate."""
    rng = np.random.default_rng(seed)
    codes = np.arange(rows) % 2
    age = rng.normal(50, 10, rows)
    common = rng.normal(0, 1, rows)
    load = np.array([0.2, 0.9])[codes]
    y = load[:, None] * common[:, None] + np.sqrt(1 - load**2)[:, None] * rng.normal(
        0, 1, (rows, features)
    )
    y += rng.normal(0, 2, (2, features))[codes] + np.outer(age, rng.normal(0, 0.05, features))
    return y, np.array(["a", "b"])[codes], age[:, None]


def gap(y: np.ndarray, sites: np.ndarray, c: np.ndarray) -> float:
    """Return the largest difference between the sites' correlations of residuals."""
    found = []
    for site in ("a", "b"):
        own = np.column_stack([np.ones((sites == site).sum()), c[sites == site]])
        rest = y[sites == site] - own @ np.linalg.lstsq(own, y[sites == site], rcond=None)[0]
        found.append(np.corrcoef(rest.T))
    return float(np.abs(found[0] - found[1]).max())


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 999))
def test_correlations_meet_where_combat_leaves_them_apart(seed: int) -> None:
    y, sites, age = table(seed)
    combat = Combat.fit(y, sites, age).apply(y, sites, age)
    covbat = CovBat.fit(y, sites, age).apply(y, sites, age)
    assert gap(combat, sites, age) > 0.5
    assert gap(covbat, sites, age) < 0.6 * gap(combat, sites, age)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 999))
def test_agrees_with_the_papers_steps_written_out(seed: int) -> None:
    y, sites, age = table(seed)
    fitted = CovBat.fit(y, sites, age, variance=0.9)
    combat = fitted.combat
    base = combat.base + age @ combat.slopes
    e = (combat.apply(y, sites, age) - base) / combat.sigma
    values, vectors = np.linalg.eigh(np.cov(e.T))
    values, vectors = values[::-1], vectors[:, ::-1]
    count = int((np.cumsum(values) / values.sum() < 0.9).sum()) + 1
    scores = (e - e.mean(axis=0)) @ vectors
    for k in range(count):
        total = scores[:, k].mean()
        rest = scores[:, k] - np.where(
            sites == "a", scores[sites == "a", k].mean(), scores[sites == "b", k].mean()
        )
        pooled = np.sqrt((rest**2).mean())
        for site in ("a", "b"):
            own = scores[sites == site, k]
            z = (own - own.mean()) / own.std(ddof=1)
            scores[sites == site, k] = z * pooled + total
    expected = (scores @ vectors.T + e.mean(axis=0)) * combat.sigma + base
    assert len(fitted.components) == count
    np.testing.assert_allclose(fitted.apply(y, sites, age), expected, atol=1e-8)


def test_order_of_rows_does_not_matter_and_slopes_stay() -> None:
    y, sites, age = table(1)
    out = CovBat.fit(y, sites, age).apply(y, sites, age)
    rows = np.random.default_rng(0).permutation(len(y))
    again = CovBat.fit(y[rows], sites[rows], age[rows]).apply(y, sites, age)
    np.testing.assert_allclose(again, out, atol=1e-8)
    slopes = [np.polynomial.polynomial.polyfit(age[:, 0], one, 1)[1] for one in (y, out)]
    assert np.abs(slopes[0] - slopes[1]).max() < 0.05


def test_sites_of_one_covariance_are_left_near_combat() -> None:
    rng = np.random.default_rng(0)
    sites = np.array(["a", "b"]).repeat(2000)
    y = rng.normal(0, 1, (4000, 4)) @ rng.normal(0, 1, (4, 4)) + (sites == "b")[:, None] * 3
    combat = Combat.fit(y, sites).apply(y, sites)
    covbat = CovBat.fit(y, sites).apply(y, sites)
    assert np.abs(covbat - combat).max() < 0.2 * y.std()


def test_json_reference_and_unseen_sites() -> None:
    y, sites, age = table(2)
    fitted = CovBat.fit(y, sites, age, reference_site="b")
    out = fitted.apply(y, sites, age)
    np.testing.assert_allclose(out[sites == "b"], y[sites == "b"], atol=1e-12)
    again = CovBat.from_json(json.loads(json.dumps(fitted.to_json(), allow_nan=False)))
    assert (again.apply(y, sites, age) == out).all()
    with pytest.raises(NormalizationRefused, match="got moon"):
        fitted.apply(y, ["moon"] * len(y), age)
    mixed = np.where(np.arange(len(y)) < 9, "moon", sites)
    with pytest.warns(UnseenSite):
        passed = fitted.apply(y, mixed, age, unseen="reference")
    assert (passed[:9] == y[:9]).all()
    np.testing.assert_allclose(passed[9:], out[9:], atol=1e-12)
    with pytest.warns(UnseenSite):
        alone = fitted.apply(y[:9], ["moon"] * 9, age[:9], unseen="reference")
    assert (alone == y[:9]).all()


def test_one_feature_flat_features_and_wrong_calls() -> None:
    y, sites, age = table(3, features=1)
    assert np.isfinite(CovBat.fit(y, sites, age).apply(y, sites, age)).all()
    wide = np.column_stack([y, np.full(len(y), 7.0)])
    assert (CovBat.fit(wide, sites, age).apply(wide, sites, age)[:, 1] == 7).all()
    with pytest.raises(NormalizationRefused, match="no feature varies"):
        CovBat.fit(np.full((20, 2), 3.0), np.array(["a", "b"] * 10))
    with pytest.raises(UsageError, match="variance must lie"):
        CovBat.fit(y, sites, age, variance=0)
