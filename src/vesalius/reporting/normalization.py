# SPDX-License-Identifier: Apache-2.0
"""The page of `vesalius normalize`: certificates as a table, histograms before and after."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vesalius.files import write_text
from vesalius.normalization import Certificate, Verdict
from vesalius.normalization.equivalence import Equivalence
from vesalius.reporting.html import Html, page, section, table, tag, tile
from vesalius.types import Json, PathLike

_SHOWN = 400  # rows of the table; all of them are in certificates.csv
_CARDS = 24
_WIDTH, _HEIGHT = 220, 70  # of a histogram
_CURVES = 200  # series drawn over one another


def write_normalization(
    out: PathLike,
    certificates: Sequence[Certificate],
    equivalence: Sequence[Equivalence],
    record: Json,
) -> Path:
    """Write the page and return its path. Series appear under their keys.

    Args:
        out: the HTML file.
        certificates: of all series.
        equivalence: of sites and scanners.
        record: what `normalization.json` holds: the request.
    """
    tally = Counter(str(one.verdict) for one in certificates)
    request = record["request"]
    header = [
        tag("p", "Vesalius normalize", class_="eyebrow"),
        tag("h1", "Every series on one scale"),
        tag("p", _lead(certificates, request), class_="lead"),
        tag("div", [tile(str(v), tally[str(v)], _NOTES[v]) for v in Verdict], class_="tiles"),
    ]
    sections = [
        ("curves", "Histograms", _curves(certificates)),
        ("refused", "Refused", _refused(certificates)),
        ("series", "Series", _table(certificates)),
        ("look", "Worst first", _cards(certificates)),
        ("sites", "Sites", _sites(equivalence)),
        ("how", "How", _how(request)),
    ]
    footer = (
        "Made by Vesalius. Histograms and statistics are of patient images: keep this page where "
        "the data may be kept."
    )
    text = page("Vesalius normalize", header=header, sections=sections, footer=footer)
    return write_text(out, text)


def _lead(certificates: Sequence[Certificate], request: Json) -> str:
    scaled = [one for one in certificates if one.certified or not one.unit]
    certified = [one for one in scaled if one.certified]
    said = f"{len(certified):,} of {len(scaled):,} series without a physical unit are certified: "
    if all(any(check.name == "sd" for check in one.ladder[-1].checks) for one in certified):
        return (
            f"{said}the standard deviation in the fitting mask lies within "
            f"{request['sd_tolerance']:g} of 1."
        )
    return f"{said}they passed their checks; the method promises no standard deviation."


_NOTES = {
    Verdict.PASSED: "at the first rung",
    Verdict.ESCALATED: "a higher rung was needed",
    Verdict.FIXED: "checked, not rescaled",
    Verdict.REFUSED: "with the reason",
}


def _refused(certificates: Sequence[Certificate]) -> Html:
    rows = [
        (tag("span", one.key, class_="key"), one.group, one.reason, one.message)
        for one in certificates
        if one.verdict == Verdict.REFUSED
    ]
    if not rows:
        return section("refused", "Refused", tag("p", "No series was refused."))
    more = tag("p", f"… and {len(rows) - _SHOWN:,} more.") if len(rows) > _SHOWN else None
    shown = table(("series", "modality", "reason", "what was found"), rows[:_SHOWN])
    return section("refused", "Refused", shown, more)


def _table(certificates: Sequence[Certificate]) -> Html:
    ordered = sorted(certificates, key=_badness)
    rows = [
        (
            tag("span", one.key, class_="key"),
            one.group,
            tag("span", str(one.verdict), class_=_BADGES[one.verdict]),
            [one.method, " ", tag("span", _unbroken(one.mask.get("kind", "")), class_="soft")],
            _number(one.sd),
            _number(one.region_mean),
            _number(one.region_sd),
            _number(one.ks),
            _number(one.slice_drift),
            "; ".join(one.notes),
        )
        for one in ordered[:_SHOWN]
    ]
    head = (
        "series", "modality", "verdict", "method, mask", "SD", "region mean", "region SD", "KS",
        "slice drift", "notes",
    )  # fmt: skip
    remark = tag(
        "p",
        "SD: in the fitting mask. The region is one eighth of the mask that was not used for "
        "fitting; KS is its distance from the whole cohort's. Slice drift: how far the slice that "
        "stands out most does, in standard deviations. All series are in certificates.csv.",
    )
    return section("series", "Series", remark, table(head, rows, numeric=range(4, 9)))


_BADGES = {
    Verdict.PASSED: "badge",
    Verdict.ESCALATED: "badge",
    Verdict.FIXED: "badge",
    Verdict.REFUSED: "badge error",
}


def _badness(one: Certificate) -> tuple[int, float]:
    order = {Verdict.REFUSED: 0, Verdict.ESCALATED: 1, Verdict.PASSED: 2, Verdict.FIXED: 3}
    departure = abs((one.region_sd or 1.0) - 1.0) + abs(one.region_mean or 0.0)
    return order[one.verdict], -departure


def _cards(certificates: Sequence[Certificate]) -> Html:
    """Return before and after of the series that depart most."""
    chosen = [one for one in sorted(certificates, key=_badness) if one.histograms][:_CARDS]
    cards = []
    for one in chosen:
        ladder = " → ".join(
            rung.method + ("" if rung.passed else f" ({', '.join(_failed(rung))})")
            for rung in one.ladder
        )
        figures = [
            tag("figure", _histogram(one.histograms[name], name), tag("figcaption", name))
            for name in ("before", "after")
            if name in one.histograms
        ]
        cards.append(
            tag(
                "article",
                tag("h3", one.key),
                tag("p", f"{one.group}, {one.verdict}: {ladder}"),
                tag("div", figures, class_="charts"),
                class_="case",
            )
        )
    remark = tag(
        "p",
        "In the fitting mask, from the 0.1st to the 99.9th percentile. The first and the last bar "
        "hold what was clipped; where they are higher than the frame they end at it.",
    )
    return section("look", "Worst first", remark, tag("div", cards, class_="cases"))


def _failed(rung: Any) -> list[str]:
    return [check.name for check in rung.checks if not check.passed]


def _histogram(record: Json, name: str) -> Html:
    shares = np.asarray(record["shares"])
    top = float(shares[1:-1].max()) or 1.0  # the ends hold what was clipped
    step = _WIDTH / len(shares)
    points = [f"0,{_HEIGHT}"]
    for n, share in enumerate(shares):
        y = _HEIGHT * (1 - min(1.0, float(share) / top))
        points += [f"{n * step:.1f},{y:.1f}", f"{(n + 1) * step:.1f},{y:.1f}"]
    points.append(f"{_WIDTH},{_HEIGHT}")
    drawn = tag("polygon", points=" ".join(points), fill="currentColor", fill_opacity="0.55")
    labels = [
        tag("text", f"{record['low']:.4g}", x=0, y=_HEIGHT + 14, font_size=11, fill="currentColor"),
        tag(
            "text", f"{record['high']:.4g}", x=_WIDTH, y=_HEIGHT + 14, font_size=11,
            text_anchor="end", fill="currentColor",
        ),
    ]  # fmt: skip
    return _svg(f"histogram {name}", _WIDTH, _HEIGHT + 18, drawn, *labels)


def _curves(certificates: Sequence[Certificate]) -> Html:
    """Return all series' histograms over one another, before and after, on common axes."""
    blocks = []
    groups = sorted({one.group for one in certificates if one.certified})
    for group in groups:
        members = [one for one in certificates if one.group == group and one.certified][:_CURVES]
        figures = [
            tag(
                "figure",
                _overlay([one.histograms[name] for one in members], f"{group} {name}"),
                tag("figcaption", f"{group}, {name}: {len(members):,} series"),
            )
            for name in ("before", "after")
        ]
        blocks.append(tag("div", figures, class_="charts"))
    if not blocks:
        blocks.append(tag("p", "No series was rescaled."))
    return section("curves", "Histograms of the fitting masks", *blocks)


