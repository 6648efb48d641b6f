# SPDX-License-Identifier: Apache-2.0
"""The page of `vesalius compress`: what the student costs, in time, memory, disk and quality."""

from __future__ import annotations

from pathlib import Path

from vesalius.files import write_json, write_text
from vesalius.reporting.html import Html, counted, page, section, table, tag, tile
from vesalius.reporting.redact import without_paths
from vesalius.reporting.scores import title
from vesalius.types import Json, PathLike

_COSTS = (
    "Seconds are those of one case from its files to the answer, with one thread, on the machine "
    "that compressed: the models answer the same case in turns, each in a process of its own. "
    "Processor is the time that it computed: the median on an idle machine. Memory is the "
    "peak of the process, size what answering needs on disk."
)
_QUALITY = (
    "The difference is the student's score less its teacher's on the same validation cases, its "
    "interval from a bootstrap that draws patients. Validation chose the student's weights, and so "
    "flatters it a little; the test subset tells: vesalius evaluate, then vesalius compare."
)


def write_compression(content: Json, out: PathLike) -> Path:
    """Write `compression.json` and `compression.html` into a folder and return the page's path.

    Args:
        content: of `Compression.to_json`; it names runs by their hashes and holds no row of a
            patient.
        out: the student's run.
    """
    folder = Path(out)
    content = {**content, "int8_refused": without_paths(content["int8_refused"])}
    sections = [
        ("costs", "Costs", section("costs", "What an answer costs", *_costs(content))),
        ("quality", "Quality", section("quality", "What it costs in quality", *_quality(content))),
    ]
    header = [
        tag("p", "Vesalius compress", class_="eyebrow"),
        tag("h1", f"A student: {content['task']} {content['target'] or 'structures'}"),
        tag("p", _lead(content), class_="lead"),
        tag("div", _tiles(content), class_="tiles"),
    ]
    footer = "Made by Vesalius. Not a medical device; not for diagnosis."
    html = page("Vesalius compress", header=header, sections=sections, footer=footer)
    write_json(folder / "compression.json", content)
    return write_text(folder / "compression.html", html)


def _lead(content: Json) -> str:
    kept = "" if content["within_limits"] else " It does not keep the limits that were asked."
    return (
        f"{content['student']} was taught by {content['teacher']}: {content['models']['student']} "
        f"in place of {content['models']['teacher']}.{kept}"
    )


def _tiles(content: Json) -> list[Html]:
    one, costs = content["quality"], content["costs"]
    name = title(one["name"])
    value = "–" if one["difference"] is None else f"{one['difference']:+.3f}"
    note = one["note"] if one["low"] is None else f"95 % {one['low']:+.3f} to {one['high']:+.3f}"
    return [
        tile("faster", f"{content['faster']:.1f}×", f"{_ms(costs['student']['p50'])} a case"),
        tile("smaller", f"{content['smaller']:.1f}×", _mb(costs["student"]["size"])),
        tile(f"{name}, validation", value, note),
    ]


def _costs(content: Json) -> list[Html]:
    rows = [
        (
            name, content["models"][name], _ms(cost["p50"]), _ms(cost["p99"]),
            _ms(cost["processor"]), _mb(cost["memory"]),
            _mb(cost["size"]), cost["calls"],
        )
        for name, cost in content["costs"].items()
    ]  # fmt: skip
    head = ("", "answers by", "median", "99th percentile", "processor", "memory", "size", "timed")
    return [tag("p", _COSTS, class_="soft"), table(head, rows, numeric=range(2, 8))]


def _quality(content: Json) -> list[Html]:
    one, int8 = content["quality"], content["int8"]
    numbers = [one[side] for side in ("a", "b", "difference", "low", "high")]
    shown = ["–" if value is None else f"{value:.4f}" for value in numbers]
    head = ("score", "teacher", "student", "difference", "from", "to", "cases")
    cases = f"{counted(one['n'], 'case')}, {counted(one['n_patients'], 'patient')}"
    parts = [
        tag("p", _QUALITY, class_="soft"),
        table(head, [(title(one["name"]), *shown, cases)], numeric=range(1, 6)),
    ]
    if content["worse"]:
        parts.append(tag("p", f"Warning: {content['worse']}.", class_="notice"))
    if int8 is not None:
        parts.append(
            tag("p", f"In 8-bit integers {int8['int8']:.4f}, with 32 bits {int8['fp32']:.4f}.")
        )
    if content["int8_refused"]:
        parts.append(tag("p", f"8-bit integers were refused: {content['int8_refused']}."))
    return parts


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:,.1f} ms"


def _mb(size: float) -> str:
    return f"{size / 1e6:,.1f} MB"
