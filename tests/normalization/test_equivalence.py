# SPDX-License-Identifier: Apache-2.0
"""TOST: against SciPy's t-tests, hand-known verdicts, and what is too few to say."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from vesalius.normalization.equivalence import MARGIN, site_equivalence


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.floats(0.05, 0.5))
def test_against_two_one_sided_tests_of_scipy(seed: int, margin: float) -> None:
    rng = np.random.default_rng(seed)
    sites = [*"a" * 7, *"b" * 9, *"c" * 4, ""]
    means = rng.normal(0, 0.1, len(sites)) + np.array([0.1 * (s == "a") for s in sites])
    sds = rng.normal(1, 0.1, len(sites))
    rows = site_equivalence(sites, means, sds, margin=margin)
    assert [(row.site, row.what) for row in rows] == [
        (site, what) for site in "abc" for what in ("mean", "sd")
    ]
    for row in rows:
        values = means if row.what == "mean" else sds
        own = values[[s == row.site for s in sites]]
        rest = values[[s not in (row.site, "") for s in sites]]
        lower = stats.ttest_ind(own + margin, rest, equal_var=False, alternative="greater")
        upper = stats.ttest_ind(own - margin, rest, equal_var=False, alternative="less")
        assert row.p == pytest.approx(max(lower.pvalue, upper.pvalue), rel=1e-6, abs=1e-12)
        assert row.difference == pytest.approx(own.mean() - rest.mean())
        assert (row.n, row.others) == (len(own), len(rest))
        assert row.equivalent == (row.p < 0.05)


def test_sites_that_agree_are_equivalent_and_one_that_does_not_is_not() -> None:
    rng = np.random.default_rng(0)
    sites = np.repeat(["x", "y", "z"], 20)
    means = rng.normal(0, 0.05, 60) + np.where(sites == "z", 0.5, 0.0)
    rows = {
        (row.site, row.what): row
        for row in site_equivalence([*sites], means, rng.normal(1, 0.05, 60))
    }
    assert rows["z", "mean"].equivalent is False
    assert rows["z", "sd"].equivalent is True
    same = site_equivalence([*sites[:40]], means[:40], np.ones(40))
    assert all(row.equivalent for row in same)  # the standard deviations have no spread at all
    assert all(row.margin == MARGIN for row in same)


def test_what_is_too_few() -> None:
    assert site_equivalence(["", "a", "a"], [0, 0, 0], [1, 1, 1]) == []
    assert site_equivalence([], [], []) == []
    rows = site_equivalence(["a", "a", "b", "b", "b"], np.zeros(5), np.ones(5))
    assert all(row.p is None and row.equivalent is None for row in rows)
    assert rows[0].to_json()["equivalent"] is None


def test_series_of_one_value_are_compared_as_they_stand() -> None:
    rows = site_equivalence([*"aaabbb"], [0, 0, 0, 1, 1, 1], np.ones(6))
    assert [row.equivalent for row in rows] == [False, True, False, True]
