# SPDX-License-Identifier: Apache-2.0
"""Residual site AUC: known answers, and what harmonization leaves on rows it never saw."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from vesalius.errors import NormalizationRefused, UsageError
from vesalius.normalization.table.combat import Combat
from vesalius.normalization.table.site_leak import site_auc, site_leak


def rows(seed: int, shift: float, scale: float = 1.0, n: int = 1500) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(seed)
    sites = np.array(["a", "b"])[np.arange(n) % 2]
    y = rng.normal(0, 1, (n, 3))
    y[sites == "b"] *= scale
    y[sites == "b", 0] += shift
    return y, sites


@pytest.mark.parametrize("shift", [0.0, 1.0, 2.0])
def test_known_area_of_two_shifted_normals(shift: float) -> None:
    y, sites = rows(0, shift)
    assert site_auc(y, sites) == pytest.approx(norm.cdf(shift / np.sqrt(2)), abs=0.03)


def test_scales_are_seen_by_the_sites_own_covariance_alone() -> None:
    y, sites = rows(1, 0.0, scale=2.0)
    assert site_auc(y, sites) == pytest.approx(0.5, abs=0.05)
    assert site_auc(y, sites, covariance="site") > 0.7


def test_agrees_with_scikit_learn_on_three_sites() -> None:
    sklearn = pytest.importorskip("sklearn.discriminant_analysis")
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    rng = np.random.default_rng(0)
    sites = np.array(["a", "b", "c"])[rng.integers(0, 3, 900)]
    y = rng.normal(0, 1, (900, 4)) + (sites == "b")[:, None] * [0.8, 0, 0, 0.3]
    model = sklearn.LinearDiscriminantAnalysis()
    odds = cross_val_predict(model, y, sites, cv=StratifiedKFold(5), method="predict_proba")
    assert site_auc(y, sites) == pytest.approx(
        roc_auc_score(sites, odds, multi_class="ovr", average="macro"), abs=0.01
    )


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 99), st.floats(0.1, 50), st.floats(-100, 100))
def test_units_and_names_do_not_matter(seed: int, gain: float, offset: float) -> None:
    y, sites = rows(seed, 0.7, n=120)
    other = np.where(sites == "a", "x", "z")
    assert site_auc(gain * y + offset, other) == pytest.approx(site_auc(y, sites), abs=1e-9)


def test_harmonization_leaves_little_on_rows_that_it_never_saw() -> None:
    y, sites = rows(2, 2.0, scale=1.5)
    train = np.arange(len(y)) < 1000
    fitted = Combat.fit(y[train], sites[train])
    held_out, held_sites = y[~train], sites[~train]
    for covariance in ("pooled", "site"):
        found = site_leak(
            held_out, fitted.apply(held_out, held_sites), held_sites, covariance=covariance
        )
        assert found.before > 0.8
        assert found.after == pytest.approx(0.5, abs=0.08)


def test_a_difference_of_populations_is_not_a_leak_once_named() -> None:
    rng = np.random.default_rng(3)
    sites = np.array(["a", "b"])[np.arange(800) % 2]
    age = rng.normal(50, 5, 800) + 10 * (sites == "b")
    y = np.outer(age, [0.2, -0.3]) + rng.normal(0, 1, (800, 2))
    assert site_auc(y, sites) > 0.8
    assert site_auc(y, sites, age[:, None]) == pytest.approx(0.5, abs=0.06)


def test_more_features_than_rows_and_a_single_perfect_one() -> None:
    rng = np.random.default_rng(0)
    sites = np.array(["a", "b"] * 30)
    y = rng.normal(0, 1, (60, 500))
    assert 0.2 < site_auc(y, sites) < 0.8
    assert site_auc((sites == "a").astype(float)[:, None], sites) == 1.0


def test_verdicts() -> None:
    y, sites = rows(0, 1.0, n=20)
    for change, reason in (
        ((y, ["a"] * 20), "not-covered"),
        ((y[:6], sites[:6]), "too-few-rows"),
        ((np.ones((20, 2)), sites), "constant"),
        ((y * np.nan, sites), "non-finite"),
    ):
        with pytest.raises(NormalizationRefused) as refused:
            site_auc(*change)
        assert refused.value.reason == reason
    with pytest.raises(UsageError, match="covariance must be"):
        site_auc(y, sites, covariance="own")
    with pytest.raises(UsageError, match="folds must be"):
        site_auc(y, sites, folds=1)
