# SPDX-License-Identifier: Apache-2.0
"""Transforms: inverse, JSON, ITK's file, and refusal of matrices that map nothing."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vesalius.errors import RunError, UsageError
from vesalius.normalization.alignment.itk import image_of, matrix_of, write_tfm
from vesalius.normalization.alignment.poses import pose
from vesalius.normalization.alignment.transform import Transform, Verdict

millimeters = st.floats(-200, 200)
vectors = st.tuples(millimeters, millimeters, millimeters).map(np.array)


@settings(max_examples=30, deadline=None)
@given(vectors, vectors, vectors)
def test_inverse_undoes_the_map(turn: np.ndarray, shift: np.ndarray, center: np.ndarray) -> None:
    transform = Transform(pose(turn / 4, shift, center), "rigid")
    points = np.array([[0.0, 0, 0], [10, -20, 30], [-100, 5, 7]])
    back = transform.inverse().apply_to_points(transform.apply_to_points(points))
    np.testing.assert_allclose(back, points, atol=1e-9)


def test_a_pose_turns_about_its_center_by_its_angle() -> None:
    center = np.array([10.0, 20, 30])
    transform = Transform(pose(np.array([0.0, 0, 90]), np.array([1.0, 2, 3]), center))
    mapped = transform.apply_to_points(np.stack([center, center + np.array([1, 0, 0])]))
    np.testing.assert_allclose(mapped, [[11, 22, 33], [11, 23, 33]], atol=1e-12)
    assert transform.rotation_degrees == pytest.approx(90)


def test_json_gives_back_every_field() -> None:
    matrix = pose(np.array([1.0, 2, 3]), np.array([4.0, 5, 6]), np.zeros(3))
    one = Transform(
        matrix, "affine", 0.7, 0.8, 1.5, Verdict.FLAGGED, ("far away",), "centers", iterations=12
    )
    two = Transform.from_json(json.loads(json.dumps(one.to_json(), allow_nan=False)))
    assert (two.matrix == one.matrix).all()
    assert two.to_json() == one.to_json()
    assert two.verdict is Verdict.FLAGGED
    with pytest.raises(RunError, match="format 2"):
        Transform.from_json({**one.to_json(), "format": 2})


def test_itk_reads_the_file_and_maps_points_as_we_do(tmp_path) -> None:
    import SimpleITK

    transform = Transform(
        pose(np.array([7.0, -11, 5]), np.array([3.0, 40, -9]), np.array([1, 2, 3]))
    )
    itk = SimpleITK.ReadTransform(str(write_tfm(transform, tmp_path / "a.tfm")))
    x, y, z = transform.apply_to_points(np.array([[12.0, -34, 56]]))[0]
    assert itk.TransformPoint((-12.0, 34.0, 56.0)) == pytest.approx((-x, -y, z), abs=1e-9)


def test_itk_places_voxels_where_we_do_and_matrices_come_back() -> None:
    import SimpleITK

    affine = pose(np.array([0.0, 0, 20]), np.array([5.0, 6, 7]), np.zeros(3))
    affine = affine @ np.diag([2.0, -3, 4, 1])
    values = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    image = image_of(values, affine)
    x, y, z = (affine @ [1, 2, 3, 1])[:3]
    assert image.TransformIndexToPhysicalPoint((1, 2, 3)) == pytest.approx((-x, -y, z))
    assert image.GetPixel(1, 2, 3) == values[1, 2, 3]
    itk = SimpleITK.Euler3DTransform((10.0, 20, 30), 0.1, 0.2, 0.3, (1.0, 2, 3))
    q = itk.TransformPoint((-4.0, -5.0, 6.0))
    mapped = Transform(matrix_of(itk)).apply_to_points(np.array([[4.0, 5, 6]]))[0]
    assert tuple(mapped) == pytest.approx((-q[0], -q[1], q[2]))


@pytest.mark.parametrize(
    "matrix", [np.eye(3), np.zeros((4, 4)), np.full((4, 4), np.nan), np.diag([0.0, 1, 1, 1])]
)
def test_matrices_that_map_nothing_are_refused(matrix: np.ndarray) -> None:
    with pytest.raises(UsageError, match="matrix must be"):
        Transform(matrix)
