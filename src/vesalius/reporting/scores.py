# SPDX-License-Identifier: Apache-2.0
"""Scores in words, tables and tiles: always with interval, count and trivial baseline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vesalius.reporting.html import Html, table, tag
from vesalius.types import Json

# name -> (title, what it says, whether lower is better)
SCORES: Mapping[str, tuple[str, str, bool]] = {
    "accuracy": ("Accuracy", "share of cases given their class", False),
    "balanced_accuracy": ("Balanced accuracy", "mean of the classes' recall", False),
    "auc": ("AUC", "chance that a case of the class is ranked above one of the rest", False),
    "average_precision": ("Average precision", "area under precision over recall", False),
    "macro_f1": ("Macro F1", "mean over classes of the balance of precision and recall", False),
    "recall": ("Recall", "share of the class's cases that were found", False),
    "brier": ("Brier score", "squared distance of probabilities from the truth", True),
    "nll": ("Log loss", "surprise at the truth", True),
    "ece": ("Calibration error", "gap between confidence and share correct (ECE, 15 bins)", True),
    "mcc": ("Matthews correlation", "correlation of truth and prediction", False),
    "sensitivity_at_specificity_90": ("Sensitivity at 90 % specificity", "", False),
    "sensitivity_at_specificity_95": ("Sensitivity at 95 % specificity", "", False),
    "calibration_slope": (
        "Calibration slope",
        "1 where confidence is right; below: too sure",
        False,
    ),
    "calibration_intercept": ("Calibration intercept", "0 where rates are right", False),
    "quadratic_weighted_kappa": ("Weighted kappa", "agreement of grades beyond chance", False),
    "grade_mae": ("Grades off", "mean distance between grades", True),
    "sensitivity": ("Sensitivity", "share of positive cases that were found", False),
    "specificity": ("Specificity", "share of negative cases that were left alone", False),
    "label_accuracy": ("Accuracy of labels", "share of right labels", False),
    "exact_match": ("Exact match", "share of cases with all labels right", False),
    "micro_f1": ("Micro F1", "F1 over all labels of all cases together", False),
    "interval_coverage": ("Coverage of intervals", "share that hold the truth", False),
    "mae": ("Mean absolute error", "mean distance from the truth", True),
    "rmse": ("Root mean square error", "", True),
    "r2": ("R²", "share of the variance that is explained", False),
    "spearman": ("Rank correlation", "Spearman's", False),
    "interval_width": ("Width of intervals", "", True),
    "dice": ("Dice", "overlap: 1 is perfect, 0 none", False),
    "iou": ("IoU", "shared over joint voxels", False),
    "nsd": ("Surface Dice (NSD)", "share of the surface within tolerance", False),
    "hd95": ("Hausdorff 95", "95th percentile of the distance between surfaces", True),
    "lesion_f1": ("Lesion-wise F1", "balance of lesions found and false alarms", False),
    "volume_error": ("Volume error", "magnitude of the difference in volume", True),
    "average_precision_50": (
        "Average precision", "area below precision over recall, overlap of 0.5", False,
    ),
    "froc": ("Sensitivity (FROC)", "mean at 1/8 to 8 false alarms an image", False),
    "count_mae": ("Error of the count", "mean distance from the true number", True),
    "precision@5": ("Precision at 5", "share of relevant ones among the first five", False),
    "recall@5": ("Recall at 5", "share of the relevant ones that are among the first five", False),
    "map@5": ("Mean average precision at 5", "over min(relevant, 5)", False),
    "ndcg@5": ("nDCG at 5", "gain discounted by rank, over the best ranking's", False),
    "precision@10": ("Precision at 10", "share of relevant ones among the first ten", False),
    "recall@10": ("Recall at 10", "share of the relevant ones that are among the first ten", False),
    "map@10": ("Mean average precision at 10", "over min(relevant, 10)", False),
    "ndcg@10": ("nDCG at 10", "gain discounted by rank, over the best ranking's", False),
    "mrr": ("Reciprocal rank", "one over the rank of the first relevant one", False),
    "count_coverage": ("Coverage of intervals", "share that hold the true number", False),
}  # fmt: skip
_TILES = 6
_OF_EACH = ("detect", "retrieve")  # scores of each class or label lead their reports
_HEADLINES = {
    "classify": ("auc", "mae", "balanced_accuracy", "accuracy", "r2", "ece"),
    "segment": ("dice", "nsd", "hd95", "iou"),
    "detect": ("count_mae", "average_precision_50"),
    "retrieve": ("precision@5", "recall@10"),
}


def title(name: str) -> str:
    """Return a score's name for people."""
    return SCORES[name][0] if name in SCORES else name.replace("_", " ")


