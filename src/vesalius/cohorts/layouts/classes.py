# SPDX-License-Identifier: Apache-2.0
"""Class-per-folder: sibling folders of images whose names are classes; the label is `class`.

`benign/a.png`, `train/malignant/b.png`. Folders that are patients (`STS_003`, `patient7`),
modalities (`CT`, `MR`) or parts of a case (the same file names in each) are not taken for classes;
folders that are numbers or `grade2` are, when they are few and full.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass

from vesalius.cohorts.index import Entry
from vesalius.cohorts.layouts.catalog import Catalog
from vesalius.cohorts.layouts.facts import (
    IMAGE_WORDS,
    MASK_WORDS,
    MODALITIES,
    SPLITS,
    Facts,
    Mask,
    Passed,
    split_of,
    stem,
)

_MOST_CLASSES = 2000
_GRADES = frozenset({"", "grade", "class", "label", "stage", "type", "cat", "category", "level",
                     "score", "birads", "kl", "c"})  # fmt: skip
_MOST_GRADES = 20
_FULL = 10  # images a folder, on average, for numbered classes


@dataclass(frozen=True, slots=True)
class Classes:
    """One folder of a class."""

    base: str
    label: str
    name: str = "class-per-folder"

    def describe(self, entry: Entry, catalog: Catalog) -> Facts | Mask | Passed:  # noqa: ARG002  the protocol
        """Return the class and the official split that the folder names."""
        return Facts(labels={"class": self.label}, split=split_of(entry.folder))


def find(catalog: Catalog) -> list[Classes]:
    """Return a layout for each folder that is a class."""
    children: dict[str, list[str]] = defaultdict(list)
    for folder in catalog.folders:
        if folder:
            parent, _, name = folder.rpartition("/")
            children[parent].append(name)
    found = []
    for parent, names in children.items():
        if _are_classes(catalog, parent, names):
            found += [Classes(f"{parent}/{name}" if parent else name, name) for name in names]
    return found


def _are_classes(catalog: Catalog, parent: str, names: list[str]) -> bool:
    lower = {name.lower() for name in names}
    if not 2 <= len(names) <= _MOST_CLASSES:
        return False
    if lower & (IMAGE_WORDS | MASK_WORDS | set(SPLITS)) or lower <= set(MODALITIES):
        return False
    folders = [f"{parent}/{name}" if parent else name for name in names]
    if all(re.search(r"\d", name) for name in names):
        prefixes = {re.sub(r"[\d_\-. ]+$", "", name.lower()).rstrip("_-. ") for name in names}
        mean = sum(catalog.folders[folder] for folder in folders) / len(folders)
        if not prefixes <= _GRADES or len(names) > _MOST_GRADES or mean < _FULL:
            return False
    elif sum(bool(re.search(r"\d", name)) for name in names) > len(names) / 2:
        return False
    suffixes = [{n[len(stem(n)) :].lower() for n in catalog.sample(f)} for f in folders[:20]]
    if not set.intersection(*suffixes) or max(catalog.folders[f] for f in folders) < 2:
        return False  # kinds of files, or folders of one image each, prove nothing
    first, second = (set(map(stem, catalog.sample(folder))) for folder in folders[:2])
    return len(first & second) <= min(len(first), len(second)) / 2 or _is_numbered(first | second)


def _is_numbered(stems: set[str]) -> bool:
    """Return whether the names are mere counters, which every folder may start anew."""
    return all(re.fullmatch(r"\D{0,8}\d+", name) for name in stems) and len(stems) >= _FULL
