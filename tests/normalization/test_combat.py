# SPDX-License-Identifier: Apache-2.0
"""ComBat: a second computation row by row, its laws, and its verdicts."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vesalius.errors import NormalizationRefused, RunError, UsageError
from vesalius.normalization.table.combat import Combat, UnseenSite
from vesalius.normalization.table.site_moments import SiteMoments

SITES = np.array(["north", "east", "west"])
seeds = st.integers(0, 999)


def table(seed: int, rows: int = 90, features: int = 7) -> tuple[np.ndarray, ...]:
    """Return features, sites and one covariate, with planted site shifts and scales."""
    rng = np.random.default_rng(seed)
    codes = np.concatenate([np.arange(3).repeat(4), rng.integers(0, 3, rows - 12)])
    age = rng.normal(50, 10, rows) + 4 * codes
    y = rng.normal(0, 1, (rows, features)) * rng.uniform(0.6, 1.8, (3, features))[codes]
    y += rng.normal(0, 2, (3, features))[codes] + np.outer(age, rng.normal(0, 0.1, features))
    return y, SITES[codes], age[:, None]


def written_out(y, sites, c, *, reference="", prior=True, rounds=400) -> np.ndarray:
    """Return Fortin's ComBat row by row with a full design matrix (float64)."""
    names = sorted(set(sites))
    dummies = np.array([[site == name for name in names] for site in sites], float)
    beta = np.linalg.lstsq(np.hstack([dummies, c]), y, rcond=None)[0]
    rest = y - np.hstack([dummies, c]) @ beta
    n = dummies.sum(axis=0)
    if reference:
        k = names.index(reference)
        alpha, var = beta[k], (rest[sites == reference] ** 2).mean(axis=0)
    else:
        alpha, var = n @ beta[: len(names)] / n.sum(), (rest**2).mean(axis=0)
    base = alpha + c @ beta[len(names) :]
    z = (y - base) / np.sqrt(var)
    for k, name in enumerate(names):
        own = z[sites == name]
        gamma, delta = own.mean(axis=0), own.var(axis=0, ddof=1)
        if prior and name != reference:
            m, t2 = gamma.mean(), gamma.var(ddof=1)
            d_m, s2 = delta.mean(), delta.var(ddof=1)
            a, b = (2 * s2 + d_m**2) / s2, (d_m * s2 + d_m**3) / s2
            raw, d = gamma, delta
            for _ in range(rounds):
                gamma = (n[k] * t2 * raw + d * m) / (n[k] * t2 + d)
                d = (((own - gamma) ** 2).sum(axis=0) / 2 + b) / (n[k] / 2 + a - 1)
            delta = d
        if name == reference:
            gamma, delta = np.zeros_like(gamma), np.ones_like(delta)
        z[sites == name] = (own - gamma) / np.sqrt(delta)
    return z * np.sqrt(var) + base


@settings(max_examples=20, deadline=None)
@given(seeds, st.sampled_from(["", "east"]), st.booleans())
def test_agrees_with_the_formula_written_out(seed: int, reference: str, prior: bool) -> None:
    y, sites, age = table(seed)
    fitted = Combat.fit(
        y, sites, age, reference_site=reference, prior="parametric" if prior else "none"
    )
    expected = written_out(y, sites, age, reference=reference, prior=prior)
    np.testing.assert_allclose(fitted.apply(y, sites, age), expected, atol=1e-7)


@settings(max_examples=15, deadline=None)
@given(seeds)
def test_order_of_rows_and_of_features_does_not_matter(seed: int) -> None:
    y, sites, age = table(seed)
    out = Combat.fit(y, sites, age).apply(y, sites, age)
    rng = np.random.default_rng(seed)
    rows, columns = rng.permutation(len(y)), rng.permutation(y.shape[1])
    mixed = Combat.fit(y[rows][:, columns], sites[rows], age[rows])
    again = mixed.apply(y[:, columns], sites, age)
    np.testing.assert_allclose(again, out[:, columns], rtol=1e-9, atol=1e-9)


