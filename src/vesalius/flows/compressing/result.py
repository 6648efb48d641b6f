# SPDX-License-Identifier: Apache-2.0
"""Compression: a student beside its teacher; for people, for machines, for its report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from vesalius.flows.compressing.cost import Cost
from vesalius.metrics.comparison import Difference
from vesalius.types import Json

_HEAD = ("", "answers by", "p50", "p99", "processor", "memory", "size")


@dataclass(frozen=True, slots=True)
class Compression:
    """A student and its teacher.

    Attributes:
        path: the student's run.
        task, target: of both.
        teacher, student: names of the runs, from task and hash of the plan.
        models: what each row of the table answers by: `teacher`, `student`, and the export.
        costs: of each row.
        quality: the student's score less the teacher's on validation cases, with its interval.
        limits: `seconds` and `bytes` that were allowed, None for any.
        exported: the exported file or folder, None where none was asked for.
        int8: scores with 32 and with 8 bits, None where 8 bits were not asked for or refused.
        refused: why the export does not compute with 8 bits, or ``.
        report: path of the HTML page, once it is written.
    """

    path: Path
    task: str
    target: str | None
    teacher: str
    student: str
    models: Mapping[str, str]
    costs: Mapping[str, Cost]
    quality: Difference
    limits: Json
    exported: Path | None = None
    int8: Json | None = None
    refused: str = ""
    report: Path | None = None

    @property
    def faster(self) -> float:
        """How many times as fast the student answers one case from its files, in the median."""
        return self.costs["teacher"].p50 / self.costs["student"].p50

    @property
    def smaller(self) -> float:
        """How many times as small the student is on disk."""
        return self.costs["teacher"].size / self.costs["student"].size

    @property
    def within(self) -> bool:
        """Whether what is deployed keeps the limits: the export where there is one."""
        cost = list(self.costs.values())[-1]
        seconds, most = self.limits["seconds"], self.limits["bytes"]
        return (seconds is None or cost.p50 <= seconds) and (most is None or cost.size <= most)

    def to_json(self) -> Json:
        """Return what `compression.json` holds: no path, and no row of a patient."""
        return {
            "format": 1,
            "kind": "compression",
            "task": self.task,
            "target": self.target,
            "teacher": self.teacher,
            "student": self.student,
            "models": dict(self.models),
            "costs": {name: cost.to_json() for name, cost in self.costs.items()},
            "quality": self.quality.to_json(),
            "faster": self.faster,
            "smaller": self.smaller,
            "limits": self.limits,
            "within_limits": self.within,
            "exported": None if self.exported is None else self.exported.name,
            "worse": self.worse,
            "int8": self.int8,
            "int8_refused": self.refused,
        }

    @property
    def worse(self) -> str:
        """A warning where validation shows, beyond its interval, that the teacher is better."""
        if self.quality.verdict != "A better":
            return ""
        lost = f"{self.quality.name} {self.quality.difference:+.3f}"
        return (
            f"the student is worse than its teacher ({lost}): keep the teacher, give more minutes, "
            "or allow a larger network by --max-latency and --max-size"
        )

    def lines(self) -> Iterator[str]:
        """Yield the table and what it says, for people."""
        table = [_HEAD, *(self._row(name) for name in self.costs)]
        widths = [max(len(row[place]) for row in table) for place in range(len(_HEAD))]
        for row in table:
            yield "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip()
        yield (
            f"one case from its files, one thread, {self.costs['student'].calls} answers each: "
            f"the student is {self.faster:.1f} times as fast and {self.smaller:.1f} times as small"
        )
        yield self._told()
        if self.worse:
            yield f"warning: {self.worse}"
        if self.int8 is not None:
            yield (
                f"8-bit integers: {self.quality.name} {self.int8['int8']:.4f}, with 32 bits "
                f"{self.int8['fp32']:.4f}"
            )
        if self.refused:
            yield f"8-bit integers are refused, the export computes with 32 bits: {self.refused}"
        if not self.within:
            yield "the limits are not kept: the trained student costs more than was measured before"

    def _row(self, name: str) -> tuple[str, ...]:
        cost = self.costs[name]
        return (
            name, self.models[name], f"{1e3 * cost.p50:.1f} ms", f"{1e3 * cost.p99:.1f} ms",
            f"{1e3 * cost.processor:.1f} ms", f"{cost.memory / 1e6:.0f} MB",
            f"{cost.size / 1e6:.2f} MB",
        )  # fmt: skip

    def _told(self) -> str:
        one = self.quality
        cases = f"{one.n} validation cases of {one.n_patients} patients"
        if one.a is None or one.b is None or one.difference is None:
            return f"{one.name} of {cases} is undefined: {one.note}"
        interval = "" if one.low is None else f" [{one.low:+.3f}, {one.high:+.3f}]"
        return (
            f"{one.name} of {cases}: teacher {one.a:.3f}, student {one.b:.3f}, difference "
            f"{one.difference:+.3f}{interval}"
        )
