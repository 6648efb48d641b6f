# SPDX-License-Identifier: Apache-2.0
"""Normalization: the laws that each method declares, and verdicts on hopeless input."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vesalius.errors import DataError, RunError
from vesalius.normalization import Normalizer, mad
from vesalius.normalization.window import Window


def image(seed: int, shape=(1, 12, 10, 6)) -> np.ndarray:
    rng = np.random.default_rng(seed)
    out = rng.gamma(2.0, 30.0, shape)
    out[:, :4] = rng.uniform(0, 1, out[:, :4].shape)  # air
    return out


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 9), st.floats(1e-3, 1e4), st.floats(-1e4, 1e4))
def test_mad_ignores_positive_gain_and_offset(seed: int, a: float, b: float) -> None:
    x = image(seed)
    np.testing.assert_allclose(
        Normalizer().apply(a * x + b), Normalizer().apply(x), atol=2e-4, rtol=1e-4
    )


def test_foreground_has_mean_0_and_spread_1_and_outliers_are_bounded() -> None:
    x = image(0)
    x[0, 8, 5, 3] = 1e6
    z = Normalizer().apply(x)[0]
    inside = mad.foreground(x[0])
    assert inside[:4].sum() == 0
    assert abs(z[inside].mean()) < 1e-5
    assert abs(z[inside].std() - 1) < 1e-5
    assert np.abs(z).max() < 10


def test_hand_known_answer() -> None:
    # All but the first value are foreground: median 60.
    x = np.array([0.0, 55.0, 58.0, 60.0, 60.5, 80.0, 90.0, 100.0, 40.0, 35.0])
    inside = x > 0
    center = 60.0
    sigma = 1.4826 * np.median(np.abs(x[inside] - center))
    z = np.clip((x - center) / sigma, -3.5, 3.5)
    expected = (z - z[inside].mean()) / z[inside].std()
    assert (mad.foreground(x) == inside).all()
    np.testing.assert_allclose(mad.normalize(x), expected, atol=1e-5)


def test_binary_and_mostly_flat_images_are_served() -> None:
    x = np.zeros((1, 8, 8, 8))
    x[0, 2:6, 2:6, 2:6] = 1
    z = Normalizer().apply(x)
    assert np.isfinite(z).all()
    assert z[0, 3, 3, 3] > z[0, 0, 0, 0]


def test_color_keeps_the_order_of_channels() -> None:
    x = np.stack([np.full((8, 8, 1), v) + np.eye(8)[..., None] for v in (10.0, 50.0, 200.0)])
    z = Normalizer().apply(x, color=True)
    assert z[0].mean() < z[1].mean() < z[2].mean()


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (np.zeros((1, 4, 4, 1)), "constant"),
        (np.empty((1, 0, 4, 1)), "empty"),
        (np.array([1.0, np.nan, 2.0]).reshape(1, 3, 1, 1), "1 of 3 values .* not finite"),
        (np.full((1, 2, 2, 1), np.nan), "not finite"),
    ],
)
def test_hopeless_images_get_a_verdict(bad: np.ndarray, words: str) -> None:
    with pytest.raises(DataError, match=words):
        Normalizer().apply(bad)


def test_window_is_fitted_on_what_it_is_given_and_keeps_order() -> None:
    values = np.linspace(-100, 300, 4001)
    window = Window.fit([values])
    assert window.low == pytest.approx(-98, abs=0.2)
    assert window.high == pytest.approx(298, abs=0.2)
    z = window.apply(np.array([-2000.0, 0, 100, 5000]))
    assert (np.diff(z) > 0).all()
    assert z[2] == pytest.approx(0, abs=1e-3)
    with pytest.raises(DataError, match="no window"):
        Window.fit([np.zeros(5)])


def test_json_round_trip_gives_the_same_values() -> None:
    rng = np.random.default_rng(0)
    one = Normalizer.fit([("CT", rng.normal(40, 60, 1000))])
    two = Normalizer.from_json(json.loads(json.dumps(one.to_json())))
    x = rng.normal(0, 300, (1, 5, 5, 5))
    assert (one.apply(x, modality="CT") == two.apply(x, modality="CT")).all()
    assert (one.apply(x, modality="MR") == Normalizer().apply(x)).all()
    with pytest.raises(RunError, match="format 1"):
        Normalizer.from_json({"format": 2})
