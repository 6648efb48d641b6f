# SPDX-License-Identifier: Apache-2.0
"""Drift by scanner and site: what is kept of each study, when it is looked at, and against what.

The first `FIRST` studies of a version's run are its introduction. From then on each group (all, a
scanner, a site) is looked at whenever it has `WINDOW` new studies; windows do not overlap, so that
looks are apart. A group is compared with its own studies of the introduction, or with the whole
of it where the group had fewer than `ENOUGH`: a scanner that came later is compared with those that
the run was introduced with. Class probabilities of all studies are compared with those of the run's
own validation, where the run holds them.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from vesalius.serving import drift
from vesalius.serving.drift_facts import Facts
from vesalius.serving.state import State
from vesalius.types import Json

FIRST = 100
ENOUGH = 30
WINDOW = 50
ALL = "all"

# path of a run -> fact -> values in its validation
Validation = Callable[[Path], Mapping[str, Sequence[float]]]


def keep(connection: sqlite3.Connection, subject: Json, facts: Facts, now: float) -> None:
    """Keep what is known of one study, within the caller's transaction.

    Args:
        connection: within a transaction.
        subject: of the study's job.
        facts: of its images, and of what the run said.
        now: of the state's clock.
    """
    connection.execute(
        "INSERT INTO observations (rule, run_id, scanner, site, at, facts) "
        "VALUES (?, ?, ?, ?, ?, ?)",
        (
            str(subject.get("rule", "")),
            subject["run_id"],
            facts.scanner,
            facts.site,
            now,
            json.dumps(facts.values),
        ),
    )


def look(
    state: State, subject: Json, facts: Facts, validation: Validation | None = None
) -> list[Json]:
    """Look at those groups of a study that have a whole window of new studies, in a worker.

    Args:
        state: the state.
        subject: of the study's job: names rule and run.
        facts: of the study that was kept last.
        validation: gives what the run holds of its own validation.

    Returns:
        The looks that were taken, which are kept, too.
    """
    rule, run_id = str(subject.get("rule", "")), str(subject["run_id"])
    connection = state.connection()
    groups = {
        ALL: ("", ""),
        f"scanner {facts.scanner}": ("scanner", facts.scanner),
        facts.site: ("site", facts.site),
    }
    introduction = _rows(connection, rule, run_id, limit=FIRST)
    if len(introduction) < FIRST:
        return []
    begun = introduction[-1][0]
    taken = []
    for of, members in groups.items():
        row = connection.execute(
            "SELECT upto FROM drift WHERE rule = ? AND run_id = ? AND of = ?", (rule, run_id, of)
        ).fetchone()
        after = row[0] if row else begun
        recent = _rows(connection, rule, run_id, members, after=after, limit=WINDOW)
        if len(recent) < WINDOW:
            continue
        own = _rows(connection, rule, run_id, members, upto=begun, limit=FIRST)
        reference = own if len(own) >= ENOUGH else introduction
        given = dict(validation(Path(subject["run"]))) if validation and of == ALL else {}
        findings = drift.compare([f for _, f in reference], [f for _, f in recent], given=given)
        found: Json = {
            "rule": rule,
            "run": run_id,
            "of": of,
            "studies": len(recent),
            "reference": len(reference),
            "own_reference": len(own) >= ENOUGH,
            "validation": sorted(set(given) & {one.fact for one in findings}),
            "alarms": sum(one.alarm for one in findings),
            "facts": [one.to_json() for one in findings],
        }
        with state.transaction() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO drift VALUES (?, ?, ?, ?, ?, ?)",
                (rule, run_id, of, recent[-1][0], state.clock.now(), json.dumps(found)),
            )
        taken.append(found)
    return taken


def latest(connection: sqlite3.Connection, rule: str = "", run_id: str = "") -> list[Json]:
    """Return the last look at each group, those with alarms first; of all rules, or of one run."""
    rows = connection.execute(
        "SELECT at, found FROM drift WHERE ? IN ('', rule) AND ? IN ('', run_id)", (rule, run_id)
    )
    found = [{"at": at, **json.loads(text)} for at, text in rows]
    return sorted(found, key=lambda one: (-one["alarms"], one["rule"], one["of"]))


def observed(connection: sqlite3.Connection, rule: str, run_id: str) -> int:
    """Return how many studies of a run were kept."""
    (count,) = connection.execute(
        "SELECT count(*) FROM observations WHERE rule = ? AND run_id = ?", (rule, run_id)
    ).fetchone()
    return int(count)


def line(found: Json) -> str:
    """Return a look for people."""
    alarms = [one for one in found["facts"] if one["alarm"]]
    if not alarms:
        return f"{found['of']}: no drift in {found['studies']} studies"
    said = "; ".join(
        f"{one['fact']} {one['recent']:.4g} instead of {one['reference']:.4g} "
        f"(PSI {one['psi']:.2f})"
        for one in alarms[:3]
    )
    more = f" and {len(alarms) - 3} more" if len(alarms) > 3 else ""
    return f"{found['of']}: DRIFT in {found['studies']} studies: {said}{more}"


def _rows(
    connection: sqlite3.Connection,
    rule: str,
    run_id: str,
    members: tuple[str, str] = ("", ""),
    *,
    limit: int,
    after: int = 0,
    upto: int = 1 << 62,
) -> list[tuple[int, dict[str, float | bool]]]:
    """Return numbers and facts of a run's studies, the oldest first.

    Args:
        connection: of the state.
        rule, run_id: whose.
        members: column and value of a group; empty: all.
        limit: how many at most.
        after, upto: bounds of the number.
    """
    column, value = members
    only = f"AND {column} = ? " if column else "AND ? = '' "
    rows = connection.execute(
        "SELECT number, facts FROM observations WHERE rule = ? AND run_id = ? AND number > ? "  # noqa: S608 - constants
        f"AND number <= ? {only} ORDER BY number LIMIT ?",
        (rule, run_id, after, upto, value, limit),
    )
    return [(number, json.loads(text)) for number, text in rows]
