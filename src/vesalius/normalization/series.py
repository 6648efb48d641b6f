# SPDX-License-Identifier: Apache-2.0
"""One series being normalized: mask, channels, settings, and what is refused at the door."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from vesalius.errors import NormalizationRefused
from vesalius.normalization.certificate import (
    Certificate,
)
from vesalius.normalization.masks import Mask, edges, holdout
from vesalius.normalization.method import Method
from vesalius.normalization.reference import Reference
from vesalius.types import Array, Json
from vesalius.volume import Volume

_LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True, slots=True)
class Settings:
    """How series are normalized.

    Attributes:
        method: `auto`, a name of `method.MODULES`, or several joined by `+`, one after the other.
        options: parameters of the first of them, by name.
        tolerance: what the standard deviation in the fitting mask may depart from 1.
        rescale_units: also rescale images with a physical unit.
        fitted: group (see `certificate.group_name`) -> fitted method, for methods that need it.
        reference: the cohort that series are compared with, or None.
    """

    method: str = "auto"
    options: Mapping[str, Any] = field(default_factory=dict)
    tolerance: float = 0.05
    rescale_units: bool = False
    fitted: Mapping[str, Method] = field(default_factory=dict)
    reference: Reference | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """A certificate and, unless it refuses, the series that it speaks of."""

    certificate: Certificate
    volume: Volume | None


class Series:
    """One series with its mask, and what every rung needs of it."""

    def __init__(self, volume: Volume, mask: Mask) -> None:
        self.volume = volume
        self.mask = mask
        self.fit, self.check = holdout(mask)
        self.groups = channel_groups(volume)

    def inside(self, data: Sequence[Array] | Array, mask: Array) -> Array:
        """Return the values of all channels in a mask, flat."""
        return np.concatenate([channel[mask] for channel in data])

    @cached_property
    def facts(self) -> Json:
        """The record of the mask."""
        return {
            "kind": self.mask.kind,
            "share": self.mask.share,
            "voxels": int(self.fit.data.sum()),
            "region_voxels": int(self.check.data.sum()),
            "region_cubes": round(self.check.data.sum() / np.prod(edges(self.volume.shape)), 1),
        }


def channel_groups(volume: Volume) -> list[slice]:
    """Return the channels that share a curve: red, green and blue of a 2D image; else each one."""
    if volume.is_2d and len(volume.data) >= 3:
        return [slice(0, 3), *(slice(n, n + 1) for n in range(3, len(volume.data)))]
    return [slice(n, n + 1) for n in range(len(volume.data))]


def refuse_hopeless(volume: Volume) -> None:
    """Raise for an image that no scale can be given to.

    Raises:
        NormalizationRefused: `empty`, `non-finite` or `constant`.
    """
    data = volume.data
    if data.size == 0:
        raise NormalizationRefused("empty", f"the image is empty: shape {data.shape}")
    if data.dtype.kind == "f" and not np.isfinite(data).all():
        bad = int(data.size - np.count_nonzero(np.isfinite(data)))
        raise NormalizationRefused(
            "non-finite",
            f"{bad:,} of {data.size:,} values are NaN or infinite; mend the source, or leave the "
            "series out",
        )
    low, high = float(data.min()), float(data.max())
    if low == high:
        raise NormalizationRefused("constant", f"the image is constant: every value is {low:g}")
    if max(-low, high) > _LARGEST:
        raise NormalizationRefused(
            "non-finite",
            f"values reach {low if -low > high else high:.3g}, more than 32 bits hold: they mark "
            "what is missing; write the image again with NaN or a mask there, or leave it out",
        )
