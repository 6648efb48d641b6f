# SPDX-License-Identifier: Apache-2.0
"""Macenko: two stain vectors from the extreme angles of optical density, swapped for a target's.

`OD = S C`, S `(3, 2)` with hematoxylin first, C by least squares;
`y = light * exp(-S_target (C * m_target / m))`, m the 99th percentile of each row of C.
S: project the tissue's OD on the two largest eigenvectors of its covariance; the `alpha` and
`100 - alpha` percentiles of the angle point along the stains.

Macenko et al.: A method for normalizing histology slides for quantitative analysis, ISBI 2009.
The built-in target is the reference of its published implementation
(github.com/mitkovetta/staining-normalization). Laws tested: a batch gives what its images give one
by one; the order of pixels does not matter; a target fitted on an image leaves that image in place
but for what two stains cannot express and for one gray level (the + 1 of the density).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from vesalius.errors import NormalizationRefused
from vesalius.normalization.card import Card, Kind
from vesalius.normalization.method_record import parameters, to_record
from vesalius.normalization.stain import tiles
from vesalius.types import Array, Json

CARD = Card(
    name="macenko",
    title="stain vectors from extreme angles of optical density",
    formula="OD = S C; y = light * exp(-S_target (C m_target / m)), m = 99th percentile of C",
    source="Macenko et al., ISBI 2009",
    kind=Kind.STAIN,
)
Pair = tuple[float, float]
Stains = tuple[tuple[float, float, float], tuple[float, float, float]]
REFERENCE: Stains = ((0.5626, 0.7201, 0.4062), (0.2159, 0.8012, 0.5581))
REFERENCE_MAXIMA: Pair = (1.9705, 1.0308)
LEAST_ANGLE = 5.0  # degrees between stain vectors (the reference's: 22), below which they are one


@dataclass(frozen=True, slots=True)
class Macenko:
    """A target appearance, and how an image's own stains are found.

    Attributes:
        stains: unit optical densities (red, green, blue) of hematoxylin and of eosin.
        maxima: 99th percentile of each stain's concentration.
        light: gray level of clear glass.
        alpha: percentile of the angle at either end.
        beta: optical density below which a pixel tells nothing of the stains.
    """

    card: ClassVar[Card] = CARD
    stains: Stains = REFERENCE
    maxima: Pair = REFERENCE_MAXIMA
    light: float = tiles.LIGHT
    alpha: float = 1.0
    beta: float = tiles.BETA

    @classmethod
    def fit(
        cls,
        images: Array | Sequence[Array],
        mask: Array | Sequence[Array] | None = None,
        *,
        light: float = tiles.LIGHT,
        alpha: float = 1.0,
        beta: float = tiles.BETA,
    ) -> Self:
        """Return the target of reference images: elementwise median, vectors of unit length.

        Args:
            images: one `(3, i, j)`, a batch `(n, 3, i, j)` or a sequence of images.
            mask: where tissue is, or None.
            light, alpha, beta: as the attributes.

        Raises:
            UsageError: no image, wrong axes or range.
            NormalizationRefused: a reference is blank, constant, not finite or has one stain.
        """
        own = cls(light=light, alpha=alpha, beta=beta)
        solved = [own._own_stains(i, t)[:2] for i, t, _ in tiles.references(images, mask)]
        vectors = np.median([one for one, _ in solved], axis=0)
        vectors /= np.linalg.norm(vectors, axis=0)
        maxima = np.median([one for _, one in solved], axis=0)
        first, second = vectors.T.tolist()
        return cls((tuple(first), tuple(second)), tuple(maxima.tolist()), light, alpha, beta)

    def normalize(
        self, images: Array, mask: Array | None = None
    ) -> tuple[Array, list[tiles.StainRecord]]:
        """Return images in the target's appearance and one record each; see `tiles.run`.

        Args:
            images: `(3, i, j)` or `(n, 3, i, j)`, uint8 or floating point in 0..255.
            mask: tissue that the estimate rests on, `(i, j)` or `(n, i, j)`; every pixel is mapped.

        Raises:
            UsageError: wrong axes, dtype, range or mask.
            NormalizationRefused: a single image that is refused.
        """
        return tiles.run(images, mask, self._solve)

    def to_json(self) -> Json:
        """Return the target; `from_json` reads it back."""
        return to_record(self)

    @classmethod
    def from_json(cls, record: Json) -> Self:
        """Return the target of a record.

        Raises:
            RunError: the record is of another method or version.
        """
        held = parameters(record, cls)
        first, second = held.pop("stains")
        return cls(stains=(tuple(first), tuple(second)), **held)

    def _solve(self, image: Array, tissue: Array) -> tuple[Array, dict[str, list[float]]]:
        vectors, maxima, density = self._own_stains(image, tissue)
        gain = np.asarray(self.maxima) / maxima
        # One (3, 3) matrix: own densities to concentrations, rescaled, to the target's densities.
        matrix = (np.asarray(self.stains).T * gain) @ np.linalg.pinv(vectors)
        out = (-matrix).astype(np.float32) @ density  # (3, pixels)
        np.exp(out, out=out)
        out *= np.float32(self.light)
        found = {
            "hematoxylin": vectors[:, 0].tolist(),
            "eosin": vectors[:, 1].tolist(),
            "maxima": maxima.tolist(),
            "degrees_from_target": degrees_between(vectors, np.asarray(self.stains).T),
        }
        return out.reshape(image.shape), found

    def _own_stains(self, image: Array, tissue: Array) -> tuple[Array, Array, Array]:
        """Return vectors `(3, 2)`, maxima `(2,)`, and the optical density `(3, pixels)`."""
        density = tiles.optical_density(image, self.light).reshape(3, -1)
        inside = tissue.ravel() & (density >= np.float32(self.beta)).all(axis=0)
        if inside.sum() < tiles.LEAST_PIXELS:
            raise NormalizationRefused(
                "blank-tile", f"{int(inside.sum())} pixels of the mask absorb at least {self.beta}"
            )
        vectors = stain_vectors(density[:, inside], self.alpha)
        maxima = np.percentile(np.linalg.pinv(vectors).astype(np.float32) @ density, 99.0, axis=1)
        if not (maxima > 0).all():
            raise NormalizationRefused(
                "one-stain", f"a stain's 99th percentile is not above zero: {maxima.tolist()}"
            )
        return vectors, maxima, density


def stain_vectors(density: Array, alpha: float = 1.0) -> Array:
    """Return `(3, 2)`: unit stain vectors of `density` `(3, pixels)`, hematoxylin first.

    Hematoxylin is the one that absorbs more red.

    Raises:
        NormalizationRefused: `one-stain`, the two lie within `LEAST_ANGLE` of each other.
    """
    away = density.astype(np.float64)
    away -= away.mean(axis=1, keepdims=True)
    _, axes = np.linalg.eigh(away @ away.T)
    plane = axes[:, 1:]  # second largest and largest variance
    plane = plane * np.where(plane.sum(axis=0) < 0, -1.0, 1.0)  # the sign is the library's choice
    second, first = plane.T.astype(np.float32) @ density
    angles = np.percentile(np.arctan2(first, second), (alpha, 100.0 - alpha))
    vectors: Array = plane @ np.array([np.cos(angles), np.sin(angles)])
    check_apart(vectors)
    return vectors if vectors[0, 0] > vectors[0, 1] else vectors[:, ::-1]


def check_apart(vectors: Array) -> None:
    """Refuse unit stain vectors `(3, 2)` that are one: their amounts would be noise.

    Raises:
        NormalizationRefused: `one-stain`.
    """
    angle = float(np.degrees(np.arccos(np.clip(vectors[:, 0] @ vectors[:, 1], -1.0, 1.0))))
    if angle < LEAST_ANGLE:
        raise NormalizationRefused(
            "one-stain", f"stain vectors {angle:.2f} degrees apart, at least {LEAST_ANGLE:g} needed"
        )


def degrees_between(vectors: Array, others: Array) -> list[float]:
    """Return the angle of each stain vector `(3, 2)` to its counterpart: far means another stain.

    Two-stain methods always find two stains; on slides that are not what the target is (blood
    smears against hematoxylin and eosin) the angles, not an error, tell.
    """
    lengths = np.linalg.norm(vectors, axis=0) * np.linalg.norm(others, axis=0)
    cosines = (vectors * others).sum(axis=0) / lengths
    out: list[float] = np.degrees(np.arccos(np.clip(cosines, -1.0, 1.0))).tolist()
    return out


METHOD = Macenko
