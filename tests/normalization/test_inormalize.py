# SPDX-License-Identifier: Apache-2.0
"""inormalize: its declared laws, a model with a known factor, and what it refuses."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vesalius.errors import NormalizationRefused, RunError, UsageError
from vesalius.normalization.intensity.inormalize import Inormalize, solve_to_model
from vesalius.normalization.intensity.ratios import RATIOS


def image(seed: int) -> tuple[np.ndarray, np.ndarray]:
    values = np.random.default_rng(seed).gamma(4.0, 100.0, (12, 12, 10))
    return values, values > 50


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 99), st.floats(1e-4, 1e4), st.sampled_from(RATIOS))
def test_laws_of_the_constant(seed: int, a: float, ratio: str) -> None:
    values, mask = image(seed)
    method = Inormalize(ratio=ratio)
    curve = method.solve(values, mask)
    out = curve.apply(values)
    scaled = method.solve(a * values, mask).apply(a * values)
    np.testing.assert_allclose(scaled, out, rtol=1e-5)
    np.testing.assert_allclose(method.solve(out, mask).apply(out), out, rtol=1e-5)
    np.testing.assert_allclose(curve.inverse(out), values, rtol=1e-5)
    assert (np.diff(out.ravel()[np.argsort(values, axis=None)]) >= 0).all()


def test_the_median_reaches_the_constant_and_the_range_its_ends() -> None:
    values, mask = image(0)
    for ratio in ("medianOfRatios", "ratioOfMedians"):
        out = Inormalize(ratio=ratio).solve(values, mask).apply(values)
        assert np.median(out[mask]) == pytest.approx(1000, rel=1e-3)
    method = Inormalize(ratio="range", percent=2, low=-1, high=1)
    out = method.solve(values, mask).apply(values)
    np.testing.assert_allclose(np.percentile(out[mask], (2, 98)), (-1, 1), atol=1e-4)


@pytest.mark.parametrize("ratio", [*RATIOS, "range"])
def test_a_registered_model_gives_back_the_factor(ratio: str) -> None:
    model, mask = image(1)
    out = solve_to_model(model / 3, model, mask, ratio=ratio).apply(model / 3)
    np.testing.assert_allclose(out, model, rtol=1e-5, atol=1e-2)


def test_outliers_do_not_move_the_median_of_ratios() -> None:
    model, mask = image(2)
    hurt = model / 2
    hurt[mask & (model > np.quantile(model[mask], 0.8))] *= 40
    assert solve_to_model(hurt, model, mask).scale == pytest.approx(0.5, rel=1e-9)
    assert solve_to_model(hurt, model, mask, ratio="ratioOfMeans").scale > 1


def test_verdicts() -> None:
    values, mask = image(0)
    with pytest.raises(NormalizationRefused) as refused:
        Inormalize().solve(values[:4, :4, :4], mask[:4, :4, :4])
    assert refused.value.reason == "too-few-voxels"
    with pytest.raises(NormalizationRefused) as refused:
        Inormalize().solve(values - 1e4, np.ones(values.shape, bool))
    assert refused.value.reason == "reference"
    few = np.where(np.arange(values.size).reshape(values.shape) < 3, values, 7.0)
    with pytest.raises(NormalizationRefused, match="percentiles coincide"):
        Inormalize(ratio="range", percent=1).solve(few, np.ones(few.shape, bool))
    with pytest.raises(UsageError, match="register and resample"):
        solve_to_model(values, values[1:], mask)
    for wrong in ({"target": -1}, {"percent": 50}, {"low": 2, "high": 1}, {"ratio": "mode"}):
        with pytest.raises(UsageError):
            Inormalize(**wrong)


def test_the_record_comes_back() -> None:
    method = Inormalize(ratio="rms", target=3.0, min_voxels=5)
    assert Inormalize.from_json(json.loads(json.dumps(method.to_json()))) == method
    with pytest.raises(RunError):
        Inormalize.from_json(method.to_json() | {"method": "zscore"})
