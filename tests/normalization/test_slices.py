# SPDX-License-Identifier: Apache-2.0
"""Drift: a planted slope is found where it is, anatomy is none."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vesalius.normalization.slices import drift

sys.path.insert(0, str(Path(__file__).parent))
from heads import head, tissues

CHECKERS = (np.indices((8, 8)).sum(axis=0) % 2)[:, :, None].astype(float)  # no constant slice


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 50), st.integers(4, 13), st.sampled_from([0.5, 0.7, 1.4, 1.8]))
def test_a_slice_of_another_slope_is_found(seed: int, k: int, slope: float) -> None:
    values, mask = head(seed), tissues(seed) > 0
    sd = float(values[mask].std())
    clean, _, limit = drift(values, mask, sd)
    assert clean < 0.3 < limit
    values[:, :, k] *= slope
    step, where, limit = drift(values, mask, sd)
    assert step > limit
    assert where == k


def test_a_hand_known_step() -> None:
    values = np.zeros((8, 8, 9)) + CHECKERS
    values += np.arange(9) * 2.0  # a steady rise is no step
    mask = np.ones(values.shape, bool)
    assert drift(values, mask, 2.0)[0] == 0
    values[:, :, 5] += 6.0
    step, where, limit = drift(values, mask, 2.0)
    assert (step, where) == (3.0, 5)
    assert limit == pytest.approx(0.5)  # most slices stand still


def test_a_series_that_jumps_everywhere_has_its_own_limit() -> None:
    values = CHECKERS + np.arange(12) % 2  # each stands out by 1
    step, _, limit = drift(values, np.ones(values.shape, bool), 1.0)
    assert step == 1
    assert limit == 8


@pytest.mark.parametrize("shape", [(9, 9, 1), (9, 9, 2), (9, 9, 4), (2, 2, 30), (3, 0, 5)])
def test_too_few_slices_or_voxels_tell_nothing(shape) -> None:
    values = np.random.default_rng(0).normal(size=shape)
    assert drift(values, np.ones(shape, bool), 1.0)[:2] == (None, None)


def test_whole_numbers_do_not_wrap_and_nothing_divides_by_zero() -> None:
    values = np.full((8, 8, 7), 100, np.uint8) + (100 * CHECKERS).astype(np.uint8)
    values[:, :, 3] = CHECKERS[:, :, 0]
    step, where, _ = drift(values, np.ones(values.shape, bool), 0.0)
    assert (step, where) == (149.5, 3)  # the median of 100 - 0 and 200 - 1


@pytest.mark.parametrize("value", [0.0, 700.0])
@pytest.mark.parametrize("blank", [(0, 1, 2), (15, 16, 17), (8,)])
def test_constant_slices_are_no_drift_and_hide_none(value: float, blank: tuple[int, ...]) -> None:
    values, mask = head(3), tissues(3) > 0
    mask[8:28, 8:32] = True  # as of a file's own mask, which may hold what the image lacks
    sd = float(values[mask].std())
    values[:, :, blank] = value
    step, _, limit = drift(values, mask, sd)
    assert step is not None
    assert step < limit
    values[:, :, 5] *= 1.8
    step, where, limit = drift(values, mask, sd)
    assert (step > limit, where) == (True, 5)


def test_constant_means_inside_the_mask() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(100, 1, (8, 8, 9))
    mask = np.zeros(values.shape, bool)
    mask[1:7, 1:7] = True
    values[1:7, 1:7, 4] = 0.0  # outside, the slice varies
    step, where, limit = drift(values, mask, 1.0)
    assert step < limit
    assert where not in (3, 4, 5)


def test_constant_slices_everywhere_tell_nothing() -> None:
    values = np.zeros((8, 8, 9)) + np.arange(9)
    assert drift(values, np.ones(values.shape, bool), 1.0)[:2] == (None, None)
