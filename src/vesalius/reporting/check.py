# SPDX-License-Identifier: Apache-2.0
"""The page of `vesalius check`: what is wrong with a cohort, worst images first."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vesalius.files import write_text
from vesalius.reporting.findings import badge, findings_html, summarize
from vesalius.reporting.html import Html, page, section, table, tag, tile
from vesalius.reporting.pictures import picture, rows_of
from vesalius.reporting.population import describe, frame_of, notice, population_html
from vesalius.types import PathLike

if TYPE_CHECKING:
    import pandas as pd

    from vesalius.cohorts import Cohort

_WORST = 12


def write_check(cohort: Cohort, out: PathLike) -> Path:
    """Write the page of a cohort's findings and return its path.

    `out` is the HTML file, or a folder that receives `check.html`. Rows appear under their keys.
    """
    target = Path(out)
    target = target / "check.html" if target.is_dir() else target
    frame = frame_of(cohort, None)
    findings = cohort.findings()
    population = describe(cohort, frame, {})
    entries = summarize(findings)
    severities = Counter(findings["severity"])
    touched = findings.loc[findings["severity"] != "info", "key"].replace("", None).nunique()
    simulated = notice(population)
    lead = (
        f"{len(entries)} kinds of finding in {len(frame):,} images of "
        f"{population['patients']:,} patients: {severities['error']} errors, "
        f"{severities['warning']} warnings, {severities['info']} remarks."
    )
    header = [
        tag("p", "Vesalius check", class_="eyebrow"),
        tag("h1", "What is wrong with these data"),
        tag("p", simulated, class_="notice") if simulated else None,
        tag("p", lead, class_="lead"),
        tag(
            "div",
            tile("images", f"{len(frame):,}"),
            tile("errors", severities["error"], "do not train on these"),
            tile("warnings", severities["warning"], "look at these"),
            tile("images without either", f"{len(frame) - touched:,}"),
            class_="tiles",
        ),
    ]
    overview = table(
        ("finding", "severity", "times", "images", "way out"),
        [(e["name"], badge(e["severity"]), e["count"], e["images"], e["way_out"]) for e in entries],
        numeric=(2, 3),
    )
    sections = [
        ("overview", "Overview", section("overview", "Overview", overview if entries else None)),
        ("worst", "Worst images", _worst(findings, cohort)),
        (
            "findings",
            "Findings",
            section("findings", "Findings one by one", *findings_html(entries, cohort)),
        ),
        ("cohort", "Cohort", section("cohort", "Cohort", *population_html(population))),
    ]
    footer = "Made by Vesalius. Shows patient images: keep it where the data may be kept."
    return write_text(
        target, page("Vesalius check", header=header, sections=sections, footer=footer)
    )


def _worst(findings: pd.DataFrame, cohort: Cohort) -> Html:
    """Return the images with the most and severest findings."""
    weight = findings["severity"].map({"error": 100, "warning": 1}).fillna(0)
    burden = weight.groupby(findings["key"]).sum().drop("", errors="ignore")
    burden = burden[burden > 0].sort_values(ascending=False, kind="stable").head(_WORST)
    keys = [str(key) for key in burden.index]
    if not keys:
        return section("worst", "Worst images", tag("p", "No image has an error or a warning."))
    rows = {row["key"]: row for row in rows_of(cohort, keys)}
    cards: list[Any] = []
    for key in keys:
        own = findings[findings["key"] == key]
        slices = own["slice"].dropna()
        where = None if slices.empty else int(slices.iloc[0])
        kinds = own.drop_duplicates(["name", "severity"])
        names = [
            tag("p", badge(severity), name)
            for name, severity in zip(kinds["name"], kinds["severity"], strict=True)
        ]
        figure = picture(cohort, rows[key], where) if key in rows else None
        cards.append(
            tag(
                "article",
                tag("h3", key),
                tag("div", figure, class_="pictures"),
                names,
                class_="case",
            )
        )
    return section("worst", "Worst images", tag("div", cards, class_="cases"))
