# SPDX-License-Identifier: Apache-2.0
"""Pascal VOC: one XML file an image, `<object>` with `<name>` and `<bndbox>` (Everingham 2010).

Parsed as a stream by expat; a document type declaration, and with it every entity, is refused.
"""

from __future__ import annotations

import os
from typing import Any
from xml.parsers import expat

from vesalius.errors import CorruptFile, LimitExceeded
from vesalius.types import Json, PathLike

_MOST_BYTES = 16 << 20
_MOST_DEPTH = 32
_SIDES = {"xmin": "x0", "ymin": "y0", "xmax": "x1", "ymax": "y1"}


def read_voc(path: PathLike) -> Json | None:
    """Return `{"filename", "boxes"}` of a VOC annotation, None for any other XML.

    A box is `{"name", "x0", "y0", "x1", "y1"}` in pixels.

    Raises:
        CorruptFile: no XML, a declaration in it, or a box without four numbers.
        LimitExceeded: larger or deeper than an annotation can be.
    """
    name = os.fspath(path)
    size = os.stat(path).st_size
    if size > _MOST_BYTES:
        raise LimitExceeded(
            f"an XML file of {size >> 20} MiB is no annotation (at most {_MOST_BYTES >> 20} MiB)",
            path=name,
            wanted=size,
            allowed=_MOST_BYTES,
        )
    reader = _Reader(name)
    parser = expat.ParserCreate()
    parser.StartDoctypeDeclHandler = reader.refuse
    parser.StartElementHandler = reader.start
    parser.EndElementHandler = reader.end
    parser.CharacterDataHandler = reader.text
    try:
        with open(path, "rb") as stream:
            parser.ParseFile(stream)
    except expat.ExpatError as error:
        raise CorruptFile(
            f"the XML is damaged: {expat.ErrorString(error.code)}", path=name
        ) from error
    if not reader.is_voc:
        return None
    return {"filename": reader.filename, "boxes": reader.boxes}


class _Reader:
    def __init__(self, path: str) -> None:
        self.path = path
        self.is_voc = False
        self.filename = ""
        self.boxes: list[Json] = []
        self._stack: list[str] = []
        self._text: list[str] = []
        self._box: Json = {}

    def refuse(self, *_: Any) -> None:
        raise CorruptFile(
            "an annotation with a document type declaration is refused", path=self.path
        )

    def start(self, tag: str, _: dict[str, str]) -> None:
        if not self._stack:
            self.is_voc = tag == "annotation"
        self._stack.append(tag)
        self._text = []
        if len(self._stack) > _MOST_DEPTH:
            raise LimitExceeded(f"an XML file nested deeper than {_MOST_DEPTH}", path=self.path)
        if tag == "object":
            self._box = {}

    def text(self, piece: str) -> None:
        self._text.append(piece)

    def end(self, tag: str) -> None:
        value = "".join(self._text).strip()
        above = self._stack[-2] if len(self._stack) > 1 else ""
        self._stack.pop()
        self._text = []
        if above == "annotation" and tag == "filename":
            self.filename = value
        elif above == "object" and tag == "name":
            self._box["name"] = value
        elif above == "bndbox" and "object" in self._stack and tag in _SIDES:
            try:
                self._box[_SIDES[tag]] = float(value)
            except ValueError as error:
                raise CorruptFile(f"a box states {tag}={value[:20]!r}", path=self.path) from error
        elif tag == "object" and self.is_voc:
            if len(self._box) != 5:
                raise CorruptFile("an object lacks its name or a side of its box", path=self.path)
            self.boxes.append({side: self._box[side] for side in ("name", "x0", "y0", "x1", "y1")})
