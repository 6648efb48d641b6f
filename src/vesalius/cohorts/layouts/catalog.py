# SPDX-License-Identifier: Apache-2.0
"""Catalog: what layouts may ask about the files of one data root; answers come from the index."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from vesalius.cohorts.index import Entry, Index, to_name

# Formats whose files hold series or many images and are planned without a layout.
CONTAINERS = ("dicom", "dicom-zip", "npz")
_PLAIN = "r.name = ? AND f.kind = 'image' AND f.format NOT IN ('dicom', 'dicom-zip', 'npz')"
_MOST_BYTES = 256 << 20  # of an annotation file


class Catalog:
    """Files of one root by folder and name. Holds the list of folders, never that of files."""

    def __init__(self, index: Index, root: str) -> None:
        self.index = index
        self.root = root
        self.path = index.roots()[root]
        rows = index.db.execute(
            "SELECT d.path, count(*) FROM files f "  # noqa: S608  fixed text
            "JOIN folders d ON f.folder = d.id "
            f"JOIN roots r ON d.root = r.id WHERE {_PLAIN} GROUP BY d.id ORDER BY d.path",
            (root,),
        )
        self.folders: dict[str, int] = dict(rows)
        self.entry = lru_cache(4096)(self._entry)
        self.sample = lru_cache(1024)(self._sample)

    def images(self) -> Iterator[Entry]:
        """Yield every plain image file, by folder and name."""
        return self.index.entries(_PLAIN, (self.root,), "d.path, f.name")

    def of_format(self, *formats: str) -> Iterator[Entry]:
        """Yield the files of some formats, by folder and name."""
        marks = ", ".join("?" * len(formats))
        return self.index.entries(
            f"r.name = ? AND f.format IN ({marks})", (self.root, *formats), "d.path, f.name"
        )

    def within(self, folder: str) -> Iterator[Entry]:
        """Yield the plain image files of one folder, by name."""
        return self.index.entries(f"{_PLAIN} AND d.path = ?", (self.root, folder), "f.name")

    def _entry(self, path: str) -> Entry | None:
        """Return the file at a path below the root, or None."""
        folder, _, name = path.rpartition("/")
        return next(
            self.index.entries(
                "r.name = ? AND d.path = ? AND f.name = ?", (self.root, folder, name)
            ),
            None,
        )

    def _sample(self, folder: str) -> tuple[str, ...]:
        """Return up to 200 names of image files of a folder, spread over all of them."""
        count = self.folders.get(folder, 0)
        step = max(1, count // 200)
        return tuple(entry.name for n, entry in enumerate(self.within(folder)) if n % step == 0)

    def first(self, folder: str, count: int) -> list[str]:
        """Return the names of the first image files of a folder."""
        return [entry.name for entry, _ in zip(self.within(folder), range(count), strict=False)]

    def has_image(self, path: str) -> bool:
        """Return whether a plain image file lies at a path."""
        entry = self.entry(path)
        return entry is not None and entry.kind == "image" and entry.format not in CONTAINERS

    def read_text(self, path: str) -> str:
        """Return the text of an annotation file, `` when it is absent, too large or no UTF-8."""
        full = os.path.join(self.path, to_name(path))
        try:
            if os.stat(full).st_size > _MOST_BYTES:
                return ""
            with open(full, encoding="utf-8-sig") as stream:
                return stream.read()
        except (OSError, UnicodeDecodeError):
            return ""

    def read_json(self, path: str) -> Any:
        """Return the value of a JSON file; None when it is no JSON."""
        try:
            return json.loads(self.read_text(path) or "null")
        except (ValueError, RecursionError):
            return None