def named(score: Json) -> str:
    """Return a score's name for people, with the class or structure that it is of."""
    label = score.get("label")
    return f"{title(score['name'])}: {label}" if label else title(score["name"])


def overall(scores: Sequence[Json], name: str) -> Json | None:
    """Return the score `name` over all classes or structures."""
    return next((s for s in scores if s["name"] == name and not s.get("label")), None)


def headline_score(task: str, scores: Sequence[Json]) -> Json | None:
    """Return the score that the headline speaks of: the first defined one of the task's list.

    Of a detector it is that of the class whose count gains least over the trivial answer.
    """
    found = [s for s in _leading(task, scores) if s["value"] is not None]
    if task == "detect":
        counts = [s for s in found if s["name"] == found[0]["name"]]
        counts.sort(key=lambda s: s["value"] / max(s["baseline"], 1e-9), reverse=True)
        return counts[0] if counts else None
    return found[0] if found else None


def _leading(task: str, scores: Sequence[Json]) -> list[Json]:
    """Return the scores that a report begins with; of a detector those of each class."""
    names = _HEADLINES.get(task, ())
    if task in _OF_EACH:
        return [s for name in names for s in scores if s["name"] == name][:_TILES]
    found = [overall(scores, name) for name in names]
    return [s for s in found if s]


def verdict(score: Json) -> str:
    """Return how the interval stands to the trivial baseline."""
    low, high, base = score.get("low"), score.get("high"), score.get("baseline")
    if low is None or high is None or base is None:
        return "not compared with the trivial answer"
    if SCORES.get(score["name"], ("", "", False))[2]:
        low, high, base = -high, -low, -base
    if low > base:
        return "better than the trivial answer"
    return "worse than the trivial answer" if high < base else "no better than the trivial answer"


def number(value: float | None, unit: str = "") -> str:
    """Return a value for reading: three decimals for ratios, two with a unit."""
    if value is None:
        return "–"
    return f"{value:.2f} {unit}" if unit else f"{value:.3f}"


def interval(score: Json) -> str:
    """Return the interval for reading."""
    if score.get("low") is None or score.get("high") is None:
        return "–"
    places = 2 if score.get("unit") else 3
    return f"{score['low']:.{places}f} to {score['high']:.{places}f}"


def exact(value: float | None, unit: str = "") -> Html:
    """Return the number for reading with the exact one in `<data value>`."""
    if value is None:
        return Html("–")
    return tag("data", number(value, unit), value=repr(float(value)))


def score_table(scores: Sequence[Json], *, caption: str = "") -> Html:
    """Return all scores with interval, picture, baseline and counts.

    What is remarked of most scores (how the interval was made) stands once, in the caption.
    """
    remarks = [_remarks(s) for s in scores]
    most = len(scores) / 2
    every = dict.fromkeys(part for parts in remarks for part in parts)
    common = [part for part in every if sum(part in parts for parts in remarks) > most]
    made = f"Unless remarked otherwise: {'; '.join(common)}" if common else ""
    caption = ". ".join(part for part in (caption, made) if part)
    rows = [
        (
            tag("span", title(s["name"]), title=SCORES.get(s["name"], ("", "", False))[1]),
            s.get("label") or "all",
            exact(s["value"], s.get("unit", "")),
            interval(s),
            _bar(s),
            _baseline(s),
            f"{s['n']} / {s['n_patients']}",
            tag("span", "; ".join(p for p in parts if p not in common), class_="note"),
        )
        for s, parts in zip(scores, remarks, strict=True)
    ]
    head = (
        "score", "of", "value", "95 % interval", "", "trivial answer", "cases / patients", "remark",
    )  # fmt: skip
    return table(head, rows, numeric=(2, 3, 6), caption=caption)


