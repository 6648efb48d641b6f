# SPDX-License-Identifier: Apache-2.0
"""Every written label map is read back: each format and orientation, and a file that lies."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vesalius import io
from vesalius.errors import DataError
from vesalius.flows.predicting.geometry_proof import prove
from vesalius.flows.predicting.label_maps import write_label_map
from vesalius.flows.predicting.prediction import FORMATS
from vesalius.geometry import reorient
from vesalius.volume import LabelMap, Volume

NAMES = {1: "liver", 4: "spleen"}


def labeled(image: Volume) -> LabelMap:
    """Return two blocks of two structures on the image's grid, none of them symmetric."""
    data = np.zeros((1, *image.shape), np.uint8)
    i, j, k = (max(1, n // 3) for n in image.shape)
    data[0, :i, : 2 * j, :k] = 1
    data[0, i : 2 * i, j : 2 * j, : 2 * k] = 4
    return LabelMap(data, image.affine, names=NAMES, source=image.source)


@given(
    codes=st.sampled_from(["RAS", "LPS", "LPI", "PIR", "SAL"]),
    spacing=st.tuples(*[st.floats(0.3, 5)] * 3),
    degrees=st.floats(-40, 40),
)
@settings(max_examples=10, deadline=None)
def test_oblique_and_flipped_images_get_their_voxels_back(
    tmp_path_factory, codes, spacing, degrees
) -> None:
    turn = np.radians(degrees)
    affine = np.eye(4)
    affine[:2, :2] = [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
    affine[:3, :3] = affine[:3, :3] @ np.diag(spacing)
    affine[:3, 3] = (-31.5, 12.25, 7)
    image = reorient(Volume(np.zeros((1, 9, 7, 6), np.float32), affine), codes)
    found = labeled(image)
    folder = tmp_path_factory.mktemp("back")
    for form in ("nifti", "nrrd", "minc2"):
        path = io.write(found, folder / f"labels{FORMATS[form]}", format=form)
        proof = prove(path, found, image, form)
        assert proof["voxels_changed"] == 0
        assert proof["off_grid_mm"] < 1e-3
        assert proof["voxels"] == np.count_nonzero(found.data)


def test_a_file_that_lies_elsewhere_is_refused(tmp_path: Path) -> None:
    image = Volume(np.zeros((1, 9, 7, 6), np.float32), np.eye(4))
    found = labeled(image)
    moved = np.eye(4)
    moved[0, 3] = 0.4
    path = io.write(LabelMap(found.data, moved, names=NAMES), tmp_path / "moved.nii.gz")
    with pytest.raises(DataError, match=r"lies 0\.4 mm off"):
        prove(path, found, image, "nifti")
    swapped = np.where(found.data == 1, 4, np.where(found.data == 4, 1, 0)).astype(np.uint8)
    path = io.write(LabelMap(swapped, np.eye(4), names=NAMES), tmp_path / "swapped.nii.gz")
    with pytest.raises(DataError, match="voxels of other structures"):
        prove(path, found, image, "nifti")


@pytest.mark.parametrize("form", ["dicom-seg", "dicom-labelmap", "rtstruct"])
def test_dicom_objects_of_a_real_series(
    data: Callable[[str], Path], tmp_path: Path, form: str
) -> None:
    (image,) = io.read_all(data("ct_abdomen/example_ct_dicom"))
    found = labeled(image)
    path = write_label_map(found, image, tmp_path / "labels", form)
    proof = prove(path, found, image, form)
    assert proof["voxels"] == np.count_nonzero(found.data)
    if form == "rtstruct":
        assert proof["lowest_dice"] > 0.99
        return
    assert proof["voxels_changed"] == 0
    assert proof["off_grid_mm"] < 1e-3
