# SPDX-License-Identifier: Apache-2.0
"""N4: the bias field by histogram sharpening and multilevel B-splines, computed by SimpleITK.

Tustison et al.: N4ITK: Improved N3 Bias Correction, IEEE TMI 2010. The field is estimated on a
coarse grid (shrink 4 by default: a sixth of the time of shrink 2, the same result) and its
logarithm is evaluated on the full one. What SimpleITK leaves to the caller is done here: values
without a logarithm are dealt with openly (see `bias_field`), the field has mean 1 in the mask so
that intensities do not drift, and one thread makes the answer the same on every machine.
Declared law: `a * x` with `a > 0` gives `a` times the result for `x`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from vesalius.errors import NormalizationRefused, UsageError
from vesalius.normalization.card import Card, Kind
from vesalius.normalization.spatial.bias_field import coarse_steps, divide, enough, ground
from vesalius.types import Array, Json, Spacing3

CARD = Card(
    name="n4",
    title="bias field, sharpest histogram on multilevel B-splines (N4)",
    formula="y = x / f, log f = sum over levels of B-splines fitted to log x - E[u | log x]",
    source="Tustison et al., IEEE TMI 2010; SimpleITK's N4BiasFieldCorrectionImageFilter",
    kind=Kind.SPATIAL,
)


def correct(
    values: Array,
    mask: Array,
    *,
    spacing: Spacing3,
    shrink: int = 4,
    iterations: Sequence[int] = (50, 50, 50, 50),
    convergence: float = 0.001,
    fwhm: float = 0.15,
    noise: float = 0.01,
    bins: int = 200,
    control_points: int = 4,
    order: int = 3,
    threads: int = 1,
) -> tuple[Array, Json]:
    """Return `values` without their bias field, float32, and the record of it.

    Args:
        values: one channel, `(i, j, k)`, any real dtype; a single slice has `k = 1`.
        mask: the fitting mask, Boolean, same shape: the object, without air.
        spacing: millimeters along i, j, k.
        shrink: voxels to one of the coarse grid on which the field is estimated.
        iterations: at most, for each level.
        convergence: coefficient of variation of the field's change at which a level ends.
        fwhm: of the Gaussian that is taken out of the histogram, in natural logarithms.
        noise: of the Wiener filter.
        bins: of the histogram.
        control_points: along each axis, at the first level; above `order`.
        order: of the spline.
        threads: of the estimate; another number may change the last digits.

    Raises:
        UsageError: a parameter is out of its range.
        NormalizationRefused: see `bias_field.ground`.
    """
    import SimpleITK as sitk  # noqa: N813  its customary name

    if not iterations or min(iterations) < 1 or control_points <= order or order < 1:
        raise UsageError(
            "n4 needs at least one level of at least one iteration and control_points > order >= "
            f"1, got iterations={[*iterations]}, control_points={control_points}, order={order}"
        )
    found = ground(values, mask)
    steps = coarse_steps(found.values.shape, spacing, shrink)
    image = _image(found.values.astype(np.float32), spacing)
    region = _image(found.usable.astype(np.uint8), spacing)
    factors = [steps[a] for a in _long_axes(found.values)]
    coarse, coarse_region = sitk.Shrink(image, factors), sitk.Shrink(region, factors)
    enough(int(sitk.GetArrayViewFromImage(coarse_region).sum()))

    n4 = sitk.N4BiasFieldCorrectionImageFilter()
    n4.SetNumberOfThreads(threads)
    n4.SetNumberOfWorkUnits(threads)
    n4.SetMaximumNumberOfIterations([*iterations])
    n4.SetConvergenceThreshold(convergence)
    n4.SetBiasFieldFullWidthAtHalfMaximum(fwhm)
    n4.SetWienerFilterNoise(noise)
    n4.SetNumberOfHistogramBins(bins)
    n4.SetNumberOfControlPoints(control_points)
    n4.SetSplineOrder(order)
    n4.Execute(coarse, coarse_region)
    log_field = sitk.GetArrayFromImage(n4.GetLogBiasFieldAsImage(image)).T
    out, record = divide(values, found, log_field.reshape(found.values.shape))
    last = float(n4.GetCurrentConvergenceMeasurement())
    made = {
        "method": "n4", "steps": [*steps], "fwhm": fwhm, "noise": noise, "bins": bins,
        "control_points": control_points, "order": order, "levels": len(iterations),
        "iterations": int(n4.GetElapsedIterations()), "change": last,
        "converged": last < convergence, "library": f"SimpleITK {sitk.Version_VersionString()}",
    }  # fmt: skip
    return out, made | record


def _long_axes(values: Array) -> list[int]:
    """Return the axes of more than one voxel, at least two: ITK has no N4 along others."""
    axes = [a for a, n in enumerate(values.shape) if n > 1]
    if len(axes) < 2:
        raise NormalizationRefused(
            "too-few-voxels", f"n4 needs two axes of several voxels, got shape {values.shape}"
        )
    return axes


def _image(values: Array, spacing: Spacing3) -> Any:
    """Return `(i, j, k)` values as a SimpleITK image, 2D where one axis has one voxel."""
    import SimpleITK as sitk  # noqa: N813  its customary name

    axes = _long_axes(values)
    held = values.reshape([values.shape[a] for a in axes])
    image = sitk.GetImageFromArray(np.ascontiguousarray(held.T))
    image.SetSpacing([float(spacing[a]) for a in axes])
    return image
