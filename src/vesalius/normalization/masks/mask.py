# SPDX-License-Identifier: Apache-2.0
"""A fitting mask: the voxels that a normalizer looks at, and the rule that found them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from vesalius.errors import UsageError
from vesalius.types import Array

KINDS: Final = (
    "air-free",  # CT: the body without air
    "mr-foreground",  # what rises above a dark background
    "collimated",  # X-ray: the exposed field
    "sector",  # ultrasound: the field of the probe
    "corner-free",  # dermoscopy, fundus: without dark corners
    "tissue",  # stained slide: without bare glass
    "whole",  # every finite voxel: nothing to exclude was found
    "given",  # by the caller
)


@dataclass(frozen=True, slots=True, eq=False)
class Mask:
    """Voxels to fit on.

    Attributes:
        data: `(i, j, k)`, Boolean, True inside; it never holds a voxel that is NaN or infinite.
        kind: the rule that made it, one of `KINDS`.
        share: voxels inside / voxels of the grid.
    """

    data: Array
    kind: str
    share: float

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UsageError(f"kind must be one of {', '.join(KINDS)}, got '{self.kind}'")
        if self.data.ndim != 3 or self.data.dtype != bool:
            raise UsageError(
                f"data must be Boolean with axes (i, j, k), got {self.data.dtype} "
                f"of shape {self.data.shape}"
            )

    def __repr__(self) -> str:
        size = "x".join(map(str, self.data.shape))
        return f"Mask({self.kind}, {size}, {self.share:.1%} inside)".replace("%", " %")


def of(data: Array, kind: str) -> Mask:
    """Return the mask with its share counted."""
    return Mask(data, kind, float(data.mean()) if data.size else 0.0)
