# SPDX-License-Identifier: Apache-2.0
"""Fits on training images: one pass and any partition agree bit for bit, memory stays constant."""

from __future__ import annotations

import pickle
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vesalius.errors import DataError, NormalizationRefused, UsageError
from vesalius.normalization.exact_mean import ExactMean
from vesalius.normalization.intensity.least_squares import LeastSquares, LeastSquaresFit
from vesalius.normalization.intensity.nyul import PERCENTILES, NyulFit
from vesalius.normalization.intensity.quantile import QuantileFit

FITS = pytest.mark.parametrize("fit", [NyulFit, LeastSquaresFit, QuantileFit])


def training(seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    gain = rng.uniform(0.1, 30)
    shares = rng.dirichlet((4, 8, 8))
    levels = np.array([300.0, 650.0, 1000.0])[rng.choice(3, 1500, p=shares)]
    return gain * (levels + rng.normal(0, 50, 1500)), rng.random(1500) < 0.9


IMAGES = [training(seed) for seed in range(7)]


@FITS
@settings(max_examples=25, deadline=None)
@given(st.permutations(range(len(IMAGES))), st.lists(st.integers(0, 2), min_size=7, max_size=7))
def test_any_partition_in_any_order_is_one_pass_bit_for_bit(fit, order, worker_of) -> None:
    whole = fit()
    for values, mask in IMAGES:
        whole.add(values, mask)
    workers = [fit() for _ in range(3)]
    for image, worker in zip(order, worker_of, strict=True):
        workers[worker].add(*IMAGES[image])
    total = fit()
    for worker in reversed(workers):
        total.merge(pickle.loads(pickle.dumps(worker)))
    assert total.finish() == whole.finish()


@FITS
def test_memory_does_not_grow_with_images(fit) -> None:
    one, many = fit(), fit()
    one.add(*IMAGES[0])
    for _ in range(30):
        for values, mask in IMAGES:
            many.add(values, mask)
    assert len(pickle.dumps(many)) <= 1.2 * len(pickle.dumps(one)) + 200


@FITS
def test_without_images_there_is_no_fit_and_hopeless_ones_leave_no_trace(fit) -> None:
    empty = fit()
    with pytest.raises(DataError, match="at least one training image"):
        empty.finish()
    empty.merge(fit())
    with pytest.raises(NormalizationRefused, match="every value in the mask is 3"):
        empty.add(np.full(20, 3.0), np.ones(20, bool))
    with pytest.raises(DataError, match="at least one training image"):
        empty.finish()


@pytest.mark.parametrize(
    ("one", "two"),
    [
        (NyulFit(), NyulFit(low=1)),
        (LeastSquaresFit(), LeastSquaresFit(contrast="t2")),
        (QuantileFit(), QuantileFit(levels=16)),
    ],
)
def test_fits_of_other_settings_do_not_merge(one, two) -> None:
    with pytest.raises(UsageError):
        one.merge(two)


def test_nyul_averages_where_landmarks_land() -> None:
    fit = NyulFit(percentiles=(0, 50, 100), low=0, high=10)
    fit.add(np.array([0.0, 1, 4]), np.ones(3, bool))  # the median lands at 2.5
    fit.add(np.array([10.0, 85, 110]), np.ones(3, bool))  # at 7.5
    assert fit.finish().scale == (0.0, 5.0, 10.0)


def test_nyul_says_that_landmarks_coincide_in_every_image() -> None:
    fit = NyulFit()
    fit.add(np.array([0, 5, 5, 5, 5, 5, 9]), np.ones(7, bool))
    with pytest.raises(DataError, match="name fewer percentiles"):
        fit.finish()
    with pytest.raises(NormalizationRefused, match="percentiles 40 and 60 of the mask are both 5"):
        NyulFit(percentiles=(40, 60)).add(np.array([0, 5, 5, 5, 5, 5, 9]), np.ones(7, bool))


def test_nyul_brings_images_of_one_population_together() -> None:
    fit = NyulFit()
    for values, mask in IMAGES:
        fit.add(values, mask)
    method = fit.finish()
    assert method.percentiles == PERCENTILES
    for values, mask in IMAGES:
        y = method.solve(values, mask).apply(values)[mask]
        landmarks = np.percentile(y, PERCENTILES, method="inverted_cdf")
        np.testing.assert_allclose(landmarks, method.scale, atol=1e-4)


def test_least_squares_standard_ignores_gain_and_has_white_1() -> None:
    one, two = LeastSquaresFit(), LeastSquaresFit()
    for values, mask in IMAGES:
        one.add(values, mask)
        two.add(8 * values, mask)  # a power of two is exact
    assert one.finish() == two.finish()
    csf, gray, white = one.finish().standard
    assert white == 1.0
    assert csf == pytest.approx(0.35, abs=0.05)
    assert gray == pytest.approx(0.65, abs=0.05)
    assert isinstance(one.finish(), LeastSquares)
    with pytest.raises(NormalizationRefused, match="above 0"):
        one.add(-IMAGES[0][0], IMAGES[0][1])


def test_quantile_reference_is_the_barycenter_with_mean_0_and_sd_1() -> None:
    rng = np.random.default_rng(0)
    fit = QuantileFit(levels=64)
    for center, spread in ((5, 1), (-900, 40), (0.1, 0.001)):
        x = rng.normal(center, spread, 40_000)
        fit.add(x, np.ones(x.shape, bool))
    reference = np.array(fit.finish().reference)
    assert reference.mean() == pytest.approx(0, abs=1e-12)
    assert reference.std() == pytest.approx(1, abs=1e-12)
    from scipy.stats import norm

    normal = norm.ppf((np.arange(64) + 0.5) / 64)
    np.testing.assert_allclose(reference, normal / normal.std(), atol=0.03)


FINITE = st.floats(-1e9, 1e9)


@settings(max_examples=60, deadline=None)
@given(st.lists(FINITE, min_size=1, max_size=20), st.integers(0, 20))
def test_exact_mean_is_the_mean_of_fractions(values: list[float], cut: int) -> None:
    one, two = ExactMean(), ExactMean()
    for value in values[:cut]:
        one.add([value])
    for value in values[cut:]:
        two.add([value])
    one.merge(two)
    exact = sum(map(Fraction, values)) / len(values)
    assert one.count == len(values)
    assert abs(Fraction(one.mean()[0]) - exact) <= Fraction(2) ** -60 + abs(exact) * 2**-53
