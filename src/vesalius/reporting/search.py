# SPDX-License-Identifier: Apache-2.0
"""The page of `vesalius search`: the front, the best trial and its confirmation, all trials."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vesalius.files import write_json, write_text
from vesalius.reporting import search_figures as figures
from vesalius.reporting.html import Html, counted, image, page, section, table, tag, tile
from vesalius.reporting.redact import without_paths
from vesalius.reporting.scores import title
from vesalius.types import Json, PathLike

_FRONT = (
    "Nothing that was tried beats one of these in quality, latency, memory and size together. "
    "Latency is the median from files to an answer on the machine that searched, memory the peak "
    "of a process that answers, size what answering needs on disk. Quality is that on validation "
    "cases: the best of many is flattered by having been chosen."
)
_LISTED = 300


def write_search(content: Json, out: PathLike) -> Path:
    """Write `report.json` and `report.html` into a search's folder; return the page's path.

    Args:
        content: of `SearchResult.to_json`, with `setting` and `importance`. It names runs by their
            hashes and holds no row of a patient.
        out: the folder.
    """
    folder = Path(out)
    told = [{**trial, "why": without_paths(trial["why"])} for trial in content["trials"]]
    content = {**content, "trials": told}
    done = [trial for trial in content["trials"] if trial["state"] == "done"]
    ranked = sorted(done, key=lambda t: -t["values"][content["objectives"][0]])
    sections = [
        ("front", "Front", section("front", "Quality against cost", *_front(content, done))),
        ("trials", "Trials", section("trials", "What was tried", *_tried(content, done, ranked))),
        ("list", "List", section("list", "All trials", _list(content))),
        ("made", "How", section("made", "How it was made", _made(content["setting"]))),
    ]
    header = [
        tag("p", "Vesalius search", class_="eyebrow"),
        tag("h1", f"Search: {content['task']} {content['setting']['target']}"),
        tag("p", _lead(content), class_="lead"),
        tag("div", _tiles(content), class_="tiles"),
    ]
    footer = "Made by Vesalius. Not a medical device; not for diagnosis."
    held = {name: value for name, value in content.items() if name not in ("path", "setting")}
    write_json(folder / "report.json", held)
    html = page("Vesalius search", header=header, sections=sections, footer=footer)
    return write_text(folder / "report.html", html)


def _lead(content: Json) -> str:
    states = [trial["state"] for trial in content["trials"]]
    rest = [f"{states.count(s)} {s}" for s in dict.fromkeys(states) if s != "done"]
    ended = f" ({', '.join(rest)})" if rest else ""
    limits = "" if content["within_limits"] else " None of them keeps the limits that were asked."
    return (
        f"{counted(states.count('done'), 'trial')} came to an end{ended} in "
        f"{content['seconds'] / 60:.1f} minutes; {len(content['front'])} of them stand on the "
        f"front.{limits}"
    )


def _tiles(content: Json) -> list[Html]:
    best, confirmed = content["best"], content["confirmed"]
    quality = content["objectives"][0]
    name = title(quality)
    tiles = [
        tile(f"{name}, validation", f"{best['values'][quality]:.3f}", f"trial {best['number']}")
    ]
    if confirmed and (found := confirmed["corrected"]):
        note = f"95 % {found['low']:.3f} to {found['high']:.3f}, as the best of {found['trials']}"
        tiles.append(tile(f"{name}, corrected", f"{found['value']:.3f}", note))
    if confirmed and (held := confirmed["held_out"]) and held["value"] is not None:
        interval = "no interval"
        if held["low"] is not None:
            interval = f"95 % {held['low']:.3f} to {held['high']:.3f}"
        note = f"{interval}, {counted(held['n'], 'case')} that no trial saw"
        tiles.append(tile(f"{name}, held out", f"{held['value']:.3f}", note))
    latency, *bytes_ = content["objectives"][1:]
    note = "; ".join(f"{_cost(name, best['values'][name])} {name}" for name in bytes_)
    return [*tiles, tile("Cost of the best", _cost(latency, best["values"][latency]), note)]


def _cost(name: str, value: float) -> str:
    return f"{1e3 * value:,.1f} ms" if name == "latency" else f"{value / 1e6:,.1f} MB"


def _front(content: Json, done: Sequence[Json]) -> list[Html]:
    quality, *costs = content["objectives"]
    charts = [
        _chart(figures.trade(done, content["front"], quality, cost), f"{quality} over {cost}")
        for cost in costs
    ]
    by_number = {trial["number"]: trial for trial in done}
    rows = [_row(by_number[number], content["objectives"]) for number in content["front"]]
    head = ("trial", quality, *costs, "parameters", "run")
    return [
        tag("p", _FRONT, class_="soft"),
        tag("div", charts, class_="charts"),
        table(head, rows, numeric=range(1 + len(content["objectives"]))),
    ]


def _tried(content: Json, done: Sequence[Json], ranked: Sequence[Json]) -> list[Html]:
    quality = content["objectives"][0]
    top = max(trial["rung"] for trial in done)
    charts = [_chart(figures.progress(done, quality, top), "Quality over the time spent")]
    curve = figures.learning(ranked)
    if curve is not None:
        charts.append(_chart(curve, "Validations while networks trained; the best trial is dark"))
    if content["importance"]:
        words = "How much each parameter alone moves quality, by a model of all trials"
        charts.append(_chart(figures.shares(content["importance"]), words))
    lines = _chart(figures.parallel(done, quality), "A line a trial; the best tenth stands out")
    return [tag("div", charts, class_="charts"), tag("div", lines, class_="charts wide")]


def _chart(uri: str, words: str) -> Html:
    return tag("figure", image(uri, words), tag("figcaption", words), class_="chart")


def _list(content: Json) -> Html:
    objectives = content["objectives"]
    rows = [
        (
            trial["number"], trial["state"], trial["steps"], f"{trial['seconds']:.0f}",
            *_values(trial, objectives), _parameters(trial), trial["why"],
        )
        for trial in content["trials"][:_LISTED]
    ]  # fmt: skip
    head = ("trial", "state", "steps", "seconds", *objectives, "parameters", "why")
    return table(head, rows, numeric=(0, 2, 3, *range(4, 4 + len(objectives))))


def _row(trial: Json, objectives: Sequence[str]) -> tuple[object, ...]:
    run = tag("span", trial["plan"][:8], class_="key")
    return (trial["number"], *_values(trial, objectives), _parameters(trial), run)


def _values(trial: Json, objectives: Sequence[str]) -> list[str]:
    quality, *costs = objectives
    values = trial["values"]
    if not values:
        return [""] * len(objectives)
    return [f"{values[quality]:.4f}", *(_cost(cost, values[cost]) for cost in costs)]


def _parameters(trial: Json) -> str:
    held = trial["facts"].get("smaller", trial["parameters"])
    return ", ".join(
        f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in held.items()
    )


def _made(setting: Json) -> list[Html]:
    asked = {k: v for k, v in setting["asked"].items() if v not in (None, "", False)}
    said = ", ".join(f"{k} {v}" for k, v in asked.items() if k not in ("cohort", "split", "space"))
    return [
        tag("p", f"Asked: {said}."),
        tag("ul", [tag("li", without_paths(str(line))) for line in setting["audit"]]),
    ]
