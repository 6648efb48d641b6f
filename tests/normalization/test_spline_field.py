# SPDX-License-Identifier: Apache-2.0
"""Spline fields: against SciPy's B-splines and a dense least-squares solution, and hand-known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.interpolate import BSpline

from vesalius.errors import UsageError
from vesalius.normalization.spatial.spline_field import Axis, SplineField

SPACING = (2.0, 3.0, 4.0)


def test_the_basis_and_its_bending_are_scipys() -> None:
    axis = Axis.over(voxels=50, spacing=2.0, distance=30.0)
    assert axis.count == 4 + 3  # 100 mm take four spans
    knots = axis.start + axis.distance * np.arange(-3, axis.count + 1)
    at = np.linspace(0, 98, 37)
    bases = [BSpline(knots, np.eye(axis.count)[n], 3) for n in range(axis.count)]
    np.testing.assert_allclose(axis.values(at), np.stack([b(at) for b in bases], 1), atol=1e-12)
    fine = axis.start + axis.distance * (np.arange(40_000) + 0.5) / 10_000
    for order in (0, 1, 2):
        rows = np.stack([b.derivative(order)(fine) if order else b(fine) for b in bases])
        expected = rows @ rows.T / 10_000 * axis.distance ** (2 * order)
        np.testing.assert_allclose(axis.bending(order), expected, atol=1e-4)


def test_a_fit_is_the_dense_penalized_solution() -> None:
    rng = np.random.default_rng(0)
    shape, steps = (14, 11, 9), (2, 1, 2)
    mask = rng.random((7, 11, 5)) > 0.3
    samples = rng.normal(0, 1, mask.shape)
    field = SplineField(shape, SPACING, steps=steps, mask=mask, distance=25, stiffness=1e-2)
    found = field.coarse(field.fit(samples))
    axes = [Axis.over(n, s, 25) for n, s in zip(shape, SPACING, strict=True)]
    rows = [
        a.values(np.arange(n) * s)[::t]
        for a, n, s, t in zip(axes, shape, SPACING, steps, strict=True)
    ]
    dense = np.einsum("ia,jb,kc->ijkabc", *rows).reshape(*mask.shape, -1)
    bend = [[a.bending(order) for order in range(3)] for a in axes]

    def kron(i: int, j: int, k: int) -> np.ndarray:
        return np.kron(np.kron(bend[0][i], bend[1][j]), bend[2][k])

    energy = kron(2, 0, 0) + kron(0, 2, 0) + kron(0, 0, 2)
    energy += 2 * (kron(1, 1, 0) + kron(1, 0, 1) + kron(0, 1, 1))
    matrix = dense[mask].T @ dense[mask] + 1e-2 * mask.sum() * energy
    expected = dense @ np.linalg.solve(matrix, dense[mask].T @ samples[mask])
    np.testing.assert_allclose(found, expected, atol=1e-8)


@pytest.mark.parametrize("shape", [(20, 18, 12), (20, 18, 1), (20, 1, 1)])
def test_a_plane_is_met_exactly_at_any_stiffness_and_carried_on(shape) -> None:
    grids = np.meshgrid(
        *[np.arange(n) * s for n, s in zip(shape, SPACING, strict=True)], indexing="ij"
    )
    plane = 1 + 0.1 * grids[0] - 0.2 * grids[1] + 0.3 * grids[2]
    mask = np.zeros(shape, bool)
    mask[3:12, : max(1, shape[1] // 2), : max(1, shape[2] // 2)] = True
    field = SplineField(shape, SPACING, steps=(1, 1, 1), mask=mask, distance=40, stiffness=10)
    np.testing.assert_allclose(field.full(field.fit(plane)), plane, atol=1e-6)


def test_wrong_parameters_are_refused() -> None:
    mask = np.ones((10, 10, 10), bool)
    for wrong in ({"distance": 0, "stiffness": 1}, {"distance": 1, "stiffness": 0}):
        with pytest.raises(UsageError, match="positive"):
            SplineField(mask.shape, SPACING, steps=(1, 1, 1), mask=mask, **wrong)
    with pytest.raises(UsageError, match="raise distance"):
        SplineField(mask.shape, SPACING, steps=(1, 1, 1), mask=mask, distance=1, stiffness=1)
