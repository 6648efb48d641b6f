# SPDX-License-Identifier: Apache-2.0
"""Vahadane: stain vectors by sparse non-negative factorization, swapped for a target's.

Of tissue pixels v, optical density, no less than 0:
`min over W, H >= 0, |w_1| = |w_2| = 1 of mean(|v - W h|^2 / 2 + sparsity * (h_1 + h_2))`;
`y = light * exp(-W_target (H * m_target / m) - min(OD, 0)) - 1`, H of every pixel by non-negative
least squares, m the 99th percentile of each row of H; what is brighter than the lamp stays so.

Vahadane et al.: Structure-preserving color normalization and sparse stain separation for
histological images, IEEE TMI 2016. Solved by block coordinate descent: with two stains each block
has a closed form, and the start is the reference matrix, so there is no random choice. Laws tested:
the objective never rises; a batch gives what its images give one by one; an image made of two
stains comes back from its own target.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from vesalius.errors import NormalizationRefused
from vesalius.normalization.card import Card, Kind
from vesalius.normalization.method_record import parameters, to_record
from vesalius.normalization.stain import macenko, tiles
from vesalius.types import Array, Json

CARD = Card(
    name="vahadane",
    title="stain vectors from sparse non-negative factorization",
    formula="y = light exp(-W_target (H m_target / m) - min(OD, 0)) - 1; OD = W H, H sparse, >= 0",
    source="Vahadane et al., IEEE TMI 2016",
    kind=Kind.STAIN,
)
SPARSITY = 0.1
_PIXELS = 20_000  # evenly taken from the tissue, for the stain vectors
_ROUNDS = 300
_STILL = 1e-5  # change of any component of a stain vector that ends the descent


@dataclass(frozen=True, slots=True)
class Vahadane:
    """A target appearance, and how sparse an image's own stains are taken to be.

    Attributes:
        stains: unit optical densities (red, green, blue) of hematoxylin and of eosin.
        maxima: 99th percentile of each stain's concentration.
        light: gray level of clear glass.
        sparsity: weight of the concentrations in the objective; the paper's 0.1.
    """

    card: ClassVar[Card] = CARD
    stains: macenko.Stains = macenko.REFERENCE
    maxima: macenko.Pair = macenko.REFERENCE_MAXIMA
    light: float = tiles.LIGHT
    sparsity: float = SPARSITY

    @classmethod
    def fit(
        cls,
        images: Array | Sequence[Array],
        mask: Array | Sequence[Array] | None = None,
        *,
        light: float = tiles.LIGHT,
        sparsity: float = SPARSITY,
    ) -> Self:
        """Return the target of reference images: elementwise median, vectors of unit length.

        Args:
            images: one `(3, i, j)`, a batch `(n, 3, i, j)` or a sequence of images.
            mask: where tissue is, or None.
            light, sparsity: as the attributes.

        Raises:
            UsageError: no image, wrong axes or range.
            NormalizationRefused: a reference is blank, constant, not finite or has one stain.
        """
        own = cls(light=light, sparsity=sparsity)
        solved = [own._own_stains(i, t)[:2] for i, t, _ in tiles.references(images, mask)]
        vectors = np.median([one for one, _ in solved], axis=0)
        vectors /= np.linalg.norm(vectors, axis=0)
        maxima = np.median([one for _, one in solved], axis=0)
        first, second = vectors.T.tolist()
        return cls((tuple(first), tuple(second)), tuple(maxima.tolist()), light, sparsity)

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
        vectors, maxima, amounts, excess = self._own_stains(image, tissue)
        gain = np.asarray(self.maxima) / maxima
        out = (-np.asarray(self.stains).T * gain).astype(np.float32) @ amounts
        out -= excess
        np.exp(out, out=out)
        out *= np.float32(self.light)
        out -= np.float32(1)
        found = {
            "hematoxylin": vectors[:, 0].tolist(),
            "eosin": vectors[:, 1].tolist(),
            "maxima": maxima.tolist(),
            "degrees_from_target": macenko.degrees_between(vectors, np.asarray(self.stains).T),
        }
        return out.reshape(image.shape), found

    def _own_stains(self, image: Array, tissue: Array) -> tuple[Array, Array, Array, Array]:
        """Return vectors `(3, 2)`, maxima `(2,)`, concentrations `(2, pixels)`, min(OD, 0)."""
        signed = tiles.optical_density(image, self.light).reshape(3, -1)
        density = np.maximum(signed, 0)
        inside = density[:, tissue.ravel()]
        step = max(1, -(-inside.shape[1] // _PIXELS))
        vectors = factorize(inside[:, ::step], self.sparsity)
        amounts = concentrations(vectors, density)
        maxima = np.percentile(amounts, 99.0, axis=1)
        if not (maxima > 0).all():
            raise NormalizationRefused(
                "one-stain", f"a stain's 99th percentile is zero: {maxima.tolist()}"
            )
        return vectors, maxima, amounts, np.minimum(signed, 0)


def factorize(density: Array, sparsity: float = SPARSITY) -> Array:
    """Return `(3, 2)`: unit non-negative stain vectors of `density` `(3, pixels)` >= 0.

    Hematoxylin, which absorbs more red, comes first.

    Raises:
        NormalizationRefused: `one-stain`, one of the two explains nothing or both are one.
    """
    vectors = np.asarray(macenko.REFERENCE).T
    vectors = vectors / np.linalg.norm(vectors, axis=0)
    for _ in range(_ROUNDS):
        amounts = concentrations(vectors, density, sparsity)
        renewed = vectors.copy()
        for one, other in ((0, 1), (1, 0)):
            rest = density - renewed[:, other, None].astype(np.float32) * amounts[other]
            pull = np.maximum(rest @ amounts[one], 0).astype(np.float64)
            if not pull.any():
                raise NormalizationRefused("one-stain", "one stain alone explains the tissue")
            renewed[:, one] = pull / np.linalg.norm(pull)
        moved = np.abs(renewed - vectors).max()
        vectors = renewed
        if moved < _STILL:
            break
    macenko.check_apart(vectors)
    ordered: Array = vectors if vectors[0, 0] > vectors[0, 1] else vectors[:, ::-1]
    return ordered


def concentrations(vectors: Array, density: Array, sparsity: float = 0.0) -> Array:
    """Return h `(2, pixels)` >= 0 that minimizes `|v - W h|^2 / 2 + sparsity * sum(h)`, float32.

    `vectors` `(3, 2)` have unit length and no negative component. With one inner product g and
    `c = W^T v - sparsity` the optimum is `(c - g c') / (1 - g^2)` where both are positive, else one
    of the axes.
    """
    g = np.float32(vectors[:, 0] @ vectors[:, 1])
    first, second = vectors.T.astype(np.float32) @ density - np.float32(sparsity)
    a, b = first - g * second, second - g * first
    scale = 1 - g * g
    one = np.where(b < 0, np.maximum(first, 0), np.maximum(a, 0) / scale)
    two = np.where(a < 0, np.maximum(second, 0), np.maximum(b, 0) / scale)
    both_out = (a < 0) & (b < 0)
    out: Array = np.where(both_out, np.float32(0), np.stack([one, two]))
    return out


METHOD = Vahadane
