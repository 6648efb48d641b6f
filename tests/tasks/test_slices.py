# SPDX-License-Identifier: Apache-2.0
"""Slices of volumes: as many as depth, disk and minutes allow, where something is to be seen."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vesalius.tasks.slices import (
    LEAST,
    MOST,
    depth_axis,
    places_of_slices,
    slices_to_show,
)


def show(depth: float = 100, volumes: int = 10, size: int = 224, **budget) -> int:
    found = {"median_depth": depth, "volumes": volumes}
    return slices_to_show(found, size=size, channels=1, budget=budget or {"steps": 9})


def test_deep_volumes_show_more() -> None:
    assert [show(depth) for depth in (1, 30, 64, 100, 500)] == [LEAST, LEAST, 16, 25, MOST]


def test_the_budget_bounds_them() -> None:
    assert show(minutes=60) == 25
    assert show(volumes=1000, minutes=60) == 25
    assert show(volumes=1000, minutes=40) == 18  # 40 * 60 * 0.3 s at 25 slices a second
    assert show(volumes=1000, minutes=40, size=112) == 25
    assert show(volumes=2000, steps=100) == 19  # 4 GB of 2 * 224 ** 2 bytes
    assert show(volumes=100_000, minutes=1) == LEAST


def test_the_coarsest_axis_is_the_depth() -> None:
    assert depth_axis(np.array([5.0, 1.0, 1.0]), calibrated=True) == 0
    assert depth_axis(np.array([5.0, 1.0, 1.0]), calibrated=False) == 2
    assert depth_axis(np.array([1.2, 1.0, 1.0]), calibrated=True) == 2


@given(
    axis=st.integers(0, 2),
    before=st.integers(0, 20),
    inside=st.integers(1, 40),
    after=st.integers(0, 20),
    count=st.integers(1, MOST),
)
def test_empty_slices_are_not_shown(
    axis: int, before: int, inside: int, after: int, count: int
) -> None:
    held = np.random.default_rng(0).normal(size=(1, inside, 6, 6))
    data = np.pad(held, ((0, 0), (before, after), (0, 0), (0, 0)))
    found = places_of_slices(np.moveaxis(data, 1, 1 + axis), axis, count)
    assert len(found) == len(set(found)) <= count
    assert before <= found.min()
    assert found.max() < before + inside
    np.testing.assert_array_equal(found - before, places_of_slices(held, 0, count))
    if inside >= 2 * count:
        assert len(found) == count
        assert np.ptp(np.diff(found)) <= 1 if count > 1 else True


@pytest.mark.parametrize("value", [0.0, 3.0])
def test_flat_slices_are_all_alike(value: float) -> None:
    data = np.full((1, 4, 4, 20), value)
    assert places_of_slices(data, 2, 4).tolist() == [4, 8, 12, 16]
