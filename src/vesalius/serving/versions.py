# SPDX-License-Identifier: Apache-2.0
"""Which run each routing rule has, and which it had before; kept in the state, switched at once.

Each activation is a row that stays. The active version of a rule is its last one that was not
rolled back; rolling back marks that one, so that the one before counts again.
"""

from __future__ import annotations

import datetime
import json
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from vesalius.errors import RunError, UsageError, did_you_mean
from vesalius.serving.routing import Route
from vesalius.serving.runs import ServedRun
from vesalius.serving.state import State
from vesalius.types import Json

_COLUMNS = "number, rule, path, run_id, task, modalities, digest, since, actor, reason, undone"


@dataclass(frozen=True, slots=True)
class Version:
    """A run that a rule has or had.

    Attributes:
        number: of the version, unique in the state.
        rule: name of the routing rule.
        run: the run.
        digest: SHA-256 of what the run answers with, when it was activated.
        since, undone: wall clock; `undone` is empty for one that was not rolled back.
        actor, reason: who did it, and why.
    """

    number: int
    rule: str
    run: ServedRun
    digest: str
    since: str
    actor: str
    reason: str
    undone: str

    def to_json(self) -> Json:
        """Return it for machines, without paths."""
        return {
            "version": self.number,
            "rule": self.rule,
            "run": self.run.id,
            "name": self.run.name,
            "since": self.since,
            "by": self.actor,
            "reason": self.reason,
            "rolled_back": self.undone,
        }

    def damage(self) -> str:
        """Return how the run's files differ from those that were activated, or an empty text."""
        try:
            whole = self.run.digest() == self.digest
        except RunError as error:
            return str(error)
        return "" if whole else "its files are not those that were promoted"


def active(connection: sqlite3.Connection, rule: str) -> Version | None:
    """Return the version that counts, or None where the rule is not known."""
    row = connection.execute(
        f"SELECT {_COLUMNS} FROM activations WHERE rule = ? AND undone = '' "  # noqa: S608 - constants
        "ORDER BY number DESC LIMIT 1",
        (rule,),
    ).fetchone()
    return None if row is None else _version(row)


def history(connection: sqlite3.Connection, rule: str = "") -> list[Version]:
    """Return all versions of a rule, or of all rules, the latest first."""
    rows = connection.execute(
        f"SELECT {_COLUMNS} FROM activations WHERE ? IN ('', rule) ORDER BY number DESC",  # noqa: S608 - constants
        (rule,),
    )
    return [_version(row) for row in rows]


def rules(connection: sqlite3.Connection) -> list[str]:
    """Return the names of the rules that have, or had, a run."""
    return [
        row[0] for row in connection.execute("SELECT DISTINCT rule FROM activations ORDER BY 1")
    ]


def chosen(connection: sqlite3.Connection, rule: str, run: ServedRun | None = None) -> str:
    """Return the rule that is meant: the one named, or the only one that fits.

    Raises:
        UsageError: no such rule, or several that fit.
    """
    known = rules(connection)
    if rule:
        if rule not in known:
            raise UsageError(
                f"the state has no rule '{rule}'; it has: {', '.join(known) or 'none yet'}."
                f"{did_you_mean(rule, known)}"
            )
        return rule
    fit = []
    for name in known:
        held = active(connection, name)
        if held is not None and (run is None or held.run.task == run.task):
            fit.append(name)
    if not fit:
        raise UsageError(
            "no rule of the state has a run for that task; start the server with the first run: "
            "`vesalius serve RUN --state DIR`"
        )
    if len(fit) > 1:
        raise UsageError(f"several rules could be meant; give --rule, one of: {', '.join(fit)}")
    return fit[0]


def current(connection: sqlite3.Connection, routes: Sequence[Route]) -> list[Route]:
    """Return the rules with the runs that they have now."""
    found = []
    for route in routes:
        held = active(connection, route.name)
        found.append(route if held is None else replace(route, run=held.run))
    return found


def settle(state: State, routes: Sequence[Route], actor: str = "server") -> list[Version]:
    """Make the runs of a server's start the first versions of the rules that have none.

    Returns:
        The active version of each rule.

    Raises:
        UsageError: a rule has another run, and never had the one that is given.
        RunError: a run cannot be read whole.
    """
    found = []
    for route in routes:
        held = active(state.connection(), route.name)
        if held is None:
            digest = route.run.digest()
            with state.transaction() as connection:
                held = activate(connection, route.name, route.run, digest, actor, "first start")
        elif all(one.run.id != route.run.id for one in history(state.connection(), route.name)):
            raise UsageError(
                f"the rule '{route.name}' of this state has the run {held.run.name}, and never had "
                f"{route.run.name}: start with a run that it had, and then `vesalius promote "
                f"{route.run.path} --rule {route.name}`"
            )
        found.append(held)
    return found


def activate(
    connection: sqlite3.Connection, rule: str, run: ServedRun, digest: str, actor: str, reason: str
) -> Version:
    """Give a rule a run, within the caller's transaction, and return the version."""
    number = connection.execute(
        "INSERT INTO activations (rule, path, run_id, task, modalities, digest, since, actor, "
        "reason) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (rule, *_stored(run), digest, wall_clock(), actor, reason),
    ).lastrowid
    row = connection.execute(
        f"SELECT {_COLUMNS} FROM activations WHERE number = ?",  # noqa: S608 - constants
        (number,),
    ).fetchone()
    return _version(row)


def undo(connection: sqlite3.Connection, version: Version, before: Version) -> None:
    """Mark a version as rolled back, within the caller's transaction.

    Raises:
        UsageError: it is not the active one any more, or `before` is not the one that then is.
    """
    held = active(connection, version.rule)
    connection.execute(
        "UPDATE activations SET undone = ? WHERE number = ?", (wall_clock(), version.number)
    )
    then = active(connection, version.rule)
    if held != version or then != before:
        raise UsageError(f"the rule '{version.rule}' was switched by another meanwhile; look again")


def set_shadow(
    connection: sqlite3.Connection, rule: str, run: ServedRun, digest: str, actor: str
) -> None:
    """Let a candidate see what the rule's run sees, within the caller's transaction."""
    connection.execute(
        "INSERT OR REPLACE INTO shadows (rule, path, run_id, task, modalities, digest, since, "
        "actor) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (rule, *_stored(run), digest, wall_clock(), actor),
    )


def end_shadow(connection: sqlite3.Connection, rule: str) -> None:
    """Let no candidate of the rule see any more, within the caller's transaction."""
    connection.execute("DELETE FROM shadows WHERE rule = ?", (rule,))


def shadow(connection: sqlite3.Connection, rule: str) -> ServedRun | None:
    """Return the candidate of a rule, or None."""
    row = connection.execute(
        "SELECT path, run_id, task, modalities FROM shadows WHERE rule = ?", (rule,)
    ).fetchone()
    return None if row is None else _run(*row)


def wall_clock() -> str:
    """Return the time of day for people, UTC, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _stored(run: ServedRun) -> tuple[str, str, str, str]:
    return str(run.path), run.id, run.task, json.dumps(list(run.modalities))


def _run(path: str, number: str, task: str, modalities: str) -> ServedRun:
    return ServedRun(Path(path), number, task, tuple(json.loads(modalities)))


def _version(row: tuple[object, ...]) -> Version:
    number, rule, path, run_id, task, modalities, digest, since, actor, reason, undone = row
    return Version(
        int(str(number)),
        str(rule),
        _run(str(path), str(run_id), str(task), str(modalities)),
        *(str(one) for one in (digest, since, actor, reason, undone)),
    )
