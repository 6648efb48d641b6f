# SPDX-License-Identifier: Apache-2.0
"""Reinhard: mean and standard deviation of each Lab channel, moved to a target's.

`y = (x - mean) / sd * sd_target + mean_target` in CIE L*a*b* (sRGB, D65), back to sRGB, clipped to
0..255. The paper works in Ruderman's lab space; CIE L*a*b* is what stain normalizers in use
(torchstain, StainTools) take. There is no published reference in it, so a target is fitted.

Reinhard et al.: Color transfer between images, IEEE CG&A 2001. Laws tested: a batch gives what its
images give one by one; where no color leaves sRGB's gamut the result has the target's means and
standard deviations, and normalizing again changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from vesalius.errors import DataError
from vesalius.normalization.card import Card, Kind
from vesalius.normalization.exact_mean import ExactMean
from vesalius.normalization.method_record import parameters, to_record
from vesalius.normalization.stain import tiles
from vesalius.types import Array, Json

CARD = Card(
    name="reinhard",
    title="mean and SD in CIE L*a*b*",
    formula="y = (x - mean) / sd * sd_target + mean_target, per channel of L*a*b*",
    source="Reinhard et al., IEEE CG&A 2001",
    kind=Kind.STAIN,
    fitted=True,
)
Triple = tuple[float, float, float]
# ITU-R BT.709 primaries to CIE XYZ, rows divided by the D65 white point (CIE 15, IEC 61966-2-1).
_WHITE = np.array([0.95047, 1.0, 1.08883])
_TO_XYZ = (
    np.array(
        [
            [0.412453, 0.357580, 0.180423],
            [0.212671, 0.715160, 0.072169],
            [0.019334, 0.119193, 0.950227],
        ]
    )
    / _WHITE[:, None]
)
_TO_RGB = np.linalg.inv(_TO_XYZ)


@dataclass(frozen=True, slots=True)
class Reinhard:
    """A target appearance.

    Attributes:
        means: of L*, a*, b*.
        sds: standard deviations of L*, a*, b*.
    """

    card: ClassVar[Card] = CARD
    means: Triple
    sds: Triple

    @classmethod
    def fit(
        cls, images: Array | Sequence[Array], mask: Array | Sequence[Array] | None = None
    ) -> Self:
        """Return the target of reference images: the median of their means and of their SDs.

        Args:
            images: one `(3, i, j)`, a batch `(n, 3, i, j)` or a sequence of images.
            mask: pixels that count, or None for all of them.

        Raises:
            UsageError: no image, wrong axes or range.
            NormalizationRefused: a reference is blank, constant or not finite.
        """
        found = [
            _moments(rgb_to_lab(image), tissue if given else None)
            for image, tissue, given in tiles.references(images, mask)
        ]
        means, sds = np.median(found, axis=0).tolist()
        return cls(tuple(means), tuple(sds))

    def normalize(
        self, images: Array, mask: Array | None = None
    ) -> tuple[Array, list[tiles.StainRecord]]:
        """Return images in the target's appearance and one record each; see `tiles.run`.

        Args:
            images: `(3, i, j)` or `(n, 3, i, j)`, uint8 or floating point in 0..255.
            mask: pixels that means and SDs rest on, `(i, j)` or `(n, i, j)`; None takes all, as
                the paper does. Every pixel is mapped.

        Raises:
            UsageError: wrong axes, dtype, range or mask.
            NormalizationRefused: a single image that is refused.
        """

        def solve(image: Array, tissue: Array) -> tuple[Array, dict[str, list[float]]]:
            lab = rgb_to_lab(image)
            means, sds = _moments(lab, None if mask is None else tissue)
            # A gray image has no spread in a* and b*: there is nothing to stretch.
            gain = np.where(sds > 1e-3, np.asarray(self.sds) / np.maximum(sds, 1e-3), 1.0)
            shift = np.asarray(self.means) - means * gain
            lab *= gain.astype(np.float32)[:, None, None]
            lab += shift.astype(np.float32)[:, None, None]
            return lab_to_rgb(lab), {"means": means.tolist(), "sds": sds.tolist()}

        return tiles.run(images, mask, solve)

    def to_json(self) -> Json:
        """Return the target; `from_json` reads it back."""
        return to_record(self)

    @classmethod
    def from_json(cls, record: Json) -> Self:
        """Return the target of a record.

        Raises:
            RunError: the record is of another method or version.
        """
        return cls(**parameters(record, cls))


class ReinhardFit:
    """The mean of the training images' means and SDs; see `method.Fit`. Images are `(3, i, j)`."""

    def __init__(self) -> None:
        self.moments = ExactMean()

    def add(self, values: Array, mask: Array) -> None:  # noqa: ARG002 - all pixels count
        """Take in one training image."""
        one = Reinhard.fit(values)
        self.moments.add([*one.means, *one.sds])

    def merge(self, other: ReinhardFit) -> None:
        """Take in what another instance gathered."""
        self.moments.merge(other.moments)

    def finish(self) -> Reinhard:
        """Return the target.

        Raises:
            DataError: nothing was added.
        """
        if not self.moments.count:
            raise DataError("reinhard needs at least one training image, got none")
        a, b, c, d, e, f = self.moments.mean()
        return Reinhard((a, b, c), (d, e, f))


def rgb_to_lab(image: Array) -> Array:
    """Return CIE L*a*b* `(3, i, j)`, float32, of sRGB gray levels in 0..255 `(3, i, j)`."""
    if image.dtype == np.uint8:
        linear = _linear(np.arange(256.0)).astype(np.float32)[image]
    else:
        linear = _linear(image.astype(np.float64)).astype(np.float32)
    xyz = _TO_XYZ.astype(np.float32) @ linear.reshape(3, -1)
    root = np.power(xyz, np.float32(1 / 3))
    x, y, z = np.where(xyz > 0.008856, root, 7.787 * xyz + np.float32(16 / 116))
    out: Array = np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)]).reshape(image.shape)
    return out


def lab_to_rgb(lab: Array) -> Array:
    """Return sRGB gray levels `(3, i, j)`, float32, clipped to 0..255."""
    light, a, b = lab.reshape(3, -1)
    y = (light + 16) / 116
    root = np.stack([y + a / 500, y, y - b / 200])
    xyz = np.where(root > 0.2068966, root * root * root, (root - np.float32(16 / 116)) / 7.787)
    linear = np.clip(_TO_RGB.astype(np.float32) @ xyz.astype(np.float32), 0, 1)
    curve = 1.055 * np.power(linear, np.float32(1 / 2.4)) - 0.055
    rgb = np.where(linear > 0.0031308, curve, 12.92 * linear) * 255
    out: Array = rgb.astype(np.float32).reshape(lab.shape)
    return out


def _linear(levels: Array) -> Array:
    """Undo sRGB's curve: levels in 0..255 to light in 0..1."""
    part = levels / 255
    out: Array = np.where(part > 0.04045, ((part + 0.055) / 1.055) ** 2.4, part / 12.92)
    return out


def _moments(lab: Array, tissue: Array | None) -> tuple[Array, Array]:
    flat = lab.reshape(3, -1) if tissue is None else lab[:, tissue]
    return flat.mean(axis=1, dtype=np.float64), flat.std(axis=1, dtype=np.float64)


METHOD = Reinhard
FIT = ReinhardFit
