# SPDX-License-Identifier: Apache-2.0
"""The durable queue: jobs with leases, retries, priorities, and an end for those that never work.

```
ready -> leased -> done                      finished
                -> refused                   the data cannot serve; trying again changes nothing
                -> ready (later)             it failed, or its worker died; tried again
                -> failed                    tried often enough; a person has to look
```
A job counts an attempt when it is leased and an interruption when the whole server went down
with it. A worker that lost its lease cannot finish the job: each lease has a token of its own.
"""

from __future__ import annotations

import json
import secrets
import sqlite3
from dataclasses import dataclass

from vesalius.errors import DataError
from vesalius.serving.state import State
from vesalius.types import Json

MOST_ATTEMPTS = {"predict": 5, "push": 12, "pull": 6, "golden": 3, "shadow": 3}
MOST_INTERRUPTIONS = 25
LEASE_SECONDS = 60.0
_FIRST_PAUSE = 2.0
_LONGEST_PAUSE = 600.0
STATES = ("ready", "leased", "done", "refused", "failed")


@dataclass(frozen=True, slots=True)
class Job:
    """A leased job."""

    id: int
    kind: str
    study_uid: str
    subject: Json
    attempts: int
    lease: str


class LeaseLost(DataError):
    """Another worker has the job by now; what this one did does not count."""


def add(
    connection: sqlite3.Connection,
    *,
    kind: str,
    key: str,
    study_uid: str,
    subject: Json,
    now: float,
    priority: int = 0,
) -> bool:
    """Queue a job within the caller's transaction; False where the same key is there already."""
    return bool(
        connection.execute(
            "INSERT OR IGNORE INTO jobs (key, kind, study_uid, subject, state, priority, created) "
            "VALUES (?, ?, ?, ?, 'ready', ?, ?)",
            (key, kind, study_uid, json.dumps(subject, sort_keys=True), priority, now),
        ).rowcount
    )


def lease(
    state: State, kind: str, *, owner: str = "", seconds: float = LEASE_SECONDS
) -> Job | None:
    """Return the most urgent job that is due, or None; the highest priority first, then the oldest.

    Jobs whose lease ran out become ready again, and count their attempt. `owner` names the worker,
    so that `release` can tell its leases. Studies wait while their run is not healthy.
    """
    now = state.clock.now()
    with state.transaction() as connection:
        expired = connection.execute(
            "SELECT id FROM jobs WHERE kind = ? AND state = 'leased' AND lease_until < ?",
            (kind, now),
        ).fetchall()
        for (number,) in expired:
            _put_back(connection, number, now, "its worker did not answer any more")
        row = connection.execute(
            "SELECT id, study_uid, subject, attempts FROM jobs WHERE kind = ? AND state = 'ready' "
            "AND not_before <= ? AND NOT (kind = 'predict' AND EXISTS (SELECT 1 FROM run_health "
            "WHERE NOT healthy AND run_id = json_extract(jobs.subject, '$.run_id'))) "
            "ORDER BY priority DESC, id LIMIT 1",
            (kind, now),
        ).fetchone()
        if row is None:
            return None
        token = f"{owner}-{secrets.token_hex(8)}"
        connection.execute(
            "UPDATE jobs SET state = 'leased', lease = ?, lease_until = ?, attempts = attempts + 1 "
            "WHERE id = ?",
            (token, now + seconds, row[0]),
        )
    return Job(row[0], kind, row[1], json.loads(row[2]), row[3] + 1, token)


def renew(state: State, job: Job, *, seconds: float = LEASE_SECONDS) -> None:
    """Say that the job is still worked on; raises `LeaseLost`."""
    with state.transaction() as connection:
        _owned(connection, job, "UPDATE jobs SET lease_until = ?", (state.clock.now() + seconds,))


def finish(
    connection: sqlite3.Connection, job: Job, *, now: float, answer: Json | None = None
) -> None:
    """Mark the job done within the caller's transaction; raises `LeaseLost`, which undoes it."""
    text = json.dumps(answer or {}, allow_nan=False)
    _owned(
        connection,
        job,
        "UPDATE jobs SET state = 'done', lease = '', finished = ?, answer = ?, reason = ''",
        (now, text),
    )


def refuse(state: State, job: Job, reason: str) -> None:
    """End a job whose data cannot serve, with the reason; raises `LeaseLost`."""
    with state.transaction() as connection:
        _owned(
            connection,
            job,
            "UPDATE jobs SET state = 'refused', lease = '', finished = ?, reason = ?",
            (state.clock.now(), reason),
        )


def fail(state: State, job: Job, reason: str) -> None:
    """Give a job back after an error, to be tried later or, tried often enough, no more."""
    now = state.clock.now()
    with state.transaction() as connection:
        _owned(connection, job, "UPDATE jobs SET lease_until = lease_until", ())
        _put_back(connection, job.id, now, reason)


def release(state: State, owner: str, reason: str) -> int:
    """Give back the jobs of a worker that died while the server lives on; returns how many."""
    now = state.clock.now()
    with state.transaction() as connection:
        held = connection.execute("SELECT id, lease FROM jobs WHERE state = 'leased'").fetchall()
        lost = [number for number, token in held if token.rpartition("-")[0] == owner]
        for number in lost:
            _put_back(connection, number, now, reason)
    return len(lost)


def recover(state: State) -> int:
    """At the server's start, make what was leased ready again; returns how many jobs that were.

    The attempt is not counted, since the server went down and not the job, but an interruption
    is: a job that takes the machine down each time must come to an end too.
    """
    with state.transaction() as connection:
        count = connection.execute(
            "UPDATE jobs SET state = CASE WHEN interruptions + 1 >= ? THEN 'failed' ELSE 'ready' "
            "END, reason = 'the server went down while it ran', lease = '', not_before = 0, "
            "attempts = max(attempts - 1, 0), interruptions = interruptions + 1 "
            "WHERE state = 'leased'",
            (MOST_INTERRUPTIONS,),
        ).rowcount
    return int(count)


def retry(state: State, number: int) -> bool:
    """Queue a job that was refused or failed once more; False where there is no such job."""
    with state.transaction() as connection:
        return bool(
            connection.execute(
                "UPDATE jobs SET state = 'ready', attempts = 0, interruptions = 0, not_before = 0, "
                "finished = NULL, reason = '' WHERE id = ? AND state IN ('refused', 'failed')",
                (number,),
            ).rowcount
        )


def depth(state: State) -> dict[tuple[str, str], int]:
    """Return (kind, state) -> number of jobs."""
    rows = state.connection().execute("SELECT kind, state, count(*) FROM jobs GROUP BY 1, 2")
    return {(kind, name): count for kind, name, count in rows}


def _owned(
    connection: sqlite3.Connection, job: Job, update: str, values: tuple[object, ...]
) -> None:
    changed = connection.execute(
        f"{update} WHERE id = ? AND lease = ? AND state = 'leased'",
        (*values, job.id, job.lease),
    ).rowcount
    if not changed:
        raise LeaseLost(f"job {job.id} was given to another worker meanwhile")


def _put_back(connection: sqlite3.Connection, number: int, now: float, reason: str) -> None:
    kind, attempts = connection.execute(
        "SELECT kind, attempts FROM jobs WHERE id = ?", (number,)
    ).fetchone()
    over = attempts >= MOST_ATTEMPTS[kind]
    pause = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** (attempts - 1))
    connection.execute(
        "UPDATE jobs SET state = ?, lease = '', not_before = ?, finished = ?, reason = ? "
        "WHERE id = ?",
        ("failed" if over else "ready", now + pause, now if over else None, reason, number),
    )
