# SPDX-License-Identifier: Apache-2.0
"""What a classifier takes: cases as sets of images, each its views and its facts, and batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vesalius.types import Array, Json

FACTS = ("modality", "plane", "scanner")


@dataclass(frozen=True, slots=True)
class Image:
    """One image: its views `(n, C, ...)` and, for each of `FACTS`, the code of its value."""

    views: Array
    facts: tuple[int, ...]


class Batch:
    """Some cases as tensors, which keep their precision: Fabric casts those of a collection.

    Attributes:
        views: `(M, C, ...)` of all images of all cases.
        mixing: `(I, M)`, each row the weights of one image's views, summing to 1.
        facts: `(I, len(FACTS))` codes, 0 for unknown.
        places: `(N, L)` index into the images of each case, padded with 0.
        present: `(N, L)`, False where there is padding.
    """

    __slots__ = ("facts", "mixing", "places", "present", "views")

    def __init__(
        self, views: Tensor, mixing: Tensor, facts: Tensor, places: Tensor, present: Tensor
    ) -> None:
        self.views, self.mixing, self.facts = views, mixing, facts
        self.places, self.present = places, present

    def to(self, device: torch.device) -> Batch:
        """Return the batch on another device."""
        held = (self.views, self.mixing, self.facts, self.places, self.present)
        return Batch(*(tensor.to(device) for tensor in held))

    def with_views(self, views: Tensor) -> Batch:
        """Return the batch with other views of the same images."""
        return Batch(views, self.mixing, self.facts, self.places, self.present)


def make_batch(cases: Sequence[Sequence[Image]]) -> Batch:
    """Return the batch of cases, none of them empty."""
    images = [image for case in cases for image in case]
    counts = [len(image.views) for image in images]
    mixing = np.zeros((len(images), sum(counts)), np.float32)
    place = 0
    for row, count in enumerate(counts):
        mixing[row, place : place + count] = 1 / count
        place += count
    places, present = pad([len(case) for case in cases])
    return Batch(
        torch.from_numpy(np.concatenate([image.views for image in images]).astype(np.float32)),
        torch.from_numpy(mixing),
        torch.tensor([image.facts for image in images]).reshape(len(images), len(FACTS)),
        places,
        present,
    )


def pad(lengths: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Return places `(N, L)` of the items of sets laid end to end, and which of them are there."""
    most = max(lengths)
    places = torch.zeros(len(lengths), most, dtype=torch.long)
    present = torch.zeros(len(lengths), most, dtype=torch.bool)
    start = 0
    for row, length in enumerate(lengths):
        places[row, :length] = torch.arange(start, start + length)
        present[row, :length] = True
        start += length
    return places, present


def fact_codes(row: Mapping[str, Any], known: Json) -> tuple[int, ...]:
    """Return the codes of an image's facts: 1 onwards in the plan's order, 0 for any other.

    Args:
        row: of a cohort, or any mapping with `FACTS`.
        known: fact -> values that the plan knows.
    """
    return tuple(
        known[fact].index(row[fact]) + 1 if row.get(fact) in known.get(fact, ()) else 0
        for fact in FACTS
    )
