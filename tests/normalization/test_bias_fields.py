# SPDX-License-Identifier: Apache-2.0
"""N3 and N4: planted fields, N3's own corrected brain, SimpleITK's own call, laws and verdicts."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from hypothesis import given, settings
from hypothesis import strategies as st

from vesalius import io
from vesalius.errors import NormalizationRefused, UsageError
from vesalius.geometry import resample
from vesalius.normalization.spatial import n3, n4
from vesalius.normalization.spatial.bias_field import coarse_steps

METHODS = {"n3": n3, "n4": n4}
SPACING = (4.0, 4.0, 5.0)
each = pytest.mark.parametrize("name", METHODS)


def phantom(shape=(40, 36, 24), *, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return tissues, mask and a smooth field of mean 1 and ±25 %."""
    rng = np.random.default_rng(seed)
    x, y, z = np.meshgrid(
        *[np.linspace(-1, 1, n) if n > 1 else [0.0] for n in shape], indexing="ij"
    )
    mask = x**2 + y**2 + z**2 < 0.9
    waves = np.sin(9 * x + 1) * np.sin(8 * y) * np.cos(6 * z)
    tissue = np.choose(np.digitize(waves, (-0.3, 0.3)), (300.0, 600.0, 1000.0))
    tissue = np.where(mask, tissue + rng.normal(0, 15, shape), rng.uniform(0, 5, shape))
    field = np.exp(0.22 * x - 0.15 * y + 0.12 * z)
    return tissue, mask, field / field[mask].mean()


@each
def test_a_planted_field_is_found(name: str) -> None:
    tissue, mask, field = phantom()
    out, record = METHODS[name].correct(tissue * field, mask, spacing=SPACING, shrink=2)
    left = np.log(out[mask] / tissue[mask])
    assert left.std() < 0.35 * np.log(field[mask]).std()
    assert abs(left.mean()) < 0.02  # mean 1: intensities do not drift
    assert record["shift"] == record["left_out"] == 0
    assert record["field_sd"] == pytest.approx(field[mask].std(), rel=0.2)
    assert record["field_low"] <= 1 <= record["field_high"]
    assert out.dtype == np.float32
    json.dumps(record, allow_nan=False)


@each
def test_the_field_has_mean_1_in_the_mask(name: str) -> None:
    tissue, mask, field = phantom()
    values = tissue * field
    out, _ = METHODS[name].correct(values, mask, spacing=SPACING, shrink=2)
    assert np.mean(values[mask] / out[mask]) == pytest.approx(1, abs=1e-5)


@each
def test_a_single_slice_is_served(name: str) -> None:
    tissue, mask, field = phantom((96, 80, 1))
    out, record = METHODS[name].correct(tissue * field, mask, spacing=(2, 2, 5), shrink=2)
    assert out.shape == tissue.shape
    assert record["steps"] == [2, 2, 1]
    left = np.log(out[mask] / tissue[mask])
    assert left.std() < 0.5 * np.log(field[mask]).std()


@each
def test_negative_and_zero_values_are_dealt_with_openly(name: str) -> None:
    tissue, mask, field = phantom()
    values = tissue * field
    values[20, 18, 10:14] = 0
    out, record = METHODS[name].correct(values, mask, spacing=SPACING, shrink=2)
    assert record["left_out"] == 4
    assert (out[20, 18, 10:14] == 0).all()
    assert np.isfinite(out).all()
    values = tissue * field - 400
    out, record = METHODS[name].correct(values, mask, spacing=SPACING, shrink=2)
    low, high = values[mask].min(), values[mask].max()
    assert record["shift"] == pytest.approx(-low + 0.01 * (high - low))
    assert np.isfinite(out).all()
    assert (
        np.corrcoef(out[mask], tissue[mask])[0, 1] > np.corrcoef(values[mask], tissue[mask])[0, 1]
    )


@settings(max_examples=8, deadline=None)
@given(st.floats(-4, 6), st.integers(0, 3))
def test_n3_is_scale_equivariant(power: float, seed: int) -> None:
    tissue, mask, field = phantom((20, 18, 12), seed=seed)
    values, a = tissue * field, 10**power
    one, _ = n3.correct(values, mask, spacing=SPACING, shrink=1, iterations=5)
    two, _ = n3.correct(a * values, mask, spacing=SPACING, shrink=1, iterations=5)
    np.testing.assert_allclose(two, a * one, rtol=1e-3)


@settings(max_examples=4, deadline=None)
@given(st.sampled_from([2.0**-10, 0.25, 8.0, 2.0**10]))
def test_n4_is_scale_equivariant(a: float) -> None:
    tissue, mask, field = phantom((20, 18, 12))
    options = {"spacing": SPACING, "shrink": 1, "iterations": (5, 5)}
    one, _ = n4.correct(tissue * field, mask, **options)
    two, _ = n4.correct(a * tissue * field, mask, **options)
    np.testing.assert_allclose(two, a * one, rtol=2e-3)


def test_n4_is_simpleitks_own_call() -> None:
    tissue, mask, field = phantom()
    values = (tissue * field).astype(np.float32)
    image = SimpleITK.GetImageFromArray(values.transpose(2, 1, 0))
    region = SimpleITK.GetImageFromArray(mask.astype(np.uint8).transpose(2, 1, 0))
    for one in (image, region):
        one.SetSpacing(SPACING)
    peer = SimpleITK.N4BiasFieldCorrectionImageFilter()
    peer.SetNumberOfThreads(1)
    peer.SetNumberOfWorkUnits(1)
    peer.SetMaximumNumberOfIterations([50] * 4)
    peer.SetConvergenceThreshold(0.001)
    peer.Execute(SimpleITK.Shrink(image, [2] * 3), SimpleITK.Shrink(region, [2] * 3))
    log_field = SimpleITK.GetArrayFromImage(peer.GetLogBiasFieldAsImage(image)).transpose(2, 1, 0)
    out, _ = n4.correct(values, mask, spacing=SPACING, shrink=2)
    divided = values[mask] / np.exp(log_field[mask])
    level = np.mean(np.exp(log_field[mask]))  # ours has mean 1
    np.testing.assert_allclose(out[mask], divided * level, rtol=1e-5)


