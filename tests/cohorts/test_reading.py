# SPDX-License-Identifier: Apache-2.0
"""Masks laid out on their image's grid: law, every voxel keeps its place in the world."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vesalius.cohorts.reading import on_lattice, read_image
from vesalius.errors import GeometryError, UsageError
from vesalius.volume import LabelMap, Volume

AFFINE = np.array([[-0.8, 0.1, 0, 5], [0.1, 0.9, 0, -3], [0, 0, 2.5, 7], [0, 0, 0, 1.0]])
IMAGE = Volume(np.zeros((1, 9, 8, 7), np.int16), AFFINE)


def world(volume: Volume) -> dict[tuple[float, ...], int]:
    """Return the rounded world position -> value of every marked voxel."""
    index = np.argwhere(volume.data[0])
    places = index @ volume.affine[:3, :3].T + volume.affine[:3, 3]
    return {
        tuple(np.round(place, 3) + 0.0): int(volume.data[0][tuple(i)])
        for place, i in zip(places, index, strict=True)
    }


@settings(max_examples=40, deadline=None)
@given(
    low=st.tuples(st.integers(0, 5), st.integers(0, 4), st.integers(0, 3)),
    size=st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3)),
    order=st.sampled_from(list(itertools.permutations(range(3)))),
    flip=st.tuples(st.booleans(), st.booleans(), st.booleans()),
    seed=st.integers(0, 99),
)
def test_any_turned_part_of_the_lattice_lands_where_it_was(
    low: tuple[int, ...],
    size: tuple[int, ...],
    order: tuple[int, ...],
    flip: tuple[bool, ...],
    seed: int,
) -> None:
    values = np.random.default_rng(seed).integers(0, 4, size).astype(np.uint8)
    data, affine = values, AFFINE.copy()
    affine[:3, 3] += AFFINE[:3, :3] @ np.array(low)
    for axis, is_flipped in enumerate(flip):
        if is_flipped:
            data = np.flip(data, axis)
            affine[:3, 3] += affine[:3, axis] * (data.shape[axis] - 1)
            affine[:3, axis] *= -1
    mask = LabelMap(data.transpose(order)[None], affine[:, [*order, 3]])
    laid = on_lattice(mask, IMAGE)
    assert laid.shape == IMAGE.shape
    assert np.allclose(laid.affine, AFFINE)
    assert world(laid) == world(mask)


@pytest.mark.parametrize("shift", [0.4, 40.0])
def test_a_mask_elsewhere_is_left_alone(shift: float) -> None:
    affine = AFFINE.copy()
    affine[0, 3] += shift
    mask = LabelMap(np.ones((1, 3, 3, 3), np.uint8), affine)
    assert on_lattice(mask, IMAGE) is mask


def test_channels_must_share_a_grid(tmp_path: Path) -> None:
    from vesalius.io import write

    first = write(Volume(np.ones((1, 4, 4, 4), np.int16), np.eye(4)), tmp_path / "a.nii.gz")
    second = write(Volume(np.ones((1, 4, 4, 5), np.int16), np.eye(4)), tmp_path / "b.nii.gz")
    assert read_image([first, first], "nifti").data.shape == (2, 4, 4, 4)
    with pytest.raises(GeometryError, match="share a grid"):
        read_image([first, second], "nifti")
    with pytest.raises(UsageError, match="stack"):
        read_image([first], "dicom-zip", "nonsense")
