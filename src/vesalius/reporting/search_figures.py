# SPDX-License-Identifier: Apache-2.0
"""Charts of a search: quality against cost, what was tried, how it learned, what time bought."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vesalius.reporting.figures import COLORS, new_figure, svg
from vesalius.types import Json

_UNITS = {
    "latency": ("latency (ms)", 1e3),
    "memory": ("memory (MB)", 1e-6),
    "size": ("size (MB)", 1e-6),
}
_MOST_CURVES = 60


def trade(trials: Sequence[Json], front: Sequence[int], quality: str, cost: str) -> str:
    """Return the quality of each trial over one of its costs, the front marked.

    Args:
        trials: that are done.
        front: numbers of those on the front.
        quality: name of the first objective.
        cost: name of another one.
    """
    label, factor = _UNITS[cost]
    figure = new_figure(4.9, 3.2)
    axis = figure.subplots()
    kept = set(front)
    for chosen, color, name in ((False, COLORS[5], "other trials"), (True, COLORS[1], "front")):
        part = [t for t in trials if (t["number"] in kept) is chosen]
        x = [t["values"][cost] * factor for t in part]
        axis.scatter(x, [t["values"][quality] for t in part], s=18, color=color, label=name)
    axis.set(xlabel=label, ylabel=f"validation {quality}", xscale="log")
    axis.legend()
    return svg(figure)


def progress(trials: Sequence[Json], quality: str, top: int) -> str:
    """Return the best quality so far over the seconds that trials took, full trials marked."""
    figure = new_figure(4.9, 3.2)
    axis = figure.subplots()
    spent = np.cumsum([t["seconds"] for t in trials]) / 60
    values = np.array([t["values"][quality] for t in trials])
    full = np.array([t["rung"] == top for t in trials])
    axis.scatter(spent[~full], values[~full], s=12, color=COLORS[5], label="cheaper trials")
    axis.scatter(spent[full], values[full], s=18, color=COLORS[0], label="full trials")
    axis.step(
        spent, np.maximum.accumulate(values), where="post", color=COLORS[1], label="best so far"
    )
    axis.set(xlabel="minutes of trials", ylabel=f"validation {quality}")
    axis.legend()
    return svg(figure)


def parallel(trials: Sequence[Json], quality: str) -> str:
    """Return parallel coordinates: a line a trial, dark where the quality is high."""
    names = list(dict.fromkeys(name for t in trials for name in t["parameters"]))
    figure = new_figure(10.2, 3.6)
    axis = figure.subplots()
    values = np.array([t["values"][quality] for t in trials])
    order = values.argsort()
    ranks = np.empty(len(values))
    ranks[order] = np.arange(len(values)) / max(1, len(values) - 1)
    scales = {name: _scale([t["parameters"].get(name) for t in trials]) for name in names}
    for place in order:
        held = trials[place]["parameters"]
        y = [scales[name].get(str(held.get(name)), np.nan) for name in names]
        color = COLORS[1] if ranks[place] > 0.9 else COLORS[0]
        axis.plot(
            [*range(len(names)), len(names)], [*y, ranks[place]],
            color=color, alpha=0.15 + 0.7 * float(ranks[place]), lw=1, marker=".", ms=3,
        )  # fmt: skip
    axis.set_xticks([*range(len(names) + 1)], [*names, quality], rotation=25, ha="right")
    axis.set_yticks([0, 1], ["low", "high"])
    return svg(figure)


def _scale(values: Sequence[object]) -> dict[str, float]:
    """Return text of a value -> its height from 0 to 1, numbers by rank, names in their order."""
    numbers = [v for v in values if isinstance(v, (int, float)) and not isinstance(v, bool)]
    known: list[object] = [*sorted(set(numbers))]
    known = known or list(dict.fromkeys(v for v in values if v is not None))
    return {str(value): n / max(1, len(known) - 1) for n, value in enumerate(known)}


def shares(importance: dict[str, float]) -> str:
    """Return the share of the quality's variance that each parameter makes alone, as bars."""
    names = list(importance)[::-1]
    figure = new_figure(4.9, 0.6 + 0.28 * len(names))
    axis = figure.subplots()
    axis.barh(names, [importance[name] for name in names], color=COLORS[2])
    axis.set(xlabel="share of the variance of quality")
    return svg(figure)


def learning(trials: Sequence[Json]) -> str | None:
    """Return the validations of each trial's network over its steps, None where there are none."""
    curves = [t["curve"] for t in trials if len(t["curve"]) > 1][:_MOST_CURVES]
    if not curves:
        return None
    figure = new_figure(4.9, 3.2)
    axis = figure.subplots()
    for number, curve in enumerate(curves):
        x, y = np.array(curve, float).T
        best = number == 0
        axis.plot(x, y, color=COLORS[1] if best else COLORS[5], lw=1.8 if best else 0.8,
                  alpha=1 if best else 0.5, zorder=3 if best else 1)  # fmt: skip
    axis.set(xlabel="training step", ylabel="score that chooses the weights", xscale="log")
    return svg(figure)
