# SPDX-License-Identifier: Apache-2.0
"""The page of `vesalius compare`: two runs' scores side by side, and what tells them apart."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vesalius.files import write_json, write_text
from vesalius.reporting.content import SUBSET_NAMES
from vesalius.reporting.html import Html, counted, page, section, table, tag
from vesalius.reporting.scores import exact, title
from vesalius.types import Json, PathLike

_EXPLAINED = (
    "Each difference is B minus A on the same cases. Its interval comes from a bootstrap that "
    "draws patients, the same draws for both runs; P(B better) is the share of the draws in which "
    "B is better, ties counting half. Of many scores a few differ by chance alone: choose the one "
    "that matters before looking."
)


def write_comparison(content: Json, out: PathLike) -> Path:
    """Write `comparison.json` and `comparison.html` into a folder and return the page's path.

    `content` is what `flows.compare.Comparison.to_json` returns; it names runs by their hashes
    and holds no row of a patient.
    """
    folder = Path(out)
    differences = content["differences"]
    what = content["target"] or "structures"
    header = [
        tag("p", "Vesalius compare", class_="eyebrow"),
        tag("h1", f"Two runs: {content['task']} {what}"),
        tag("p", _lead(content), class_="lead"),
        tag("div", [_tile(content, side) for side in "ab"], class_="tiles"),
    ]
    sections: list[tuple[str, str, Html]] = []
    for where, name, kept in (
        ("overall", "Overall", [d for d in differences if not d["label"]]),
        ("parts", "By class or structure", [d for d in differences if d["label"]]),
    ):
        if kept:
            intro = tag("p", _EXPLAINED, class_="soft") if not sections else None
            sections.append((where, name, section(where, name, intro, _table(kept))))
    footer = "Made by Vesalius. Not a medical device; not for diagnosis."
    html = page("Vesalius compare", header=header, sections=sections, footer=footer)
    write_json(folder / "comparison.json", content)
    return write_text(folder / "comparison.html", html)


def _lead(content: Json) -> str:
    subset = SUBSET_NAMES.get(content["split"], content["split"])
    verdicts = [d["verdict"] for d in content["differences"] if not d["label"]]
    told = [f"{side} on {verdicts.count(f'{side} better')}" for side in "AB"]
    return (
        f"On {counted(content['n_cases'], 'case')} of "
        f"{counted(content['n_patients'], 'patient')} ({subset} subset), of "
        f"{counted(len(verdicts), 'overall score')} {' and '.join(told)} is better beyond the "
        f"95 % interval; {verdicts.count('not told apart')} do not tell the runs apart."
    )


def _tile(content: Json, side: str) -> Html:
    run = content[side]
    return tag(
        "div",
        tag("p", f"run {side.upper()}", class_="name"),
        tag("p", run["run"], class_="value"),
        tag("p", f"{run['n_failed']} failed, counted as the worst answer", class_="note"),
        class_="tile",
    )


def _table(differences: Sequence[Json]) -> Html:
    rows: list[tuple[Any, ...]] = [
        (
            title(d["name"]),
            d["label"] or "all",
            exact(d["a"]),
            exact(d["b"]),
            exact(d["difference"]),
            "–" if d["low"] is None else f"{d['low']:+.3f} to {d['high']:+.3f}",
            exact(d["p_better"]),
            tag("span", d["verdict"], class_=None if d["verdict"][0] == "n" else "good"),
            tag("span", f"{d['better']} is better", class_="note"),
            tag("span", d["note"], class_="note"),
        )
        for d in differences
    ]
    head = (
        "score", "of", "A", "B", "B minus A", "95 % interval", "P(B better)", "verdict", "",
        "remark",
    )  # fmt: skip
    return table(head, rows, numeric=range(2, 7))
