# SPDX-License-Identifier: Apache-2.0
"""Refinement: from a near map to the best one, by gradient ascent on Mattes' mutual information.

SimpleITK's `ImageRegistrationMethod` (Mattes et al., IEEE TMI 2003; regular step gradient descent
with scales from the physical shift), one thread, seeded sampling: the same call gives the same
numbers whatever the machine's cores.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from vesalius.errors import NormalizationRefused
from vesalius.geometry import LPS_TO_RAS
from vesalius.normalization.alignment.itk import image_of, matrix_of
from vesalius.normalization.alignment.pyramid import BINS, Level
from vesalius.types import Affine, Array

SAMPLES = 20_000  # points of A at a level


def refine(
    a: Level, b: Level, matrix: Affine, center: Array, *, kind: str, seed: int, step_mm: float
) -> tuple[Affine, int]:
    """Return the improved map (world of A -> world of B, RAS mm) and the iterations it took.

    Args:
        a, b: both images at one resolution; points are drawn in and near A's foreground.
        matrix: where to start.
        center: about which the map turns, world of A, RAS mm.
        kind: `rigid` or `affine`.
        seed: of the drawing of points, at least 1.
        step_mm: length of the first step.

    Raises:
        NormalizationRefused: `overlap`, the optimizer has left the other image.
    """
    import SimpleITK

    near = a.surroundings()
    method = SimpleITK.ImageRegistrationMethod()
    method.SetNumberOfThreads(1)
    method.SetMetricAsMattesMutualInformation(BINS)
    method.SetMetricFixedMask(image_of(near, a.affine))
    if near.sum() > SAMPLES:
        method.SetMetricSamplingStrategy(method.RANDOM)
        method.SetMetricSamplingPercentage(SAMPLES / near.sum(), seed)
    method.SetInterpolator(SimpleITK.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(
        step_mm, step_mm / 100, numberOfIterations=100, relaxationFactor=0.6
    )
    method.SetOptimizerScalesFromPhysicalShift()
    transform = _start(matrix, center, kind)
    method.SetInitialTransform(transform, inPlace=True)
    try:
        method.Execute(image_of(a.values, a.affine), image_of(b.values, b.affine))
    except RuntimeError as error:
        raise NormalizationRefused(
            "overlap", "the optimizer moved one image off the other; they may not belong together"
        ) from error
    return matrix_of(transform), int(method.GetOptimizerIteration())


def _start(matrix: Affine, center: Array, kind: str) -> Any:
    import SimpleITK

    flip = LPS_TO_RAS[:3, :3]
    linear = flip @ matrix[:3, :3] @ flip
    shift = flip @ (matrix[:3, :3] @ center + matrix[:3, 3] - center)
    transform = SimpleITK.Euler3DTransform() if kind == "rigid" else SimpleITK.AffineTransform(3)
    transform.SetCenter((flip @ center).tolist())
    if kind == "rigid":
        u, _, v = np.linalg.svd(linear)  # exactly orthogonal, as ITK demands
        linear = u @ v
    transform.SetMatrix(linear.ravel().tolist())
    transform.SetTranslation(shift.tolist())
    return transform