@settings(max_examples=15, deadline=None)
@given(seeds, st.floats(-50, 50), st.floats(0.05, 20))
def test_a_change_of_units_goes_through(seed: int, offset: float, gain: float) -> None:
    y, sites, age = table(seed)
    out = Combat.fit(y, sites, age).apply(y, sites, age)
    moved = gain * y + offset
    other = Combat.fit(moved, sites, age).apply(moved, sites, age)
    np.testing.assert_allclose(other, gain * out + offset, rtol=1e-7, atol=1e-7 * gain)


@settings(max_examples=15, deadline=None)
@given(seeds, st.lists(st.integers(1, 89), min_size=1, max_size=6, unique=True))
def test_any_partition_on_any_machine_gives_the_same_fit(seed: int, cuts: list[int]) -> None:
    y, sites, age = table(seed)
    y += 1000  # far from zero: sums of squares alone would cancel
    whole = Combat.fit(y, sites, age)
    parts = []
    for rows in np.split(np.arange(len(y)), sorted(cuts)):
        part = SiteMoments()
        part.add(y[rows], sites[rows], age[rows])
        parts.append(part)
    total = SiteMoments()
    for part in parts[::-1]:
        total.merge(part)
    merged = Combat.from_moments(total)
    for name in ("base", "slopes", "sigma", "gamma", "delta"):
        np.testing.assert_allclose(
            getattr(merged, name), getattr(whole, name), rtol=1e-9, atol=1e-9
        )


def test_site_effects_go_and_the_covariates_slope_stays() -> None:
    y, sites, age = table(5, rows=600)
    out = Combat.fit(y, sites, age, prior="none").apply(y, sites, age)
    dummies = (sites[:, None] == SITES).astype(float)
    before = np.linalg.lstsq(np.hstack([dummies, age]), y, rcond=None)[0]
    after = np.linalg.lstsq(np.hstack([dummies, age]), out, rcond=None)[0]
    assert np.ptp(before[:3], axis=0).max() > 1
    np.testing.assert_allclose(np.ptp(after[:3], axis=0), 0, atol=0.3)
    np.testing.assert_allclose(after[3], before[3], atol=0.02)
    # not named, the covariate is taken for a site effect where the sites differ in it
    blind = Combat.fit(y, sites, prior="none").apply(y, sites)
    lines = [np.polynomial.polynomial.polyfit(age[:, 0], one, 1)[1] for one in (out, blind)]
    errors = [np.abs(line - before[3]).max() for line in lines]
    assert errors[0] < 0.5 * errors[1]


def test_mean_only_leaves_every_sites_spread() -> None:
    y, sites, age = table(2)
    out = Combat.fit(y, sites, age, mean_only=True).apply(y, sites, age)
    for site in SITES:
        change = (out - y)[sites == site]
        np.testing.assert_allclose(change - change[0], 0, atol=1e-12)
        assert np.abs(change).max() > 0.1


def test_a_reference_site_stays_bit_for_bit_and_takes_unseen_ones_with_a_warning() -> None:
    y, sites, age = table(1)
    fitted = Combat.fit(y, sites, age, reference_site="east")
    assert (fitted.apply(y, sites, age)[sites == "east"] == y[sites == "east"]).all()
    mixed = np.where(np.arange(len(y)) < 5, "moon", sites)
    with pytest.raises(NormalizationRefused, match="got moon; pass unseen='reference'") as refused:
        fitted.apply(y, mixed, age)
    assert refused.value.reason == "not-covered"
    with pytest.warns(UnseenSite, match="moon were not fitted"):
        out = fitted.apply(y, mixed, age, unseen="reference")
    assert (out[:5] == y[:5]).all()
    assert (out[5:] == fitted.apply(y[5:], sites[5:], age[5:])).all()


def test_an_unseen_site_is_refused_without_a_reference_whatever_is_asked() -> None:
    y, sites, age = table(1)
    fitted = Combat.fit(y, sites, age)
    for unseen in ("refuse", "reference"):
        with pytest.raises(NormalizationRefused, match="fit with a reference_site"):
            fitted.apply(y, ["moon"] * len(y), age, unseen=unseen)


