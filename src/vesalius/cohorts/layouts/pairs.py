# SPDX-License-Identifier: Apache-2.0
"""images/ + labels/: two folders whose names say image and mask, files paired by stem.

`images/a.png` belongs to `labels/a.png`, also as `a_mask.png`, with another suffix, or deeper on
both sides (`images/train/a.png`, `masks/train/a.png`). A folder named train, val or test on the
way is the official split.
"""

from __future__ import annotations

from dataclasses import dataclass

from vesalius.cohorts.index import Entry
from vesalius.cohorts.layouts.catalog import Catalog
from vesalius.cohorts.layouts.facts import (
    IMAGE_WORDS,
    MASK_WORDS,
    Facts,
    Mask,
    Passed,
    joined,
    modality_of,
    split_of,
    stem,
    tokens,
)

_IMAGE = {*(word for word in IMAGE_WORDS if word != "raw"), "imagestr", "imagests"}
_MASK = (*sorted(MASK_WORDS), "labelstr", "labelsts")
_MARKS = ("", "_mask", "_seg", "_label", "_gt", "_segmentation", "-mask", "_labels", "_masks")
_SAME = {"imagestr": "labelstr", "imagests": "labelsts"}


@dataclass(frozen=True, slots=True)
class Pairs:
    """One pair of folders; `base` is the images' folder or the masks' folder."""

    base: str
    other: str
    is_mask: bool
    name: str = "images+labels"

    def describe(self, entry: Entry, catalog: Catalog) -> Facts | Mask | Passed:
        """Return the image with its mask, or whether the mask has an image."""
        folder = self.other + entry.folder[len(self.base) :]
        twin = _twin(catalog, folder, stem(entry.name), is_mask=self.is_mask)
        if self.is_mask:
            return Mask(bool(twin))
        words = tokens(stem(entry.name))
        return Facts(mask=twin, split=split_of(entry.folder), modality=modality_of(words))


def find(catalog: Catalog) -> list[Pairs]:
    """Return a layout for each images folder with a masks folder, and for each of those."""
    found: dict[str, Pairs] = {}
    lower = {folder.lower(): folder for folder in _ancestors(catalog)}
    for folder in catalog.folders:
        parts = folder.split("/")
        for n, part in enumerate(parts):
            if part.lower() not in _IMAGE:
                continue
            base = "/".join(parts[: n + 1])
            for word in _candidates(part.lower()):
                other = lower.get(joined("/".join(parts[:n]), word).lower())
                if other and other != base and base not in found:
                    found[base] = Pairs(base, other, is_mask=False)
                    found[other] = Pairs(other, base, is_mask=True)
    return list(found.values())


def _candidates(word: str) -> tuple[str, ...]:
    return (_SAME[word],) if word in _SAME else _MASK


def _ancestors(catalog: Catalog) -> set[str]:
    found = set()
    for folder in catalog.folders:
        parts = folder.split("/")
        found |= {"/".join(parts[: n + 1]) for n in range(len(parts))}
    return found


def _twin(catalog: Catalog, folder: str, name: str, *, is_mask: bool) -> str:
    suffixes = sorted({sample[len(stem(sample)) :] for sample in catalog.sample(folder)})
    stems = [name + mark for mark in _MARKS]
    if is_mask:
        stems = [name, *(name[: -len(m)] for m in _MARKS if m and name.endswith(m))]
    for candidate in stems:
        for suffix in suffixes:
            path = joined(folder, candidate + suffix)
            if catalog.has_image(path):
                return path
    return ""
