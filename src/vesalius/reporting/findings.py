# SPDX-License-Identifier: Apache-2.0
"""What is wrong with a cohort's data: each finding with count, examples, evidence, way out."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from vesalius.cohorts.quality.findings import FINDINGS
from vesalius.reporting.html import Html, counted, tag
from vesalius.reporting.pictures import picture, rows_of
from vesalius.reporting.redact import plain_evidence, without_paths
from vesalius.types import Json

if TYPE_CHECKING:
    import pandas as pd

    from vesalius.cohorts import Cohort

_RANK = {"error": 0, "warning": 1, "info": 2}
_EXAMPLES = 3
_PICTURES = 2


def summarize(findings: pd.DataFrame) -> list[Json]:
    """Return one entry per kind of finding, the severest and most frequent first.

    Examples carry the row's key, the slice, the message and the evidence, free of paths.
    """
    entries = []
    for (name, severity), group in findings.groupby(["name", "severity"], sort=False):
        kind = FINDINGS.get(name)
        what, way_out = (kind.what, kind.way_out) if kind else ("", "")
        examples = []
        seen: set[str] = set()
        for row in group.itertuples(index=False):
            if row.key and row.key in seen:
                continue
            seen.add(row.key)
            examples.append(_example(row, way_out))
            if len(examples) == _EXAMPLES:
                break
        keys = group["key"].replace("", None)
        entries.append(
            {
                "name": name,
                "severity": severity,
                "what": what,
                "way_out": way_out,
                "count": len(group),
                "images": int(keys.nunique()),
                "examples": examples,
            }
        )
    return sorted(entries, key=lambda e: (_RANK.get(e["severity"], 3), -e["count"], e["name"]))


def findings_html(entries: list[Json], cohort: Cohort) -> list[Html]:
    """Return one box per kind of finding with pictures of its first examples."""
    if not entries:
        return [tag("p", "Nothing was found to be wrong with these images.")]
    wanted = {e["key"]: e["slice"] for entry in entries for e in entry["examples"][:_PICTURES]}
    rows = {row["key"]: row for row in rows_of(cohort, [key for key in wanted if key])}
    return [_box(entry, cohort, rows) for entry in entries]


def badge(severity: str) -> Html:
    """Return the severity as a colored word."""
    return tag("span", severity, class_=f"badge {severity}")


def _box(entry: Json, cohort: Cohort, rows: dict[str, dict[str, Any]]) -> Html:
    figures = [
        picture(cohort, rows[example["key"]], example["slice"])
        for example in entry["examples"][:_PICTURES]
        if example["key"] in rows
    ]
    where = f" in {counted(entry['images'], 'image')}" if entry["images"] else ""
    return tag(
        "div",
        tag(
            "div",
            tag("h3", badge(entry["severity"]), entry["name"], " "),
            tag(
                "p",
                f"{counted(entry['count'], 'time')}{where}. {_sentence(entry['what'])}",
            ),
            tag("p", tag("strong", "Way out: "), _sentence(entry["way_out"]))
            if entry["way_out"]
            else None,
            tag("ul", [_line(example) for example in entry["examples"]]),
        ),
        tag("div", figures, class_="pictures") if figures else None,
        class_="finding",
    )


def _sentence(words: str) -> str:
    return f"{words[:1].upper()}{words[1:]}." if words else ""


def _line(example: Json) -> Html:
    evidence = ", ".join(f"{name} {value}" for name, value in example["evidence"].items())
    where = f", slice {example['slice']}" if example["slice"] is not None else ""
    return tag(
        "li",
        tag("span", example["key"] or "a file without row", class_="key"),
        f"{where}: {example['message']}",
        tag("span", f" [{evidence[:240]}]", class_="note") if evidence else None,
    )


def _example(row: Any, way_out: str) -> Json:
    paths = [row.file, *row.file.split("|")] if row.file else []
    evidence = json.loads(row.evidence) if isinstance(row.evidence, str) and row.evidence else {}
    return {
        "key": row.key or "",
        "slice": None if row.slice is None or row.slice != row.slice else int(row.slice),
        "message": without_paths(row.message.removesuffix(f"; {way_out}"), paths),
        "evidence": plain_evidence(evidence, paths),
    }
