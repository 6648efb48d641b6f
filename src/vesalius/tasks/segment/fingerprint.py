# SPDX-License-Identifier: Apache-2.0
"""What training images and masks are like: all that a segmentation plan follows from."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from vesalius.errors import CohortError, DataError
from vesalius.geometry import axis_codes
from vesalius.tasks.cases import Case
from vesalius.tasks.segment.channels import numbered
from vesalius.types import Json
from vesalius.volume import LabelMap

if TYPE_CHECKING:
    from vesalius.cohorts import Cohort

MASKS = 300  # training masks that are read to learn the labels
THIN = 12  # slices below which a volume is treated slice by slice


def fingerprint(cohort: Cohort, train: Sequence[Case]) -> Json:
    """Return shapes, spacings (RAS order for volumes), channels and labels of training images.

    Raises:
        CohortError: no training image, or no mask that can serve with anything in it.
    """
    rows = [row for case in train for row in case.rows]
    if not rows:
        raise CohortError("the training subset holds no image with a mask; check the split")
    unmeasured = sum(len(row["shape"]) != 4 for row in rows)
    if unmeasured:
        raise CohortError(
            f"the pixels of {unmeasured} of {len(rows)} training images were not read when they "
            "were scanned; scan the folder again, pixels included"
        )
    flat = np.median([row["shape"][3] for row in rows]) < THIN
    grids = [_grid(row, reorder=not flat) for row in rows]
    masks = _read_masks(cohort, rows)
    if not masks.counts:
        unusable = ", ".join(f"{why} ({n})" for why, n in masks.unusable.items())
        raise CohortError(
            f"none of the {masks.read} training masks that were read marks a structure; look at "
            f"the masks with `vesalius check`{': ' + unusable if unusable else ''}"
        )
    shapes = np.array([shape for shape, _ in grids])
    spacings = np.array([spacing for _, spacing in grids])
    counts = Counter(row["shape"][0] for row in rows)
    channels = max(counts, key=lambda count: (counts[count], count))
    alike = [row for row in rows if row["shape"][0] == channels]
    return {
        "images": len(rows),
        "spatial_dims": 2 if flat else 3,
        "channels": channels,
        "channel_names": _channel_names(alike, channels),
        "fewer_channels": sum(_can_be_placed(row, channels) for row in rows),
        "other_channels": sum(
            row["shape"][0] != channels and not _can_be_placed(row, channels) for row in rows
        ),
        "single_slices": 0 if flat else sum(row["shape"][3] == 1 for row in rows),
        "modalities": dict(sorted(Counter(row["modality"] or "" for row in rows).items())),
        "median_shape": np.median(shapes, axis=0).round().astype(int).tolist(),
        "median_spacing": np.median(spacings, axis=0).round(4).tolist(),
        "fine_spacing": np.percentile(spacings, 10, axis=0).round(4).tolist(),
        "labels": masks.labels(),
        "shares": {str(v): round(n / masks.voxels, 6) for v, n in sorted(masks.counts.items())},
        "overlaps": sorted(list(pair) for pair in masks.overlaps),
        "masks_read": masks.read,
        "masks_empty": masks.empty,
        "masks_unusable": dict(masks.unusable),
    }


@dataclass(slots=True)
class _Masks:
    """What some masks hold.

    Attributes:
        read: masks that were opened.
        empty: those that mark nothing.
        unusable: why others cannot serve -> how many.
        voxels: of all of them.
        counts: value -> its voxels in all of them.
        names: value -> name.
        overlaps: pairs of values, the smaller first, that share a voxel somewhere.
    """

    read: int = 0
    empty: int = 0
    unusable: Counter[str] = field(default_factory=Counter)
    voxels: int = 0
    counts: Counter[int] = field(default_factory=Counter)
    names: dict[int, str] = field(default_factory=dict)
    overlaps: set[tuple[int, int]] = field(default_factory=set)

    def labels(self) -> dict[str, str]:
        """Return value -> name, as text; a name that comes again bears its value too."""
        out: dict[str, str] = {}
        for value in sorted(self.counts):
            name = self.names.get(value) or f"label-{value}"
            out[str(value)] = name if name not in out.values() else f"{name}-{value}"
        return out

    def take(self, mask: LabelMap) -> None:
        """Add what a mask holds."""
        values, counts = np.unique(mask.data, return_counts=True)
        found = {int(v): int(n) for v, n in zip(values, counts, strict=True) if v != 0}
        self.empty += not found
        self.voxels += int(np.prod(mask.shape))
        self.counts.update(found)
        for value, name in mask.names.items():
            self.names.setdefault(int(value), str(name))
        for one, other in itertools.combinations(mask.data, 2):
            both = (one != 0) & (other != 0) & (one != other)
            pairs = np.unique(np.sort(np.stack([one[both], other[both]]), axis=0), axis=1)
            self.overlaps |= {(int(a), int(b)) for a, b in pairs.T}


def _read_masks(cohort: Cohort, rows: Sequence[Json]) -> _Masks:
    rng = np.random.default_rng(0)
    found = _Masks()
    for place in rng.permutation(len(rows))[:MASKS]:
        row = rows[place]
        for value, name in json.loads(row["mask_names"] or "{}").items():
            found.names.setdefault(int(value), str(name))
        found.read += 1
        try:
            mask = cohort.read_mask(row)
        except DataError:
            found.unusable["cannot be read"] += 1
            continue
        if tuple(mask.shape) != tuple(row["shape"][1:]):
            found.unusable["off the image's grid"] += 1
        elif mask.data.min(initial=0) < 0:
            found.unusable["values below 0"] += 1
        else:
            found.take(mask)
    return found


def _channel_names(rows: Sequence[Json], channels: int) -> list[str]:
    """Return the names that most of the images give their channels, numbers where none does."""
    if channels == 1:
        return []
    told = Counter(row["description"] or "" for row in rows if row["format"] != "dicom")
    for description, _ in told.most_common(1):
        names = [name.strip() for name in description.split("|")]
        if len(set(names)) == channels == len(names) and all(names):
            return names
    return [f"channel-{n}" for n in range(1, 1 + channels)]


def _can_be_placed(row: Json, channels: int) -> bool:
    """Return whether an image has fewer channels, and the names of its files say which."""
    fewer = row["shape"][0] < channels and row["format"] != "dicom"
    return fewer and numbered(row["files"], row["shape"][0], channels) is not None


def _grid(row: Json, *, reorder: bool) -> tuple[list[int], list[float]]:
    """Return `(shape, spacing)` along i, j, k, or along right, anterior, superior."""
    shape, spacing = list(row["shape"][1:]), list(row["spacing"])
    if not reorder or not row["affine"]:
        return shape, spacing
    codes = axis_codes(np.array(row["affine"], dtype=float).reshape(4, 4))
    world = ["LRPAIS".index(code) // 2 for code in codes]
    order = [world.index(axis) for axis in range(3)]
    return [shape[n] for n in order], [spacing[n] for n in order]
