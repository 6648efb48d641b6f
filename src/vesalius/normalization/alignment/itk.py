# SPDX-License-Identifier: Apache-2.0
"""The one place where volumes and transforms cross into SimpleITK's frame (LPS) and back.

ITK's world is LPS: p_LPS = D p_RAS with D = diag(-1, -1, 1, 1), so an affine map M of RAS points
is D M D there. ITK's transforms map fixed to moving points, as `Transform` does.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vesalius.files import write_text
from vesalius.geometry import LPS_TO_RAS
from vesalius.types import Affine, Array, PathLike

if TYPE_CHECKING:
    from vesalius.normalization.alignment.transform import Transform


def image_of(values: Array, affine: Affine) -> Any:
    """Return `(i, j, k)` values with orthogonal axes as a SimpleITK image, float32 or uint8."""
    import SimpleITK

    held = values.astype(np.uint8 if values.dtype == np.bool_ else np.float32)
    image = SimpleITK.GetImageFromArray(np.ascontiguousarray(held.transpose(2, 1, 0)))
    world = LPS_TO_RAS @ affine
    spacing = np.linalg.norm(world[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(world[:3, 3].tolist())
    image.SetDirection((world[:3, :3] / spacing).ravel().tolist())
    return image


def matrix_of(transform: Any) -> Affine:
    """Return an ITK matrix-offset transform (LPS, with its center) as a `(4, 4)` matrix, RAS mm."""
    linear = np.array(transform.GetMatrix()).reshape(3, 3)
    center = np.array(transform.GetCenter())
    out = np.eye(4)
    out[:3, :3] = linear
    out[:3, 3] = np.array(transform.GetTranslation()) + center - linear @ center
    return LPS_TO_RAS @ out @ LPS_TO_RAS


def write_tfm(transform: Transform, path: PathLike) -> Path:
    """Write ITK's text form (`.tfm`, LPS), as 3D Slicer and `sitk.ReadTransform` take it."""
    matrix = LPS_TO_RAS @ transform.matrix @ LPS_TO_RAS
    numbers = [*matrix[:3, :3].ravel(), *matrix[:3, 3]]
    text = (
        "#Insight Transform File V1.0\n#Transform 0\n"
        "Transform: AffineTransform_double_3_3\n"
        f"Parameters: {' '.join(repr(float(n)) for n in numbers)}\n"
        "FixedParameters: 0 0 0\n"
    )
    return write_text(path, text)