def _overlay(records: Sequence[Json], name: str) -> Html:
    lows = np.array([record["low"] for record in records])
    highs = np.array([record["high"] for record in records])
    low, high = float(np.percentile(lows, 5)), float(np.percentile(highs, 95))
    width, height = 460, 170
    curves = []
    for record in records:
        shares = np.asarray(record["shares"])
        edges = np.linspace(record["low"], record["high"], len(shares) + 1)
        density = shares / max(edges[1] - edges[0], 1e-12)
        curves.append(((edges[:-1] + edges[1:]) / 2, density))
    top = float(np.percentile([density[1:-1].max() for _, density in curves], 90)) or 1.0
    lines = []
    for x, density in curves:
        places = (x - low) / max(high - low, 1e-12) * width
        inside = (places >= 0) & (places <= width)
        levels = np.clip(height * (1 - density / top), 0, height)
        points = " ".join(
            f"{a:.1f},{b:.1f}" for a, b in zip(places[inside], levels[inside], strict=True)
        )
        lines.append(
            tag(
                "polyline", points=points, fill="none", stroke="currentColor",
                stroke_opacity=max(0.08, min(0.6, 6 / len(curves))), stroke_width=1,
            )
        )  # fmt: skip
    axis = [
        tag("text", f"{value:.4g}", x=x, y=height + 15, font_size=12, text_anchor=anchor,
            fill="currentColor")
        for value, x, anchor in ((low, 0, "start"), (high, width, "end"))
    ]  # fmt: skip
    return _svg(f"histograms of {name}", width, height + 20, *lines, *axis)


def _svg(label: str, width: float, height: float, *parts: Any) -> Html:
    return tag(
        "svg", *parts, viewBox=f"0 0 {width} {height}", width="100%", role="img", aria_label=label
    )


def _sites(equivalence: Sequence[Equivalence]) -> Html:
    if not equivalence:
        return section(
            "sites",
            "Sites",
            tag("p", "Fewer than two sites or scanners are named: nothing to compare."),
        )
    words = {True: "equivalent", False: "not shown", None: "too few series"}
    rows = [
        (e.site, e.what, e.n, e.others, _number(e.difference), f"±{e.margin:g}", _probability(e.p),
         words[e.equivalent])
        for e in equivalence
    ]  # fmt: skip
    head = ("site or scanner", "of", "series", "others", "difference", "margin", "p", "verdict")
    remark = tag("p", "Two one-sided tests (TOST) on the region that was not used for fitting.")
    return section("sites", "Sites", remark, table(head, rows, numeric=(2, 3, 4, 5, 6)))


def _how(request: Json) -> Html:
    rows = [
        (name.replace("_", " "), request[name])
        for name in ("method", "sd_tolerance", "masks", "rescale_units", "where", "written")
    ]
    return section("how", "How it was made", table(("option", "value"), rows))


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _unbroken(word: str) -> str:
    return word.replace("-", "\N{NON-BREAKING HYPHEN}")


def _probability(value: float | None) -> str:
    return "< 0.001" if value is not None and value < 0.001 else _number(value)
