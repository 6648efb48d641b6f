# SPDX-License-Identifier: Apache-2.0
"""When a study is complete, and what work follows from it.

A study is complete when nothing of it came for a while, or when as many instances came as are
expected. The quiet time begins anew when the server starts: a sender that was cut off by the stop
gets the time to send the rest. Work is named by its inputs: the same study, complete once more
without anything new, asks for nothing; with something new it asks for a new answer, and the old
question, where nobody has begun to answer it, is withdrawn.
"""

from __future__ import annotations

import hashlib
import logging
import sqlite3
import threading
from collections.abc import Sequence
from dataclasses import dataclass

from vesalius.errors import ReadError
from vesalius.serving import metadata, priorities, queue, versions
from vesalius.serving.routing import Route, Series
from vesalius.serving.state import State
from vesalius.serving.store import RESULT

_LOG = logging.getLogger(__name__)
WITHDRAWN = "more of the study came; its answer replaces this one"
REPLACED = "the rule has another run by now, which answers instead"

_DUE = (
    "SELECT study_uid FROM studies WHERE state = 'receiving' "
    "AND (max(last_seen, ?) <= ? OR received >= ?)"
)


@dataclass(frozen=True, slots=True)
class Completeness:
    """When a study counts as complete: quiet for `quiet_seconds`, or `count` instances held."""

    quiet_seconds: float = 30.0
    count: int | None = None


class Studies:
    """Looks for studies that became complete, and queues their work."""

    def __init__(self, state: State, routes: Sequence[Route], rule: Completeness):
        self._state = state
        self._routes = routes
        self._rule = rule
        self._started = state.clock.now()
        self._end = threading.Event()
        self._thread: threading.Thread | None = None

    def look(self) -> int:
        """Queue the work of studies that are complete by now; returns how many those are."""
        now = self._state.clock.now()
        bounds = (self._started, now - self._rule.quiet_seconds, self._rule.count or 1 << 62)
        due = self._state.connection().execute(_DUE, bounds).fetchall()
        done = []
        for (study_uid,) in due:
            with self._state.transaction() as connection:
                # Once more, since an instance may have come meanwhile.
                if connection.execute(f"{_DUE} AND study_uid = ?", (*bounds, study_uid)).fetchone():
                    self._complete(connection, study_uid, now)
                    done.append(study_uid)
        for study_uid in done:
            metadata.prepare(self._state, study_uid)
        return len(done)

    def start(self, seconds: float = 0.5) -> None:
        """Look again and again, in a thread."""

        def run() -> None:
            while not self._end.wait(seconds):
                try:
                    self.look()
                except (sqlite3.Error, OSError, ReadError) as error:  # a full disk: later again
                    _LOG.error("studies could not be looked at: %s", type(error).__name__)
            self._state.close()

        self._thread = threading.Thread(target=run, name="studies", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread."""
        self._end.set()
        if self._thread is not None:
            self._thread.join()

    def _complete(self, connection: sqlite3.Connection, study_uid: str, now: float) -> None:
        connection.execute(
            "UPDATE studies SET state = 'complete' WHERE study_uid = ?", (study_uid,)
        )
        series = [
            Series(uid, modality or "", body_part or "", description or "")
            for uid, modality, body_part, description in connection.execute(
                "SELECT series_uid, modality, body_part, description FROM series "
                "WHERE study_uid = ? ORDER BY number, series_uid",
                (study_uid,),
            )
        ]
        for route in versions.current(connection, self._routes):
            taken = [one.uid for one in series if route.takes(one)]
            inputs = _inputs(connection, study_uid, taken)
            if inputs:
                ask(connection, study_uid, route, taken, inputs, now)


def ask(
    connection: sqlite3.Connection,
    study_uid: str,
    route: Route,
    series: Sequence[str],
    inputs: Sequence[str],
    now: float,
) -> None:
    """Queue the work of a rule's run on a study, within the caller's transaction.

    What the rule asked before of the same study, and nobody began to answer, is withdrawn.

    Args:
        connection: within a transaction.
        study_uid: of the study.
        route: the rule, with the run that it has now.
        series: UIDs of the series that it takes.
        inputs: content hashes of their instances.
        now: of the state's clock.
    """
    run = route.run
    parts = ("predict", study_uid, run.id, *sorted(inputs))
    key = hashlib.sha256("\0".join(parts).encode()).hexdigest()
    connection.execute(
        "UPDATE jobs SET state = 'refused', finished = ?, reason = ? WHERE study_uid = ? "
        "AND kind = 'predict' AND state = 'ready' AND key != ? "
        "AND coalesce(json_extract(subject, '$.rule'), ?) = ?",
        (now, WITHDRAWN, study_uid, key, route.name, route.name),
    )
    added = queue.add(
        connection,
        kind="predict",
        key=key,
        study_uid=study_uid,
        subject={
            "rule": route.name,
            "run": str(run.path),
            "run_id": run.id,
            "task": run.task,
            "series": list(series),
            "inputs": sorted(inputs),
        },
        now=now,
        priority=max(route.priority, priorities.of(connection, study_uid)),
    )
    if not added:  # asked before; withdrawn meanwhile for another run, it counts again
        connection.execute(
            "UPDATE jobs SET state = 'ready', attempts = 0, not_before = 0, finished = NULL, "
            "reason = '' WHERE key = ? AND state = 'refused' AND reason IN (?, ?)",
            (key, WITHDRAWN, REPLACED),
        )


def _inputs(connection: sqlite3.Connection, study_uid: str, series: Sequence[str]) -> list[str]:
    """Return the content hashes of the latest instances of the series."""
    found = []
    for uid in series:
        rows = connection.execute(
            "SELECT sha256 FROM instances WHERE study_uid = ? AND series_uid = ? "
            "AND NOT superseded AND origin != ?",
            (study_uid, uid, RESULT),
        )
        found += [row[0] for row in rows]
    return found
