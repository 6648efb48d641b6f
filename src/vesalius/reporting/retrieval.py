# SPDX-License-Identifier: Apache-2.0
"""The page of similar cases: the query left, the cases right, each with the reason.

One file, no script, no request: the page's policy forbids both. Chips and the switch of the maps
work by style alone. Pictures and words are patient data; nobody is named but by a pseudonym.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import resources

from vesalius.reporting.html import Html, document, tag
from vesalius.reporting.retrieval_card import (
    FIRST_FACTS,
    HIDDEN_FACTS,
    CasePicture,
    card,
    picture,
)
from vesalius.types import Json

_FACETS, _CHOICES = 3, 8  # how many filters, and choices of each


def result_page(
    answer: Json, queries: Sequence[str], pictures: Mapping[str, Sequence[CasePicture]]
) -> str:
    """Return the page.

    Args:
        answer: of `vesalius find`, as for machines.
        queries: the query's images as `data:` addresses, `` for one that is withheld.
        pictures: case -> its images, the one that matched best first.
    """
    facets = _facets(answer["cases"])
    style = resources.files("vesalius.reporting").joinpath("retrieval.css").read_text("utf-8")
    style += _facet_style(facets)
    mapped = any(one.there is not None for many in pictures.values() for one in many)
    title = _title(answer)
    cards = [
        card(case, pictures.get(case["case"], ()), facets, len(queries)) for case in answer["cases"]
    ]
    body = tag(
        "body",
        tag("header", tag("p", "Vesalius · similar cases", class_="eyebrow"), tag("h1", title),
            _verdict(answer)),
        tag(
            "main",
            _query(answer, queries),
            tag(
                "div",
                _controls(facets, mapped=mapped) if cards else None,
                tag("div", cards, class_="grid wide" if mapped else "grid")
                if cards
                else tag("p", "No case to show.", class_="empty"),
            ),
        ),
        tag("footer", _footer(answer)),
    )  # fmt: skip
    return document(title, style, body)


def _title(answer: Json) -> str:
    count = len(answer["cases"])
    if answer["known"] is False:
        return "Nothing similar is known" + (
            f": the {count} nearest cases all the same" if count else ""
        )
    return f"{count} similar case{'' if count == 1 else 's'}"


def _verdict(answer: Json) -> Html:
    kind = {True: "verdict known", False: "verdict unknown", None: "verdict"}[answer["known"]]
    first, _, rest = answer["verdict"].partition(": ")
    return tag("div", tag("b", first[:1].upper() + first[1:]), rest, class_=kind)


def _query(answer: Json, queries: Sequence[str]) -> Html:
    """Return the panel of what was asked."""
    figures = [
        tag(
            "figure",
            tag("div", picture(uri, f"query image {number}"), class_="frame"),
            tag("figcaption", f"image {number}") if len(queries) > 1 else None,
        )
        for number, uri in enumerate(queries, 1)
    ]
    notes = [
        f"{count} patient{'' if count == 1 else 's'} left out as the query's own, known by {how}"
        for how, count in answer["left_out"].items()
    ]
    notes += answer["notes"]
    return tag(
        "aside",
        tag("h2", "Query"),
        tag("div", figures, class_="queries several" if len(figures) > 1 else "queries")
        if figures
        else None,
        tag("p", f"“{answer['words']}”", class_="said") if answer["words"] else None,
        [tag("h2", "Filter"), tag("p", answer["where"], class_="filter")]
        if answer["where"]
        else None,
        [tag("h2", "To be known"), tag("ul", [tag("li", note) for note in notes])]
        if notes
        else None,
        tag("h2", "Archive"),
        tag("p", f"{answer['archive']}, version {answer['version']}: {answer['searched']:,} images",
            class_="soft"),
        tag("p", f"Score: {answer['scored_by']}.", class_="soft"),
    )  # fmt: skip


def _controls(facets: Sequence[tuple[str, Sequence[str]]], *, mapped: bool) -> Html:
    """Return chips that show only some of the cases, and the switch of the maps."""
    groups = []
    for place, (name, values) in enumerate(facets):
        chips = [_chip(place, 0, "all", chosen=True)]
        chips += [_chip(place, n, value, chosen=False) for n, value in enumerate(values, 1)]
        groups.append(tag("fieldset", tag("legend", name.replace("_", " ")), chips))
    switch = tag(
        "label",
        tag("input", type="checkbox", id="overlay", checked="checked"),
        tag("span", "where they are alike"),
        class_="switch",
    )
    return tag("div", groups, switch if mapped else None, class_="controls")


def _chip(place: int, number: int, label: str, *, chosen: bool) -> Html:
    return tag(
        "label",
        tag(
            "input", type="radio", name=f"facet{place}", id=f"facet{place}-{number}",
            checked="checked" if chosen else None,
        ),
        tag("span", label),
        class_="chip",
    )  # fmt: skip


def _footer(answer: Json) -> str:
    rule = f" Rule: {answer['rule']}." if answer["rule"] else ""
    return (
        "Bars: share of the archive's images whose nearest image of another patient is further "
        f"than this match.{rule} Similar looks are no diagnosis. Pictures and words on this page "
        "are patient data."
    )


def _facets(cases: Sequence[Json]) -> list[tuple[str, list[str]]]:
    """Return the facts that tell the cases apart, with their values."""
    found: list[tuple[str, list[str]]] = []
    for name in (*FIRST_FACTS, *sorted({n for case in cases for n in case["facts"]})):
        numeric = any(isinstance(c["facts"].get(name), float | int) for c in cases)
        values = sorted({str(c["facts"][name]) for c in cases if c["facts"].get(name) is not None})
        known = name in HIDDEN_FACTS or any(name == other for other, _ in found)
        if not known and not numeric and 2 <= len(values) <= _CHOICES:
            found.append((name, values))
    return found[:_FACETS]


def _facet_style(facets: Sequence[tuple[str, Sequence[str]]]) -> str:
    return "".join(
        f"main:has(#facet{place}-{n}:checked) .card:not(.facet{place}-{n}){{display:none}}\n"
        for place, (_, values) in enumerate(facets)
        for n in range(1, len(values) + 1)
    )
