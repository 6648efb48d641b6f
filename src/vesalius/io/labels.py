# SPDX-License-Identifier: Apache-2.0
"""Any image as a label map: integers kept, floats accepted only where they are integers."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from vesalius.errors import CorruptFile
from vesalius.types import Array
from vesalius.volume import LabelMap, Volume

_TOLERANCE = 1e-3
_COLOR_NAMES = {"red", "green", "blue", "alpha"}


def as_labels(volume: Volume, names: Mapping[int, str] | None = None) -> LabelMap:
    """Return the image as a `LabelMap`; raises `CorruptFile` where its values are no labels."""
    if isinstance(volume, LabelMap) and not names:
        return volume
    path = volume.source.files[0] if volume.source.files else ""
    data = volume.data
    channels = volume.channels
    if set(channels) & _COLOR_NAMES:
        colors = data[:3]
        if not (colors == colors[:1]).all():
            raise CorruptFile(
                "a color image states no label values; write labels as gray or palette values",
                path=path,
            )
        data, channels = data[:1], ()
    return LabelMap(
        _integers(data, path),
        volume.affine,
        modality=volume.modality,
        channels=channels,
        calibrated=volume.calibrated,
        source=volume.source,
        names=dict(names or getattr(volume, "names", {})),
    )


def _integers(data: Array, path: str) -> Array:
    if data.dtype.kind in "iub":
        return data
    out = np.empty(data.shape, np.int32)
    for target, values in zip(out, data, strict=True):
        rounded = np.rint(values)
        if not np.isfinite(values).all() or np.abs(rounded).max(initial=0) >= 2**31:
            raise CorruptFile("label values must be finite and below 2^31", path=path)
        off = float(np.abs(values - rounded).max(initial=0))
        if off > _TOLERANCE:
            raise CorruptFile(
                f"label values must be integers, got values {off:.3g} away from one; is this an "
                "image, or a label map resampled with interpolation?",
                path=path,
                largest_fraction=off,
            )
        target[...] = rounded
    if out.min(initial=0) >= 0 and out.max(initial=0) <= 255:
        return out.astype(np.uint8)
    return out
