# SPDX-License-Identifier: Apache-2.0
"""How alike an archive's own images are: what makes a similarity high, and a query unknown.

Two scales come from a sample of the archive's images: how alike images of two patients are, and how
alike an image is to the nearest of any other patient (leaving one patient out). A query whose
images lie further from all of the archive than `UNKNOWN` of its own images do from each other is
unknown to it: the rule refuses about that share of queries that do belong (conformal p-value;
Vovk, Gammerman, Shafer, "Algorithmic Learning in a Random World", 2005).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Self

import numpy as np

from vesalius.store.protocol import Archive, Filter
from vesalius.types import Array, Json

UNKNOWN = 0.01  # share of the archive's own images that lie this far from all others
LEAST = 50  # images of the sample that the rule needs
_SAMPLE = 500  # images
_NEAR = 64  # entries among which another patient's is looked for first
# quantiles, finer toward 1, where what was found lies
_LEVELS = np.concatenate([
    np.linspace(0, 0.98, 99), np.linspace(0.99, 0.998, 9), np.linspace(0.999, 1, 11),
])  # fmt: skip


@dataclass(frozen=True, slots=True)
class Survey:
    """What a sample says of an archive; it names no patient.

    Attributes:
        version: of the archive that it was taken of.
        images: in the archive.
        patients: in the archive.
        sampled: images of the sample that have a vector.
        modalities: of the sample.
        nearest: quantiles, rising, of the cosine with the nearest image of another patient.
        pairs: quantiles, rising, of the cosine of two images of different patients.
    """

    version: int
    images: int
    patients: int
    sampled: int
    modalities: tuple[str, ...]
    nearest: tuple[float, ...]
    pairs: tuple[float, ...]

    @property
    def floor(self) -> float | None:
        """Cosine below which a query is unknown; None where the archive is too small to tell."""
        if self.sampled < LEAST or not self.nearest:
            return None
        return float(np.interp(UNKNOWN, _LEVELS, self.nearest))

    def percentile(self, similarity: float) -> float | None:
        """Return which percentage of the pairs of different patients is less alike than this."""
        return _share(similarity, self.pairs)

    def closeness(self, similarity: float) -> float | None:
        """Return which percentage of the archive's images has its nearest further than this."""
        return _share(similarity, self.nearest)

    def rule(self) -> str:
        """Say in a sentence when a query counts as unknown."""
        if self.floor is None:
            return (
                f"the archive is too small to tell a query that it does not know (it needs "
                f"{LEAST} images of several patients)"
            )
        return (
            f"unknown below a cosine of {self.floor:.3f}: {UNKNOWN:.0%} of the archive's own "
            "images lie further than that from every image of other patients"
        )

    def to_json(self) -> Json:
        """Return all of it."""
        return asdict(self)

    @classmethod
    def from_json(cls, held: Json) -> Self:
        """Return what `to_json` gave."""
        values: Json = {item.name: held[item.name] for item in fields(cls)}
        lists = {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
        return cls(**{**values, **lists})


def sample(held: Iterable[str], most: int) -> list[str]:
    """Return at most so many keys, drawn by their hashes: of the same keys the same."""
    return sorted(held, key=lambda key: hashlib.blake2b(key.encode(), digest_size=8).digest())[
        :most
    ]


def survey(archive: Archive, held: Mapping[str, str] | None = None) -> Survey:
    """Return what a sample of the archive says; the same archive gives the same sample.

    Args:
        archive: of any size; the sample bounds the work.
        held: key -> patient of all entries, where it is known already.
    """
    held = archive.held() if held is None else held
    keys = sample(held, _SAMPLE)
    entries = archive.entries(keys)
    modalities = {str(e.facts.get("modality") or "") for e in entries} - {""}
    seen = [entry for entry in entries if entry.vector is not None]
    nearest: list[float] = []
    pairs = np.empty(0, np.float32)
    if seen:
        vectors = np.stack([entry.vector for entry in seen if entry.vector is not None])
        owners = [entry.patient for entry in seen]
        nearest = _nearest_others(archive, vectors, owners, held)
        pairs = _pairs(vectors, np.array(owners))
    return Survey(
        version=archive.version,
        images=len(held),
        patients=len(set(held.values())),
        sampled=len(nearest),
        modalities=tuple(sorted(modalities)),
        nearest=_quantiles(np.array(nearest)),
        pairs=_quantiles(pairs),
    )


def _nearest_others(
    archive: Archive, vectors: Array, owners: Sequence[str], held: Mapping[str, str]
) -> list[float]:
    """Return for each vector the cosine with the nearest entry of another patient, if any."""
    found = []
    for place, near in enumerate(archive.nearest(vectors, _NEAR)):
        own = owners[place]
        others = (
            float(similarity)
            for key, similarity in zip(near.keys, near.similarities, strict=True)
            if held.get(key, own) != own
        )
        best = next(others, None)
        if best is None and len(near.keys) == _NEAR:  # all of them the patient's own
            (far,) = archive.nearest(vectors[place : place + 1], 1, Filter(not_patients=(own,)))
            best = float(far.similarities[0]) if len(far.similarities) else None
        if best is not None:
            found.append(best)
    return found


def _pairs(vectors: Array, owners: Array) -> Array:
    """Return the cosines of all pairs of two patients."""
    above = np.triu(owners[:, None] != owners[None], k=1)
    cosines: Array = (vectors @ vectors.T)[above]
    return cosines


def _quantiles(values: Array) -> tuple[float, ...]:
    if not len(values):
        return ()
    return tuple(float(v) for v in np.quantile(values.astype(np.float64), _LEVELS))


def _share(similarity: float, quantiles: tuple[float, ...]) -> float | None:
    if not quantiles:
        return None
    return 100 * float(np.interp(similarity, quantiles, _LEVELS))
