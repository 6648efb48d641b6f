# SPDX-License-Identifier: Apache-2.0
"""Boxes and split lists that lie beside images: VOC XML, COCO JSON, `train.txt` of stems.

They add to what a layout says of an image. A VOC file belongs to the image that has its stem (in
its own folder, a sibling, or a mirrored folder) or that it names; a COCO file to the images it
lists (Lin et al. 2014; boxes are `[x, y, width, height]`). A text file named train, val or test
whose lines are stems or names of images is an official split; `trainval.txt` is not.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from vesalius.cohorts.index import Entry
from vesalius.cohorts.layouts.catalog import Catalog
from vesalius.cohorts.layouts.facts import SPLITS, joined, stem
from vesalius.types import Json

_LISTED = 0.5  # of a list's first lines that must be images
_MOST_LINES = 5_000_000


class Notes:
    """Boxes and splits by image, in a temporary table of the index."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._db = catalog.index.db
        self._db.execute("CREATE TEMP TABLE IF NOT EXISTS notes (name TEXT, kind TEXT, value TEXT)")
        self._db.execute("DELETE FROM notes")
        self._stems = any(True for _ in catalog.of_format("voc", "json", "text"))
        self.has_boxes = False
        if self._stems:
            self._enter("boxes", self._voc())
            self._enter("boxes", self._coco())
            self._enter("split", self._lists())
            self._db.execute("CREATE INDEX IF NOT EXISTS temp.noted ON notes (name, kind)")
            count = self._db.execute("SELECT count(*) FROM notes WHERE kind = 'boxes'").fetchone()
            self.has_boxes = bool(count[0])

    def boxes(self, entry: Entry) -> list[Json] | None:
        """Return the boxes of an image; None when no annotation names it."""
        found = self._of(entry, "boxes")
        return [box for value in found for box in json.loads(value)] if found else None

    def split(self, entry: Entry) -> str:
        """Return the official split that a list names, `` when none or several do."""
        found = set(self._of(entry, "split"))
        return found.pop() if len(found) == 1 else ""

    def _of(self, entry: Entry, kind: str) -> list[str]:
        if not self._stems:
            return []
        names = json.dumps([entry.path, entry.name, stem(entry.name)])
        rows = self._db.execute(
            "SELECT value FROM notes WHERE kind = ? AND name IN (SELECT value FROM json_each(?))",
            (kind, names),
        )
        return [value for (value,) in rows]

    def _enter(self, kind: str, found: Iterator[tuple[str, str]]) -> None:
        self._db.executemany(
            "INSERT INTO notes VALUES (?, ?, ?)", ((name, kind, value) for name, value in found)
        )

    def _voc(self) -> Iterator[tuple[str, str]]:
        for entry in self._catalog.of_format("voc"):
            yield stem(entry.name), json.dumps(json.loads(entry.facts)["boxes"])

    def _coco(self) -> Iterator[tuple[str, str]]:
        for entry in self._catalog.of_format("json"):
            if entry.name == "dataset.json":
                continue
            info = self._catalog.read_json(entry.path)
            if isinstance(info, dict) and all(
                isinstance(info.get(part), list) for part in ("images", "annotations", "categories")
            ):
                yield from _coco_boxes(info, entry, self._catalog)

    def _lists(self) -> Iterator[tuple[str, str]]:
        for entry in self._catalog.of_format("text"):
            subset = SPLITS.get(stem(entry.name).lower())
            if not subset or not entry.name.lower().endswith((".txt", ".lst", ".list")):
                continue
            lines = self._catalog.read_text(entry.path).split("\n")[:_MOST_LINES]
            names = [line.split()[0] for line in lines if line.strip()]
            if names and self._are_images(names[:50], entry):
                yield from ((name, subset) for name in names)

    def _are_images(self, names: list[str], entry: Entry) -> bool:
        known = self._stems_near(entry)
        hits = sum(stem(name.rpartition("/")[2]) in known or name in known for name in names)
        return hits >= _LISTED * len(names)

    def _stems_near(self, entry: Entry) -> set[str]:
        """Return stems (and, for names without suffix, names) of images, below the list's set."""
        top = entry.folder.rpartition("/")[0]
        found: set[str] = set()
        for folder in self._catalog.folders:
            if not top or folder == top or folder.startswith(top + "/"):
                for image in self._catalog.within(folder):
                    found |= {image.name, stem(image.name)}
                    if len(found) > 200_000:
                        return found
        return found


def _coco_boxes(info: Json, entry: Entry, catalog: Catalog) -> Iterator[tuple[str, str]]:
    categories = {one.get("id"): str(one.get("name")) for one in _objects(info["categories"])}
    boxes: dict[Any, list[Json]] = {}
    for one in _objects(info["annotations"]):
        box = one.get("bbox")
        if isinstance(box, list) and len(box) == 4 and all(isinstance(v, int | float) for v in box):
            x, y, width, height = map(float, box)
            name = categories.get(one.get("category_id"), "")
            found = {"name": name, "x0": x, "y0": y, "x1": x + width, "y1": y + height}
            boxes.setdefault(one.get("image_id"), []).append(found)
    for image in _objects(info["images"]):
        name = str(image.get("file_name") or "").replace("\\", "/")
        if name:
            near = joined(entry.folder, name)
            exact = next((p for p in (name, near) if catalog.has_image(p)), name.rpartition("/")[2])
            yield exact, json.dumps(boxes.get(image.get("id"), []))


def _objects(value: list[Any]) -> Iterator[Json]:
    return (one for one in value if isinstance(one, dict))
