# SPDX-License-Identifier: Apache-2.0
"""Blur against SciPy's Gaussian, coarser grids against PyTorch's interpolation, and laws."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter1d
from torch import Tensor
from torch.nn import functional

from vesalius.training.resolution import blur, coarsen, coarser, gaussian

Change = Callable[..., Tensor]
CHANGES = pytest.mark.parametrize(("change", "most"), [(blur, 1.0), (coarsen, 2.0)])


@given(length=st.integers(1, 60), sigma=st.floats(0.3, 3), seed=st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_the_gaussian_is_scipys(length: int, sigma: float, seed: int) -> None:
    line = np.random.default_rng(seed).normal(size=length)
    reach = int(np.ceil(3 * sigma))
    wanted = gaussian_filter1d(line, sigma, mode="nearest", radius=reach)
    np.testing.assert_allclose(gaussian(length, sigma) @ line, wanted, atol=1e-12)


@given(count=st.integers(1, 30), times=st.integers(1, 4), seed=st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_a_coarser_grid_is_pytorchs_nearest_then_linear(count: int, times: int, seed: int) -> None:
    line = np.random.default_rng(seed).normal(size=count * times)
    few = torch.tensor(line[times // 2 :: times])[None, None]
    wanted = functional.interpolate(few, size=len(line), mode="linear", align_corners=False)
    found = coarser(len(line), float(times)) @ line
    np.testing.assert_allclose(found, wanted[0, 0].numpy(), atol=1e-12)


@given(length=st.integers(1, 50), amount=st.floats(1, 4))
@settings(max_examples=50, deadline=None)
def test_every_voxel_is_a_mean_of_voxels(length: int, amount: float) -> None:
    for matrix in (gaussian(length, amount), coarser(length, amount)):
        assert matrix.shape == (length, length)
        assert (matrix >= 0).all()
        np.testing.assert_allclose(matrix.sum(1), 1, atol=1e-12)


@CHANGES
@pytest.mark.parametrize("shape", [(3, 2, 24, 18), (3, 1, 12, 10, 8)])
def test_only_the_axes_asked_for_are_softened(
    change: Change, most: float, shape: tuple[int, ...]
) -> None:
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    for axis in range(len(shape) - 2):
        found = change(noise, most, [axis], 1.0, np.random.default_rng(0))
        assert found.shape == noise.shape
        rough = [float(found.diff(dim=a).abs().mean()) for a in range(2, len(shape))]
        before = [float(noise.diff(dim=a).abs().mean()) for a in range(2, len(shape))]
        ratio = np.array(rough) / before
        assert ratio[axis] == ratio.min()
        assert ratio[axis] < 0.8
        # Along another axis, lines lie as they lay: constant ones stay constant.
        other = (axis + 1) % (len(shape) - 2)
        flat = noise.mean(2 + other, keepdim=True).expand(shape)
        flat = change(flat, most, [axis], 1.0, np.random.default_rng(0))
        assert float(flat.diff(dim=2 + other).abs().max()) < 1e-5


@CHANGES
def test_images_are_chosen_one_by_one(change: Change, most: float) -> None:
    images = torch.randn((400, 1, 8, 8), generator=torch.Generator().manual_seed(1))
    kept = images.clone()
    found = change(images, most, [0, 1], 0.25, np.random.default_rng(0))
    assert torch.equal(images, kept)
    changed = int(((found - images).abs() > 1e-4).flatten(1).any(1).sum())
    assert 60 < changed < 140  # 100, less those coarsened by nothing; four SDs of 8.7
    assert torch.equal(change(images, most, [0, 1], 0.0, np.random.default_rng(0)), images)
    again = change(images, most, [0, 1], 0.25, np.random.default_rng(0))
    assert torch.equal(found, again)


@CHANGES
def test_the_scale_of_the_values_carries_through(change: Change, most: float) -> None:
    images = torch.randn((4, 2, 9, 7), generator=torch.Generator().manual_seed(2))
    found = change(images, most, [0, 1], 1.0, np.random.default_rng(3))
    moved = change(5 * images - 2, most, [0, 1], 1.0, np.random.default_rng(3))
    torch.testing.assert_close(moved, 5 * found - 2, atol=1e-4, rtol=1e-5)
