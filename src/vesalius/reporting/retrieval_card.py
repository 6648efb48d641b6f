# SPDX-License-Identifier: Apache-2.0
"""One case on the page of similar cases: its pictures, how near it is, its words and its facts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vesalius.reporting.html import Html, image, tag, text
from vesalius.reporting.retrieval_pictures import Overlaid
from vesalius.types import Json

FIRST_FACTS = (
    "modality", "body_part", "plane", "view", "laterality", "location", "location_category",
    "diagnosis", "age", "sex", "scanner",
)  # fmt: skip
HIDDEN_FACTS = frozenset({"kind", "split"})  # of no use to who looks at a case
_SHOWN_FACTS = 7  # on a card; the others are in its details


@dataclass(frozen=True, slots=True)
class CasePicture:
    """One image of a case.

    Attributes:
        picture: a `data:` address; `` where it is withheld, or there is none.
        query: number of the query's image that it matches, from 1; None without one.
        cosine: of the two.
        here: the query's image with its map, where there is one.
        there: this image with its map.
    """

    picture: str
    query: int | None = None
    cosine: float | None = None
    here: Overlaid | None = None
    there: Overlaid | None = None


def card(
    case: Json,
    pictures: Sequence[CasePicture],
    facets: Sequence[tuple[str, Sequence[str]]],
    queries: int,
) -> Html:
    """Return the card of one case.

    Args:
        case: of the answer, as for machines.
        pictures: its images, the one that matched best first.
        facets: the facts that the page filters by, with their values.
        queries: how many images the query has.
    """
    classes = ["card"]
    for place, (name, values) in enumerate(facets):
        value = case["facts"].get(name)
        if value is not None:
            classes.append(f"facet{place}-{list(values).index(str(value)) + 1}")
    return tag(
        "article",
        _pictures(case, pictures, queries),
        tag("div", _nearness(case), _facts(case), _words(case), _details(case, queries),
            class_="body"),
        class_=" ".join(classes),
    )  # fmt: skip


def _pictures(case: Json, pictures: Sequence[CasePicture], queries: int) -> Html:
    """Return the best match large, with the query's image where both have maps, others below."""
    rank = tag("span", case["rank"], class_="rank", title="rank")
    first = pictures[0] if pictures else CasePicture("")
    matched = f"matches image {first.query}" if first.query is not None and queries > 1 else ""
    figures = []
    if first.here is not None and first.there is not None:
        figures = [
            tag("figure", _mapped(first.here, "query"),
                tag("figcaption", f"query{f' {first.query}' if queries > 1 else ''}")),
            tag("figure", _mapped(first.there, f"case {case['rank']}"),
                tag("figcaption", "case")),
        ]  # fmt: skip
    else:
        alt = f"case {case['rank']}, image that matches best"
        figures = [
            tag(
                "figure",
                tag("div", picture(first.picture, alt), class_="frame"),
                tag("figcaption", matched) if matched else None,
            )
        ]
    others = [
        tag("div", picture(one.picture, f"case {case['rank']}, another image"), class_="frame")
        for one in pictures[1:]
    ]
    return tag(
        "div",
        tag("div", rank, figures, class_="pictures"),
        tag("div", others, class_="more") if others else None,
        class_="seen",
    )


def _nearness(case: Json) -> Html:
    """Return how near a case is: the cosine and what it means in this archive, and its words."""
    worded = None if case["bm25"] is None else f"words: BM25 {case['bm25']:.1f}"
    if case["cosine"] is None:
        return tag("p", tag("b", worded or "found by the words' meaning"), class_="near")
    share, meter = case["percentile"], None
    means = "" if share is None else f"closer than {_percent(share)} of pairs of different patients"
    if case["closeness"] is not None:
        title = "share of the archive's images whose nearest other patient is further"
        meter = tag("meter", min=0, max=100, value=f"{case['closeness']:.1f}", title=title)
    return tag(
        "div",
        tag(
            "p", tag("b", f"{case['cosine']:.3f}"), tag("span", means, class_="soft"), class_="near"
        ),
        meter,
        tag("p", worded, class_="soft") if worded else None,
    )


def _facts(case: Json) -> Html | None:
    """Return the first facts; a value that another fact has as well is shown once."""
    facts = case["facts"]
    known = [name for name in FIRST_FACTS if name in facts]
    known += [name for name in facts if name not in known and name not in HIDDEN_FACTS]
    shown = {_value(facts[name]).casefold(): name for name in reversed(known)}
    items = [name for name in known if name in shown.values()][:_SHOWN_FACTS]
    listed = [tag("li", _value(facts[n]), title=n.replace("_", " ")) for n in items]
    return tag("ul", listed, class_="facts") if listed else None


def _words(case: Json) -> Html | None:
    """Return the words, what matched highlighted, what says the contrary struck through."""
    parts = [
        tag("mark", one["text"], class_="contrary" if one["mark"] == "contrary" else None,
            title="says the contrary" if one["mark"] == "contrary" else None)
        if one["mark"]
        else text(one["text"])
        for one in case["text"]
    ]  # fmt: skip
    return tag("p", parts, class_="words") if parts else None


def _details(case: Json, queries: int) -> Html:
    rows: list[tuple[str, Any]] = [("case", tag("span", case["case"], class_="key"))]
    rows.append(("images", case["images"]))
    rows.append(("score", f"{case['score']:.4f}"))
    if case["bm25"] is not None:
        rows.append(("words, BM25", f"{case['bm25']:.2f}"))
    if case["meaning"] is not None:
        rows.append(("words' meaning", f"{case['meaning']:.3f}"))
    if case["topic"] is not None:
        rows.append(("words' topic", f"{case['topic']:.3f}"))
    for pair in case["pairs"]:
        name = f"image {pair['query']} matches" if queries > 1 else "matches"
        near = f"{pair['cosine']:.3f}"
        if pair["closeness"] is not None:
            near += f", nearer than {_percent(pair['closeness'])} of nearest neighbors here"
        rows.append((name, [tag("span", pair["image"], class_="key"), f": {near}"]))
    rows += [(n.replace("_", " "), _value(v)) for n, v in case["facts"].items()]
    listed = [[tag("dt", name), tag("dd", value)] for name, value in rows]
    return tag("details", tag("summary", "Details"), tag("dl", listed))


def _mapped(one: Overlaid, alt: str) -> Html:
    return tag(
        "div",
        image(one.picture, alt),
        image(one.heat, f"{alt}: where it is like the other", class_="heat"),
        class_="frame",
    )


def picture(uri: str, alt: str) -> Html:
    """Return an image, or the word that there is none to show."""
    if not uri:
        return tag("div", "no picture: it may show a name, or none was kept", class_="missing")
    return image(uri, alt)


def _percent(value: float) -> str:
    """Return a percentage that is 100 % only where it is."""
    return (
        "100 %"
        if value >= 100
        else f"{min(value, 99.99):.2f} %"
        if value > 99
        else f"{value:.0f} %"
    )


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)
