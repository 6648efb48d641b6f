# SPDX-License-Identifier: Apache-2.0
"""The default method: its four laws on mixtures with outliers, and contrast that outliers leave."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, event, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from vesalius.errors import NormalizationRefused, RunError, UsageError
from vesalius.normalization import method as door
from vesalius.normalization.intensity.mad import METHOD as MAD
from vesalius.normalization.intensity.mad import center_and_scale

sys.path.insert(0, str(Path(__file__).parent))
from heads import head, planted, tissues

law = settings(max_examples=25, deadline=None)
SHARES = (0.002, 0.01, 0.03)
TIMES = (8.0, 50.0, -8.0, -50.0)  # dark ones below air, as a wrong sign makes them


@st.composite
def mixtures(draw) -> np.ndarray:
    """Two or three tissues, a skewed tail or none, outliers or none; flat, no ties."""
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    size = draw(st.sampled_from([60, 500, 4000]))
    means = rng.choice([100.0, 400, 650, 1000], draw(st.integers(1, 3)), replace=False)
    values = rng.choice(means, size) + rng.normal(0, 40, size)
    values += draw(st.sampled_from([0.0, 200.0])) * rng.exponential(size=size)
    outside = rng.random(size) < draw(st.sampled_from([0.0, *SHARES]))
    return np.where(outside, values * draw(st.sampled_from(TIMES)), values)


def solved(values: np.ndarray) -> np.ndarray:
    return MAD().solve(values, np.ones(values.shape, bool)).apply(values)


def plain_three_steps(values: np.ndarray, clip: float = 3.5) -> np.ndarray:
    """Median and MAD, clip, z: written anew, with one scale for both sides and fixed limits."""
    middle = np.median(values)
    reach = clip * 1.4826 * np.median(np.abs(values - middle))
    clipped = np.clip(values, middle - reach, middle + reach)
    return (clipped - clipped.mean()) / clipped.std()


@law
@given(mixtures(), st.floats(1e-3, 1e3), st.floats(-1e4, 1e4))
def test_gain_and_offset_change_nothing(x, a: float, b: float) -> None:
    np.testing.assert_allclose(solved(a * x + b), solved(x), atol=2e-3)


@law
@given(mixtures())
def test_a_second_application_in_the_same_mask_changes_nothing(x) -> None:
    once = solved(x)
    np.testing.assert_allclose(solved(once), once, atol=1e-3)


@law
@given(mixtures())
def test_order_is_kept(x) -> None:
    curve = MAD().solve(x, np.ones(x.shape, bool))
    rising = curve.apply(np.linspace(x.min() - 100, x.max() + 100, 3001))
    assert (np.diff(rising) >= 0).all()
    assert rising[-1] > rising[0]


@law
@given(mixtures())
def test_the_spread_in_the_mask_is_1(x) -> None:
    y = solved(x).astype(np.float64)
    assert y.std() == pytest.approx(1, abs=1e-5)
    assert y.mean() == pytest.approx(0, abs=1e-5)


@law
@given(
    arrays.arrays(
        st.sampled_from([np.int16, np.uint16, np.uint8, np.float16, np.float32, np.float64]),
        arrays.array_shapes(min_dims=1, max_dims=3, max_side=9),
    )
)
def test_any_array_gives_unit_spread_or_a_reason_never_nan(x) -> None:
    assume(x.dtype != np.float64 or not (np.abs(x) > 1e38).any())  # refused before, by `certify`
    try:
        y = MAD().solve(x, np.ones(x.shape, bool)).apply(x)
    except NormalizationRefused as error:
        event(error.reason)
        hopeless = x.size < 2 or x.min() == x.max() or not np.isfinite(x).all()
        assert hopeless or error.reason == "constant"  # noqa: PT017 - both ways are tested
        return
    assert y.dtype == np.float32
    assert np.isfinite(y).all()
    assert 0.99 <= y.astype(np.float64).std() <= 1.01


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("times", TIMES)
def test_outliers_take_less_of_the_contrast_than_from_the_plain_three_steps(share, times) -> None:
    """The gap between white and gray matter, in standard deviations, against that without them."""
    worst = {"ours": 0.0, "plain": 0.0}
    for seed, mixture in enumerate(((0.2, 0.55), (0.1, 0.7), (0.4, 0.6))):
        kinds = tissues(seed, share=mixture)
        clean = head(seed, share=mixture)
        mask = kinds > 0
        spoiled = planted(clean, mask, share, times, seed)
        kept = mask & (spoiled == clean)

        def gap(values, *, kinds=kinds, mask=mask, kept=kept) -> float:
            one = np.empty(mask.shape)
            one[mask] = values
            return one[kept & (kinds == 3)].mean() - one[kept & (kinds == 2)].mean()

        ours = MAD().solve(spoiled, mask).apply(spoiled)[mask]
        assert 0.99 <= ours.std(dtype=np.float64) <= 1.01
        for name, result, without in (
            ("ours", ours, MAD().solve(clean, mask).apply(clean)[mask]),
            ("plain", plain_three_steps(spoiled[mask]), plain_three_steps(clean[mask])),
        ):
            worst[name] = max(worst[name], abs(gap(result) / gap(without) - 1))
    assert worst["ours"] < worst["plain"]
    assert worst["ours"] < 0.12


@pytest.mark.parametrize("mixture", [(0.2, 0.55), (0.1, 0.7), (0.1, 0.5), (0.07, 0.5)])
def test_a_tissue_of_its_own_is_no_outlier(mixture) -> None:
    """Fluid, far from gray and white matter and the rarest: its contrast is that of the z-score."""
    kinds, x = tissues(1, share=mixture), head(1, share=mixture)
    y = MAD().solve(x, kinds > 0).apply(x)
    z = x / x[kinds > 0].std()
    for dark, bright in ((1, 2), (2, 3)):
        ours, usual = (v[kinds == bright].mean() - v[kinds == dark].mean() for v in (y, z))
        assert ours == pytest.approx(usual, rel=0.1)


def test_a_skewed_tail_is_no_outlier() -> None:
    """Fat and contrast agent make smooth tails: what is clipped of one stays below 2 %."""
    x = np.random.default_rng(0).gamma(3.0, 100, 50_000)
    curve = MAD().solve(x, np.ones(x.shape, bool))
    assert np.mean((x < curve.low) | (x > curve.high)) < 0.02


@pytest.mark.parametrize("order", ["C", "F"])
def test_large_masks_are_sampled_evenly(order: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    x = np.array(rng.gamma(9.0, 60, (64, 60, 40)), order=order)
    mask = np.array(x > 200, order=order)
    whole = MAD().solve(x, mask)
    monkeypatch.setattr(door, "SAMPLE", 10_000)
    monkeypatch.setattr(door, "_CHUNK", 7_001)
    some = MAD().solve(x, mask)
    assert some != whole
    assert some.low == pytest.approx(whole.low, abs=0.1 * whole.scale)
    assert some.high == pytest.approx(whole.high, abs=0.3 * whole.scale)
    y = some.apply(x)[mask].astype(np.float64)
    assert y.std() == pytest.approx(1, abs=1e-5)  # of all of the mask, not of the sample
    assert y.mean() == pytest.approx(0, abs=1e-5)


def test_memory_order_changes_nothing() -> None:
    x = head()
    mask = x > 100
    one, two = MAD().solve(x, mask), MAD().solve(np.asfortranarray(x), np.asfortranarray(mask))
    assert (one.low, one.high) == (two.low, two.high)
    np.testing.assert_allclose(two.apply(np.asfortranarray(x)), one.apply(x), atol=1e-6)


@pytest.mark.parametrize("dtype", ["int16", "uint16", "float16", "float32", "float64"])
def test_every_dtype_gives_the_same_float32(dtype: str) -> None:
    x = np.round(head())
    mask = x > 100
    got = MAD().solve(x.astype(dtype), mask).apply(x.astype(dtype))
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, MAD().solve(x, mask).apply(x))


def test_more_than_half_of_one_value() -> None:
    x = np.where(np.arange(1000) % 10 == 0, np.arange(1000) / 7.0, 0.0)
    y = solved(x)
    assert np.isfinite(y).all()
    assert y.std() == pytest.approx(1, abs=1e-5)
    center, scale = center_and_scale(x)
    assert center == 0
    assert scale == pytest.approx(x.std())


@pytest.mark.parametrize(
    ("reason", "values", "mask"),
    [
        ("empty", np.zeros((0, 3)), np.zeros((0, 3), bool)),
        ("constant", np.full((4, 4), 7, np.int16), np.ones((4, 4), bool)),
        ("non-finite", np.array([1, np.nan, 2, 3.0]), np.ones(4, bool)),
        ("empty-mask", np.arange(4.0), np.zeros(4, bool)),
        ("too-few-voxels", np.arange(4.0), np.arange(4) == 2),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_hopeless_input_is_refused_with_its_reason(reason, values, mask) -> None:
    with pytest.raises(NormalizationRefused) as caught:
        MAD().solve(values, mask)
    assert caught.value.reason == reason


def test_a_mask_of_another_shape_is_a_wrong_call() -> None:
    with pytest.raises(UsageError, match="mask must be Boolean"):
        MAD().solve(np.arange(4.0), np.ones(5, bool))


def test_json_brings_back_an_equal_method() -> None:
    assert MAD.from_json(MAD(clip=2.5).to_json()) == MAD(clip=2.5)
    with pytest.raises(RunError, match="method 'mad'"):
        MAD.from_json({"method": "mad"})
