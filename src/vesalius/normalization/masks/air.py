# SPDX-License-Identifier: Apache-2.0
"""CT: the body without air.

Body = what is denser than -500 HU, holes filled in the axial planes (lungs and gas lie inside),
once anything thinner than 24 mm (table, sheets, tubes) has fallen off. Of it, voxels below -900 HU
are excluded: gas, trachea and the air of emphysema go, lung tissue (about -850 to -700 HU) stays.
Limits in HU, so nothing here depends on the rest of the image.
"""

from __future__ import annotations

from vesalius.normalization.masks import shapes
from vesalius.normalization.masks.background import slice_axis
from vesalius.normalization.masks.grid import Grid
from vesalius.types import Array, Spacing3

BODY_HU = -500.0
AIR_HU = -900.0
THIN_MM = 24.0
_SMALL = 0.02  # of the largest component


def air_free(values: Array, spacing: Spacing3) -> Array | None:
    """Return the body without air `(i, j, k)`, Boolean; None where no body is found.

    Args:
        values: HU, finite, `(i, j, k)`.
        spacing: millimeters.
    """
    grid = Grid.of(values.shape)
    through = slice_axis(values.shape, spacing)
    dense = shapes.fill(grid.sample(values) > BODY_HU, through=through)
    i, j, k = (
        round(THIN_MM / 2 / (mm * step)) if n * step * mm > 2 * THIN_MM else 0
        for n, mm, step in zip(dense.shape, spacing, grid.steps, strict=True)
    )
    radius = (0 if through == 0 else i, 0 if through == 1 else j, 0 if through == 2 else k)
    thick = shapes.dilate(shapes.erode(dense, radius), radius) & dense
    body = shapes.large_components(thick, share=_SMALL)
    if not body.any():
        return None
    body = shapes.fill(body, through=through)
    inside = grid.refine(body, values, BODY_HU)
    inside &= values >= AIR_HU
    return inside if inside.any() else None


def looks_hounsfield(values: Array) -> bool:
    """Return whether finite values of no stated unit are HU: air, soft tissue, no others' range.

    At least 2 % between -1100 and -900, 10 % between -200 and 300, less than 1 % between -1500
    and -1100 (where phase images have values, and CT at most padding has).
    """
    x = Grid.of(values.shape).sample(values)
    air, soft = ((x >= low) & (x <= high) for low, high in ((-1100, -900), (-200, 300)))
    beyond = (x > -1500) & (x < -1100)
    return bool(air.mean() >= 0.02 and soft.mean() >= 0.1 and beyond.mean() < 0.01)
