# SPDX-License-Identifier: Apache-2.0
"""A first page that leads to others beside it, with a few pictures."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from vesalius.errors import UsageError
from vesalius.files import write_text
from vesalius.reporting.html import data_uri, image, page, section, tag
from vesalius.types import PathLike

_KINDS = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg"}


def write_index(
    path: PathLike,
    *,
    title: str,
    notice: str = "",
    pages: Sequence[tuple[str, PathLike]],
    previews: Sequence[PathLike] = (),
) -> Path:
    """Write a page at `path` that links to `pages` (name, file) by relative path.

    `previews` are PNG or JPEG files, which the page holds in itself.
    """
    target = Path(path)
    links = [
        tag("p", tag("a", name, href=quote(os.path.relpath(where, target.parent))), class_="lead")
        for name, where in pages
    ]
    sections = [("pages", "Pages", section("pages", "Pages", *links))]
    if previews:
        figures = [tag("figure", _picture(Path(preview))) for preview in previews]
        body = section("previews", "Prediction", tag("div", figures, class_="charts"))
        sections.append(("previews", "Prediction", body))
    header = [
        tag("p", "Vesalius", class_="eyebrow"),
        tag("h1", title),
        tag("p", notice, class_="notice") if notice else None,
    ]
    return write_text(
        target, page(title, header=header, sections=sections, footer="Made by Vesalius.")
    )


def _picture(path: Path) -> str:
    kind = _KINDS.get(path.suffix.lower())
    if kind is None:
        raise UsageError(f"previews must be {sorted(_KINDS)} files, got '{path.suffix}'")
    return image(data_uri(path.read_bytes(), kind), f"preview of {path.stem}")
