# SPDX-License-Identifier: Apache-2.0
"""Intensity methods one by one: known answers, own verdicts, arguments."""

from __future__ import annotations

import numpy as np
import pytest

from vesalius.errors import NormalizationRefused, UsageError
from vesalius.normalization.intensity.display import Display
from vesalius.normalization.intensity.fcm import Fcm
from vesalius.normalization.intensity.kde import Kde
from vesalius.normalization.intensity.least_squares import LeastSquares
from vesalius.normalization.intensity.nyul import Nyul
from vesalius.normalization.intensity.percentile import Percentile
from vesalius.normalization.intensity.quantile import Quantile
from vesalius.normalization.intensity.robust import Robust
from vesalius.normalization.intensity.white_stripe import WhiteStripe
from vesalius.normalization.intensity.zscore import ZScore
from vesalius.normalization.transfer import Linear, PiecewiseLinear


def all_of(values) -> np.ndarray:
    return np.ones(np.shape(values), bool)


def refused(method, values) -> NormalizationRefused:
    with pytest.raises(NormalizationRefused) as caught:
        method.solve(np.asarray(values), all_of(values))
    return caught.value


def test_zscore_of_two_values() -> None:
    assert ZScore().solve(np.array([2, 6]), all_of([2, 6])) == Linear(4.0, 2.0)


def test_zscore_refuses_differences_whose_squares_vanish() -> None:
    assert refused(ZScore(), [0.0, 1e-200]).reason == "constant"


def test_robust_counts_standard_deviations_of_normal_data() -> None:
    x = np.random.default_rng(0).normal(50, 7, 200_000)
    solved = Robust().solve(x, all_of(x))
    assert solved.center == pytest.approx(50, abs=0.1)
    assert solved.scale == pytest.approx(7, rel=0.01)
    x[:20_000] = 1e6  # a tenth of outliers moves neither far
    assert Robust().solve(x, all_of(x)).scale == pytest.approx(7, rel=0.15)


def test_robust_refuses_a_mad_of_0_and_says_why() -> None:
    error = refused(Robust(), [3, 3, 3, 8, 9])
    assert error.reason == "constant"
    assert "at least half of the values in the mask are 3" in str(error)
    assert "zscore" in str(error)


def test_percentile_clips_at_values_that_occur() -> None:
    x = np.arange(1001.0)
    solved = Percentile(low=1, high=99).solve(x, all_of(x))
    assert solved == Linear(10.0, 980.0, 10.0, 990.0)
    np.testing.assert_allclose(solved.apply(np.array([-5, 10, 500, 990, 5e6])), [0, 0, 0.5, 1, 1])


def test_percentile_to_zscore_has_mean_0_and_sd_1_after_clipping() -> None:
    x = np.random.default_rng(0).gamma(2, 30, 5000)
    y = Percentile(to="zscore").solve(x, all_of(x)).apply(x)
    low, high = np.quantile(x, (0.005, 0.995))
    expected = np.clip(x, low, high)
    np.testing.assert_allclose(y, (expected - expected.mean()) / expected.std(), atol=0.05)
    assert y.std() == pytest.approx(1, abs=1e-5)


def test_percentile_refuses_where_both_limits_are_one_value() -> None:
    error = refused(Percentile(low=5, high=95), [*[4] * 99, 5])
    assert error.reason == "constant"
    assert "both 4" in str(error)


def test_display_keeps_what_was_made_to_be_shown() -> None:
    x = np.array([40, 90, 200], np.uint8)
    solved = Display().solve(x, all_of(x))
    np.testing.assert_allclose(solved.apply(np.array([0, 127.5, 255])), [-2, 0, 2])
    brighter = x + np.uint8(20)
    assert Display().solve(brighter, all_of(x)) == solved


def test_display_of_other_values_runs_from_percentile_to_percentile() -> None:
    x = np.random.default_rng(0).normal(1000, 50, 10_000).astype(np.float32)
    y = Display().solve(x, all_of(x)).apply(x)
    assert (y.min(), y.max()) == (pytest.approx(-2), pytest.approx(2))
    assert np.mean(y < -1.999) == pytest.approx(0.005, abs=1e-3)
    np.testing.assert_allclose(Display().solve(3 * x + 7, all_of(x)).apply(3 * x + 7), y, atol=1e-4)
    assert refused(Display(), [*[4.0] * 999, 5.0]).reason == "constant"
    assert refused(Display(), np.array([7, 7], np.uint8)).reason == "constant"


def test_whitestripe_is_the_band_around_the_white_mode() -> None:
    rng = np.random.default_rng(1)
    x = np.concatenate([rng.normal(300, 30, 8000), rng.normal(900, 30, 12_000)])
    solved = WhiteStripe(width=0.1).solve(x, all_of(x))
    # the mode lies at quantile 0.4 + 0.6 / 2; the stripe holds a third of the white matter
    inner = np.sort(x)[int(0.6 * x.size) : int(0.8 * x.size)]
    assert solved.center == pytest.approx(900, abs=4)
    assert solved.scale == pytest.approx(inner.std(), rel=0.05)


def test_whitestripe_refuses_an_empty_stripe() -> None:
    error = refused(WhiteStripe(width=0.01), np.repeat(np.arange(6), 200))
    assert error.reason == "no-mode"
    assert "stripe" in str(error)


