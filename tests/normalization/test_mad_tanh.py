# SPDX-License-Identifier: Apache-2.0
"""The smooth form of the default: its four laws, its formula written anew, verdicts."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vesalius.errors import NormalizationRefused, RunError
from vesalius.normalization import method as door
from vesalius.normalization import transfer
from vesalius.normalization.intensity.mad_tanh import CARD, METHOD

sys.path.insert(0, str(Path(__file__).parent))
from heads import head, planted

law = settings(max_examples=20, deadline=None)
SEEDS = st.integers(0, 30)


def solved(x: np.ndarray) -> np.ndarray:
    return METHOD().solve(x, np.ones(x.shape, bool)).apply(x)


def mixture(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.choice([300.0, 650, 1000], 2000) + rng.normal(0, 50, 2000)


def test_the_formula() -> None:
    x = mixture(0)
    z = (x - np.median(x)) / (1.4826 * np.median(np.abs(x - np.median(x))))
    w = 3.2 * np.tanh(z / 3.2)
    found = METHOD(limit=3.2).solve(x, np.ones(2000, bool)).apply(x)
    np.testing.assert_allclose(found, (w - w.mean()) / w.std(), atol=1e-5)
    assert len(CARD.laws) == 4


@law
@given(SEEDS, st.floats(1e-3, 1e3), st.floats(-1e4, 1e4))
def test_gain_and_offset_change_nothing(seed: int, a: float, b: float) -> None:
    x = mixture(seed)
    np.testing.assert_allclose(solved(a * x + b), solved(x), atol=1e-4)


@law
@given(SEEDS)
def test_order_is_kept_and_values_come_back(seed: int) -> None:
    x = mixture(seed)
    curve = METHOD().solve(x, np.ones(x.shape, bool))
    rising = np.linspace(x.min() - 50, x.max() + 50, 2001)
    assert (np.diff(curve.apply(rising)) > 0).all()
    back = transfer.from_json(json.loads(json.dumps(curve.to_json())))
    np.testing.assert_allclose(back.inverse(curve.apply(rising)), rising, atol=0.05)


@law
@given(SEEDS, st.sampled_from([0.002, 0.01, 0.03]), st.sampled_from([8.0, 50.0, -50.0]))
def test_the_spread_in_the_mask_is_1_whatever_the_outliers(seed, share, times) -> None:
    x = planted(mixture(seed), np.ones(2000, bool), share, times, seed)
    y = solved(x).astype(np.float64)
    assert y.std() == pytest.approx(1, abs=1e-5)
    assert y.mean() == pytest.approx(0, abs=1e-5)


def test_what_lies_far_outside_comes_back_near_the_limit() -> None:
    x = mixture(0)
    curve = METHOD().solve(x, np.ones(x.shape, bool))
    far = curve.inverse(curve.apply(np.array([1e9])))
    assert np.isfinite(far).all()
    assert far[0] > x.max()


@pytest.mark.parametrize("dtype", ["int16", "uint16", "float16", "float32", "float64"])
def test_every_dtype_gives_the_same_float32(dtype: str) -> None:
    x = np.round(head())
    mask = x > 100
    got = METHOD().solve(x.astype(dtype), mask).apply(x.astype(dtype))
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, METHOD().solve(x, mask).apply(x))


def test_more_than_half_of_one_value() -> None:
    y = solved(np.where(np.arange(1000) % 10 == 0, np.arange(1000) / 7.0, 0.0))
    assert np.isfinite(y).all()
    assert y.std() == pytest.approx(1, abs=1e-5)


def test_a_sample_of_one_value_is_refused_without_a_warning(monkeypatch) -> None:
    monkeypatch.setattr(door, "SAMPLE", 10)
    x = np.zeros(1000)
    x[37] = 5.0  # the mask varies, the evenly strided sample does not
    with pytest.raises(NormalizationRefused) as caught:
        METHOD().solve(x, np.ones(1000, bool))
    assert caught.value.reason == "constant"


@pytest.mark.parametrize(
    ("reason", "values"),
    [("constant", np.full(9, 3.0)), ("non-finite", np.array([1, np.inf, 2]))],
)
def test_hopeless_input_is_refused(reason: str, values) -> None:
    with pytest.raises(NormalizationRefused) as caught:
        solved(values)
    assert caught.value.reason == reason


def test_json_brings_back_an_equal_method() -> None:
    assert METHOD.from_json(METHOD(limit=2.0).to_json()) == METHOD(limit=2.0)
    with pytest.raises(RunError, match="method 'mad-tanh'"):
        METHOD.from_json({"method": "mad"})
