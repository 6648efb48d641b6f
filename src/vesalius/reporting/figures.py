# SPDX-License-Identifier: Apache-2.0
"""Static charts as SVG held in the page: axes with units, colors told apart by all readers.

Colors: Okabe & Ito (2008). Each function takes plain numbers and returns a `data:` address.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np

from vesalius.reporting.html import Html, data_uri, tag
from vesalius.types import Array, Json

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#4D4D4D", "#8C6D31")
_MOST_POINTS = 600
_MOST_CURVES = 8


def loss_curve(log: Sequence[Json]) -> str | None:
    """Return the training loss over steps, or None when none was logged."""
    steps = [r for r in log if r.get("event") == "step" and r.get("loss") is not None]
    if not steps:
        return None
    figure = new_figure(4.9, 3.0)
    axis = figure.subplots()
    x = np.array([r["step"] for r in steps], float)
    y = np.array([r["loss"] for r in steps], float)
    thin = np.unique(np.linspace(0, len(x) - 1, min(len(x), _MOST_POINTS)).astype(int))
    axis.plot(x[thin], y[thin], color=COLORS[5], lw=0.8, alpha=0.7, label="one step")
    axis.plot(x[thin], _smooth(y)[thin], color=COLORS[0], lw=1.8, label="running mean")
    axis.set(xlabel="training step", ylabel="training loss")
    axis.legend()
    return svg(figure)


def validation_curve(log: Sequence[Json]) -> str | None:
    """Return the validation scores over steps, or None when none was logged."""
    checks = [r for r in log if r.get("event") == "validation" and r.get("scores")]
    names = sorted({name for r in checks for name, v in r["scores"].items() if _is_number(v)})
    if not names:
        return None
    figure = new_figure(4.9, 3.0)
    axis = figure.subplots()
    for color, name in zip(COLORS, names[:_MOST_CURVES], strict=False):
        found = [
            (r["step"], r["scores"][name]) for r in checks if _is_number(r["scores"].get(name))
        ]
        x, y = np.array(found, float).T
        axis.plot(x, y, color=color, marker="o", ms=3.5, lw=1.5, label=name.replace("_", " "))
    axis.set(xlabel="training step", ylabel="validation score")
    axis.legend()
    return svg(figure)


def confusion_matrix(confusion: Json) -> str:
    """Return the table of truth against prediction; shade is the share of the true class."""
    names = [str(name) for name in confusion["classes"]]
    counts = np.array(confusion["matrix"], float)
    failed = confusion.get("failed") or [0] * len(names)
    across = list(names)
    if any(failed):
        counts = np.column_stack([counts, failed])
        across.append("failed")
    size = min(7.0, max(3.2, 1.5 + 0.62 * len(names)))
    figure = new_figure(size + 0.9, min(size, 1.3 + 0.72 * len(names)))
    axis = figure.subplots()
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    picture = axis.imshow(share, cmap="Blues", vmin=0, vmax=1, aspect="equal")
    if len(names) <= 15:
        for (row, column), count in np.ndenumerate(counts):
            color = "white" if share[row, column] > 0.55 else "#1a2230"
            axis.text(column, row, f"{count:.0f}", ha="center", va="center", color=color)
    tilt = 0 if max(len(n) for n in across) * len(across) < 34 else 40
    axis.set_xticks(range(len(across)), across, rotation=tilt, ha="right" if tilt else "center")
    axis.set_yticks(range(len(names)), names)
    axis.set(xlabel="predicted", ylabel="truth")
    axis.grid(visible=False)
    figure.colorbar(picture, label="share of the true class", shrink=0.9)
    return svg(figure)


def roc_curves(roc: Mapping[str, Json], areas: Mapping[str, float | None]) -> str | None:
    """Return sensitivity over false alarm rate, one curve per class."""
    if not roc:
        return None
    figure = new_figure(4.4, 3.9)
    axis = figure.subplots()
    axis.plot([0, 1], [0, 1], color="#888888", lw=1, ls="--", label="random order (0.500)")
    for color, (name, curve) in zip(COLORS, list(roc.items())[:_MOST_CURVES], strict=False):
        area = areas.get(name)
        label = name if area is None else f"{name} ({area:.3f})"
        axis.plot(curve["fpr"], curve["tpr"], color=color, lw=1.8, label=label)
    axis.set(
        xlabel="false positive rate", ylabel="true positive rate (sensitivity)",
        xlim=(-0.02, 1.02), ylim=(-0.02, 1.02),
    )  # fmt: skip
    axis.legend(loc="lower right", title="class (AUC)")
    return svg(figure)


def calibration_plot(bins: Sequence[Json]) -> str | None:
    """Return accuracy over confidence with the number of cases behind each point."""
    if not bins:
        return None
    figure = new_figure(4.4, 3.9)
    top, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    x, y, n = (np.array([b[name] for b in bins], float) for name in ("confidence", "accuracy", "n"))
    top.plot([0, 1], [0, 1], color="#888888", lw=1, ls="--", label="perfectly calibrated")
    top.plot(x, y, color=COLORS[0], lw=1.2)
    top.scatter(
        x, y, s=18 + 120 * n / n.max(), color=COLORS[0], zorder=3, clip_on=False, label="this model"
    )
    top.set(ylabel="share correct", ylim=(-0.03, 1.03), xlim=(-0.02, 1.02))
    top.legend(loc="upper left")
    below.bar(x, n, width=0.045, color=COLORS[5])
    below.set(xlabel="confidence of the predicted class", ylabel="cases")
    return svg(figure)


def decision_curves(curves: Mapping[str, Json]) -> str | None:
    """Return net benefit over thresholds (Vickers & Elkin 2006), with treat all and treat none."""
    if not curves:
        return None
    figure = new_figure(4.4, 3.9)
    axis = figure.subplots()
    for color, (name, curve) in zip(_cycle(len(curves)), curves.items(), strict=True):
        axis.plot(curve["threshold"], curve["model"], color=color, lw=1.4, label=name)
        if len(curves) == 1:
            axis.fill_between(
                curve["threshold"], curve["low"], curve["high"], color=color, alpha=0.2
            )
        axis.plot(curve["threshold"], curve["treat_all"], color=color, lw=0.8, ls=":")
    axis.axhline(0, color="#888888", lw=0.8)
    top = max(max(curve["model"]) for curve in curves.values())
    axis.set(
        xlabel="threshold: odds at which a false alarm weighs as much as a miss",
        ylabel="net benefit a case", ylim=(-0.1 * max(top, 0.1), 1.15 * max(top, 0.1)), xlim=(0, 1),
    )  # fmt: skip
    axis.legend(loc="upper right", title="class (dotted: treat all)")
    return svg(figure)


def count_plot(
    truth: Array, count: Array, low: Array, high: Array, *, name: str, color: int
) -> str | None:
    """Return counts over the true ones `(images,)` with their intervals; NaN is no bound."""
    if not len(truth):
        return None
    figure = new_figure(4.4, 3.9)
    axis = figure.subplots()
    top = max(truth.max(), count.max(), 1.0) * 1.06 + 0.5
    axis.plot([0, top], [0, top], color="#888888", lw=1, ls="--", label="as many as there are")
    place = truth + np.random.default_rng(0).uniform(-0.18, 0.18, len(truth))  # apart
    tone = COLORS[color % len(COLORS)]
    axis.vlines(place, low, np.where(np.isnan(high), top, high), color=tone, lw=0.9, alpha=0.45)
    axis.scatter(place, count, s=16, color=tone, lw=0, zorder=3, label="one image")
    axis.set(xlabel=f"true number of {name}", ylabel="count", xlim=(-0.5, top), ylim=(-0.5, top))
    axis.locator_params(integer=True)
    axis.legend(loc="upper left")
    return svg(figure)


def precision_recall(curves: Mapping[str, Json]) -> str | None:
    """Return precision over recall, one curve a class."""
    if not curves:
        return None
    figure = new_figure(4.4, 3.9)
    axis = figure.subplots()
    for color, (name, curve) in zip(_cycle(len(curves)), curves.items(), strict=True):
        axis.plot(curve["recall"], curve["precision"], color=color, lw=1.8, label=name)
    axis.set(
        xlabel="share of the objects that are found (recall)",
        ylabel="share of the boxes that are right (precision)",
        xlim=(-0.02, 1.02), ylim=(-0.02, 1.02),
    )  # fmt: skip
    axis.legend(loc="lower left", title="class")
    return svg(figure)


def swatch(number: int) -> Html:
    """Return a small square in the color of a class."""
    mark = tag("rect", width=10, height=10, fill=COLORS[number % len(COLORS)])
    return tag("svg", mark, width=10, height=10, aria_hidden="true")


def score_distribution(values: Mapping[str, Array], *, unit_label: str) -> str | None:
    """Return one row of dots with quartiles per structure; `values` maps its name to `(cases,)`."""
    if not values:
        return None
    figure = new_figure(4.9, 1.2 + 0.5 * len(values))
    axis = figure.subplots()
    jitter = np.random.default_rng(0)
    for row, (color, found) in enumerate(zip(_cycle(len(values)), values.values(), strict=True)):
        found = np.asarray(found, float)
        height = row + jitter.uniform(-0.16, 0.16, len(found))
        axis.scatter(found, height, s=14, color=color, alpha=0.55, lw=0)
        low, middle, high = np.percentile(found, [25, 50, 75])
        axis.plot([low, high], [row, row], color="#1a2230", lw=3, solid_capstyle="butt")
        axis.plot([middle] * 2, [row - 0.28, row + 0.28], color="#1a2230", lw=2)
    axis.set_yticks(range(len(values)), list(values))
    axis.set(xlabel=unit_label, ylim=(len(values) - 0.5, -0.5))
    return svg(figure)


def _cycle(count: int) -> list[str]:
    return [COLORS[n % len(COLORS)] for n in range(count)]


def _smooth(values: Array) -> Array:
    """Return the running mean over about a thirtieth of the steps, shorter at the ends."""
    half = max(1, len(values) // 60)
    sums = np.concatenate([[0.0], np.cumsum(values)])
    low = np.maximum(np.arange(len(values)) - half, 0)
    high = np.minimum(np.arange(len(values)) + half + 1, len(values))
    means: Array = (sums[high] - sums[low]) / (high - low)
    return means


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and bool(np.isfinite(value))


def new_figure(width: float, height: float) -> Figure:
    """Return a figure of its own, outside pyplot: nothing global, nothing to close."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def svg(figure: Figure) -> str:
    """Return the figure as SVG, text as outlines: the same on every machine and every call."""
    import matplotlib as mpl

    for axis in figure.axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.title.set_fontsize(10)
        axis.xaxis.label.set_fontsize(9)
        axis.yaxis.label.set_fontsize(9)
        axis.tick_params(labelsize=8.5)
        legend = axis.get_legend()
        if legend:
            legend.set_frame_on(False)
            for entry in legend.get_texts():
                entry.set_fontsize(8.5)
    stream = BytesIO()
    with mpl.rc_context({"svg.fonttype": "path", "svg.hashsalt": "vesalius"}):
        figure.savefig(
            stream,
            format="svg",
            bbox_inches="tight",
            metadata={"Date": None, "Creator": None},
        )
    return data_uri(stream.getvalue(), "image/svg+xml")
