# SPDX-License-Identifier: Apache-2.0
"""Files in no known arrangement: masks beside their images, patients from folders.

A file whose name holds a word for masks (`CT_mask.nii.gz`, `segmentation.nii.gz`) is the mask of
those images of its folder whose other words include the mask's other words; of several masks an
image takes the one with most words in common. `image`, `img`, `volume` … do not count as words.

A folder's name is the patient when it holds a number and is a known word for patients with it
(`patient7`, `sub-01`), or when its siblings are named the same way (`STS_003`, `STS_008`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import combinations

from vesalius.cohorts.index import Entry
from vesalius.cohorts.layouts.catalog import Catalog
from vesalius.cohorts.layouts.facts import (
    IMAGE_WORDS,
    MASK_WORDS,
    MODALITIES,
    Facts,
    Mask,
    Passed,
    joined,
    modality_of,
    split_of,
    stem,
    tokens,
)

_PATIENT = re.compile(
    r"^(sub|subj|subject|pat|patient|pt|case|volunteer|participant|person|p)[-_ ]?\d+$",
    re.IGNORECASE,
)
_NUMBERED = re.compile(r"^(?P<prefix>[A-Za-z][A-Za-z_\- .]*?)[-_ .]?\d[\w\-.]*$")
_MOST_EXTRA = 3  # words that an image's name may have more than its mask's


class Loose:
    """The layout of everything that no other claims."""

    name = "loose"
    base = ""

    def __init__(self, catalog: Catalog) -> None:
        self._masks = lru_cache(64)(lambda folder: _masks_of(catalog, folder))
        self._used = lru_cache(64)(lambda folder: _used(catalog, folder, self._masks(folder)))
        self._siblings = _siblings(catalog)

    def describe(self, entry: Entry, catalog: Catalog) -> Facts | Mask | Passed:  # noqa: ARG002  the protocol
        """Return the image with what its folder tells, or that it is a mask."""
        masks = self._masks(entry.folder)
        core, is_mask = _core(entry.name)
        if is_mask:
            used = self._used(entry.folder)
            return Mask(core in used or any(core <= one for one in used))
        words = [word for word in tokens(stem(entry.name)) if word in MODALITIES]
        modality = modality_of(words)
        return Facts(
            patient=self._patient(entry.folder),
            modality=modality or modality_of(tokens(entry.folder.rpartition("/")[2])),
            description=" ".join(words).upper() if modality else "",
            split=split_of(entry.folder),
            mask=joined(entry.folder, masks[best])
            if (best := _best(core, masks)) is not None
            else "",
        )

    def _patient(self, folder: str) -> str:
        parts = folder.split("/") if folder else []
        for n, part in enumerate(parts):
            if _PATIENT.match(part):
                return part
            match = _NUMBERED.match(part)
            if (
                match
                and tokens(match["prefix"])[-1:] != []
                and (self._siblings.get(("/".join(parts[:n]), match["prefix"].lower()), 0) > 1)
            ):
                return part
        return ""


def mask_beside_series(folder: str, masks: Mapping[str, Sequence[Entry]]) -> Entry | None:
    """Return the mask file that belongs to the DICOM series in a folder, or None.

    `masks` lists by folder the masks that belong to no other image.

    It lies in that folder and has no words but those of the folder's name or of modalities, or it
    lies beside the folder and has some words, all of them in the folder's name
    (`chest_ct/…` and `chest_mask.nii.gz`).
    """
    parent, _, name = folder.rpartition("/")
    words = set(tokens(name))
    for entry in masks.get(folder, ()):
        if _core(entry.name)[0] <= words | set(MODALITIES):
            return entry
    for entry in masks.get(parent, ()) if folder else ():
        core, _ = _core(entry.name)
        if core and core <= words:
            return entry
    return None


@lru_cache(4096)
def _core(name: str) -> tuple[frozenset[str], bool]:
    """Return the words of a name that tell cases apart, and whether it names a mask."""
    words = tokens(stem(name))
    is_mask = bool(set(words) & MASK_WORDS)
    return frozenset(words) - MASK_WORDS - IMAGE_WORDS, is_mask


def _masks_of(catalog: Catalog, folder: str) -> dict[frozenset[str], str]:
    found: dict[frozenset[str], str] = {}
    for entry in catalog.within(folder):
        core, is_mask = _core(entry.name)
        if is_mask:
            found.setdefault(core, entry.name)
    return found


def _used(catalog: Catalog, folder: str, masks: dict[frozenset[str], str]) -> set[frozenset[str]]:
    """Return the words of those masks of a folder that are some image's mask."""
    found = set()
    for entry in catalog.within(folder) if masks else ():
        core, is_mask = _core(entry.name)
        best = None if is_mask else _best(core, masks)
        if best is not None:
            found.add(best)
    return found


def _best(core: frozenset[str], masks: dict[frozenset[str], str]) -> frozenset[str] | None:
    """Return the largest part of `core` that is a mask's, or None."""
    if not masks:
        return None
    words = sorted(core)
    for extra in range(min(_MOST_EXTRA, len(words)) + 1):
        for left in combinations(words, len(words) - extra):
            if frozenset(left) in masks:
                return frozenset(left)
    return frozenset() if frozenset() in masks else None


def _siblings(catalog: Catalog) -> dict[tuple[str, str], int]:
    """Count the numbered folders of one prefix below each folder."""
    seen: dict[tuple[str, str], set[str]] = {}
    for folder in catalog.folders:
        parts = folder.split("/")
        for n, part in enumerate(parts):
            match = _NUMBERED.match(part)
            if match:
                seen.setdefault(("/".join(parts[:n]), match["prefix"].lower()), set()).add(part)
    return {key: len(names) for key, names in seen.items()}
