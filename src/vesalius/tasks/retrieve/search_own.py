# SPDX-License-Identifier: Apache-2.0
"""Whose images the query's are: the archive's patients who are left out of its answer.

An image is the query's own where its voxels are equal, or where its perceptual hash nearly is and
the encoder agrees. All images of that patient are then left out, not that one alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vesalius.cohorts.similarity import NEAR_BITS, hash_distance
from vesalius.store.protocol import Archive
from vesalius.tasks.retrieve.search_keys import EntryKey, voxel_digits
from vesalius.types import Array

PHASH = "phash"  # the fact of an entry that holds the perceptual hash
_LOOKED_AT = 5  # nearest entries of each image
_AGREES = 0.9  # cosine of two images whose hashes nearly agree


@dataclass(frozen=True, slots=True)
class Print:
    """By what one image of the query is known again.

    Attributes:
        content: hash of its voxels, see `cohorts.assess`.
        phash: perceptual hash; None for a constant image.
    """

    content: str
    phash: int | None


def likely_own(archive: Archive, vectors: Array, prints: Sequence[Print]) -> dict[str, str]:
    """Return patient -> how an image of the query was known again.

    Args:
        archive: to look in.
        vectors: `(n, d)` of the query's images.
        prints: of the same images.
    """
    found: dict[str, str] = {}
    for near, seen in zip(archive.nearest(vectors, _LOOKED_AT), prints, strict=True):
        for entry, cosine in zip(archive.entries(near.keys), near.similarities, strict=True):
            key = EntryKey.parse(entry.key)
            if key is not None and key.voxels == voxel_digits(seen.content):
                found[entry.patient] = "an identical image"
                continue
            held = entry.facts.get(PHASH)
            if (
                seen.phash is not None
                and isinstance(held, int)
                and cosine >= _AGREES
                and hash_distance(seen.phash, held) <= NEAR_BITS
            ):
                found.setdefault(entry.patient, "a nearly identical image")
    return found
