# SPDX-License-Identifier: Apache-2.0
"""Volume and LabelMap: arrays `(channel, i, j, k)` in RAS+ millimeters.

The affine maps voxel indices `(i, j, k)` to world millimeters, x to the patient's Right,
y to Anterior, z to Superior (NIfTI's frame). Conversion from DICOM's LPS happens in `io` alone.
A 2D image has `k = 1`; i runs along its columns (left to right), j along its rows (top to bottom).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Self

import numpy as np

from vesalius.errors import UsageError
from vesalius.types import Affine, Array, Shape3, Spacing3


@dataclass(frozen=True, slots=True)
class Source:
    """Where an image came from. Paths and identifiers are patient data: never log them."""

    files: tuple[str, ...] = ()
    format: str = ""  # a name of the table in `io.formats`
    member: str = ""  # inside a container: an NPZ index, a zip entry
    metadata: Mapping[str, object] = field(default_factory=dict)  # format-specific, JSON-like


@dataclass(frozen=True, slots=True, eq=False)
class Volume:
    """An image with its place in the world.

    Attributes:
        data: `(channel, i, j, k)`, any real dtype.
        affine: `(4, 4)` float64, voxel index to RAS+ millimeters.
        modality: DICOM modality code (`CT`, `MR`, `PT`, `US`, `CR`, `DX`, `MG`, `SM`, …), or ``.
        unit: unit of the values (`HU`, `Bq/ml`, `g/ml`, …), or `` when arbitrary.
        channels: one name per channel, or empty.
        calibrated: whether millimeters are real; False where the file states no spacing.
        source: where it came from.
    """

    data: Array
    affine: Affine
    modality: str = ""
    unit: str = ""
    channels: tuple[str, ...] = ()
    calibrated: bool = True
    source: Source = field(default_factory=Source)

    def __post_init__(self) -> None:
        _validate(self.data, self.affine, self.channels)
        object.__setattr__(self, "affine", np.asarray(self.affine, dtype=np.float64))

    @property
    def shape(self) -> Shape3:
        """Voxels along `(i, j, k)`."""
        i, j, k = self.data.shape[1:]
        return i, j, k

    @property
    def spacing(self) -> Spacing3:
        """Millimeters between neighbors along `(i, j, k)`."""
        i, j, k = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(i), float(j), float(k)

    @property
    def is_2d(self) -> bool:
        """Whether this is a single slice."""
        return self.shape[2] == 1

    def with_data(self, data: Array) -> Self:
        """Return the same image with other values on the same grid."""
        if data.shape[1:] != self.data.shape[1:]:
            raise UsageError(
                f"data must lie on the grid {self.shape} of the volume, got shape {data.shape}"
            )
        channels = self.channels if len(data) == len(self.data) else ()
        return replace(self, data=data, channels=channels)

    def __repr__(self) -> str:
        spacing = "x".join(f"{value:g}" for value in self.spacing)
        return (
            f"{type(self).__name__}({len(self.data)} channel(s), "
            f"{'x'.join(map(str, self.shape))}, {spacing} mm, {self.data.dtype}"
            f"{', ' + self.modality if self.modality else ''}"
            f"{', ' + self.unit if self.unit else ''})"
        )


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class LabelMap(Volume):
    """A volume of integers that name structures; 0 is background.

    Structures that overlap lie in different channels (layers); a value means the same structure
    in every layer. `names` gives each value its name.
    """

    names: Mapping[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _validate(self.data, self.affine, self.channels)
        if self.data.dtype.kind not in "iub":
            raise UsageError(f"a LabelMap holds integers, got dtype {self.data.dtype}")
        object.__setattr__(self, "affine", np.asarray(self.affine, dtype=np.float64))


def _validate(data: Array, affine: Affine, channels: tuple[str, ...]) -> None:
    if data.ndim != 4:
        raise UsageError(f"data must have axes (channel, i, j, k), got shape {data.shape}")
    if np.shape(affine) != (4, 4):
        raise UsageError(f"affine must be (4, 4), got shape {np.shape(affine)}")
    if not np.isfinite(affine).all() or abs(np.linalg.det(np.asarray(affine)[:3, :3])) < 1e-12:
        raise UsageError("affine must be finite and invertible")
    if channels and len(channels) != len(data):
        raise UsageError(f"{len(data)} channels need as many names, got {channels}")
