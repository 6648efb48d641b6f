# SPDX-License-Identifier: Apache-2.0
"""Boxes with classes: the arrays that images carry through detection.

A box is `(x0, y0, x1, y1)`, x along the image's axis i and y along j, in pixels of the image,
edges included: a box around the single pixel 0 is `(0, 0, 1, 1)`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vesalius.types import Array, Json


@dataclass(frozen=True, slots=True, eq=False)
class Boxes:
    """Objects of one image: `corners` `(n, 4)`, `labels` `(n,)` class indices, `scores` `(n,)`.

    Truth bears the scores 1; what a detector found bears probabilities.
    """

    corners: Array
    labels: Array
    scores: Array

    def __len__(self) -> int:
        return len(self.labels)

    def chosen(self, which: Array) -> Boxes:
        """Return those that an index or a mask names."""
        return Boxes(self.corners[which], self.labels[which], self.scores[which])

    def scaled(self, factor: Sequence[float]) -> Boxes:
        """Return the boxes on a grid whose pixels are `1 / factor` as long along i and j."""
        return Boxes(self.corners * np.array([*factor, *factor]), self.labels, self.scores)

    def count(self, classes: int) -> Array:
        """Return how many there are of each class, `(classes,)`."""
        return np.bincount(self.labels, minlength=classes)

    def to_json(self, classes: Sequence[str]) -> list[Json]:
        """Return one dictionary a box: `label`, `probability` and the corners in pixels."""
        rows = zip(self.labels, self.scores, self.corners, strict=True)
        return [
            {
                "label": classes[label],
                "probability": round(float(score), 4),
                **{
                    side: round(float(v), 2)
                    for side, v in zip(("x0", "y0", "x1", "y1"), box, strict=True)
                },
            }
            for label, score, box in rows
        ]


def empty() -> Boxes:
    """Return no boxes."""
    return Boxes(np.zeros((0, 4)), np.zeros(0, np.int64), np.zeros(0))


def boxes_of(row: Mapping[str, Any], classes: Sequence[str]) -> Boxes:
    """Return the boxes of a cohort's row, each once; those of classes not asked for are left out.

    A box without area is dropped: it surrounds nothing.
    """
    seen: dict[tuple[float, ...], None] = {}
    for box in json.loads(row["boxes"] or "[]"):
        corners = (box["x0"], box["y0"], box["x1"], box["y1"])
        if box["name"] in classes and corners[2] > corners[0] and corners[3] > corners[1]:
            seen[(*corners, classes.index(box["name"]))] = None
    if not seen:
        return empty()
    table = np.array(list(seen), dtype=np.float64)
    return Boxes(table[:, :4], table[:, 4].astype(np.int64), np.ones(len(table)))
