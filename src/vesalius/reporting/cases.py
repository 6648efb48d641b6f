# SPDX-License-Identifier: Apache-2.0
"""Worst cases first: what the model got most wrong, with pictures and contours."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vesalius.reporting.html import Html, table, tag
from vesalius.reporting.pictures import overlay, picture, rows_of
from vesalius.reporting.redact import without_paths
from vesalius.types import Json

if TYPE_CHECKING:
    import pandas as pd

    from vesalius.cohorts import Cohort

_WORST = 12
_LISTED = 300
_IMAGES_PER_CASE = 3


def worst_cases(task: str, predictions: pd.DataFrame, labels: Sequence[str]) -> list[Json]:
    """Return all cases of one split, failures first, then from the worst to the best.

    Classification sorts by loss, segmentation by Dice. Words are free of paths.
    """
    frame = predictions.assign(failed=predictions["failed"].fillna(value=False).astype(bool))
    if task == "classify":
        frame = frame.sort_values(["failed", "loss"], ascending=[False, False], kind="stable")
    else:
        frame = frame.sort_values(["failed", "dice"], ascending=[False, True], kind="stable")
    return [_case(task, row, labels) for row in frame.to_dict("records")]


def cases_html(
    task: str, cases: Sequence[Json], cohort: Cohort, frame: pd.DataFrame, run: Path
) -> list[Html]:
    """Return the worst cases as cards with pictures, and all of them as a table."""
    if not cases:
        return [tag("p", "There is no case in this split.")]
    shown = cases[:_WORST]
    keys = {case["key"]: _image_keys(frame, case["key"]) for case in shown}
    every = [key for found in keys.values() for key in found]
    rows = {row["key"]: row for row in rows_of(cohort, every)}
    cards = []
    for case in shown:
        found = [rows[key] for key in keys[case["key"]] if key in rows]
        if task == "segment":
            predicted = _inside(run, case["file"])
            figures = [overlay(cohort, row, predicted) for row in found[:1]]
        else:
            figures = [picture(cohort, row) for row in found]
        cards.append(_card(task, case, figures))
    legend = None
    if task == "segment":
        legend = tag(
            "p",
            "Contours: ", tag("span", "truth", class_="key-truth"), " (blue, wide) and ",
            tag("span", "prediction", class_="key-prediction"),
            " (orange, narrow), in the slice where they differ most.",
            class_="soft",
        )  # fmt: skip
    listed = cases[:_LISTED]
    summary = f"All cases as a table ({len(listed)} of {len(cases)})"
    return [
        *([legend] if legend else []),
        tag("div", cards, class_="cases"),
        tag("details", tag("summary", summary), _list(task, listed)),
    ]


def _case(task: str, row: dict[Any, Any], labels: Sequence[str]) -> Json:
    failed = bool(row["failed"])
    case: Json = {
        "key": str(row["key"]),
        "patient": str(row.get("patient") or ""),
        "failed": failed,
        "reason": without_paths(str(row.get("reason") or "")),
    }
    if task == "classify":
        case |= {
            "truth": str(row["truth"]),
            "predicted": None if failed else str(row["predicted"]),
            "probabilities": {} if failed else {c: _number(row.get(f"p_{c}")) for c in labels},
            "loss": _number(row.get("loss")),
        }
        return case
    case |= {"file": str(row.get("file") or ""), "dice": _number(row.get("dice"))}
    for measure in ("dice", "nsd", "hd95", "volume_error", "lesion_f1"):
        case |= {f"{measure}_{name}": _number(row.get(f"{measure}_{name}")) for name in labels}
    return case


def _card(task: str, case: Json, figures: list[Html]) -> Html:
    words: list[Any] = []
    if case["failed"]:
        words.append(tag("p", tag("span", "failed", class_="bad"), f": {case['reason']}"))
    elif case["reason"]:
        words.append(tag("p", "left out: ", case["reason"], class_="note"))
    if task == "classify":
        words.append(tag("p", "truth ", tag("strong", case["truth"])))
        if not case["failed"]:
            right = case["predicted"] == case["truth"]
            chance = case["probabilities"].get(case["predicted"])
            own = case["probabilities"].get(case["truth"])
            words.append(
                tag(
                    "p",
                    "predicted ",
                    tag("span", case["predicted"], class_="good" if right else "bad"),
                    "" if chance is None else f" with {chance:.0%}",
                    "" if right or own is None else f" (truth {own:.0%})",
                )
            )
    else:
        found = [
            f"{name.removeprefix('dice_')} {value:.3f}"
            for name, value in case.items()
            if name.startswith("dice_") and value is not None
        ]
        words.append(tag("p", "Dice ", ", ".join(found)))
    missing = tag("div", "no picture: the case has no image in this cohort", class_="missing")
    return tag(
        "article",
        tag("h3", case["key"]),
        tag("div", figures or [missing], class_="pictures"),
        words,
        class_="case",
    )


def _list(task: str, cases: Sequence[Json]) -> Html:
    if task == "classify":
        classes = next((list(c["probabilities"]) for c in cases if c["probabilities"]), [])
        head = ["case", "patient", "truth", "predicted", "loss", *(f"p({c})" for c in classes)]
        rows = [
            [
                tag("span", c["key"], class_="key"),
                tag("span", c["patient"], class_="key"),
                c["truth"],
                "failed" if c["failed"] else c["predicted"],
                _shown(c["loss"]),
                *(_shown(c["probabilities"].get(name)) for name in classes),
            ]
            for c in cases
        ]
        return table(head, rows, numeric=range(4, len(head)))
    columns = [
        name
        for name in cases[0]
        if name.startswith(("dice", "nsd_", "hd95_", "volume_", "lesion_"))
    ]
    units = {"hd95": " (mm)", "volume": " (ml)"}
    titles = [c.replace("_", " ") + units.get(c.split("_")[0], "") for c in columns]
    rows = [
        [
            tag("span", c["key"], class_="key"),
            tag("span", c["patient"], class_="key"),
            "failed" if c["failed"] else "",
            *(_shown(c[name]) for name in columns),
        ]
        for c in cases
    ]
    return table(["case", "patient", "", *titles], rows, numeric=range(3, 3 + len(titles)))


def _image_keys(frame: pd.DataFrame, case: str) -> list[str]:
    """Return keys of the images that a case consists of: itself, or its series, study, patient.

    Of several, one of each modality comes first; at most three.
    """
    if (frame["key"] == case).any():
        return [case]
    for column in ("series", "study", "patient"):
        part = frame[(frame[column] == case) & (frame["kind"].isin(["image", ""]))]
        if len(part):
            order = part.groupby("modality", observed=True).cumcount().argsort(kind="stable")
            return [str(key) for key in part["key"].iloc[order].head(_IMAGES_PER_CASE)]
    return []


def _inside(run: Path, name: str) -> Path | None:
    """Return the predicted label map when it lies within the run folder, else None."""
    path = (run / name).resolve()
    inside = bool(name) and path.is_relative_to(run.resolve()) and path.is_file()
    return path if inside else None


def _number(value: Any) -> float | None:
    """Return a finite float, or None."""
    if value is None:
        return None
    number = float(value)
    return number if number - number == 0 else None


def _shown(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
