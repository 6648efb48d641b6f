# SPDX-License-Identifier: Apache-2.0
"""HTML built from escaped parts: one page, one file, no script, no request.

A string is escaped when it enters a tag; only `Html` (made here) passes as it is. The page's
policy forbids every request and every style but its own, which it names by hash.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Sequence
from functools import cache
from html import escape
from importlib import resources
from typing import Any

_VOID = {"img", "br", "hr", "meta"}


class Html(str):
    """Text that is HTML already."""

    __slots__ = ()


def text(value: Any) -> Html:
    """Return one value, or the values of a list, as escaped HTML; None becomes nothing."""
    if isinstance(value, Html):
        return value
    if value is None:
        return Html("")
    if isinstance(value, (list, tuple)):
        return Html("".join(text(part) for part in value))
    return Html(escape(str(value), quote=True))


def tag(name: str, /, *children: Any, **attributes: Any) -> Html:
    """Return `<name attribute="…">children</name>`; `class_` is class, `_` in names is `-`."""
    words = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(str(value), quote=True)}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in _VOID:
        return Html(f"<{name}{words}>")
    return Html(f"<{name}{words}>{text(children)}</{name}>")


def counted(number: int, thing: str) -> str:
    """Return `1 case` or `2 cases`."""
    return f"{number:,} {thing}" if number == 1 else f"{number:,} {thing}s"


def table(
    head: Sequence[Any],
    rows: Iterable[Sequence[Any]],
    *,
    numeric: Iterable[int] = (),
    caption: str = "",
) -> Html:
    """Return a table that scrolls by itself on a narrow screen; `numeric` columns align right."""
    right = set(numeric)

    def cells(kind: str, row: Sequence[Any]) -> Html:
        return tag(
            "tr",
            [
                tag(
                    kind,
                    cell,
                    class_="number" if place in right else None,
                    scope="col" if kind == "th" else None,
                )
                for place, cell in enumerate(row)
            ],
        )

    body = [cells("td", row) for row in rows]
    return tag(
        "div",
        tag(
            "table",
            tag("caption", caption) if caption else None,
            tag("thead", cells("th", head)),
            tag("tbody", body),
        ),
        class_="scroll",
    )


def pairs(rows: Iterable[tuple[Any, Any]]) -> Html:
    """Return a list of names and values."""
    return tag("dl", [tag("div", tag("dt", name), tag("dd", value)) for name, value in rows])


def section(identifier: str, title: str, *children: Any) -> Html:
    """Return a titled section that the contents can lead to."""
    return tag("section", tag("h2", title), *children, id=identifier)


def image(uri: str, alt: str, *, class_: str | None = None) -> Html:
    """Return an image held in the page itself (`data:` address)."""
    if not uri.startswith("data:image/"):
        raise ValueError("a report holds its images: give a data:image/ address")
    return tag("img", src=uri, alt=alt, class_=class_)


def data_uri(content: bytes, media_type: str) -> str:
    """Return bytes as a `data:` address."""
    return f"data:{media_type};base64,{base64.b64encode(content).decode('ascii')}"


def page(title: str, *, header: Any, sections: Sequence[tuple[str, str, Html]], footer: Any) -> str:
    """Return a whole page.

    Args:
        title: of the document.
        header: what stands on top.
        sections: `(identifier, name in the contents, html)`.
        footer: last line.
    """
    contents = tag(
        "nav",
        [tag("a", name, href=f"#{where}") for where, name, _ in sections],
        aria_label="Contents",
    )
    body = tag(
        "body",
        tag("header", header),
        contents if len(sections) > 1 else None,
        tag("main", [part for _, _, part in sections]),
        tag("footer", footer),
    )
    return document(title, _style(), body)


def document(title: str, style: str, body: Html) -> str:
    """Return a document that runs no script and fetches nothing; its policy names its style alone.

    Args:
        title: of the document.
        style: CSS.
        body: the element.
    """
    digest = base64.b64encode(hashlib.sha256(style.encode("utf-8")).digest()).decode("ascii")
    policy = (
        f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; "
        "base-uri 'none'; form-action 'none'"
    )
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("meta", name="referrer", content="no-referrer"),
        tag("title", title),
        Html(f"<style>{style}</style>"),
    )
    return f'<!DOCTYPE html>\n<html lang="en">{head}\n{body}</html>\n'


def tile(name: str, value: Any, note: str = "") -> Html:
    """Return one number of a summary with its name and what is to be known of it."""
    return tag(
        "div",
        tag("p", name, class_="name"),
        tag("p", value, class_="value"),
        tag("p", note, class_="note") if note else None,
        class_="tile",
    )


@cache
def _style() -> str:
    return resources.files("vesalius.reporting").joinpath("page.css").read_text(encoding="utf-8")