def test_one_feature_is_harmonized_without_shrinkage() -> None:
    y, sites, age = table(3, features=1)
    fitted = Combat.fit(y, sites, age)
    out = fitted.apply(y, sites, age)
    assert np.isfinite(out).all()
    plain = Combat.fit(y, sites, age, prior="none").apply(y, sites, age)
    np.testing.assert_allclose(out, plain, atol=1e-12)
    assert any("one feature" in note for note in fitted.notes)


def test_flat_features_pass_or_lose_their_shift_and_disturb_no_other() -> None:
    y, sites, age = table(4)
    stepped = np.select([sites == "north", sites == "east"], [1.0, 2.0], 3.0)
    wide = np.column_stack([y[:, :3], np.full(len(y), 0.1), stepped, y[:, 3:]])
    fitted = Combat.fit(wide, sites, age)
    out = fitted.apply(wide, sites, age)
    assert (out[:, 3] == 0.1).all()
    np.testing.assert_allclose(out[:, 4], stepped.mean(), atol=1e-9)
    others = Combat.fit(y, sites, age).apply(y, sites, age)
    np.testing.assert_allclose(np.delete(out, [3, 4], axis=1), others, atol=1e-9)
    assert fitted.notes == (
        "features [3] are constant: passed through",
        "features [4] are constant within every site: only the shift is removed",
    )


def test_json_round_trip_with_and_without_covariates() -> None:
    y, sites, age = table(6)
    for c in (age, None):
        one = Combat.fit(y, sites, c, reference_site="west")
        two = Combat.from_json(json.loads(json.dumps(one.to_json(), allow_nan=False)))
        assert (one.apply(y, sites, c) == two.apply(y, sites, c)).all()
        assert two.notes == one.notes
    with pytest.raises(RunError, match="must be of method 'combat'"):
        Combat.from_json(one.to_json() | {"method": "covbat"})


def spoiled(y: np.ndarray) -> np.ndarray:
    y = y.copy()
    y[4, 2] = np.nan
    return y


@pytest.mark.parametrize(
    ("change", "reason", "words"),
    [
        (lambda y, s, c: (spoiled(y), s, c), "non-finite", "1 values .* first in feature 2"),
        (lambda y, s, c: (y, s, c * np.inf), "non-finite", "first in covariate 0"),
        (lambda y, s, c: (y[:0], s[:0], c[:0]), "empty", "table is empty"),
        (lambda y, _, c: (y, ["a"] * len(y), c), "not-covered", "at least two sites"),
        (lambda y, s, c: (y, ["b", *s[1:]], c), "too-few-rows", "sites b have one row"),
        (lambda y, s, _: (y, s, (s == "west")[:, None]), "confounded", "within every site"),
        (lambda y, s, c: (y, s, np.hstack([c, 2 * c])), "confounded", "determine one another"),
    ],
)
def test_hopeless_tables_get_a_verdict(change, reason: str, words: str) -> None:
    with pytest.raises(NormalizationRefused, match=words) as refused:
        Combat.fit(*change(*table(0)))
    assert refused.value.reason == reason


def test_wrong_calls_are_named() -> None:
    y, sites, age = table(0)
    with pytest.raises(UsageError, match="prior must be"):
        Combat.fit(y, sites, prior="flat")
    with pytest.raises(UsageError, match=r"axes \(rows, features\)"):
        Combat.fit(y[:, 0], sites)
    with pytest.raises(UsageError, match="one label for 90 rows"):
        Combat.fit(y, sites[:5])
    with pytest.raises(UsageError, match="must number 7 and 1, as fitted, got 7 and 0"):
        Combat.fit(y, sites, age).apply(y, sites)
    with pytest.raises(NormalizationRefused, match="reference_site must be among"):
        Combat.fit(y, sites, reference_site="moon")
    moments = SiteMoments()
    moments.add(y, sites, age)
    with pytest.raises(UsageError, match="as before, got 3 and 1"):
        moments.add(y[:, :3], sites, age)
