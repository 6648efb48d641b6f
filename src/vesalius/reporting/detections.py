# SPDX-License-Identifier: Apache-2.0
"""Detection in a report: charts of counts and of precision, the worst counted images with boxes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from vesalius.reporting import figures
from vesalius.reporting.html import Html, table, tag
from vesalius.reporting.pictures import boxed, rows_of
from vesalius.reporting.redact import without_paths
from vesalius.tasks.detect.boxes import Boxes, boxes_of, empty
from vesalius.types import Json

if TYPE_CHECKING:
    import pandas as pd

    from vesalius.cohorts import Cohort

_WORST = 12
_LISTED = 300


def worst_images(predictions: pd.DataFrame, classes: Sequence[str]) -> list[Json]:
    """Return all images of one split: failures, then from the worst count to the best."""
    images = [_image(row, classes) for row in predictions.to_dict("records")]
    return sorted(images, key=lambda image: (not image["failed"], -image["error"]))


def detection_charts(
    metrics: Json, predictions: pd.DataFrame, classes: Sequence[str]
) -> list[tuple[str | None, str, str]]:
    """Return charts as `(address, words for who cannot see it, caption)`."""
    frame = predictions[~predictions["failed"].astype(bool)]
    charts: list[tuple[str | None, str, str]] = []
    for number, name in enumerate(classes):
        columns = [f"{part}_{name}" for part in ("true", "count", "low", "high")]
        truth, count, low, high = (frame[column].to_numpy(float) for column in columns)
        uri = figures.count_plot(truth, count, low, high, name=name, color=number)
        words = f"{name}: a dot an image, lines are the intervals; on the dashed line counts agree"
        charts.append((uri, f"counts of {name} against the truth", words))
    uri = figures.precision_recall(metrics.get("precision_recall", {}))
    return [*charts, (uri, "precision over recall", "Precision over recall, overlap of 0.5")]


def images_html(images: Sequence[Json], cohort: Cohort, classes: Sequence[str]) -> list[Html]:
    """Return the worst counted images with their boxes, and all of them as a table."""
    if not images:
        return [tag("p", "There is no image in this split.")]
    shown = images[:_WORST]
    rows = {row["key"]: row for row in rows_of(cohort, [image["key"] for image in shown])}
    cards = [_card(image, rows.get(image["key"]), cohort, classes) for image in shown]
    marks = [
        [figures.swatch(number), f" {name}", " · " if number + 1 < len(classes) else ""]
        for number, name in enumerate(classes)
    ]
    listed = images[:_LISTED]
    return [
        tag("p", "Dashed boxes: truth. Solid boxes: what was counted. ", marks, class_="soft"),
        tag("div", cards, class_="cases large"),
        tag(
            "details",
            tag("summary", f"All images as a table ({len(listed)} of {len(images)})"),
            _list(listed, classes),
        ),
    ]


def _image(row: dict[Any, Any], classes: Sequence[str]) -> Json:
    failed = bool(row["failed"])
    counts = {
        name: {
            "truth": int(row[f"true_{name}"]),
            "count": int(row[f"count_{name}"]),
            "low": int(row[f"low_{name}"]),
            "high": _bound(row[f"high_{name}"]),
        }
        for name in classes
    }
    return {
        "key": str(row["key"]),
        "patient": str(row.get("patient") or ""),
        "failed": failed,
        "reason": without_paths(str(row.get("reason") or "")),
        "counts": counts,
        "error": sum(abs(int(row[f"count_{n}"]) - int(row[f"true_{n}"])) for n in classes),
        "boxes": json.loads(row["boxes"]),
    }


def _card(image: Json, row: Json | None, cohort: Cohort, classes: Sequence[str]) -> Html:
    figure = tag("div", "no picture: the image is not in this cohort", class_="missing")
    if row is not None:
        figure = boxed(cohort, row, boxes_of(row, classes), _found(image, classes))
    words: list[Any] = []
    if image["failed"]:
        words.append(tag("p", tag("span", "failed", class_="bad"), f": {image['reason']}"))
    for name, one in image["counts"].items():
        right = one["count"] == one["truth"]
        count = tag("span", one["count"], class_="good" if right else "bad")
        bounds = f" ({_bounds(one)})"
        words.append(tag("p", f"{name}: ", count, bounds, f", truth {one['truth']}"))
    return tag(
        "article",
        tag("h3", image["key"]),
        tag("div", figure, class_="pictures"),
        words,
        class_="case",
    )


def _found(image: Json, classes: Sequence[str]) -> Boxes:
    boxes = image["boxes"]
    if not boxes:
        return empty()
    return Boxes(
        np.array([[box[side] for side in ("x0", "y0", "x1", "y1")] for box in boxes], float),
        np.array([classes.index(box["label"]) for box in boxes]),
        np.array([box["probability"] for box in boxes], float),
    )


def _list(images: Sequence[Json], classes: Sequence[str]) -> Html:
    head = ["image", "patient", ""]
    for name in classes:
        head += [f"{name}: truth", "count", "interval"]
    rows = []
    for image in images:
        cells: list[Any] = [
            tag("span", image["key"], class_="key"),
            tag("span", image["patient"], class_="key"),
            "failed" if image["failed"] else "",
        ]
        for one in image["counts"].values():
            cells += [one["truth"], one["count"], _bounds(one)]
        rows.append(cells)
    return table(head, rows, numeric=range(3, len(head)))


def _bound(high: Any) -> int | None:
    """Return an upper bound, None where the table has none (or, beside numbers, NaN)."""
    return None if high is None or np.isnan(high) else int(high)


def _bounds(one: Json) -> str:
    return f"{one['low']} or more" if one["high"] is None else f"{one['low']} to {one['high']}"