def test_kde_makes_the_white_mode_1_and_refuses_one_below_0() -> None:
    rng = np.random.default_rng(2)
    x = np.concatenate([rng.normal(600, 40, 9000), rng.normal(1000, 40, 6000)])
    assert Kde("t1").solve(x, all_of(x)).scale == pytest.approx(1000, rel=0.01)
    assert Kde("pd").solve(x, all_of(x)).scale == pytest.approx(600, rel=0.01)
    assert Kde("t2").solve(x, all_of(x)).scale == pytest.approx(600, rel=0.01)  # the largest
    error = refused(Kde(), x - 2000)
    assert error.reason == "no-mode"
    assert "needs it above 0" in str(error)


@pytest.mark.parametrize(
    ("tissue", "contrast", "level"),
    [
        ("white", "t1", 1000),
        ("gray", "t1", 600),
        ("csf", "t1", 200),
        ("white", "t2", 200),
        ("csf", "t2", 1000),
        ("gray", "flair", 1000),
        ("white", "flair", 600),
        ("gray", "pd", 600),
    ],
)
def test_fcm_divides_by_the_mean_of_the_named_tissue(tissue, contrast, level) -> None:
    rng = np.random.default_rng(3)
    x = np.concatenate([rng.normal(level, 5, 3000) for level in (200, 600, 1000)])
    solved = Fcm(tissue=tissue, contrast=contrast).solve(x, all_of(x))
    assert solved.center == 0
    assert solved.scale == pytest.approx(level, rel=0.01)


def test_fcm_and_least_squares_refuse_two_gray_levels_and_negative_means() -> None:
    for method in (Fcm(), LeastSquares((0.3, 0.6, 1.0))):
        error = refused(method, [0, 0, 1, 1])
        assert error.reason == "no-mode"
        assert "2 gray levels" in str(error)
        assert refused(method, -np.arange(1.0, 40)).reason == "no-mode"


def test_least_squares_is_the_regression_on_the_standard() -> None:
    rng = np.random.default_rng(4)
    x = np.concatenate([rng.normal(level, 1, 3000) for level in (100, 350, 500)])
    standard = (0.3, 0.6, 1.0)
    factor = 1 / LeastSquares(standard).solve(x, all_of(x)).scale
    expected, *_ = np.linalg.lstsq(np.array([[100.0], [350.0], [500.0]]), np.array(standard))
    assert factor == pytest.approx(expected[0], rel=1e-3)


def test_nyul_draws_lines_between_landmarks_and_beyond() -> None:
    x = np.arange(101.0)
    solved = Nyul((0.0, 50.0, 100.0), (0.0, 80.0, 100.0)).solve(x, all_of(x))
    assert solved == PiecewiseLinear((0.0, 50.0, 100.0), (0.0, 80.0, 100.0), "extend")
    np.testing.assert_allclose(
        solved.apply(np.array([-10, 25, 50, 75, 150])), [-16, 40, 80, 90, 120]
    )


def test_nyul_merges_landmarks_that_coincide() -> None:
    x = np.array([0, 5, 5, 5, 5, 5, 9])
    solved = Nyul((0.0, 40.0, 60.0, 100.0), (0.0, 40.0, 60.0, 100.0)).solve(x, all_of(x))
    assert solved == PiecewiseLinear((0.0, 5.0, 9.0), (0.0, 50.0, 100.0), "extend")
    middle = Nyul((40.0, 60.0), (40.0, 60.0))
    assert refused(middle, x).reason == "constant"


def test_quantile_gives_every_image_the_reference_distribution() -> None:
    rng = np.random.default_rng(5)
    reference = np.sort(rng.normal(0, 1, 400))
    method = Quantile(tuple(map(float, reference)))
    for x in (rng.gamma(2, 30, 20_000), rng.uniform(-3, 4, 20_000) ** 3):
        y = method.solve(x, all_of(x)).apply(x)
        shares = (np.arange(400) + 0.5) / 400
        np.testing.assert_allclose(np.quantile(y, shares), reference, atol=0.02)
        assert y.min() == np.float32(reference[0])  # held beyond the outer quantiles


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: Percentile(low=50, high=50), "0 <= low < high <= 100"),
        (lambda: Percentile(to="one"), "unit or zscore"),
        (lambda: WhiteStripe(width=0), "width must be in"),
        (lambda: WhiteStripe("T1"), "contrast must be one of t1"),
        (lambda: Kde("ct"), "contrast must be one of t1"),
        (lambda: Fcm("bone"), "tissue must be one of csf"),
        (lambda: Fcm(contrast="ct"), "contrast must be one of t1"),
        (lambda: Fcm(iterations=0), "at least 1, got 0"),
        (lambda: LeastSquares((1.0, float("nan"), 1.0)), "three finite means"),
        (lambda: Nyul((0.0, 101.0), (0.0, 1.0)), r"rising numbers in \[0, 100\]"),
        (lambda: Nyul((0.0, 100.0), (1.0, 1.0)), "scale must rise"),
        (lambda: Quantile((1.0, 0.0)), "do not fall"),
    ],
)
def test_arguments_are_checked_with_what_is_allowed(build, words) -> None:
    with pytest.raises(UsageError, match=words):
        build()
