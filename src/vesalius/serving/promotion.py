# SPDX-License-Identifier: Apache-2.0
"""Giving a rule another run, and taking it back: effective for the next study, without a restart.

The switch, and the questions that nobody has begun to answer, change in one transaction: those
are asked of the new run. What is under way ends with the run that it began with, and says so.
"""

from __future__ import annotations

import json
import sqlite3

from vesalius.errors import RunError, UsageError
from vesalius.serving import versions
from vesalius.serving.audit import Audit
from vesalius.serving.routing import Route
from vesalius.serving.runs import ServedRun
from vesalius.serving.state import State
from vesalius.serving.studies import REPLACED, ask
from vesalius.serving.versions import Version

_LONGEST_REASON = 400


def admitted(state: State, rule: str, run: ServedRun) -> tuple[str, str]:
    """Return the rule that a run may be promoted for, and the run's digest.

    Args:
        state: the state.
        rule: name of a rule, or empty where only one fits.
        run: the candidate.

    Raises:
        UsageError: no such rule, or one for another task.
        RunError: the run's files are not whole, or not those that it was served with before.
    """
    connection = state.connection()
    name = versions.chosen(connection, rule, run)
    held = versions.active(connection, name)
    if held is not None and held.run.task != run.task:
        raise UsageError(
            f"the rule '{name}' has a run of the task {held.run.task}, and {run.name} is of the "
            f"task {run.task}; choose another --rule"
        )
    digest = run.digest()
    for earlier in versions.history(connection):
        if earlier.run.id == run.id and earlier.digest != digest:
            raise RunError(
                f"the files of {run.name} are not those that it was served with from "
                f"{earlier.since} on: damaged or changed; restore the folder '{run.path}'"
            )
    return name, digest


def switch(
    state: State, audit: Audit, rule: str, run: ServedRun, digest: str, actor: str, reason: str
) -> Version:
    """Make a run the active one of a rule, and return the version.

    Raises:
        UsageError: it is active already, or the reason is too long.
    """
    _check_reason(reason)
    with state.transaction() as connection:
        before = versions.active(connection, rule)
        if before is not None and before.run.id == run.id and before.run.path == run.path:
            raise UsageError(f"{run.name} is the active run of the rule '{rule}' already")
        version = versions.activate(connection, rule, run, digest, actor, reason)
        candidate = versions.shadow(connection, rule)
        if candidate is not None and candidate.id == run.id:
            versions.end_shadow(connection, rule)
        _ask_again(connection, rule, run, state.clock.now())
    audit.write(
        actor,
        "promote",
        rule=rule,
        version=version.number,
        **{"from": before.run.id if before else "", "to": run.id},
        reason=reason,
    )
    return version


def look_on(
    state: State, audit: Audit, rule: str, run: ServedRun, digest: str, actor: str, reason: str
) -> None:
    """Let a candidate see each study after the active run of a rule; its answers go nowhere."""
    _check_reason(reason)
    with state.transaction() as connection:
        versions.set_shadow(connection, rule, run, digest, actor)
    audit.write(actor, "shadow", rule=rule, to=run.id, reason=reason)


def roll_back(state: State, audit: Audit, rule: str, actor: str, reason: str) -> Version:
    """Give a rule the run that it had before, and return that version.

    Raises:
        UsageError: no such rule, no version before, or one that was switched meanwhile.
        RunError: the files of the version before are not those that it was served with.
    """
    _check_reason(reason)
    kept = [one for one in versions.history(state.connection(), rule) if not one.undone]
    if len(kept) < 2:
        had = f"no other run before {kept[0].run.name}" if kept else "no run"
        raise UsageError(f"the rule '{rule}' has had {had}; promote one")
    held, before = kept[:2]
    damage = before.damage()
    if damage:
        raise RunError(
            f"{before.run.name}, which the rule '{rule}' had before, cannot serve: {damage}; "
            f"restore the folder '{before.run.path}', or promote another run"
        )
    with state.transaction() as connection:
        versions.undo(connection, held, before)
        _ask_again(connection, rule, before.run, state.clock.now())
    audit.write(
        actor,
        "rollback",
        rule=rule,
        version=before.number,
        **{"from": held.run.id, "to": before.run.id},
        reason=reason,
    )
    return before


def move_waiting(state: State, rule: str) -> int:
    """Ask the rule's run what waits for another one: a job that came back after a switch.

    Returns:
        How many jobs that were.
    """
    version = versions.active(state.connection(), rule)
    if version is None or not _waiting(state.connection(), rule, version.run):
        return 0
    with state.transaction() as connection:
        version = versions.active(connection, rule)
        return _ask_again(connection, rule, version.run, state.clock.now()) if version else 0


def _ask_again(connection: sqlite3.Connection, rule: str, run: ServedRun, now: float) -> int:
    """Ask the run what other runs of the rule were asked, and did not begin to answer."""
    waiting = _waiting(connection, rule, run)
    for number, study_uid, subject, priority in waiting:
        connection.execute(
            "UPDATE jobs SET state = 'refused', finished = ?, reason = ? WHERE id = ?",
            (now, REPLACED, number),
        )
        asked = json.loads(subject)
        route = Route(run, name=rule, priority=priority)
        ask(connection, study_uid, route, asked["series"], asked["inputs"], now)
    return len(waiting)


def _waiting(
    connection: sqlite3.Connection, rule: str, run: ServedRun
) -> list[tuple[int, str, str, int]]:
    """Return id, study, subject and priority of what waits for other runs of the rule."""
    return connection.execute(
        "SELECT id, study_uid, subject, priority FROM jobs WHERE kind = 'predict' "
        "AND state = 'ready' AND json_extract(subject, '$.rule') = ? "
        "AND json_extract(subject, '$.run_id') != ?",
        (rule, run.id),
    ).fetchall()


def _check_reason(reason: str) -> None:
    if len(reason) > _LONGEST_REASON:
        raise UsageError(f"a reason has {_LONGEST_REASON} characters at most, got {len(reason)}")
