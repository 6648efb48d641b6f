# SPDX-License-Identifier: Apache-2.0
"""How urgent a study is: its work comes before that of others, whatever came first.

The words are DICOM's (Requested Procedure Priority, PS3.3 C.4.12). A rule of `routing` gives a
number of its own; the higher of both counts. A study is only ever made more urgent.
"""

from __future__ import annotations

import sqlite3

from vesalius.serving import refusal
from vesalius.serving.refusal import Refused
from vesalius.serving.state import State

LEVELS = {"ROUTINE": 0, "HIGH": 50, "STAT": 100}


def parse(text: str) -> int:
    """Return the number of a word; 0 for none. Raises `Refused` for another word."""
    try:
        return LEVELS[text.strip().upper() or "ROUTINE"]
    except KeyError:
        raise Refused(
            refusal.CANNOT_UNDERSTAND, f"X-Priority must be one of {', '.join(LEVELS)}"
        ) from None


def of(connection: sqlite3.Connection, study: str) -> int:
    """Return the priority that a study was given; 0 where it was given none."""
    query = "SELECT value FROM meta WHERE name = ?"
    row = connection.execute(query, (_name(study),)).fetchone()
    return int(row[0]) if row else 0


def raise_to(state: State, study: str, priority: int) -> None:
    """Make a study as urgent as `priority`, and its work that waits; 0 changes nothing."""
    if priority == 0:
        return
    with state.transaction() as connection:
        number = max(of(connection, study), priority)
        connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (_name(study), str(number)))
        connection.execute(
            "UPDATE jobs SET priority = max(priority, ?) WHERE study_uid = ? AND state = 'ready'",
            (number, study),
        )


def _name(study: str) -> str:
    return f"priority {study}"
