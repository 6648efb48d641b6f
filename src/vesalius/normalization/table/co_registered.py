# SPDX-License-Identifier: Apache-2.0
"""Co-registered volumes as a table of voxels and back: the only images that ComBat is for.

A column must be the same place in every volume. One grid is checked here; that the anatomy agrees
is the caller's registration to answer for.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vesalius.errors import NormalizationRefused, UsageError
from vesalius.geometry import same_grid
from vesalius.normalization.table.combat import Combat
from vesalius.normalization.table.covbat import CovBat
from vesalius.types import Array
from vesalius.volume import Volume


def voxel_rows(volumes: Sequence[Volume], mask: Array | None = None) -> Array:
    """Return `(volumes, voxels)`, float64: one row a volume, for `Combat.fit`.

    Args:
        volumes: of one channel each, all on one grid.
        mask: `(i, j, k)`, Boolean; None takes every voxel.

    Raises:
        UsageError: no volume, several channels, or a mask of another shape.
        NormalizationRefused: `not-covered`: a volume lies on another grid.
    """
    _check(volumes, mask)
    rows = [(one.data[0] if mask is None else one.data[0][mask]).ravel() for one in volumes]
    return np.array(rows, np.float64)


def apply_voxels(
    fitted: Combat | CovBat,
    volumes: Sequence[Volume],
    sites: Sequence[object] | Array,
    covariates: Array | None = None,
    *,
    mask: Array | None = None,
) -> list[Volume]:
    """Return the volumes harmonized within `mask`, unchanged outside, float32.

    Args:
        fitted: on `voxel_rows` of training volumes with the same mask.
        volumes, mask: as in `voxel_rows`.
        sites, covariates: one row a volume, as in `Combat.apply`.

    Raises:
        UsageError, NormalizationRefused: as `voxel_rows` and `Combat.apply`.
    """
    rows = fitted.apply(voxel_rows(volumes, mask), sites, covariates)
    out = []
    for volume, row in zip(volumes, rows, strict=True):
        data = volume.data.astype(np.float32)
        data[0][np.ones(volume.shape, bool) if mask is None else mask] = row
        out.append(volume.with_data(data))
    return out


def _check(volumes: Sequence[Volume], mask: Array | None) -> None:
    if not volumes:
        raise UsageError("volumes must hold at least one volume, got none")
    first = volumes[0]
    for n, one in enumerate(volumes):
        if len(one.data) != 1:
            raise UsageError(f"volumes must have one channel, volume {n} has {len(one.data)}")
        if not same_grid(first.affine, first.shape, one.affine, one.shape):
            raise NormalizationRefused(
                "not-covered",
                f"volume {n} ({one.shape}) is not on the grid of volume 0 ({first.shape}): "
                "register and resample the volumes to one grid first",
            )
    if mask is not None and (mask.dtype != np.bool_ or mask.shape != first.shape):
        raise UsageError(f"mask must be Boolean {first.shape}, got {mask.dtype} {mask.shape}")