def tiles(task: str, scores: Sequence[Json]) -> Html:
    """Return the leading scores as large numbers."""
    return tag(
        "div",
        [
            tag(
                "div",
                tag("p", named(s), class_="name"),
                tag("p", _large(s), class_="value"),
                tag("p", _bounds(s), class_="note"),
                tag(
                    "p",
                    f"trivial: {_baseline(s)}",
                    class_="note",
                ),
                class_="tile",
            )
            for s in _leading(task, scores)
        ],
        class_="tiles",
    )


def group_table(groups: Sequence[Json], column: str) -> Html:
    """Return the scores of each value of one column (`scanner`, `modality`)."""
    entries = [g for g in groups if g["column"] == column]
    names = [s["name"] for s in entries[0]["scores"]]
    rows = []
    for entry in entries:
        scores = {s["name"]: s for s in entry["scores"]}
        first = entry["scores"][0]
        cells: list[Any] = [
            entry["value"].replace("|", " · "),
            f"{first['n']} / {first['n_patients']}",
        ]
        for name in names:
            s = scores[name]
            shown = "" if s.get("low") is None else f" ({interval(s)})"
            cells.append([exact(s["value"], s.get("unit", "")), shown])
        rows.append(cells)
    head = [column, "cases / patients", *(f"{title(n)} (95 % interval)" for n in names)]
    return table(head, rows, numeric=range(1, len(head)))


def _large(score: Json) -> list[Any]:
    """Return the number with its unit in small letters."""
    value, unit = score["value"], score.get("unit", "")
    if value is None or not unit:
        return [exact(value)]
    shown = number(value, unit).removesuffix(f" {unit}")
    return [tag("data", shown, value=repr(float(value))), " ", tag("small", unit)]


def _bounds(score: Json) -> str:
    return "no interval" if score.get("low") is None else f"95 % interval {interval(score)}"


def _baseline(score: Json) -> str:
    value = number(score.get("baseline"), score.get("unit", ""))
    return f"{value} ({score.get('baseline_name') or 'none'})"


def _remarks(score: Json) -> list[str]:
    return [part for part in (score.get("method"), *score.get("note", "").split("; ")) if part]


def _bar(score: Json) -> Html:
    """Return value, interval and baseline on a line from 0 to 1 (empty for other ranges)."""
    value, low, high, base = (score.get(k) for k in ("value", "low", "high", "baseline"))
    if score["name"].startswith("calibration_"):
        return Html("")
    if score.get("unit") or value is None or not 0 <= value <= 1 or (base is not None and base > 1):
        return Html("")
    parts: list[Html] = [tag("rect", x=4, y=8, width=142, height=2, class_="track")]
    if low is not None and high is not None:
        x = 4 + 142 * max(low, 0)
        width = max(142 * (min(high, 1) - max(low, 0)), 1)
        parts.append(
            tag("rect", x=f"{x:.1f}", y=6, width=f"{width:.1f}", height=6, fill="currentColor",
                opacity=0.4)
        )  # fmt: skip
    if base is not None:
        x = 4 + 142 * max(base, 0) - 1
        parts.append(tag("rect", x=f"{x:.1f}", y=2, width=2, height=14, class_="base"))
    parts.append(tag("circle", cx=f"{4 + 142 * value:.1f}", cy=9, r=4, fill="currentColor"))
    words = f"value {number(value)} with its interval; the upright line is the trivial answer"
    return tag("svg", *parts, class_="bar", viewBox="0 0 150 18", role="img", aria_label=words)
