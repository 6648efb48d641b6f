# SPDX-License-Identifier: Apache-2.0
"""Slice slope: planted slopes and levels are repaired, drift and sound series keep every bit."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vesalius import io
from vesalius.errors import NormalizationRefused, UsageError
from vesalius.normalization.spatial import slice_slope

SPACING = (1.0, 1.0, 3.0)


def series(seed: int = 0, slices: int = 24) -> tuple[np.ndarray, np.ndarray]:
    """Return anatomy that changes slowly along k, with a drift of 4 % a slice."""
    rng = np.random.default_rng(seed)
    i, j, k = np.indices((32, 28, slices))
    waves = np.sin(0.5 * i + 0.08 * k) * np.cos(0.45 * j - 0.05 * k)
    tissue = 500 + 300 * waves + rng.normal(0, 15, waves.shape)
    mask = (i - 16) ** 2 + (j - 14) ** 2 < 150
    values = np.where(mask, tissue, rng.uniform(0, 10, tissue.shape)) * 1.04 ** (k - slices / 2)
    return values, mask


def repaired(values: np.ndarray, mask: np.ndarray, **options) -> tuple[np.ndarray, dict]:
    out, record = slice_slope.correct(values, mask, spacing=SPACING, **options)
    json.dumps(record, allow_nan=False)
    return out, {one["slice"]: (one["gain"], one["offset"]) for one in record["repaired"]}


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 99), st.floats(1e-3, 1e4))
def test_drift_and_anatomy_keep_every_bit(seed: int, a: float) -> None:
    values, mask = series(seed)
    out, done = repaired(a * values, mask)
    assert done == {}
    np.testing.assert_array_equal(out, (a * values).astype(np.float32))


@settings(max_examples=20, deadline=None)
@given(
    st.integers(0, 99),
    st.floats(1.3, 4).flatmap(lambda g: st.sampled_from([g, 1 / g])),
    st.integers(0, 23),
    st.integers(1, 3),
)
def test_a_planted_slope_is_repaired(seed: int, gain: float, start: int, run: int) -> None:
    values, mask = series(seed)
    wrong = [s for s in range(start, start + run) if s < 24]
    hurt = values.copy()
    hurt[:, :, wrong] *= gain
    out, done = repaired(hurt, mask)
    assert sorted(done) == wrong
    for s in wrong:
        error = np.abs(out[:, :, s] / values[:, :, s] - 1)[mask[:, :, s]]
        assert np.median(error) < 0.06
    sound = [s for s in range(24) if s not in wrong]
    np.testing.assert_array_equal(out[:, :, sound], values[:, :, sound].astype(np.float32))


def test_gain_and_offset_together_are_told_from_a_gain() -> None:
    values, mask = series(1)
    hurt = values.copy()
    hurt[:, :, 12] = 1.4 * hurt[:, :, 12] + 400
    out, done = repaired(hurt, mask)
    assert list(done) == [12]
    assert done[12][0] == pytest.approx(1.4, rel=0.05)
    assert done[12][1] == pytest.approx(400, rel=0.15)
    assert np.abs(out - values)[:, :, 12][mask[:, :, 12]].mean() < 0.05 * values[mask].mean()


def test_negative_scales_are_repaired_by_level() -> None:
    values, mask = series(2)
    values = values / 1.04 ** (np.arange(24) - 12) - 700  # around zero, no drift
    hurt = values.copy()
    hurt[:, :, 9] += 600
    out, done = repaired(hurt, mask)
    assert list(done) == [9]
    assert np.abs(out - values)[:, :, 9][mask[:, :, 9]].mean() < 60


def test_slopes_in_every_slice_are_drawn_together() -> None:
    values, mask = series(3)
    gains = np.exp(np.random.default_rng(0).normal(0, 0.5, 24))
    out, done = repaired(values * gains, mask)
    assert len(done) > 12
    left = [np.median((out / values)[:, :, s][mask[:, :, s]]) for s in range(24)]
    assert np.log(left).std() < 0.6 * np.log(gains).std()


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 9), st.sampled_from([2.0**-20, 0.5, 1024.0]))
def test_scale_equivariant(seed: int, a: float) -> None:
    values, mask = series(seed)
    values[:, :, 5] *= 2
    values[:, :, 15] = 1.5 * values[:, :, 15] + 300
    one, two = (repaired(b * values, mask)[0] for b in (1.0, a))
    np.testing.assert_allclose(two, a * one, rtol=1e-5)


def test_other_axes_and_empty_slices() -> None:
    values, mask = series(0)
    values[:, :, 7] *= 3
    turned, done = repaired(values.transpose(2, 0, 1), mask.transpose(2, 0, 1), axis="i")
    assert list(done) == [7]
    straight, _ = repaired(values, mask)
    np.testing.assert_array_equal(turned.transpose(1, 2, 0), straight)
    values[:, :, 12] = 0
    _, record = slice_slope.correct(values, mask, spacing=SPACING)
    assert record["not_compared"] == [12]
    assert [one["slice"] for one in record["repaired"]] == [7]
    _, record = slice_slope.correct(values[:, :, :2], mask[:, :, :2], spacing=SPACING)
    assert record["not_compared"] == [0, 1]  # two slices have no trend


def test_verdicts() -> None:
    values, mask = series(0)
    with pytest.raises(NormalizationRefused) as refused:
        slice_slope.correct(np.full_like(values, 3.0), mask, spacing=SPACING)
    assert refused.value.reason == "constant"
    for wrong in ({"axis": "z"}, {"axis": ""}, {"tolerance": 0}, {"window": 1}):
        with pytest.raises(UsageError, match="slice-slope needs"):
            slice_slope.correct(values, mask, spacing=SPACING, **wrong)


def test_real_series_are_left_alone(data: Callable[[str], Path]) -> None:
    paths = sorted((data("hippocampus") / "images").glob("*.nii.gz"))[:20]
    assert paths
    for path in paths:
        volume = io.read(path)
        values = volume.data[0].astype(np.float64)
        mask = values > 0.1 * np.percentile(values, 99.5)
        _, record = slice_slope.correct(values, mask, spacing=volume.spacing)
        assert record["repaired"] == [], path.name
