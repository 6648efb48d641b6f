# SPDX-License-Identifier: Apache-2.0
"""What each routing rule has: its active run, that run's health, its candidate; for all who ask."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from vesalius.serving import drift_watch, shadow, versions
from vesalius.serving.versions import Version
from vesalius.types import Json

_UNCHECKED = "not checked yet"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One rule.

    Attributes:
        version: the active one.
        healthy: whether the run's files are whole and its golden cases came out as recorded; None
            before the first check.
        words: what is wrong.
        cases: golden cases that were asked.
        checked: seconds of the state's clock; None before the first check.
        shadow: how far the candidate that looks on agrees with the run (`shadow.agreed`), or None.
        waiting: studies that wait for the run.
        observed: studies whose facts were kept.
        drift: the last look at each group of studies (`drift_watch.latest`).
    """

    version: Version
    healthy: bool | None
    words: str
    cases: int
    checked: float | None
    shadow: Json | None
    waiting: int
    observed: int
    drift: list[Json]

    @property
    def labels(self) -> str:
        """The rule and its run, as Prometheus has them."""
        return f'rule="{self.version.rule}",run="{self.version.run.id}"'

    def to_json(self) -> Json:
        """Return it for machines, without paths."""
        return {
            **self.version.to_json(),
            "task": self.version.run.task,
            "modalities": list(self.version.run.modalities),
            "healthy": self.healthy,
            "problem": self.words,
            "golden_cases": self.cases,
            "checked": self.checked,
            "shadow": self.shadow,
            "waiting": self.waiting,
            "observed": self.observed,
            "drift_alarms": self.alarms,
        }

    @property
    def alarms(self) -> int:
        """How many groups of studies are other than those that the run was introduced with."""
        return sum(bool(one["alarms"]) for one in self.drift)

    def lines(self) -> list[str]:
        """Return it for people."""
        held = self.version
        state = {None: _UNCHECKED, True: f"healthy, {self.cases} golden cases reproduced"}.get(
            self.healthy, f"NOT HEALTHY: {self.words}; its studies wait"
        )
        run = f"{held.run.name}, version {held.number} since {held.since}"
        out = [f"rule {held.rule}: {run}: {state}"]
        if self.shadow is not None:
            out.append(f"rule {held.rule}: {shadow.line(self.shadow)}")
        out += [f"rule {held.rule}: {drift_watch.line(one)}" for one in self.drift]
        if not self.drift:
            out.append(
                f"rule {held.rule}: drift: {self.observed} studies of the {drift_watch.FIRST} that "
                "are to be compared with"
            )
        return out


def overview(connection: sqlite3.Connection, *, brief: bool = False) -> list[Rule]:
    """Return all rules of a state; `brief`: without candidates and counts, at no cost."""
    found = []
    for name in versions.rules(connection):
        version = versions.active(connection, name)
        if version is None:
            continue
        row = connection.execute(
            "SELECT healthy, words, cases, checked FROM run_health WHERE run_id = ?",
            (version.run.id,),
        ).fetchone()
        healthy, words, cases, checked = row or (None, "", 0, None)
        lost = connection.execute(
            "SELECT 1 FROM jobs WHERE kind = 'golden' AND state = 'failed' AND finished > ? "
            "AND json_extract(subject, '$.run_id') = ?",
            (checked or 0.0, version.run.id),
        ).fetchone()
        if lost is not None:
            healthy, words = False, "its golden cases could not be asked: the worker ended"
        (waiting,) = connection.execute(
            "SELECT count(*) FROM jobs WHERE kind = 'predict' AND state = 'ready' "
            "AND json_extract(subject, '$.run_id') = ?",
            (version.run.id,),
        ).fetchone()
        found.append(
            Rule(
                version=version,
                healthy=None if healthy is None else bool(healthy),
                words=words,
                cases=cases,
                checked=checked,
                shadow=None if brief else shadow.agreed(connection, name),
                waiting=waiting,
                observed=0 if brief else drift_watch.observed(connection, name, version.run.id),
                drift=drift_watch.latest(connection, name, version.run.id),
            )
        )
    return found
