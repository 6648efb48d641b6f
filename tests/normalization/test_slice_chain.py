# SPDX-License-Identifier: Apache-2.0
"""Slice chain: a planted ramp is flattened, the center slice stays, laws and verdicts."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vesalius.errors import NormalizationRefused, UsageError
from vesalius.normalization.spatial import slice_chain

SPACING = (1.0, 1.0, 3.0)


def columns(seed: int = 0, *, noise: float = 0.02) -> tuple[np.ndarray, np.ndarray]:
    """Return tissue that hardly changes along k, in a mask that leaves the ends out."""
    rng = np.random.default_rng(seed)
    tissue = np.repeat(rng.gamma(4, 100, (40, 36, 1)) + 50, 11, axis=2)
    tissue *= 1 + noise * rng.normal(0, 1, tissue.shape)
    mask = np.zeros(tissue.shape, bool)
    mask[3:-3, 3:-3, 1:-1] = True
    return tissue, mask


def medians(values: np.ndarray, mask: np.ndarray) -> np.ndarray:
    return np.array([np.median(values[:, :, k][mask[:, :, k]]) for k in range(1, 10)])


def test_a_planted_ramp_is_flattened_and_the_center_slice_stays() -> None:
    tissue, mask = columns()
    ramp = 1.12 ** np.arange(-5, 6)
    values = tissue * ramp
    out, record = slice_chain.correct(values, mask, spacing=SPACING, min_voxels=500)
    np.testing.assert_array_equal(out[:, :, 5], values[:, :, 5].astype(np.float32))
    assert medians(values, mask).std() / medians(values, mask).mean() > 0.2
    assert medians(out, mask).std() / medians(out, mask).mean() < 0.01
    factors = np.array(record["axes"]["k"]["factors"])
    np.testing.assert_allclose(factors[1:-1], 1 / ramp[1:-1], rtol=0.02)
    assert record["axes"]["k"]["not_compared"] == [0, 10]
    assert factors[0] == factors[1]  # where nothing can be compared, the neighbor's factor holds
    json.dumps(record, allow_nan=False)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 99), st.floats(1e-3, 1e3), st.sampled_from(["k", "ji", "kji"]))
def test_idempotent_and_scale_equivariant(seed: int, a: float, axes: str) -> None:
    values, mask = columns(seed)
    values = values * np.exp(np.random.default_rng(seed).normal(0, 0.2, (1, 1, 11)))
    options = {"spacing": SPACING, "axes": axes, "min_voxels": 100}
    out, _ = slice_chain.correct(values, mask, **options)
    scaled, _ = slice_chain.correct(a * values, mask, **options)
    np.testing.assert_allclose(scaled, a * out, rtol=1e-5)
    if len(axes) == 1:
        again, _ = slice_chain.correct(out, mask, **options)
        np.testing.assert_allclose(again, out, rtol=1e-5)


def test_axes_are_leveled_in_the_order_given() -> None:
    tissue, mask = columns(noise=0.0)
    i, j, k = np.indices(tissue.shape)
    values = (100 + i % 3) * 1.03 ** (i - 20) * 0.98 ** (j - 18) * 1.1 ** (k - 5)
    out, record = slice_chain.correct(values, mask, spacing=SPACING, axes="kji", min_voxels=100)
    assert list(record["axes"]) == ["k", "j", "i"]
    assert out[mask].std() / out[mask].mean() < 0.02 < values[mask].std() / values[mask].mean()


def test_verdicts() -> None:
    values, mask = columns()
    with pytest.raises(NormalizationRefused) as refused:
        slice_chain.correct(values, mask, spacing=SPACING, min_voxels=10_000)
    assert refused.value.reason == "too-few-voxels"
    with pytest.raises(NormalizationRefused, match="no two neighboring"):
        slice_chain.correct(values[:, :, 5:6], mask[:, :, 5:6], spacing=SPACING)
    flipped = values * np.where(np.arange(11) == 7, -1, 1)
    with pytest.raises(NormalizationRefused) as refused:
        slice_chain.correct(flipped, mask, spacing=SPACING, min_voxels=100)
    assert refused.value.reason == "reference"
    for axes in ("", "z", "kk"):
        with pytest.raises(UsageError, match="axes"):
            slice_chain.correct(values, mask, spacing=SPACING, axes=axes)
    empty = values.copy()
    empty[:, :, 3] = 0
    out, record = slice_chain.correct(empty, mask, spacing=SPACING, min_voxels=100)
    assert 3 in record["axes"]["k"]["not_compared"]
    assert np.isfinite(out).all()
