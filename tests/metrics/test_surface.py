# SPDX-License-Identifier: Apache-2.0
"""Surface distances against hand-known answers, an exact distance transform and MONAI."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from vesalius.errors import UsageError
from vesalius.metrics.surface import hausdorff_95, normalized_surface_dice, surface_distances


def masks(seed, shape=(14, 12, 9)):
    """Two smooth random blobs that overlap in part."""
    generator = np.random.default_rng(seed)
    fields = [ndimage.gaussian_filter(generator.normal(size=shape), 1.5) for _ in range(2)]
    return fields[0] > 0.05, (fields[0] + 0.5 * fields[1]) > 0.05


def test_two_voxels_two_millimeters_away():
    a, b = np.zeros((8, 8, 8), bool), np.zeros((8, 8, 8), bool)
    a[2, 3, 4] = b[2, 3, 5] = True
    found = surface_distances(a, b, (1.0, 1.0, 2.0))
    assert found.prediction_to_truth.tolist() == [2.0]
    assert found.truth_to_prediction.tolist() == [2.0]
    assert hausdorff_95(found) == 2.0
    assert normalized_surface_dice(found, 1.9) == 0.0
    assert normalized_surface_dice(found, 2.0) == 1.0


def test_two_pixels_of_a_2d_image():
    a, b = np.zeros((8, 8, 1), bool), np.zeros((8, 8, 1), bool)
    a[1:7, 1:7] = True
    b[2:6, 2:6] = True  # one pixel smaller on each side
    found = surface_distances(a, b, (0.5, 0.5, 1.0))
    assert len(found.prediction_to_truth) == 20  # the ring, not the whole disk
    assert len(found.truth_to_prediction) == 12
    assert set(found.truth_to_prediction) == {0.5}


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), spacing=st.tuples(*[st.sampled_from([0.5, 1.0, 3.7])] * 3))
def test_distances_equal_the_exact_distance_transform(seed, spacing):
    a, b = masks(seed)
    if not a.any() or not b.any():
        return
    found = surface_distances(a, b, spacing)
    edges = [mask & ~ndimage.binary_erosion(mask) for mask in (a, b)]
    to_b = ndimage.distance_transform_edt(~edges[1], sampling=spacing)[edges[0]]
    to_a = ndimage.distance_transform_edt(~edges[0], sampling=spacing)[edges[1]]
    assert np.allclose(found.prediction_to_truth, to_b)
    assert np.allclose(found.truth_to_prediction, to_a)


# MONAI 1.6 calls its own deprecated argument.
@pytest.mark.filterwarnings("ignore:.*always_return_as_numpy:FutureWarning")
@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.7, 0.7, 4.0)])
def test_scores_equal_monai(spacing):
    import torch
    from monai.metrics import compute_hausdorff_distance, compute_surface_dice

    for seed in range(3):
        a, b = masks(seed)
        found = surface_distances(a, b, spacing)
        y_pred, y = (torch.from_numpy(m[None, None].astype(np.float32)) for m in (a, b))
        common = {"include_background": True, "spacing": spacing}
        distance = compute_hausdorff_distance(y_pred, y, percentile=95, **common)
        overlap = compute_surface_dice(y_pred, y, [1.5], **common)
        assert hausdorff_95(found) == pytest.approx(float(distance), abs=1e-4)
        assert normalized_surface_dice(found, 1.5) == pytest.approx(float(overlap), abs=1e-6)


def test_empties_are_worst_never_nan():
    some, none = np.zeros((3, 4, 1), bool), np.zeros((3, 4, 1), bool)
    some[1, 1] = True
    for a, b in ((some, none), (none, some)):
        found = surface_distances(a, b, (1.0, 1.0, 1.0))
        assert normalized_surface_dice(found, 99) == 0
        assert hausdorff_95(found) == pytest.approx(np.sqrt(9 + 16 + 1))
    neither = surface_distances(none, none, (1.0, 1.0, 1.0))
    assert normalized_surface_dice(neither, 1) == 1
    assert hausdorff_95(neither) == 0


def test_other_grids_are_refused():
    with pytest.raises(UsageError, match="one grid"):
        surface_distances(np.ones((2, 2, 2)), np.ones((2, 2, 3)), (1, 1, 1))