def test_n3_meets_its_own_corrected_brain(data: Callable[[str], Path]) -> None:
    """The reference was written with `-b_spline 1` on the average_305 mask (its own history)."""
    folder = data("minc/n3")
    brain = io.read(folder / "testing" / "brain.mnc.gz")
    reference = io.read(folder / "testing" / "brain_nu_ref.mnc.gz").data[0]
    average = io.read(folder / "model_data" / "N3" / "average_305_mask_1mm.mnc.gz")
    mask = resample(average, brain.affine, brain.shape).data[0] >= 0.5
    values = brain.data[0]

    def error(image: np.ndarray) -> float:
        return float(np.std(np.log(image[mask] / reference[mask])))

    mask &= (reference > 0) & (values > 0)
    stiff, record = n3.correct(values, mask, spacing=brain.spacing, stiffness=1.0)
    assert np.corrcoef(stiff[mask], reference[mask])[0, 1] > 0.995
    assert error(stiff) < 0.025
    assert record["converged"]
    default, _ = n3.correct(values, mask, spacing=brain.spacing)
    assert error(default) < 0.05 < error(values)


@each
@pytest.mark.parametrize("dtype", [np.int16, np.uint16, np.float16, np.float64])
def test_every_dtype_is_served_and_left_as_it_came(name: str, dtype: type) -> None:
    tissue, mask, field = phantom((16, 16, 12))
    values = (tissue * field).astype(dtype)
    before = values.copy()
    out, _ = METHODS[name].correct(
        values, mask, spacing=SPACING, shrink=1, iterations=ITERATE[name]
    )
    assert out.dtype == np.float32
    assert np.isfinite(out).all()
    np.testing.assert_array_equal(values, before)


ITERATE = {"n3": 2, "n4": (2,)}


@each
def test_verdicts(name: str) -> None:
    tissue, mask, _ = phantom((16, 16, 12))
    correct = METHODS[name].correct

    def reason(values: np.ndarray, region: np.ndarray) -> str:
        with pytest.raises(NormalizationRefused) as refused:
            correct(values, region, spacing=SPACING)
        return refused.value.reason

    holed = tissue.copy()
    holed[8, 8, 6] = np.nan
    one = np.zeros_like(mask)
    one[8, 8, 6] = True
    assert reason(np.ones_like(tissue), mask) == "constant"
    assert reason(mask.astype(float), np.ones_like(mask)) == "constant"  # zeros have no logarithm
    assert reason(holed, mask) == "non-finite"
    assert reason(tissue, np.zeros_like(mask)) == "empty-mask"
    assert reason(tissue, one) == "too-few-voxels"
    assert reason(np.zeros((0, 4, 4)), np.zeros((0, 4, 4), bool)) == "empty"
    with pytest.raises(UsageError, match="axes"):
        correct(tissue[0], mask[0], spacing=SPACING)
    with pytest.raises(UsageError, match="shrink"):
        correct(tissue, mask, spacing=SPACING, shrink=0)
    with pytest.raises(UsageError, match="spacing"):
        correct(tissue, mask, spacing=(1, 1, 0))
    with pytest.raises(UsageError, match="iterations"):
        correct(tissue, mask, spacing=SPACING, iterations={"n3": 0, "n4": ()}[name])


@each
def test_an_empty_slice_and_values_outside_the_mask_do_no_harm(name: str) -> None:
    tissue, mask, field = phantom((20, 18, 12))
    values = tissue * field
    values[:, :, 6] = 0
    values[~mask] = -50
    values[0, 0, 0] = np.nan
    out, record = METHODS[name].correct(values, mask, spacing=SPACING, shrink=1)
    assert record["left_out"] == mask[:, :, 6].sum()
    assert (out[:, :, 6][mask[:, :, 6]] == 0).all()
    assert np.isfinite(out[mask]).all()
    assert (out[~mask][1:] < 0).all()


@each
@pytest.mark.parametrize("shape", [(1, 40, 40), (40, 1, 40), (30, 30, 2), (100, 3, 1), (5, 5, 5)])
def test_thin_grids_are_served(name: str, shape: tuple[int, int, int]) -> None:
    values = np.random.default_rng(0).gamma(5, 100, shape)
    mask = np.ones(shape, bool)
    out, record = METHODS[name].correct(values, mask, spacing=(1, 1, 4), iterations=ITERATE[name])
    assert np.isfinite(out).all()
    assert record["field_sd"] < 0.3


def test_one_line_of_voxels_is_refused_by_n4() -> None:
    line = np.arange(1.0, 101).reshape(100, 1, 1)
    with pytest.raises(NormalizationRefused, match="two axes"):
        n4.correct(line, line > 0, spacing=(1, 1, 1), shrink=1)


def test_coarse_axes_and_short_ones_are_not_shrunk() -> None:
    assert coarse_steps((160, 160, 120), (1, 1, 1), 4) == (4, 4, 4)
    assert coarse_steps((160, 160, 30), (1, 1, 5), 4) == (4, 4, 1)
    assert coarse_steps((160, 160, 6), (1, 1, 2), 4) == (4, 4, 1)
    assert coarse_steps((160, 10, 1), (1, 1, 0.1), 4) == (4, 2, 1)
